"""A worker as a process of its own, as operators run it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAM = [sys.executable, "-m", "streams.commands.main"]
ROOT = Path(__file__).parents[2]


def free_port() -> int:
    """A TCP port of loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def settings(kafka: str, folder: Path, **others: str) -> dict[str, str]:
    """The environment of a process: Kafka, an embedded index in `folder`, a free port; `others` by setting's name."""
    chosen = {"kafka": kafka, "index": f"edge:{folder / 'index'}", "http": f"127.0.0.1:{free_port()}", **others}
    kept = {name: value for name, value in os.environ.items() if not name.startswith("COLDSTREAM_")}
    return {**kept, **{f"COLDSTREAM_{name.upper()}": value for name, value in chosen.items()}}


def run(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """One command of the program, done."""
    return subprocess.run(
        [*PROGRAM, *arguments], env=environment, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )


def get(address: str, seconds: float = 5.0) -> tuple[int, bytes]:
    """Status and body of a GET; (0, reason) where nobody answers."""
    try:
        with urllib.request.urlopen(address, timeout=seconds) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()
    except OSError as error:
        return 0, str(error).encode()


def await_ready(environment: dict[str, str], log: Path, process: subprocess.Popen[bytes], seconds: float = 60) -> None:
    """Until /readyz answers 200."""
    deadline = time.monotonic() + seconds
    while (answer := get(f"http://{environment['COLDSTREAM_HTTP']}/readyz"))[0] != 200:
        assert process.poll() is None, f"the worker ended: {log.read_text()[-2000:]}"
        assert time.monotonic() < deadline, f"not ready: {answer}; {log.read_text()[-2000:]}"
        time.sleep(0.2)


@contextmanager
def worker(environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A ready worker; ended by SIGTERM, which it is to obey with status 0."""
    with log.open("ab") as out:
        process = subprocess.Popen([*PROGRAM, "worker"], env=environment, cwd=ROOT, stdout=out, stderr=out)
    try:
        await_ready(environment, log, process)
        yield process
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0, log.read_text()[-2000:]
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()

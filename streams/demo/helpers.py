"""The processes of a demonstration: they live in its folder and end with it, whatever ends it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Self

from streams.demo import guardian
from streams.errors import ColdstreamError

STOP_SECONDS: Final = 8.0
LOG_LINES: Final = 5


class Helpers:
    """Starts processes in sessions of their own (a terminal's Ctrl-C is for us to pass on) and ends them all.

    A context manager. A guardian does the same when this process is killed. The folder, which is the
    helpers' own, is removed with everything in it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._guardian: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._guardian = subprocess.Popen(
            [sys.executable, "-I", "-S", guardian.__file__, str(self.folder)],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self._processes.values()):
            _end(process)
        shutil.rmtree(self.folder, ignore_errors=True)
        self._tell_guardian("done")
        if self._guardian is not None and self._guardian.stdin is not None:
            self._guardian.stdin.close()
            self._guardian.wait()

    def start(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start a process; what it says goes to `NAME.log` in the folder."""
        with (self.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder, env=dict(environment),
                start_new_session=True,
            )  # fmt: skip
        self._tell_guardian(f"process {process.pid}")
        self._processes[name] = process

    def check(self) -> None:
        """Raise `ColdstreamError` with the end of its log where a process has ended."""
        for name, process in self._processes.items():
            if process.poll() is not None:
                raise ColdstreamError(f"the {name} ended by itself with status {process.returncode}: {self.tail(name)}")

    def tail(self, name: str) -> str:
        """The last lines that a process wrote."""
        lines = (self.folder / f"{name}.log").read_text(encoding="utf-8", errors="replace").splitlines()
        return " | ".join(line.strip() for line in lines[-LOG_LINES:] if line.strip()) or "it said nothing"

    def _tell_guardian(self, line: str) -> None:
        if self._guardian is not None and self._guardian.stdin is not None:
            with contextlib.suppress(BrokenPipeError):  # somebody killed it: we do without
                self._guardian.stdin.write(f"{line}\n".encode())
                self._guardian.stdin.flush()


def _end(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM to the process's group, SIGKILL where that did not end it in time."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def find_port() -> int:
    """A TCP port of the loopback that nobody uses at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

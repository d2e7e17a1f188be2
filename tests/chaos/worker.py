"""`coldstream worker` with an encoder of hashes: what is tried here is delivery, and a life begins a second sooner.

A text that holds the simulator's word for it breaks the encoder, as one of a bundle never may. What else may go wrong is
told by files in the folder CHAOS_FOLDER: `clock` (seconds that the wall clock is wrong), `encoder` (it fails on every
text), `crash` (the process ends in the encoder's next call, as in native code; once), `disk` (there is no room); and the
silent deaths, once each: `stuck` (the encoder never returns), `loop` (the event loop stands still), `coordinator` and
`fetcher` (that task of the consumer ends without an error), `thread` (the consumer's thread stands still), `model` (the
task that follows the ranker's weights ends).
"""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from aiokafka.consumer.fetcher import Fetcher
from aiokafka.consumer.group_coordinator import GroupCoordinator
from numpy.typing import NDArray

from encoder import HashingEncoder
from streams import app
from streams.commands.main import main
from streams.kafka.reader import Reader

POISON = "unembeddable"
FOLDER = Path(os.environ.get("CHAOS_FOLDER", "/nonexistent"))
DIMENSION = int(os.environ.get("CHAOS_DIMENSION", "64"))


def _happens(name: str) -> bool:
    """Whether a file says so; it says it once."""
    try:
        (FOLDER / name).unlink()
    except FileNotFoundError:
        return False
    return True


def _end_quietly(kind: type, name: str) -> None:
    """Cancel a task of the consumer's thread, as a defect in a library would let it end."""
    for one in gc.get_objects():
        if isinstance(one, kind) and not (task := getattr(one, name)).done():
            task.get_loop().call_soon_threadsafe(task.cancel)


def _hang_thread() -> None:
    """The thread of the consumer stands still, heartbeats and all."""
    for one in gc.get_objects():
        if isinstance(one, Reader):
            one.thread_loop.call_soon_threadsafe(time.sleep, 1e6)


class Encoder(HashingEncoder):
    """Hashes, and fails on the word."""

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        if _happens("crash"):
            os.kill(os.getpid(), signal.SIGSEGV)
        if _happens("stuck"):
            time.sleep(1e6)
        if (FOLDER / "encoder").exists():
            raise RuntimeError("the runtime of the encoder is broken")
        if any(POISON in text for text in texts):
            raise ValueError("this text breaks the encoder")
        return super().encode(texts)


class Clock(app.SystemClock):
    """The system's, wrong by what the file says."""

    def now(self) -> float:
        if _happens("loop"):
            time.sleep(1e6)
        if _happens("coordinator"):
            _end_quietly(GroupCoordinator, "_coordination_task")
        if _happens("fetcher"):
            _end_quietly(Fetcher, "_fetch_task")
        if _happens("thread"):
            _hang_thread()
        if _happens("model"):
            next(task for task in asyncio.all_tasks() if task.get_name() == "model-reader").cancel()
        try:
            return time.time() + float((FOLDER / "clock").read_text() or 0)
        except FileNotFoundError:
            return time.time()


def _disk_usage(path: str | Path) -> shutil._ntuple_diskusage:
    found = real_disk_usage(path)
    return found._replace(free=0) if (FOLDER / "disk").exists() else found


real_disk_usage = shutil.disk_usage

if __name__ == "__main__":
    app.open_encoder = lambda _settings: Encoder(DIMENSION)  # type: ignore[assignment,return-value]
    app.SystemClock = Clock  # type: ignore[misc]
    shutil.disk_usage = _disk_usage  # type: ignore[assignment]
    main()

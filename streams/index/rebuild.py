"""Building a shard anew from a copy of another, in a process of its own: what was deleted does not come along.

In a process of its own because Edge's optimiser holds the GIL for its whole run (44 s at 100,000 points); it ends when
the process that started it ends.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Final

from streams.errors import IndexUnavailableError
from streams.index.directory import sync_tree
from streams.index.shard import Shard
from streams.ports import Collection

_PAGE: Final = 500
_PR_SET_PDEATHSIG: Final = 1


async def build_shard(source: Path, target: Path, collection: Collection, dimension: int) -> None:
    """Build `target` (absent) from `source` (a copy that nobody else opens): durable when it returns.

    Raises `IndexUnavailableError` with the child's last words. Cancelled, it kills the child.
    """
    root = Path(__file__).parents[2]
    paths = os.pathsep.join(filter(None, (str(root), os.environ.get("PYTHONPATH"))))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "streams.index.rebuild", str(source), str(target), collection, str(dimension),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": paths},
    )  # fmt: skip
    assert process.stderr is not None
    try:
        words = (await process.stderr.read()).decode(errors="replace").strip().splitlines()
        await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        last_words = words[-1] if words else "no message"
        raise IndexUnavailableError(f"rebuilding {collection} failed ({process.returncode}): {last_words}")


def main(arguments: list[str]) -> None:
    """The child: SOURCE TARGET COLLECTION DIMENSION."""
    _end_with_parent()
    os.nice(5)
    source_path, target_path, collection, dimension = arguments
    source = Shard(Collection(collection), Path(source_path), int(dimension))
    target = Shard(Collection(collection), Path(target_path), int(dimension))
    cursor: str | None = None
    while True:
        points, cursor = source.scan(cursor, _PAGE, None, vectors=True)
        target.store(points)
        if cursor is None:
            break
    target.optimize()
    target.flush()
    target.close()
    source.close()
    sync_tree(Path(target_path))


def _end_with_parent() -> None:
    """Linux kills us when the parent dies; elsewhere our standard input ends then."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    def wait_for_end() -> None:
        os.read(sys.stdin.fileno(), 1)
        os._exit(1)

    threading.Thread(target=wait_for_end, daemon=True).start()


if __name__ == "__main__":
    main(sys.argv[1:])

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
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from streams.errors import IndexUnavailableError
from streams.index.directory import Directory, sync_tree
from streams.index.shard import Shard
from streams.index.stored import maker_of
from streams.ports import Collection

SCAN_PAGE: Final = 100
"""Points read at a time without letting others run: 1 ms, with vectors 10 ms."""
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


def check_complete(new: Shard, count: int) -> None:
    """An incomplete copy opens as a smaller shard, without an error: never exchange for that."""
    if new.count() != count:
        raise IndexUnavailableError(
            f"rebuilding {new.collection} brought {new.count()} of {count} points: kept the old"
        )


def maker_in(directory: Directory) -> str:
    """Who made the vectors of the items there; empty where nothing says so. Earlier releases said it in the items only."""
    if directory.layout is None or directory.layout.encoder:
        return directory.layout.encoder if directory.layout else ""
    shard = Shard(Collection.ITEMS, directory.current(Collection.ITEMS), directory.layout.dimension)
    try:
        points, _ = shard.scan(None, SCAN_PAGE, None, vectors=False)
    finally:
        shard.close()
    return next(filter(None, (maker_of(point.body) for point in points.values())), "")


async def copy_points(old: Shard, new: Shard) -> None:
    """All points into an empty shard, without their vectors. Others run meanwhile. Raises `IndexUnavailableError`."""
    cursor: str | None = None
    while True:
        points, cursor = old.scan(cursor, SCAN_PAGE, None, vectors=False)
        new.store(points)
        if cursor is None:
            break
        await asyncio.sleep(0)
    check_complete(new, old.count())


def replay(old: Shard, new: Shard, ids: Sequence[str]) -> None:
    """Bring points to the state that `old` has now."""
    points = old.read(ids, vectors=True)
    new.store(points)
    new.delete(identity for identity in ids if identity not in points)


async def run_to_end(work: Callable[[], None]) -> None:
    """Run in a thread. Cancelled, wait for its end first: a thread cannot be stopped, and nobody may meet its files."""
    running = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise


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

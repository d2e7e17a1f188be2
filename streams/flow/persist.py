"""Compare-and-set: how every record of the index is written (DELIVERY section 3).

A write names the version that was read. Where other processes may write too, what was written is read back: who finds
another write id has lost, or has won and was already built upon; both reload and apply again, and `applied` in what is
found tells which it was. Never retry without looking.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

from streams.errors import IndexUnavailableError
from streams.ports import Collection, Index, Point, Write

ROUNDS: Final = 50

Again = Callable[[Mapping[str, Point | None]], Awaitable[Sequence[Write]]]
"""Given what was found for the keys that lost, the writes to try next (none for a key that needs none any more)."""


async def persist(
    index: Index,
    collection: Collection,
    writes: Sequence[Write],
    again: Again,
    guard: Callable[[], None],
    *,
    vectors: bool = False,
) -> int:
    """Write until each write won or was given up by `again`; returns how many writes lost on the way.

    `guard` is called before each round and may raise `AbandonedError`. `vectors`: whether `again` needs them. Raises
    `IndexUnavailableError`, also when a write loses `ROUNDS` times in a row.
    """
    pending = list(writes)
    lost_in_all = 0
    for _ in range(ROUNDS):
        if not pending:
            return lost_in_all
        guard()
        await index.write(collection, pending)
        if not index.shared:
            return lost_in_all
        found = await index.read(collection, [write.point.key for write in pending], vectors=vectors)
        lost = {
            write.point.key: point
            for write, point in zip(pending, found, strict=True)
            if point is None or point.write_id != write.point.write_id
        }
        lost_in_all += len(lost)
        pending = list(await again(lost)) if lost else []
    raise IndexUnavailableError(f"conditional writes to {collection.value} lost {ROUNDS} times in a row")

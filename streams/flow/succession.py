"""The change of encoder: items that other encoders' workers keep are encoded anew and kept beside them.

Before the first batch everything that is missing is brought over; from then on, what the others' workers write, for as long
as they run. It goes both ways, so that either side may be left: the new one for good, the old one again in a rollback.
Whichever record is the newer counts (within a partition by offset, across by time), and each is written by
compare-and-set: done again by whoever is killed or overtaken, it changes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from streams.decide.items import TEXT
from streams.errors import ColdstreamError
from streams.flow.catalogue import OVERLAP_SECONDS
from streams.flow.items import item_from_point, item_to_point, text_of
from streams.flow.persist import persist
from streams.ports import Clock, Collection, Encoder, Index, Match, Point, Randomness, Write
from streams.values import ItemRecord, Vector

PAGE: Final = 256
"""Items read, encoded and written at a time."""

log = logging.getLogger(__name__)

Encode = Callable[[Sequence[str]], Awaitable[NDArray[np.float32]]]


class Succession:
    """Brings items over. `encode` runs the encoder off the event loop."""

    def __init__(
        self, index: Index, encoder: Encoder, encode: Encode, clock: Clock, randomness: Randomness, every_seconds: float
    ) -> None:
        self._index = index
        self._encoder = encoder
        self._encode = encode
        self._clock = clock
        self._randomness = randomness
        self._every_seconds = every_seconds
        self._looked_at = -np.inf
        self.brought = 0
        """Items that were brought over so far."""
        self.encoded = 0
        """Texts that were encoded so far."""

    async def take_over(self) -> None:
        """Everything that others keep; then, where it was not so yet, declare ours complete. Safe to be cancelled.

        A second look finds what was written during the first, so that little is left for `follow`. Raises as the index.
        """
        began = self._clock.now()
        if await self._bring(None):
            await self._bring(Match(at_least={"updated_ms": int((began - OVERLAP_SECONDS) * 1000)}))
        self._looked_at = began
        if self._index.behind:
            await self._index.succeed()

    async def follow(self) -> None:
        """What the others' workers wrote since the last look, if one is due. What fails is made up for by the next."""
        now = self._clock.now()
        if not self._index.shared or now - self._looked_at < self._every_seconds:
            return
        since = max(self._looked_at - OVERLAP_SECONDS, 0.0)
        await self._bring(Match(at_least={"updated_ms": int(since * 1000)}))
        self._looked_at = now

    async def _bring(self, match: Match | None) -> int:
        """Bring over what matches; returns how many items were written."""
        cursor: str | None = None
        written = 0
        while True:
            page = await self._index.foreign(cursor=cursor, limit=PAGE, match=match)
            records: dict[str, ItemRecord] = {}
            for record in map(item_from_point, page.points):
                if record is not None and _replaces(record, records.get(record.item_id)):
                    records[record.item_id] = record
            written += await self._write(records)
            cursor = page.cursor
            if cursor is None:
                return written

    async def _write(self, records: Mapping[str, ItemRecord]) -> int:
        async def write(found: Mapping[str, Point | None]) -> Sequence[Write]:
            return await self._to_writes([(records[item_id], point) for item_id, point in found.items()])

        if not records:
            return 0
        points = await self._index.read(Collection.ITEMS, list(records), vectors=True)
        writes = await write(dict(zip(records, points, strict=True)))
        await persist(self._index, Collection.ITEMS, writes, write, lambda: None, vectors=True)
        self.brought += len(writes)
        return len(writes)

    async def _to_writes(self, pairs: Sequence[tuple[ItemRecord, Point | None]]) -> list[Write]:
        """For each record that is newer than what we keep: as ours, with a vector of ours."""
        wanted: list[tuple[ItemRecord, ItemRecord | None]] = []
        vectors: dict[str, Vector] = {}
        for record, point in pairs:
            kept = item_from_point(point)
            if not _replaces(record, kept):
                continue
            wanted.append((record, kept))
            if point is not None and point.vector is not None and kept is not None and self._same_text(record, kept):
                vectors[record.item_id] = point.vector
        texts = {
            record.item_id: text_of(record, self._encoder.template)
            for record, _ in wanted
            if not record.deleted and record.item_id not in vectors
        }
        vectors.update(await self._encode_all(texts))
        self.encoded += len(texts)
        return [
            self._to_write(record, kept, vectors.get(record.item_id))
            for record, kept in wanted
            if record.deleted or record.item_id in vectors
        ]

    async def _encode_all(self, texts: Mapping[str, str]) -> dict[str, Vector]:
        """Vectors by item. One whose text breaks this encoder alone is left out, loudly: its next record is buried."""
        if not texts:
            return {}
        try:
            return dict(zip(texts, await self._encode(list(texts.values())), strict=True))
        except ColdstreamError:
            raise
        except Exception:
            if len(texts) == 1:
                log.exception("the item %s can't be encoded by %s: it is left out", *texts, self._encoder.name)
                return {}
        found: dict[str, Vector] = {}
        for item_id, text in texts.items():
            found.update(await self._encode_all({item_id: text}))
        return found

    def _to_write(self, record: ItemRecord, kept: ItemRecord | None, vector: Vector | None) -> Write:
        expected = None if kept is None else kept.version
        ours = msgspec.structs.replace(
            record,
            version=(expected or 0) + 1,
            write_id=self._randomness.token(),
            encoder="" if vector is None else self._encoder.name,
        )
        return Write(item_to_point(ours, vector, self._encoder.template, self._clock.now()), expected)

    def _same_text(self, record: ItemRecord, kept: ItemRecord) -> bool:
        return kept.encoder == self._encoder.name and all(getattr(record, name) == getattr(kept, name) for name in TEXT)


def _replaces(record: ItemRecord, kept: ItemRecord | None) -> bool:
    """Whether a record of an item is newer than the one that is kept."""
    if kept is None or kept.source is None or record.source is None:
        return kept is None
    return record.source.replaces(kept.source)

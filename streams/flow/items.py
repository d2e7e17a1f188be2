"""What a batch does to items: load, apply, embed what changed, write, and say whom it concerns."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from encoder.text import item_text
from streams.decide.items import ItemOutcome, apply_item
from streams.decide.words import terms_of
from streams.flow.decoded import ItemInput
from streams.flow.persist import persist
from streams.ports import Clock, Collection, Encoder, Index, Point, Randomness, Write
from streams.values import ItemRecord, Vector

Embed = Callable[[Sequence[str]], Awaitable[NDArray[np.float32]]]

TELLING: Final = frozenset({ItemOutcome.DELETED, ItemOutcome.CHANGED, ItemOutcome.TEXT_CHANGED})
"""What may have put an item out of reach that stands in lists."""

_DECODER = msgspec.json.Decoder(ItemRecord)
_ENCODER = msgspec.json.Encoder()


@dataclass(slots=True)
class ItemWork:
    """One item of a batch: what was read, what came of it."""

    item_id: str
    inputs: list[ItemInput]
    found: ItemRecord | None = None
    found_vector: Vector | None = None
    record: ItemRecord = field(init=False)
    outcomes: list[ItemOutcome] = field(init=False)
    arrived: bool = False
    """Whether its creation (or earlier publication) is in this batch or is redelivered, loudly: it may fan out."""
    withdrawn: bool = False
    """Whether it is out of reach since this batch: the users whose last list holds it are to be refreshed."""
    vector: Vector | None = None

    def apply(self, found: ItemRecord | None, vector: Vector | None, now: float) -> None:
        """Apply all records, in order, to what was found; done again by whoever loses a write."""
        self.found, self.found_vector, self.vector = found, vector, None
        self.outcomes, self.arrived, self.withdrawn = [], False, False
        record = found
        for entry in self.inputs:
            record, outcome = apply_item(record, self.item_id, entry.item, entry.source, entry.unchanged)
            self.outcomes.append(outcome)
            repeated = outcome is ItemOutcome.REDELIVERY
            created = record.created == (entry.source.partition, entry.source.offset)
            if not entry.quiet and (outcome is ItemOutcome.CREATED or (repeated and created)):
                self.arrived = True
            if not entry.quiet and found is not None and _opens_later(found, now) and record.recommendable(now):
                self.arrived = True
            told = outcome in TELLING or (repeated and record.source == entry.source)
            if not entry.quiet and told and not record.recommendable(now):
                self.withdrawn = True
        if record is None:
            raise ValueError("an item's work needs at least one record")
        self.record = record

    @property
    def changed(self) -> bool:
        """Whether the record differs from what was read."""
        return self.record is not self.found


class Items:
    """Items in the index: batches of works in, durable points out."""

    def __init__(self, index: Index, encoder: Encoder, clock: Clock, randomness: Randomness) -> None:
        self._index = index
        self._encoder = encoder
        self._clock = clock
        self._randomness = randomness

    async def load(self, inputs: Sequence[ItemInput]) -> list[ItemWork]:
        """Read the items of these records; nothing is applied yet."""
        grouped: dict[str, list[ItemInput]] = {}
        for entry in inputs:
            grouped.setdefault(entry.item_id, []).append(entry)
        points = await self._index.read(Collection.ITEMS, list(grouped), vectors=True) if grouped else []
        return [
            ItemWork(item_id, group, item_from_point(point), point.vector if point else None)
            for (item_id, group), point in zip(grouped.items(), points, strict=True)
        ]

    def text_to_embed(self, work: ItemWork) -> str | None:
        """The item's text where it needs a new vector; sets the vector it has where not."""
        record = work.record
        if record.deleted:
            return None
        same = work.found is not None and not work.found.deleted and work.found.encoder == self._encoder.name
        unchanged = same and work.found_vector is not None and ItemOutcome.TEXT_CHANGED not in work.outcomes
        if unchanged and ItemOutcome.CREATED not in work.outcomes:
            work.vector = work.found_vector
            return None
        return text_of(record, self._encoder.template)

    async def write(self, works: Sequence[ItemWork], embed: Embed, guard: Callable[[], None]) -> int:
        """Persist the changed ones by compare-and-set; a loser is applied again. Returns how many writes lost."""
        by_id = {work.item_id: work for work in works}

        async def again(lost: Mapping[str, Point | None]) -> Sequence[Write]:
            redone = [by_id[item_id] for item_id in lost]
            for work in redone:
                point = lost[work.item_id]
                work.apply(item_from_point(point), point.vector if point else None, self._clock.now())
            await self.embed(redone, embed)
            return [self._to_write(work) for work in redone if work.changed]

        writes = [self._to_write(work) for work in works if work.changed]
        return await persist(self._index, Collection.ITEMS, writes, again, guard, vectors=True)

    async def embed(self, works: Sequence[ItemWork], embed: Embed) -> int:
        """Give each work its vector; returns how many texts were embedded."""
        texts = [(work, text) for work in works if (text := self.text_to_embed(work)) is not None]
        rows = await embed([text for _, text in texts]) if texts else ()
        for (work, _), row in zip(texts, rows, strict=True):
            work.vector = row
        return len(texts)

    def _to_write(self, work: ItemWork) -> Write:
        expected = None if work.found is None else work.found.version
        work.record = msgspec.structs.replace(
            work.record,
            version=(expected or 0) + 1,
            write_id=self._randomness.token(),
            encoder="" if work.vector is None else self._encoder.name,
        )
        return Write(item_to_point(work.record, work.vector, self._encoder.template, self._clock.now()), expected)


def _opens_later(record: ItemRecord, now: float) -> bool:
    return record.published_at is not None and record.published_at > now


def text_of(record: ItemRecord, template: int) -> str:
    """The text that an item is embedded by."""
    return item_text(
        title=record.title,
        description=record.description or None,
        categories=record.categories,
        attributes=record.attributes,
        price=record.price,
        template=template,
    )


def item_to_point(record: ItemRecord, vector: Vector | None, template: int, now: float) -> Point:
    """The item's point: the record as one string beside the fields that are filtered on."""
    fields: dict[str, str | int | float | bool | tuple[str, ...]] = {
        "live": record.available and not record.deleted,
        "updated_ms": int(now * 1000),
    }
    if record.published_at is not None:
        fields["published_at"] = record.published_at
    if record.expires_at is not None:
        fields["expires_at"] = record.expires_at
    terms = None if record.deleted else terms_of(text_of(record, template))
    body = _ENCODER.encode(record).decode()
    return Point(record.item_id, record.version, record.write_id, body, fields, vector, terms)


def item_from_point(point: Point | None) -> ItemRecord | None:
    """The record in a point."""
    return None if point is None else _DECODER.decode(point.body)

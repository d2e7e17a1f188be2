"""How a record of the topic `items` changes what is kept about an item. Pure.

Within a partition the offset decides which of two records is newer, across partitions the record's time; a deletion
leaves a marker, so that a zombie can't bring the item back (DELIVERY section 3).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec

from streams.errors import TopicRemadeError
from streams.values import ItemRecord, Source
from streams.wire import Item, to_seconds

CONTENT: Final = (
    "title", "description", "categories", "price", "attributes", "available", "published_at", "expires_at", "deleted",
)  # fmt: skip
TEXT: Final = ("title", "description", "categories", "price", "attributes")
"""Fields that the embedded text is made of."""


class ItemOutcome(StrEnum):
    """What a record was to the item it met."""

    CREATED = "created"
    TEXT_CHANGED = "text_changed"
    CHANGED = "changed"  # not in its text: nothing to embed
    UNCHANGED = "unchanged"  # only the source is written
    DELETED = "deleted"
    REDELIVERY = "redelivery"
    STALE = "stale"


def apply_item(
    current: ItemRecord | None,
    item_id: str,
    item: Item | None,
    source: Source,
    unchanged: frozenset[str] = frozenset(),
) -> tuple[ItemRecord, ItemOutcome]:
    """The item after this record (`item` None: a tombstone), and what the record was.

    `unchanged` names the fields that keep what is stored (a change stream's columns that were not sent).
    Raises `TopicRemadeError` where another record has the source that is stored.
    """
    if current is not None and current.source is not None:
        old = current.source
        if old.partition == source.partition and old.offset == source.offset and old.time != source.time:
            raise TopicRemadeError(
                f"topic items, partition {source.partition}: offset {source.offset} is another record than the one "
                f"that was applied. The topic was made anew: use a new COLDSTREAM_TOPIC_PREFIX or an empty index"
            )
        if not source.replaces(old):
            same_partition = old.partition == source.partition
            return current, ItemOutcome.REDELIVERY if same_partition else ItemOutcome.STALE
    kept = current if current is not None and not current.deleted else None
    version = current.version if current is not None else 0
    if item is None:
        return ItemRecord(item_id, deleted=True, source=source, version=version), ItemOutcome.DELETED
    record = ItemRecord(
        item_id=item_id,
        title=item.title,
        description=item.description or "",
        categories=item.categories or (),
        price=item.price,
        attributes=item.attributes or {},
        available=item.available is not False,
        published_at=None if item.published_at is None else to_seconds(item.published_at),
        expires_at=None if item.expires_at is None else to_seconds(item.expires_at),
        source=source,
        created=kept.created if kept else (source.partition, source.offset),
        first_seen=kept.first_seen if kept else source.time,
        encoder=kept.encoder if kept else "",
        version=version,
    )
    if kept is None:
        return record, ItemOutcome.CREATED
    if unchanged:
        record = msgspec.structs.replace(record, **{name: getattr(kept, name) for name in unchanged & set(CONTENT)})
    if any(getattr(kept, name) != getattr(record, name) for name in TEXT):
        return record, ItemOutcome.TEXT_CHANGED
    if any(getattr(kept, name) != getattr(record, name) for name in CONTENT):
        return record, ItemOutcome.CHANGED
    return record, ItemOutcome.UNCHANGED

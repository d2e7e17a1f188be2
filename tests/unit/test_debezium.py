"""Change events as Debezium's documentation shows them, on the way into items and users."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from streams.debezium import UNAVAILABLE
from streams.errors import PoisonError
from streams.flow.decoded import ItemInput, ProfileInput, decode
from streams.values import Record, Topic
from tests.support.service import Service

BOTH = frozenset({Topic.ITEMS, Topic.USERS})
ROW = {"item_id": 1004, "title": "Kettle", "description": "boils", "price": "12.50", "categories": '["kitchen"]'}


def a_record(value: Any, key: Any = None, topic: Topic = Topic.ITEMS, offset: int = 0) -> Record:
    raw_key = msgspec.json.encode({"item_id": 1004} if key is None else key)
    raw = None if value is None else msgspec.json.encode(value)
    return Record(topic, 0, offset, 1_700_000_000.0, raw_key, raw)


def an_envelope(op: str, after: Any, before: Any = None) -> dict[str, Any]:
    return {"before": before, "after": after, "source": {"connector": "postgresql"}, "op": op, "ts_ms": 1}


@pytest.mark.parametrize(
    "value",
    [
        an_envelope("c", ROW),
        an_envelope("r", ROW),
        an_envelope("u", ROW, ROW),
        {"schema": {"type": "struct"}, "payload": an_envelope("c", ROW)},
        ROW,
        {**ROW, "__deleted": "false", "__op": "c"},
        {"schema": {"type": "struct"}, "payload": ROW},
    ],
)
def test_rows_become_items(value: Any) -> None:
    entry = decode(a_record(value), 10_000, BOTH)
    assert isinstance(entry, ItemInput)
    assert entry.item is not None
    assert (entry.item_id, entry.item.title, entry.item.price) == ("1004", "Kettle", 12.5)
    assert entry.item.categories == ("kitchen",)


@pytest.mark.parametrize(
    "value",
    [
        None,
        an_envelope("d", None, ROW),
        {**ROW, "__deleted": "true"},
        {"schema": {}, "payload": an_envelope("d", None)},
    ],
)
@pytest.mark.parametrize(
    "key", [{"item_id": 1004}, {"schema": {"type": "struct"}, "payload": {"item_id": 1004}}, "1004"]
)
def test_deletes_and_tombstones_that_have_only_a_key_delete(value: Any, key: Any) -> None:
    entry = decode(a_record(value, key), 10_000, BOTH)
    assert isinstance(entry, ItemInput)
    assert (entry.item_id, entry.item) == ("1004", None)


def test_a_users_delete_is_an_erasure() -> None:
    entry = decode(a_record(an_envelope("d", None), {"user_id": "u1"}, Topic.USERS), 10_000, BOTH)
    assert isinstance(entry, ProfileInput)
    assert (entry.user_id, entry.profile) == ("u1", None)


@pytest.mark.parametrize(
    ("value", "key", "reason"),
    [
        (an_envelope("t", None), None, "schema"),
        (an_envelope("u", None), None, "schema"),
        ([1], None, "schema"),
        (an_envelope("c", {**ROW, "item_id": 7}), None, "key"),
        (an_envelope("c", ROW), {"other": 1}, "key"),
        (an_envelope("c", {"item_id": 1004}), None, "schema"),
    ],
)
def test_what_is_no_row_is_refused(value: Any, key: Any, reason: str) -> None:
    with pytest.raises(PoisonError) as caught:
        decode(a_record(value, key), 10_000, BOTH)
    assert caught.value.reason == reason


def test_times_of_microseconds_are_understood() -> None:
    entry = decode(a_record({**ROW, "published_at": 1_700_000_000_000_000}), 10_000, BOTH)
    assert isinstance(entry, ItemInput)
    assert entry.item is not None
    assert entry.item.published_at == 1_700_000_000.0


async def test_an_unchanged_toast_column_keeps_the_stored_value() -> None:
    service = Service()
    service.use_debezium()
    await service.open()
    await service.feed(a_record(an_envelope("c", ROW)))
    await service.feed(a_record(an_envelope("u", {**ROW, "price": "9.00", "description": UNAVAILABLE}), offset=1))
    record = service.parts.catalogue.columns.item("1004")
    assert record is not None
    assert (record.description, record.price) == ("boils", 9.0)
    assert service.reports[-1].outcomes["items", "text_changed"] == 1

"""Change events as Debezium's documentation shows them, on the way into items and users."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from streams.app import _limits
from streams.debezium import DECIMAL, UNAVAILABLE
from streams.errors import ConfigurationError, PoisonError
from streams.flow.decoded import ItemInput, ProfileInput, decode
from streams.settings import load
from streams.values import Record, Topic
from tests.support.service import Service

BOTH: dict[Topic, dict[str, str]] = {Topic.ITEMS: {}, Topic.USERS: {}}
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


@pytest.mark.parametrize(
    ("column", "seconds"),
    [
        (19_675, 1_699_920_000.0),  # io.debezium.time.Date: days
        (1_700_000_000_000, 1_700_000_000_000),  # Timestamp: milliseconds, as the wire has them
        (1_700_000_000_000_000, 1_700_000_000.0),  # MicroTimestamp
        (1_700_000_000_000_000_000, 1_700_000_000.0),  # NanoTimestamp
        ("2023-11-14T22:13:20Z", "2023-11-14T22:13:20Z"),  # ZonedTimestamp
    ],
)
def test_times_of_every_kind_of_column_are_understood(column: Any, seconds: Any) -> None:
    entry = decode(a_record({**ROW, "published_at": column}), 10_000, BOTH)
    assert isinstance(entry, ItemInput)
    assert entry.item is not None
    assert entry.item.published_at == seconds


def a_schema(scale: str = "2") -> dict[str, Any]:
    price = {"type": "bytes", "optional": True, "name": DECIMAL, "version": 1, "parameters": {"scale": scale},
             "field": "price"}  # fmt: skip
    row = {"type": "struct", "fields": [{"type": "int32", "optional": False, "field": "item_id"}, price]}
    before, after = {**row, "field": "before"}, {**row, "field": "after"}
    return {"type": "struct", "fields": [before, after, {"type": "string", "field": "op"}]}


def test_decimals_of_bytes_are_numbers_where_a_schema_tells_their_scale() -> None:
    row = {**ROW, "price": "BNI="}  # 1234, big-endian
    flat = {"type": "struct", "fields": a_schema()["fields"][1]["fields"]}
    for value in (
        {"schema": a_schema(), "payload": an_envelope("c", row)},
        {"schema": flat, "payload": row},
        an_envelope("c", {**row, "price": {"scale": 2, "value": "BNI="}}),
    ):
        entry = decode(a_record(value), 10_000, BOTH)
        assert isinstance(entry, ItemInput)
        assert entry.item is not None
        assert entry.item.price == 12.34
    with pytest.raises(PoisonError, match=r"decimal\.handling\.mode"):
        decode(a_record(an_envelope("c", row)), 10_000, BOTH)
    for schema in ({"fields": [7, {"field": "after", "fields": "x"}]}, a_schema("much"), "x"):
        with pytest.raises(PoisonError):
            decode(a_record({"schema": schema, "payload": an_envelope("c", row)}), 10_000, BOTH)
    with pytest.raises(PoisonError, match="can't be read"):
        decode(a_record({"schema": a_schema(), "payload": an_envelope("c", {**row, "price": "!"})}), 10_000, BOTH)


SOURCE = {
    "version": "3.4.0.Final", "connector": "postgresql", "name": "PostgreSQL_server", "ts_ms": 1559033904863,
    "snapshot": "true", "db": "postgres", "sequence": '["24023119","24023128"]', "schema": "public",
    "table": "customers", "txId": 555, "lsn": 24023128, "xmin": None,
}  # fmt: skip
SCOOTER = {"id": 101, "name": "scooter", "description": "Small 2-wheel scooter", "weight": 3.14}
ANNE = {"id": 1, "first_name": "Anne", "last_name": "Kretchmar", "email": "annek@noanswer.org"}
ID_SCHEMA = {"type": "struct", "name": "PostgreSQL_server.inventory.customers.Key", "optional": False,
             "fields": [{"name": "id", "index": "0", "schema": {"type": "INT32", "optional": "false"}}]}  # fmt: skip


async def test_the_tables_of_the_documentation_become_items_and_users_by_setting() -> None:
    """The inventory database of Debezium's tutorial: its columns are named otherwise than our fields."""
    settings = load({
        "COLDSTREAM_ITEMS_FORMAT": "debezium", "COLDSTREAM_USERS_FORMAT": "debezium",
        "COLDSTREAM_ITEMS_COLUMNS": '{"item_id": "id", "title": "name"}',
        "COLDSTREAM_USERS_COLUMNS": '{"user_id": "id", "profile": "first_name"}',
    })  # fmt: skip
    service = Service()
    service.use_debezium(_limits(settings).debezium)
    await service.open()

    def sent(topic: Topic, offset: int, number: int, value: Any) -> Record:
        key = {"schema": ID_SCHEMA, "payload": {"id": number}}
        return a_record(value and {"schema": {}, "payload": {**value, "source": SOURCE}}, key, topic, offset)

    await service.feed(
        sent(Topic.ITEMS, 0, 101, an_envelope("r", SCOOTER)),
        sent(Topic.ITEMS, 1, 102, an_envelope("c", {**SCOOTER, "id": 102, "name": "car battery"})),
        sent(Topic.USERS, 0, 1, an_envelope("c", ANNE)),
    )
    item = service.parts.catalogue.columns.item("101")
    assert item is not None
    assert (item.title, item.description) == ("scooter", "Small 2-wheel scooter")
    user = await service.state("1")
    assert user is not None
    assert user.profile is not None
    assert user.profile.profile == "Anne"
    assert "annek@noanswer.org" not in repr(service.index.points)
    await service.feed(
        sent(Topic.ITEMS, 2, 101, an_envelope("u", {**SCOOTER, "name": "red scooter"}, SCOOTER)),
        sent(Topic.ITEMS, 3, 102, an_envelope("d", None, {"id": 102})),
        sent(Topic.ITEMS, 4, 102, None),
        sent(Topic.USERS, 1, 1, an_envelope("d", None, {"id": 1})),
        sent(Topic.USERS, 2, 1, None),
    )
    item = service.parts.catalogue.columns.item("101")
    assert item is not None
    assert item.title == "red scooter"
    gone = service.parts.catalogue.columns.item("102")
    assert gone is not None
    assert gone.deleted
    user = await service.state("1")
    assert user is not None
    assert user.is_marker
    assert not service.publisher.values(Topic.DEAD_LETTERS)


def test_a_column_for_a_field_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="items_columns"):
        load({"COLDSTREAM_ITEMS_COLUMNS": '{"titel": "name"}'})


def test_a_column_that_was_not_sent_keeps_what_is_stored_under_its_field() -> None:
    value = an_envelope("u", {"id": 7, "name": UNAVAILABLE})
    entry = decode(a_record(value, {"id": 7}), 10_000, {Topic.ITEMS: {"item_id": "id", "title": "name"}})
    assert isinstance(entry, ItemInput)
    assert entry.unchanged == {"title"}


async def test_an_unchanged_toast_column_keeps_the_stored_value() -> None:
    service = Service()
    service.use_debezium(BOTH)
    await service.open()
    await service.feed(a_record(an_envelope("c", ROW)))
    await service.feed(a_record(an_envelope("u", {**ROW, "price": "9.00", "description": UNAVAILABLE}), offset=1))
    record = service.parts.catalogue.columns.item("1004")
    assert record is not None
    assert (record.description, record.price) == ("boils", 9.0)
    assert service.reports[-1].outcomes["items", "text_changed"] == 1

"""Debezium change events on `items` and `users`: rows of a database table become values of the topic.

Raw envelopes (with or without the schema that the JSON converter adds) and flattened rows (ExtractNewRecordState) are
read alike; snapshots are rows too. A column that Postgres did not send because it did not change
(`__debezium_unavailable_value`) keeps what is stored. Source: Debezium's documentation, "Data change events" and
"New record state extraction".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import msgspec

from streams.errors import PoisonError
from streams.values import Record

UNAVAILABLE: Final = "__debezium_unavailable_value"
ROWS: Final = frozenset({"c", "r", "u"})
"""Operations that carry a row: create, read (snapshot), update."""
MICROSECONDS_FROM: Final = 1e14
"""A time column of microseconds (io.debezium.time.MicroTimestamp) is a number from here on; wire times are less."""
JSON_FIELDS: Final = frozenset({"categories", "attributes", "interests", "blocked_items", "blocked_categories"})
"""Fields that a database keeps as JSON, which arrives as text."""
NUMBER_FIELDS: Final = frozenset({"price"})
"""Fields that a database keeps as decimals, which arrive as text (decimal.handling.mode=string)."""
TIME_FIELDS: Final = frozenset({"published_at", "expires_at"})
BOOLEAN_FIELDS: Final = frozenset({"available"})

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Change:
    """One change of a row: `row` None is a deletion; `unchanged` names the columns that keep what is stored."""

    key: str
    row: Row | None
    unchanged: frozenset[str] = frozenset()


def read_change(record: Record, identity: str) -> Change:
    """The change in a record; `identity` is the column of the id. Raises `PoisonError`."""
    key = _key(record, identity)
    row = None if record.value is None else _row(_object(record.value))
    if row is None:
        return Change(key, None)
    row = {name: column for name, column in row.items() if not name.startswith("__")}
    unchanged = frozenset(name for name, column in row.items() if column in (UNAVAILABLE, [UNAVAILABLE]))
    kept = {name: _mend(name, column) for name, column in row.items() if name not in unchanged}
    kept[identity] = str(kept.get(identity, ""))
    if kept[identity] != key:
        raise PoisonError("key", f"the key must be the row's {identity}")
    return Change(key, kept, unchanged)


def as_plain(record: Record, change: Change) -> Record:
    """The record as a producer of ours would have sent it."""
    value = (
        None
        if change.row is None
        else msgspec.json.encode({**dict.fromkeys(change.unchanged & {"title"}, ""), **change.row})
    )
    return Record(
        record.topic, record.partition, record.offset, record.time, change.key.encode(), value, record.headers
    )


def _row(value: Row) -> Row | None:
    """The row after the change, of an envelope or a flattened one, within its schema or bare; None: deleted."""
    if "schema" in value and "payload" in value:
        if value["payload"] is None:
            return None
        value = _as_object(value["payload"])
    operation = value.get("op")
    if operation is not None and ("after" in value or "before" in value):
        if operation == "d":
            return None
        after = value.get("after")
        if operation not in ROWS or not isinstance(after, dict):
            raise PoisonError("schema", f"a change event with op {operation!r} and no row after it is not understood")
        return after
    if str(value.get("__deleted", "false")).lower() == "true" or value.get("__op") == "d":
        return None
    return value


def _key(record: Record, identity: str) -> str:
    """The id in a key: plain text, or JSON of the key columns, with or without its schema."""
    raw = record.key or b""
    try:
        value = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        value = None
    if isinstance(value, dict):
        inner = value["payload"] if "payload" in value and "schema" in value else value
        if not isinstance(inner, dict) or inner.get(identity) is None:
            raise PoisonError("key", f"the key has no column {identity}")
        return str(inner[identity])
    try:
        text = value if isinstance(value, str) else raw.decode()
    except UnicodeDecodeError as error:
        raise PoisonError("key", "the key is not UTF-8") from error
    if not text:
        raise PoisonError("key", f"the key must hold {identity}")
    return text


def _object(raw: bytes) -> Row:
    try:
        value = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PoisonError("encoding", f"not valid JSON in UTF-8: {error}") from error
    return _as_object(value)


def _as_object(value: Any) -> Row:
    if not isinstance(value, dict):
        raise PoisonError("schema", "a change event must be a JSON object")
    return value


def _mend(name: str, column: Any) -> Any:  # noqa: PLR0911  (one for each kind of column)
    """A column as the topic's value has it; what can't be mended is left for the wire to refuse."""
    if isinstance(column, str) and name in JSON_FIELDS:
        try:
            return msgspec.json.decode(column)
        except msgspec.DecodeError:
            return [column] if column and name != "attributes" else None
    if isinstance(column, str) and name in NUMBER_FIELDS:
        try:
            return float(column)
        except ValueError:
            return column
    if name in TIME_FIELDS and isinstance(column, int) and abs(column) >= MICROSECONDS_FROM:
        return column / 1e6
    if name in BOOLEAN_FIELDS and column in (0, 1):
        return bool(column)
    return column

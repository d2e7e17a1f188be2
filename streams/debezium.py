"""Debezium change events on `items` and `users`: rows of a database table become values of the topic.

Raw envelopes (with or without the schema that the JSON converter adds) and flattened rows (ExtractNewRecordState) are
read alike; snapshots are rows too. A column that Postgres did not send because it did not change
(`__debezium_unavailable_value`) keeps what is stored. Columns may have other names than our fields. Source: Debezium's
documentation, "Data change events", "Data type mappings" and "New record state extraction".
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from streams.errors import PoisonError
from streams.values import Record

UNAVAILABLE: Final = "__debezium_unavailable_value"
ROWS: Final = frozenset({"c", "r", "u"})
"""Operations that carry a row: create, read (snapshot), update."""
DAYS_BELOW: Final = 1e5
MICROSECONDS_FROM: Final = 1e14
NANOSECONDS_FROM: Final = 1e17
"""A time column is a number of days (io.debezium.time.Date) below the one, of microseconds and nanoseconds from the
others on; between them it is of seconds or milliseconds, as on the wire."""
JSON_FIELDS: Final = frozenset({"categories", "attributes", "interests", "blocked_items", "blocked_categories"})
"""Fields that a database keeps as JSON, which arrives as text."""
NUMBER_FIELDS: Final = frozenset({"price"})
"""Fields that a database keeps as decimals, which arrive as text (decimal.handling.mode=string) or as bytes (precise)."""
DECIMAL: Final = "org.apache.kafka.connect.data.Decimal"
TIME_FIELDS: Final = frozenset({"published_at", "expires_at"})
BOOLEAN_FIELDS: Final = frozenset({"available"})

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Change:
    """One change of a row: `row` None is a deletion; `unchanged` names the columns that keep what is stored."""

    key: str
    row: Row | None
    unchanged: frozenset[str] = frozenset()


def read_change(record: Record, identity: str, columns: Mapping[str, str] | None = None) -> Change:
    """The change in a record. `identity` is the field of the id; `columns` are the columns by field, where the names differ.

    Raises `PoisonError`.
    """
    columns = columns or {}
    key = _key(record, columns.get(identity, identity))
    row, scales = (None, {}) if record.value is None else _row(_object(record.value))
    if row is None:
        return Change(key, None)
    row = {name: _to_number(name, column, scales) for name, column in row.items() if not name.startswith("__")}
    taken = {field: row[column] for field, column in columns.items() if column in row}
    row = {name: column for name, column in row.items() if name not in columns.values()} | taken
    unchanged = frozenset(name for name, column in row.items() if column in (UNAVAILABLE, [UNAVAILABLE]))
    kept = {name: _mend(name, column) for name, column in row.items() if name not in unchanged}
    kept[identity] = str(kept.get(identity, ""))
    if kept[identity] != key:
        raise PoisonError("key", f"the key must be the row's {columns.get(identity, identity)}")
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


def _row(value: Row) -> tuple[Row | None, dict[str, int]]:
    """The row after the change (None: deleted) and the scales of its decimal columns, as far as a schema tells them.

    Of an envelope or a flattened row, within its schema or bare.
    """
    schema: Any = None
    if "schema" in value and "payload" in value:
        if value["payload"] is None:
            return None, {}
        schema, value = value["schema"], _as_object(value["payload"])
    operation = value.get("op")
    if operation is not None and ("after" in value or "before" in value):
        if operation == "d":
            return None, {}
        after = value.get("after")
        if operation not in ROWS or not isinstance(after, dict):
            raise PoisonError("schema", f"a change event with op {operation!r} and no row after it is not understood")
        return after, _scales(next((one for one in _fields(schema) if one.get("field") == "after"), None))
    if str(value.get("__deleted", "false")).lower() == "true" or value.get("__op") == "d":
        return None, {}
    return value, _scales(schema)


def _fields(schema: Any) -> list[Row]:
    fields = schema.get("fields") if isinstance(schema, dict) else None
    return [one for one in fields if isinstance(one, dict)] if isinstance(fields, list) else []


def _scales(schema: Any) -> dict[str, int]:
    """Digits behind the point of each column that the schema calls a decimal."""
    named = {str(one.get("field")): one.get("parameters") for one in _fields(schema) if one.get("name") == DECIMAL}
    texts = {name: str(given.get("scale", "")) for name, given in named.items() if isinstance(given, dict)}
    return {name: int(text) for name, text in texts.items() if text.removeprefix("-").isdecimal() and len(text) < 4}


def _to_number(name: str, column: Any, scales: Mapping[str, int]) -> Any:
    """A decimal that came as bytes, as a number; other columns as they are."""
    if isinstance(column, dict) and set(column) == {"scale", "value"}:  # io.debezium.data.VariableScaleDecimal
        scale, column = column["scale"], column["value"]
    else:
        scale = scales.get(name)
    if not isinstance(scale, int) or not isinstance(column, str) or column == UNAVAILABLE:
        return column
    try:
        return int.from_bytes(base64.b64decode(column, validate=True), "big", signed=True) / 10.0**scale
    except (binascii.Error, OverflowError) as error:
        raise PoisonError("schema", f"the decimal {name} can't be read: {error}") from error


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


def _mend(name: str, column: Any) -> Any:
    """A column as the topic's value has it; what can't be mended is left for the wire to refuse."""
    if isinstance(column, str) and name in JSON_FIELDS:
        try:
            return msgspec.json.decode(column)
        except msgspec.DecodeError:
            return [column] if column and name != "attributes" else None
    if isinstance(column, str) and name in NUMBER_FIELDS:
        try:
            return float(column)
        except ValueError as error:
            remedy = "send schemas with the values, or set decimal.handling.mode to string or double"
            raise PoisonError("schema", f"{name} {column[:40]!r} is no number: {remedy}") from error
    if name in TIME_FIELDS and isinstance(column, int) and not isinstance(column, bool):
        return _to_seconds(column)
    if name in BOOLEAN_FIELDS and column in (0, 1):
        return bool(column)
    return column


def _to_seconds(column: int) -> float:
    if abs(column) < DAYS_BELOW:
        return column * 86_400.0
    if abs(column) >= NANOSECONDS_FROM:
        return column / 1e9
    return column / 1e6 if abs(column) >= MICROSECONDS_FROM else column

"""How a point is stored, for every adapter alike: its id, its payload, and the fields that can be filtered on.

A payload is flat: `key`, `version`, `write_id`, `body`, and the point's fields under their own names.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final

import msgspec

from streams.ports import Collection, FieldValue, Match, Point

DENSE: Final = "dense"
"""Name of the dense vector."""
TERMS: Final = "terms"
"""Name of the sparse vector."""
RESERVED: Final = ("key", "version", "write_id", "body")
"""Names that no field may have; `version` can be matched like an integer field."""

_NAMESPACE: Final = uuid.UUID("6f1de5a2-6a0e-5f0c-9c6b-3c1d5f1c7a11")


class Kind(StrEnum):
    """What a field holds; it decides the payload index."""

    BOOL = "bool"
    INTEGER = "integer"
    FLOAT = "float"
    KEYWORD = "keyword"
    KEYWORDS = "keywords"


FIELDS: Final[Mapping[Collection, Mapping[str, Kind]]] = {
    Collection.ITEMS: {
        "live": Kind.BOOL,
        "partition": Kind.INTEGER,
        "updated_ms": Kind.INTEGER,
        "published_at": Kind.FLOAT,
        "expires_at": Kind.FLOAT,
    },
    Collection.USERS: {
        "marker": Kind.BOOL,
        "home": Kind.INTEGER,
        "floor": Kind.FLOAT,
        "erased_at": Kind.FLOAT,
        "list_ids": Kind.KEYWORDS,
    },
    Collection.STATISTICS: {"updated_ms": Kind.INTEGER},
}
"""Every field that a point may carry. Any other is refused: a filter on it would read every payload."""

_TYPES: Final = {
    Kind.BOOL: (bool,),
    Kind.INTEGER: (int,),
    Kind.FLOAT: (float, int),
    Kind.KEYWORD: (str,),
    Kind.KEYWORDS: (tuple,),
}


@lru_cache(maxsize=65_536)
def point_id(key: str) -> str:
    """The id of a key's point: UUIDv5, so that the same write twice is one."""
    return str(uuid.uuid5(_NAMESPACE, key))


class _Made(msgspec.Struct):
    encoder: str = ""


def maker_of(body: str) -> str:
    """The encoder that made the vector of an item, as its record says; empty where it has none."""
    return _MADE.decode(body).encoder


def check_fields(collection: Collection, fields: Mapping[str, FieldValue]) -> None:
    """Raise `ValueError` for a field that is not declared in `FIELDS` or has another type: the caller's defect."""
    kinds = FIELDS[collection]
    for name, value in fields.items():
        kind = kinds.get(name)
        if kind is None:
            raise ValueError(f"field {name!r} of {collection} is not declared in streams.index.stored.FIELDS")
        if not isinstance(value, _TYPES[kind]) or (isinstance(value, bool) and kind is not Kind.BOOL):
            raise ValueError(f"field {name!r} of {collection} must be {kind}, not {value!r}")


def check_match(collection: Collection, match: Match) -> None:
    """Raise `ValueError` for a condition on a field that is not declared."""
    kinds = FIELDS[collection]
    for name in (*match.equals, *match.below, *match.at_least):
        if name not in kinds and name != "version":
            raise ValueError(f"field {name!r} of {collection} is not declared in streams.index.stored.FIELDS")


def to_payload(point: Point) -> dict[str, Any]:
    """The payload of a point, tuples as lists."""
    payload: dict[str, Any] = {
        "key": point.key if point.named else "",
        "version": point.version,
        "write_id": point.write_id,
        "body": point.body,
    }
    for name, value in point.fields.items():
        payload[name] = list(value) if isinstance(value, tuple) else value
    return payload


def to_fields(collection: Collection, payload: Mapping[str, Any]) -> dict[str, FieldValue]:
    """The fields of a payload, each of its declared type."""
    fields: dict[str, FieldValue] = {}
    for name, kind in FIELDS[collection].items():
        value = payload.get(name)
        if value is None:
            continue
        if kind is Kind.KEYWORDS:
            fields[name] = tuple(value)
        elif kind is Kind.BOOL:
            fields[name] = bool(value)
        else:
            fields[name] = float(value) if kind is Kind.FLOAT else value
    return fields


_MADE: Final = msgspec.json.Decoder(_Made)

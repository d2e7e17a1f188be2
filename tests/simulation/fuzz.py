"""Bad input from a seed: records of each topic with something wrong about them, or nothing."""

from __future__ import annotations

import json
import math
from random import Random
from typing import Any, Final

import msgspec

from streams.values import Record, Topic

NOW: Final = 1_700_000_000.0
GOOD: Final[dict[Topic, dict[str, Any]]] = {
    Topic.ITEMS: {
        "item_id": "i1", "title": "a title", "description": "more", "categories": ["a", "b"], "price": 3.5,
        "attributes": {"year": 1999, "tags": ["x"]}, "available": True, "published_at": NOW - 9.0,
        "expires_at": NOW + 9e5,
    },
    Topic.USERS: {
        "user_id": "u1", "profile": "likes x", "interests": ["y"], "attributes": {}, "blocked_items": ["i9"],
        "blocked_categories": ["c"],
    },
    Topic.EVENTS: {
        "event_id": "e1", "user_id": "u1", "type": "rating", "item_id": "i1", "value": 4.0, "price": 2.0,
        "query": "words", "timestamp": NOW - 1.0, "session_id": "s", "context": {"a": 1}, "recommendation_id": "r",
    },
    Topic.REFRESHES: {"user_id": "u1", "item_id": "i1", "at": NOW, "kind": "arrived"},
}  # fmt: skip
KEYS: Final = {Topic.ITEMS: "item_id", Topic.USERS: "user_id", Topic.EVENTS: "user_id", Topic.REFRESHES: "user_id"}
RAW: Final = (
    b"", b"null", b"{", b"[]", b'"text"', b"\xff\xfe\x00", b"\x00" * 40, b"[" * 20_000, b'{"a":' * 5_000,
    b"NaN", b"1e999", b'{"item_id": NaN, "title": "t"}', b"\xef\xbb\xbf{}", b'{"title":"\\ud800"}', b"{} {}",
)  # fmt: skip


def strange(random: Random) -> Any:
    """A value that nobody expects, where JSON can say it."""
    return random.choice(
        (
            None, True, -1, 0, 1, 2**63, 2**70, -(2**63), 1e308, -1e308, 1e-320, 0.1 + 0.2, "", " ", "\x00", "\u202e",
            "a" * 513,
            "é" * 300, "x" * 1_000_000, "\ud7ff\U0001f600", [], [[]], [None], {}, {"a": {"b": {"c": [1, {}]}}},
            "2100-01-01T00:00:00Z", "0001-01-01T00:00:00", "9999-12-31T23:59:59-23:59", "2023-13-01T00:00:00Z",
            NOW * 1000,
            253_402_300_800, -5.0, math.pi, "purchase", "search", ["x"] * 3_000, _nested(random.choice((3, 20, 300))),
        )
    )  # fmt: skip


def spoilt(random: Random, value: bytes) -> bytes | None:
    """What a worker wrote to an inner topic, with something wrong about it: bytes changed, cut, or values replaced."""
    choice = random.random()
    if choice < 0.1:
        return random.choice((*RAW, None))
    if choice < 0.4:
        spoilt = bytearray(value)
        for _ in range(random.choice((1, 1, 3, 10))):
            spoilt[random.randrange(len(spoilt))] = random.randrange(256)
        return bytes(spoilt[: random.choice((len(spoilt), len(spoilt), random.randrange(len(spoilt))))])
    packed = value[:1] not in b"[{"
    tree = msgspec.msgpack.decode(value) if packed else json.loads(value)
    inner = tree
    while True:
        place = random.choice(list(inner) if isinstance(inner, dict) else range(len(inner)))
        if not isinstance(inner[place], list) or not inner[place] or random.random() < 0.3:
            break
        inner = inner[place]
    odd = (math.nan, math.inf, b"", b"\xff" * 8, b"\x00\x7c" * 690, -1, 2**63 - 1, None, "x", [], {})
    inner[place] = random.choice(odd) if packed else strange(random)
    return msgspec.msgpack.encode(tree) if packed else json.dumps(tree).encode()


def _nested(depth: int) -> Any:
    value: Any = "deep"
    for _ in range(depth):
        value = {"a": [value]}
    return value


def record(random: Random, topic: Topic, partition: int, offset: int) -> Record:
    """One record."""
    body = dict(GOOD[topic])
    key: bytes | None = str(body[KEYS[topic]]).encode()
    headers: list[tuple[str, bytes]] = []
    value: bytes | None
    choice = random.random()
    for _ in range(random.choice((1, 1, 2, 3))):
        name = random.choice((*body, "unknown"))
        if random.random() < 0.25:
            body.pop(name, None)
        else:
            body[name] = strange(random)
    identity = body.get(KEYS[topic])
    if isinstance(identity, str) and random.random() < 0.8:
        key = identity.encode("utf-8", "surrogatepass")
    value = json.dumps(body).encode()
    if choice < 0.15:
        value = random.choice(RAW)
    elif choice < 0.2:
        value = None
    elif choice < 0.3:
        place = random.randrange(len(value))
        value = value[:place] + random.choice((b"", b"\xff", b"\x00", b",", b"}", b"NaN")) + value[place + 1 :]
    if random.random() < 0.1:
        key = random.choice((None, b"", b"\xff", b"other", b"k" * 600, b"\x00"))
    if random.random() < 0.1:
        headers.append(("schema", random.choice((b"1", b"2", b"", b"\xff", b"9" * 99))))
    if random.random() < 0.1:
        headers.append(random.choice((("quiet", b""), ("unheard-of", b"\x00" * 100))))
    return Record(topic, partition, offset, NOW + offset * 0.01, key, value, tuple(headers))

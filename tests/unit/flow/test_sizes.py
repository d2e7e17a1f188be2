"""Limits for every size: what outsiders make long neither stops a worker nor grows without end."""

from __future__ import annotations

import msgspec
import pytest

from encoder.hashing import HashingEncoder
from streams.flow.signals import LARGEST_BYTES, SignalBatch
from streams.ports import Collection, Write
from streams.settings import Settings
from streams.values import Topic
from streams.wire import LONGEST_ID_BYTES
from tests.contract.index_contract import point
from tests.support.service import Service

BROKER_TAKES = 1_048_588
"""Apache Kafka's default `max.message.bytes`."""


def long_id(number: int) -> str:
    """As long as an id may be: 512 characters of two bytes, 1,024 in all."""
    return f"{number:04}".ljust(512, "é")


async def test_the_longest_ids_make_no_message_that_a_broker_refuses() -> None:
    service = await Service(encoder=HashingEncoder(16)).open()
    log = service.log
    await service.feed(*(log.item(long_id(number), "x" * 50_000) for number in range(12)))
    events = [log.event(long_id(9000 + number), "ann", "like", long_id(number % 60)) for number in range(200)]
    sent = await service.feed(*events)
    signals = [message for message in sent if message.topic is Topic.SIGNALS]
    assert len(signals) > 4, "more than one for each partition"
    assert max(len(message.value or b"") for message in signals) <= LARGEST_BYTES
    assert max(len(message.value or b"") for message in sent) < BROKER_TAKES
    told = service.lists()[-1]
    assert told["items"]
    assert all(len(item["reason"]["text"]) <= 200 for item in told["items"])
    # Each offset is whole, in one message, in order: else a part of it would pass for a repetition.
    for partition in (0, 1):
        values = [message.value or b"" for message in signals if message.partition == partition]
        batches = [batch for value in values for batch in msgspec.json.decode(value, type=list[SignalBatch])]
        offsets = [offset for batch in batches for offset, _ in batch.entries]
        assert offsets == sorted(set(offsets))
    await service.settle()
    counted = {
        one.key: msgspec.json.decode(one.body) for one in (await service.index.scan(Collection.STATISTICS)).points
    }
    assert {counted[long_id(number)]["events"] for number in range(20)} == {4}
    assert sum(body["events"] for body in counted.values()) == 200


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"query": "x" * 70_000, "type": "search"}, "size"), ({"item_id": "i", "context": {"a": "x" * 70_000}}, "size"),
        ({"item_id": "\x01" * 300}, "schema"), ({"item_id": "i", "event_id": "\x01" * 300}, "schema"),
        ({"item_id": "é" * 513}, "schema"), ({"item_id": "i", "context": {"a": "x" * 60_000}}, None),
        ({"item_id": "\x01" * 200}, None),
    ],
)  # fmt: skip
async def test_what_is_too_long_for_a_history_is_a_dead_letter(value: dict[str, object], reason: str | None) -> None:
    service = await Service(encoder=HashingEncoder(16)).open()
    given = {"event_id": "e", "user_id": "ann", "type": "view", "timestamp": service.clock.at, **value}
    sent = await service.feed(service.log.record(Topic.EVENTS, "ann", given))
    reasons = [dict(message.headers)["reason"].decode() for message in sent if message.topic is Topic.DEAD_LETTERS]
    assert reasons == ([] if reason is None else [reason])


@pytest.mark.parametrize("topic", [Topic.ITEMS, Topic.USERS])
async def test_an_id_that_is_too_long_as_json_is_refused_everywhere(topic: Topic) -> None:
    service = await Service(encoder=HashingEncoder(16)).open()
    name = "\x01" * (LONGEST_ID_BYTES // 6 + 1)
    key = "item_id" if topic is Topic.ITEMS else "user_id"
    (letter,) = await service.feed(service.log.record(topic, name, {key: name, "title": "t"}))
    assert dict(letter.headers)["reason"] == b"schema"


def test_a_history_at_its_longest_fits_a_request_to_the_index() -> None:
    defaults = Settings()
    assert defaults.history_size * defaults.event_bytes + defaults.exclusions_size * (LONGEST_ID_BYTES + 64) < 32 << 20


async def test_writes_are_parted_by_their_bytes() -> None:
    from functools import partial

    from streams.index.qdrant import QdrantIndex
    from streams.index.server import connect
    from tests.support import qdrant_server

    front = qdrant_server.Front()
    server, port = await qdrant_server.start(front)
    index = QdrantIndex(partial(connect, qdrant_server.url(port)))
    await index.open(8)
    await index.write(Collection.USERS, [Write(point(f"u{number}", body="x" * 3_000_000), None) for number in range(7)])
    assert front.calls["write"] == 4
    assert await index.count(Collection.USERS) == 7
    await index.close()
    await server.stop(grace=None)

"""Each bad record is applied or a dead letter with its bytes and a reason; the worker and the good ones go on."""

import json
from random import Random

import msgspec
import numpy as np
import pytest

from streams.decide.statistics import ItemStatistics, Signal
from streams.errors import REASONS
from streams.flow.signals import SignalBatch
from streams.ports import Collection
from streams.values import Record, Topic
from tests.simulation import fuzz
from tests.support.service import Service, named

RECORDS = 400
BATCH = 40


def good(number, offset):
    """An event that must be applied, whatever stands beside it."""
    user = f"good{number % 5}"
    body = {"event_id": f"good-{number}", "user_id": user, "type": "view", "item_id": "i1", "timestamp": fuzz.NOW}
    return Record(Topic.EVENTS, 1, offset, fuzz.NOW + 1.0, user.encode(), json.dumps(body).encode())


async def run(topic, seed, records):
    random = Random(seed)
    service = await Service(fan_out=0).open()
    done = []
    for offset, start in enumerate(range(0, records, BATCH), start=1):
        batch = [fuzz.record(random, topic, 0, start + place) for place in range(BATCH)]
        batch.insert(random.randrange(len(batch)), good(start // BATCH, offset))
        sent = await service.feed(*batch)
        done += batch
        lists = [msgspec.json.decode(message.value) for message in sent
                 if message.topic is Topic.RECOMMENDATIONS and message.value]  # fmt: skip
        assert f"good-{start // BATCH}" in named(lists), "a good record had to wait for bad ones"
        await service.settle()  # what was applied must be countable too
    return service, done


@pytest.mark.parametrize("topic", fuzz.GOOD)
async def test_bad_records_are_applied_or_buried(topic):
    await assert_applied_or_buried(topic, seed=1, records=RECORDS)


async def assert_applied_or_buried(topic, seed, records):
    service, done = await run(topic, seed, records)
    acknowledged = sorted(
        (one.partition, one.offset) for one in service.ownership.done if one.topic in {topic, Topic.EVENTS}
    )
    assert acknowledged == sorted((one.partition, one.offset) for one in done)
    letters = [message for message in service.publisher.sent if message.topic is Topic.DEAD_LETTERS]
    assert len(letters) > records / 10
    sources = {(one.partition, one.offset): one for one in done}
    for letter in letters:
        headers = {name: value.decode("utf-8", "replace") for name, value in letter.headers}
        source = sources[int(headers["partition"]), int(headers["offset"])]
        assert (letter.key, letter.value) == (source.key, source.value)
        assert headers["reason"] in REASONS
        assert headers["error"]
        assert headers["reason"] != "processing", headers["error"]
        assert source.partition == 0, "a good record was buried"
    taken = (report.records[one.value] for report in service.reports for one in {topic, Topic.EVENTS})
    assert sum(taken) == len(done)


@pytest.mark.parametrize("value", [1e308, -1e308, 1.1e9, 1e9, -1e9, 0.0, 1e-320])
async def test_a_rating_of_any_size_is_counted_or_buried(value):
    service = await Service(fan_out=0).open()
    log = service.log
    await service.feed(log.item("i1", "a kettle"), log.item("i2", "a pot"))
    body = {"event_id": "r", "user_id": "u1", "type": "rating", "item_id": "i1", "timestamp": fuzz.NOW, "value": value}
    for number in range(3):
        await service.feed(
            Record(Topic.EVENTS, 0, number, fuzz.NOW, b"u1", json.dumps({**body, "event_id": f"r{number}"}).encode())
        )
    await service.settle()
    letters = [message for message in service.publisher.sent if message.topic is Topic.DEAD_LETTERS]
    assert len(letters) == (3 if abs(value) > 1e9 else 0)
    await service.feed(log.event("e", "u1", "view", "i2"))
    assert "e" in named(service.lists())
    points = (await service.index.scan(Collection.STATISTICS)).points
    stored = {one.item_id: one for point in points if (one := msgspec.json.decode(point.body, type=ItemStatistics))}
    assert stored.get("i1", ItemStatistics("i1")).ratings == (0 if letters else 3)


@pytest.mark.parametrize(
    "changed",
    [{"rating": 1e308}, {"rating": -1e300}, {"weight": 2**40}, {"weight": -1}, {"at": 1e300}, {"at": -1.0},
     {"gap_seconds": 1e308}, {"before": (("i2", 2**62),)}],
)  # fmt: skip
async def test_a_signal_that_nobody_could_have_sent_is_buried(changed):
    service = await Service(fan_out=0).open()
    log = service.log
    await service.feed(log.item("i1", "a kettle"), log.item("i2", "a pot"))
    whole = {"item_id": "i1", "at": fuzz.NOW, "positive": True, "follower": "i2" if "weight" in changed else None}
    signal = Signal(**(whole | changed))
    value = msgspec.json.encode([SignalBatch(0, ((0, (signal,)),))])
    await service.worker.step([Record(Topic.SIGNALS, 0, 0, fuzz.NOW, b"0", value)])
    await service.settle()
    letters = [message for message in service.publisher.sent if message.topic is Topic.DEAD_LETTERS]
    assert len(letters) == 1
    assert not (await service.index.scan(Collection.STATISTICS)).points


@pytest.mark.parametrize("topic", [Topic.SIGNALS, Topic.LESSONS])
async def test_what_workers_send_each_other_is_taken_or_buried(topic):
    await assert_taken_or_buried(topic, seed=1, records=100)


async def assert_taken_or_buried(topic, seed, records):
    """Of the topics that only workers write too: whoever may write there is trusted, but not with being well-formed."""
    random = Random(seed)
    service = await Service(fan_out=0, lessons=1e6).open()
    log = service.log
    await service.feed(*(log.item(f"i{number}", f"thing {number}") for number in range(30)))
    for number in range(40):
        service.clock.at += 1.0
        await service.feed(log.event(f"e{number}", f"u{number % 4}", "click", f"i{random.randrange(30)}"))
    real = [message.value for message in service.publisher.sent if message.topic is topic]
    assert len(real) > 20
    done = []
    with np.errstate(invalid="ignore", over="ignore"):  # features that are not numbers count as unknown
        for number in range(records):
            record = Record(topic, 0, number, fuzz.NOW, None, fuzz.spoilt(random, random.choice(real)), ())
            sent = await service.feed(record, log.event(f"good-{number}", "u1", "view", "i1"))
            (value,) = [json.loads(message.value) for message in sent if message.topic is Topic.RECOMMENDATIONS]
            assert value["trigger"]["id"] == f"good-{number}"
            done.append(record)
            service.clock.at += 70.0
            await service.worker.maintain()
    letters = [message for message in service.publisher.sent if message.topic is Topic.DEAD_LETTERS]
    assert records / 10 < len(letters) < records
    assert {(one.topic, one.offset) for one in done} <= {(one.topic, one.offset) for one in service.ownership.done}
    assert np.isfinite(service.parts.learning.model.weights).all()
    assert all(msgspec.json.decode(point.body, type=ItemStatistics)
               for point in (await service.index.scan(Collection.STATISTICS)).points)  # fmt: skip


async def test_what_was_buried_is_applied_once_it_is_mended():
    service = await Service(fan_out=0).open()
    body = {"event_id": "e1", "user_id": "u1", "type": "stare", "item_id": "i1", "timestamp": fuzz.NOW}
    bad = Record(Topic.EVENTS, 0, 0, fuzz.NOW, b"u1", json.dumps(body).encode())
    (letter,) = await service.feed(bad)
    mended = (letter.value or b"").replace(b"stare", b"view")
    await service.feed(Record(Topic.EVENTS, 0, 1, fuzz.NOW + 5, letter.key, mended, letter.headers))
    assert [one.item_id for one in (await service.state("u1")).history] == ["i1"]
    assert "e1" in named(service.lists())
    assert await service.index.count(Collection.USERS) == 1

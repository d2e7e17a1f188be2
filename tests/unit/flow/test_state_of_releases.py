"""What each release left behind is read by this one, which goes on from there. See `tests.support.state`."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from encoder.hashing import HashingEncoder
from streams.index.edge import EdgeIndex
from streams.values import Topic
from tests.support.index import edge_directory
from tests.support.service import Service, ids
from tests.support.state import ENCODER, INTERNAL, live, said, unpack

__all__ = ["edge_directory"]

RELEASES = sorted((Path(__file__).parents[2] / "fixtures").glob("state-*"))


@pytest.fixture(params=RELEASES, ids=lambda path: path.name)
def release(request: pytest.FixtureRequest) -> Path:
    return request.param  # type: ignore[no-any-return]


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


async def later(service: Service) -> Service:
    """The service at work a minute after the day that it has not seen, with the day's records once more in its log."""
    service.clock.at += 60.0
    return await service.open()


def test_there_is_one_of_this_release() -> None:
    from importlib.metadata import version

    assert f"state-{version('coldstream')}" in [path.name for path in RELEASES], "python -m tests.support.state FOLDER"


async def test_its_index_is_read_and_gone_on_with(release: Path, edge_directory: Path) -> None:
    unpack(release / "index.zip", edge_directory)
    service = await later(Service(index=EdgeIndex(edge_directory), encoder=ENCODER))
    expected = read(release / "said.json")
    assert await said(service) == expected
    service.clock.at -= 60.0
    await live(service)  # the same log once more: all of it redeliveries
    found = await said(service)
    for known in (*found["users"].values(), *expected["users"].values()):
        known.pop("version")
    assert found == expected
    service.clock.at += 60.0
    await service.feed(service.log.event("e9", "ann", "view", "saw-2"), service.log.event("e7", "eve", "click", "tea"))
    told = service.lists()[-2:]
    (ann,) = [one for one in told if one is not None and one["user_id"] == "ann"]
    assert ann["trigger"]["id"] == "e9"
    assert not {"saw-1", "saw-3", "out", "gone"} & set(ids(ann))
    assert {"saw-0", "saw-9"} & set(ids(ann))
    await service.index.close()


async def test_another_encoder_takes_it_over(release: Path, edge_directory: Path) -> None:
    unpack(release / "index.zip", edge_directory)
    service = await later(Service(index=EdgeIndex(edge_directory), encoder=HashingEncoder(24)))
    found, expected = await said(service), read(release / "said.json")
    for known in expected["items"].values():
        known["encoder"] = "hashing-24"
    assert found == expected
    await service.index.close()


async def test_what_stands_on_its_topics_is_understood(release: Path) -> None:
    service = await Service(encoder=ENCODER).open()
    records = read(release / "records.json")
    assert set(records) == {topic.value for topic in INTERNAL}
    for topic in (Topic.SIGNALS, Topic.REFRESHES, Topic.LESSONS):
        values = [base64.b64decode(value) for value in records[topic.value]]
        assert values
        key = "ann" if topic is Topic.REFRESHES else ""
        await service.feed(*(service.log.record(topic, key, value) for value in values))
    assert service.publisher.values(Topic.DEAD_LETTERS) == []
    learned = service.parts.learning
    assert learned._records, "its lessons are learned from, or passed over where it had other features"
    learned.drop()
    (*_, model) = [base64.b64decode(value) for value in records[Topic.MODEL.value]]
    learned.adopt(service.log.record(Topic.MODEL, "ranker", model))
    assert learned.model.lessons > 0

"""`coldstream ranker` on a broker, beside the learning of a worker that follows its orders."""

from __future__ import annotations

import asyncio
import json

import numpy as np
import pytest

from streams.commands import main
from streams.decide.features import NAMES
from streams.decide.lessons import Lesson
from streams.flow.learning import Learning
from streams.flow.vectors import VectorFeed
from streams.kafka.follower import ModelReader
from streams.kafka.publisher import KafkaPublisher
from streams.values import Record, Topic
from tests.support.kafka import eventually
from tests.support.memory import ManualClock
from tests.unit.decide.catalogue import filled


@pytest.fixture
def run(settings, monkeypatch, capsys):
    """Runs the program on a thread; returns (status, stdout, stderr)."""
    monkeypatch.setenv("COLDSTREAM_KAFKA", settings.kafka)
    monkeypatch.setenv("COLDSTREAM_TOPIC_PREFIX", settings.topic_prefix)

    async def run_program(*arguments):
        status = await asyncio.to_thread(main.run, arguments)
        return status, *capsys.readouterr()

    return run_program


async def test_the_ranker_is_shown_frozen_and_rolled_back(run, settings):
    learning, clock = Learning(ManualClock(), 1.0, VectorFeed(filled(), "a", "b")), ManualClock()
    publisher = KafkaPublisher(settings)
    await publisher.start()
    try:
        await publisher.load_partitions([Topic.MODEL])
        grids = np.random.default_rng(7).normal(size=(3, 12, len(NAMES))).astype(np.float16)
        for offset, grid in enumerate(grids):
            items = tuple(f"wine-{number}" for number in range(12))
            lesson = Lesson(1, False, 40, grid.tobytes(), items=items)
            learning.take([(Record(Topic.LESSONS, 0, offset, clock.now(), None, b""), lesson)])
            await learning.publish(publisher, now=True)
            if not offset:
                first = learning.model.version
        learned = learning.model.version

        async def shown():
            status, out, err = await run("ranker", "show", "--json")
            assert status == 0, err
            return json.loads(out)

        said = await shown()
        assert said["version"] == learned
        assert not said["frozen"]
        assert [one["version"] for one in said["daily"]] == [first]
        assert (await run("ranker", "freeze"))[0] == 0
        reader = ModelReader(settings, learning.adopt)
        await reader.start()
        assert learning.insight().frozen
        assert learning.model.version == learned
        status, out, _ = await run("ranker", "rollback", first)
        assert status == 0
        assert first in out
        await eventually(lambda: learning.model.version == first)
        await reader.stop()
        said = await shown()
        assert (said["version"], said["frozen"], said["orders"]) == (first, True, 2)
        assert (await run("ranker", "unfreeze"))[0] == 0
        assert not (await shown())["frozen"]
        status, _, err = await run("ranker", "rollback", "linear-9-never")
        assert status == 1
        assert "there is no state" in err
        assert (await run("ranker", "rollback", "prior"))[0] == 0
        status, out, _ = await run("ranker", "show")
        assert status == 0
        assert "frozen: it learns nothing" in out
        assert (await shown())["lessons"] == {"known": 0, "cold": 0}
    finally:
        await publisher.stop()

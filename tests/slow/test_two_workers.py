"""Two worker processes of one group on one shared index, by the adapter for a Qdrant server over the tests' front."""

from __future__ import annotations

import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import msgspec
import pytest

from streams.index.qdrant import QdrantIndex
from streams.index.server import connect
from streams.ports import Collection
from streams.values import UserState
from tests.support import worker_process
from tests.support.kafka import ROOT, consume, eventually, producing

USERS, EVENTS, DIMENSION = 12, 120, 64
HASHING = f"""
import streams.app
from encoder.hashing import HashingEncoder
from streams.commands.main import main
streams.app.open_encoder = lambda settings: HashingEncoder({DIMENSION})
main()
"""
"""The program with an encoder that starts at once: what is tested here is delivery."""


@pytest.fixture
def index_url():
    with subprocess.Popen(
        [sys.executable, "-m", "tests.support.qdrant_server"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as front:
        yield front.stdout.readline().strip()
        front.kill()


def event(number: int) -> dict[str, object]:
    return {
        "event_id": f"e{number}", "user_id": f"u{number % USERS}", "item_id": f"i{number % 40}", "type": "like",
        "timestamp": time.time(),
    }  # fmt: skip


async def test_two_workers_share_the_load_and_one_takes_over(
    settings, index_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_process, "PROGRAM", [sys.executable, "-c", HASHING])
    environments = [
        worker_process.settings(
            settings.kafka, tmp_path, index=index_url, topic_prefix=settings.topic_prefix, session_timeout_seconds="6"
        )
        for _ in range(2)
    ]
    async with producing(settings) as send:
        with (
            worker_process.worker(environments[0], tmp_path / "one.log"),
            worker_process.worker(environments[1], tmp_path / "two.log") as second,
        ):
            for number in range(40):
                item = {"item_id": f"i{number}", "title": f"Thing number {number}", "categories": [f"c{number % 4}"]}
                await send("items", item, key=item["item_id"])
            for number in range(EVENTS):
                if number == EVENTS // 2:  # each has done its part, and the one dies in the middle of its own
                    await eventually(lambda: all(events_of(one) for one in environments))
                    assert events_of(environments[0]) < EVENTS // 2
                    second.kill()
                await send("events", event(number), key=f"u{number % USERS}")
            lists = await consume(settings, "recommendations", names_all, seconds=60)
    assert names_all(lists)
    states = await read_states(settings.topic_prefix, index_url)
    for user, state in states.items():
        ours = [number for number in range(EVENTS) if f"u{number % USERS}" == user]
        assert [each.item_id for each in state.history] == [f"i{number % 40}" for number in ours]
    versions: dict[str, list[int]] = {user: [] for user in states}
    for record in lists:
        versions[record.key.decode()].append(msgspec.json.decode(record.value)["version"])
    for user, sent in versions.items():
        assert sent[-1] == max(sent) <= states[user].version


def events_of(environment: dict[str, str]) -> float:
    """How many events a worker has had."""
    _, body = worker_process.get(f"http://{environment['COLDSTREAM_HTTP']}/metrics")
    series = 'coldstream_records_total{topic="events"}'
    return sum(float(line.split()[-1]) for line in body.decode().splitlines() if line.startswith(series))


def names_all(lists) -> bool:
    """Whether every event is named by a list."""
    named: set[str] = set()
    for record in lists:
        value = msgspec.json.decode(record.value)
        named |= {value["trigger"]["id"], *value["conflated"]}
    return named >= {f"e{number}" for number in range(EVENTS)}


async def read_states(prefix: str, index_url: str) -> dict[str, UserState]:
    index = QdrantIndex(partial(connect, index_url), prefix=prefix)
    await index.open(DIMENSION)
    found = await index.read(Collection.USERS, [f"u{number}" for number in range(USERS)])
    await index.close()
    return {point.key: msgspec.json.decode(point.body, type=UserState) for point in found if point is not None}

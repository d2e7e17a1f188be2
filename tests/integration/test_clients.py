"""The programs of docs/clients.md, run as they stand there against a broker, where their clients are installed."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import zlib
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiokafka.partitioner import murmur2

from streams.kafka.follower import Follower
from streams.settings import Settings
from streams.values import Topic
from streams.wire import decode_event, decode_item, decode_user
from tests.support.http_service import serve_fake
from tests.support.kafka import ROOT, SECONDS, create_topics, producing

PROGRAMS = dict(
    re.findall(r"^```\w+ (\S+)\n(.*?)^```$", (ROOT / "docs/clients.md").read_text("utf-8"), re.MULTILINE | re.DOTALL)
)
"""Text by name."""
PARTITIONS = 4
INTAKE = (Topic.ITEMS, Topic.USERS, Topic.EVENTS)
MODULES = {"aiokafka": "aiokafka", "confluent": "confluent_kafka"}


def named(kind: str) -> list[str]:
    return [name for name in PROGRAMS if name.startswith(kind)]


@pytest.fixture
async def site(apache_kafka):
    """The broker with topics of no prefix, as the page has it."""
    settings = Settings(kafka=apache_kafka.servers)
    await create_topics(settings, PARTITIONS)
    return settings


def prepare(name: str, folder: Path) -> list[str]:
    """The command that runs a program; skips where its client is missing."""
    stem, _, kind = name.partition(".")
    client = stem.partition("_")[2]
    path = folder / name
    path.write_text(PROGRAMS[name], encoding="utf-8")
    if kind == "py":
        if importlib.util.find_spec(MODULES[client]) is None:
            pytest.skip(f"{MODULES[client]} is not installed: the extra dev brings it")
        return [sys.executable, str(path)]
    if kind == "mjs":
        modules = node_modules(client)
        if modules is None:
            pytest.skip(
                f"node with {client} is not here: npm install --global {client}, or COLDSTREAM_TEST_NODE_MODULES"
            )
        (folder / "node_modules").symlink_to(modules)
        return ["node", str(path)]
    program = {"kcat": "kcat", "http": "curl"}[client]
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    return ["sh", str(path)]


def node_modules(package: str) -> Path | None:
    """The folder of Node's packages that has this one."""
    if shutil.which("node") is None:
        return None
    named_ = os.environ.get("COLDSTREAM_TEST_NODE_MODULES")
    if named_ is None and shutil.which("npm") is not None:
        asked = subprocess.run(["npm", "root", "--global"], capture_output=True, text=True, check=False, timeout=30)
        named_ = asked.stdout.strip()
    folder = Path(named_ or "/nowhere")
    return folder if (folder / package).is_dir() else None


@asynccontextmanager
async def running(name: str, folder: Path, **environment: str):
    """A program of the page under way; it is killed at the end, with all that it started."""
    process = await asyncio.create_subprocess_exec(
        *prepare(name, folder), cwd=folder, env={**os.environ, **environment}, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
        await process.communicate()


def test_every_client_of_the_page_sends_and_reads():
    clients = {name.partition(".")[0].partition("_")[2] for name in named("produce")}
    assert clients == {name.partition(".")[0].partition("_")[2] for name in named("consume")}
    assert clients == {"aiokafka", "confluent", "kafkajs", "kcat"}
    assert len(PROGRAMS) == 9


@pytest.mark.parametrize("name", named("produce"))
async def test_what_a_producer_sends_is_taken_and_lies_where_all_agree(site, tmp_path, name):
    async with Follower(site, INTAKE, from_start=False) as follower:
        async with running(name, tmp_path, COLDSTREAM_KAFKA=site.kafka) as process, asyncio.timeout(2 * SECONDS):
            _, err = await process.communicate()
            assert process.returncode == 0, err.decode()
        records = []
        async with asyncio.timeout(SECONDS):
            while len(records) < 4:
                records += await follower.read(0.2)
        astray = [record for record in records if follower.is_astray(record)]
    assert not astray
    keys = {record.key for record in records}
    assert any((murmur2(key) & 0x7FFFFFFF) % PARTITIONS != zlib.crc32(key) % PARTITIONS for key in keys), "can't tell"
    by_topic = {topic: [record for record in records if record.topic is topic] for topic in INTAKE}
    (item,) = map(decode_item, by_topic[Topic.ITEMS])
    (event,) = map(decode_event, by_topic[Topic.EVENTS])
    (user,) = (decode_user(record) for record in by_topic[Topic.USERS] if record.value is not None)
    assert (item.item_id, item.categories, user.user_id) == ("kettle", ("kitchen", "tea"), "ann")
    assert (event.user_id, event.type.value, event.item_id) == ("ann", "click", "kettle")
    assert [record.key for record in by_topic[Topic.USERS] if record.value is None] == [b"bob"]


@pytest.mark.parametrize("name", named("consume"))
async def test_a_consumer_keeps_the_latest_list_and_hears_of_erasures(site, tmp_path, name):
    client = name.partition(".")[0]
    ann, bob, end = (f"{who}-{client}" for who in ("ann", "bob", "end"))
    sent = [(ann, 2, "sencha"), (ann, 1, "late"), (ann, 2, "again"), (bob, 1, "saw"), (bob, 2, None), (ann, 3, "kettle"),
            (end, 1, "end")]  # fmt: skip
    async with producing(site) as send:
        for user, version, item in sent:
            value = None if item is None else {"user_id": user, "version": version, "items": [{"item_id": item}]}
            await send("recommendations", value, key=user, headers=[("version", str(version).encode())])
    said: dict[str, list[str]] = {ann: [], bob: [], end: []}
    async with running(name, tmp_path, COLDSTREAM_KAFKA=site.kafka) as process, asyncio.timeout(2 * SECONDS):
        while len(said[end]) < 1 or len(said[ann]) < 2 or len(said[bob]) < 2:
            line = (await process.stdout.readline()).decode()
            assert line, (await process.stderr.read()).decode()
            user, _, rest = line.strip().partition(" ")
            if user in said:
                said[user].append(rest)
    if name == "consume_kcat.sh":  # shows what there is: to choose is left to its reader
        assert [json.loads(line.partition(" ")[2])["version"] for line in said[ann]] == [2, 1]
        assert said[bob][1] == "version=2"
    else:
        assert [line.replace("'", '"') for line in said[ann]] == ['["sencha"]', '["kettle"]']
        assert said[bob][1] == "is forgotten"


async def test_a_list_is_asked_for_by_http(tmp_path):
    async with serve_fake() as worker:
        address = worker.server.url.removeprefix("http://")
        async with running("ask_http.sh", tmp_path, COLDSTREAM_HTTP=address) as process, asyncio.timeout(SECONDS):
            out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    assert len(json.loads(out)["items"]) == 3
    ((user, wish),) = worker.service.wishes
    assert (user, wish.category) == ("ann", "tea")

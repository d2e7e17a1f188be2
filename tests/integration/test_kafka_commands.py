"""The commands that need nothing but a broker, run as the program is run."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from streams.errors import PoisonError
from streams.flow.decoded import bury
from streams.values import Record, Topic
from streams.wire import decode_item, to_rfc3339
from tests.support.kafka import ROOT, consume, producing

PROGRAM = [sys.executable, "-m", "streams.commands.main"]


@pytest.fixture
def environment(settings):
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("COLDSTREAM_")},
        "COLDSTREAM_KAFKA": settings.kafka, "COLDSTREAM_TOPIC_PREFIX": settings.topic_prefix, "PYTHONPATH": str(ROOT),
    }  # fmt: skip


@pytest.fixture
def run(environment):
    """Runs the program; returns (status, stdout, stderr)."""

    async def run_program(*arguments, given=None):
        process = await asyncio.create_subprocess_exec(
            *PROGRAM, *arguments, env=environment, cwd=ROOT,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        async with asyncio.timeout(60):
            out, err = await process.communicate(given)
        return process.returncode, out.decode(), err.decode()

    return run_program


async def test_topics_are_created_and_checked(run, environment, settings):
    status, out, _ = await run("topics", "check", "--json")
    assert status == 0
    assert json.loads(out)["differences"] == []
    environment["COLDSTREAM_TOPIC_PREFIX"] += "more-"
    status, out, _ = await run("topics", "check")
    assert status == 1
    assert "events: exists is no, should be yes: run `coldstream topics create`" in out
    status, out, _ = await run("topics", "create", "--partitions", "2", "--json")
    assert status == 0
    assert set(json.loads(out)["created"]) == set(Topic)
    status, out, _ = await run("topics", "create", "--json")
    assert status == 0
    assert json.loads(out) == {"created": [], "existing": [str(topic) for topic in Topic]}
    status, out, _ = await run("topics", "check", "--json")
    assert status == 0
    assert json.loads(out)["topics"]["users"] == 2


async def test_files_are_published_with_keys_ids_and_headers(run, settings, tmp_path):
    events = tmp_path / "events.jsonl"
    lines = [{"user_id": f"u{n}", "type": "view", "item_id": n, "timestamp": 1.7e9 + n, "note": None} for n in range(3)]
    lines[1]["event_id"] = "mine"
    events.write_text("\n".join(map(json.dumps, lines)))
    for _ in range(2):
        status, out, err = await run("publish", "events", str(events), "--quiet", "--speed", "100", "--json")
        assert (status, json.loads(out)["published"]) == (0, 3), err
    records = await consume(settings, "events", lambda records: len(records) == 6)
    values = {record.key.decode(): json.loads(record.value) for record in records}
    assert set(values) == {"u0", "u1", "u2"}
    assert values["u1"]["event_id"] == "mine"
    assert values["u2"]["event_id"].endswith("-3")
    assert values["u2"]["item_id"] == "2"
    assert "note" not in values["u2"]
    assert len({json.loads(record.value)["event_id"] for record in records}) == 3, "a second time makes other ids"
    assert all(record.header("quiet") == b"1" for record in records)

    table = b"SKU;Name;Preis\na;Hut;2.5\nb;Stock;3\n"
    mapping = ("--map", "item_id=SKU", "--map", "title=Name", "--map", "price=Preis")
    status, out, _ = await run("publish", "items", "-", *mapping, "--rate", "50", given=table)
    assert status == 0
    assert out.startswith("published 2 records to items")
    status, *_ = await run("publish", "items", "-", "--delete", given=b'{"item_id": "a"}\n')
    assert status == 0
    records = await consume(settings, "items", lambda records: len(records) == 3)
    assert {record.key: record.value for record in records}[b"b"] == b'{"item_id":"b","title":"Stock","price":3.0}'
    assert [record.value for record in records if record.key == b"a"] == [
        b'{"item_id":"a","title":"Hut","price":2.5}',
        None,
    ]


SHOPIFY = b"""\
Handle,Title,Body (HTML),Vendor,Type,Tags,Published,Option1 Name,Option1 Value,Variant Price,Status
hut,Hut,<p>Warm</p>,Alm,Hat,"wool, warm",true,Size,S,30.00,active
hut,,,,,,,,L,25.5,
stick,Stick,,Alm,,,true,Title,Default Title,9,draft
"""
MERCHANT = b"id\ttitle\tprice\tavailability\tproduct type\nrope\tRope\t9.50 EUR\tout_of_stock\tTools > Ropes\n"


async def test_exports_of_shops_become_items_by_name_alone(run, settings):
    for shape, given in (("shopify", SHOPIFY), ("google-merchant", MERCHANT)):
        status, _, err = await run("publish", "items", "-", "--as", shape, given=given)
        assert status == 0, err
    records = await consume(settings, "items", lambda records: len(records) == 3)
    items = {item.item_id: item for item in map(decode_item, records)}
    assert {name: (item.title, item.price, item.available) for name, item in items.items()} == {
        "hut": ("Hut", 25.5, True), "stick": ("Stick", 9.0, False), "rope": ("Rope", 9.5, False),
    }  # fmt: skip
    assert (items["hut"].description, items["rope"].categories) == ("Warm", ("Ropes", "Tools"))
    status, out, err = await run("publish", "items", "-", "--as", "shopify", given=b"sku,name\n1,Hut\n")
    assert (status, out) == (1, "")
    assert "no Shopify product export" in err


@pytest.mark.parametrize(
    ("arguments", "given", "status", "message"),
    [
        (("publish", "items", "nowhere.jsonl"), b"", 2, "cannot read nowhere.jsonl"),
        (("publish", "items", "-"), b'{"title": "x"}', 1, "record 1 has no item_id: name its column with --map"),
        (("publish", "items", "-"), b"{bad", 1, "record 1 can't be read"),
        (("publish", "items", "-", "--speed", "2"), b"", 2, "--speed is for events"),
        (("publish", "lists", "-"), b"", 2, "'lists' is not one of"),
        (("dead-letters", "show", "9:9"), b"", 1, "no dead letter 9:9"),
        (("dead-letters", "replay"), b"", 2, "say which"),
    ],
)
async def test_every_error_is_one_line(run, arguments, given, status, message):
    ended, out, err = await run(*arguments, given=given)
    assert (ended, out) == (status, "")
    assert message in err
    assert err.count("\n") == 1


async def test_doctor_sees_producers_that_disagree_clocks_that_differ_and_tombstones_that_die_too_soon(
    run, environment, settings, kafka
):
    def seen(out):
        return {(one["thing"], one["state"], one["seen"]) for one in json.loads(out)["findings"]}

    environment["COLDSTREAM_HTTP"] = "127.0.0.1:1"
    _, out, _ = await run("doctor", "--json")
    assert ("topics", "ok", "all 9 are as they should be") in seen(out)
    async with producing(settings) as send:
        for number in range(8):  # murmur2 spreads them, this producer does not
            await send("events", b"{}", key=f"u{number}", partition=0)
    _, out, _ = await run("doctor", "--json")
    (note,) = [text for thing, state, text in seen(out) if (thing, state) == ("partitioning", "note")]
    assert "of the 8 newest records" in note
    if kafka.apache:
        changes = {"users": {"delete.retention.ms": "60000"}, "events": {"message.timestamp.type": "CreateTime"}}
        admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka)
        await admin.start()
        for topic, change in changes.items():
            name = f"{settings.topic_prefix}{topic}"
            await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, change)])
        await admin.close()
        producer = AIOKafkaProducer(bootstrap_servers=settings.kafka)
        await producer.start()
        await producer.send_and_wait(
            f"{settings.topic_prefix}events", b"{}", key=b"u", timestamp_ms=int((time.time() + 60) * 1000)
        )
        await producer.stop()
        status, out, _ = await run("doctor", "--json")
        assert status == 1
        wrong = [f"{thing}: {text}" for thing, state, text in seen(out) if state == "wrong"]
        assert any(text.startswith("clock: records are stamped") for text in wrong), wrong
        assert any(text.startswith("topics: users: delete.retention.ms") for text in wrong), wrong


RECOMMENDATION = {
    "recommendation_id": "r1", "user_id": "u1", "version": 3, "generated_at": "2026-01-01T00:00:00.000Z",
    "trigger": {"kind": "event", "id": "e1", "timestamp": "2026-01-01T00:00:00.000Z"}, "conflated": [],
    "strategy": "personal", "encoder": "x", "ranker": "y",
    "items": [{
        "item_id": "i1", "rank": 1, "score": 0.5, "parts": {"taste": 0.5},
        "reason": {"kind": "history", "text": "because of \x1b[31mHut\x07", "item_id": "i0"},
    }],
}  # fmt: skip


async def test_lists_are_watched_as_lines_and_as_a_table(run, settings):
    async with producing(settings) as send:
        await send("items", {"item_id": "i1", "title": "A \x1b]0;hat\x07"}, key="i1")
        await send("recommendations", b"no list", key="u1", partition=0)
        await send("recommendations", RECOMMENDATION, key="u1", partition=0)
        await send("recommendations", None, key="u1", partition=0)
        await send("recommendations", RECOMMENDATION | {"user_id": "u2"}, key="u2", partition=0)
    status, out, _ = await run("watch", "u1", "--from-start", "--count", "3", "--json")
    assert status == 0
    assert [json.loads(line) for line in out.splitlines()] == [
        RECOMMENDATION | {"arm": ""}, {"user_id": "u1", "erased": True}
    ]  # fmt: skip
    status, out, _ = await run("watch", "u1", "u2", "--from-start", "--count", "4")
    assert status == 0
    assert "because of [31mHut" in out
    assert "u1 was erased" in out
    assert "user u2 · personal" in out
    assert not any(character < " " and character != "\n" for character in out)
    status, out, _ = await run("watch", "--from-start", "--count", "4")
    assert status == 0
    assert "u2" in out
    assert "personal" in out


async def test_dead_letters_are_listed_shown_mended_and_replayed(run, settings, tmp_path):
    async with producing(settings) as send:
        for number, (reason, value) in enumerate([("schema", b'{"bad": 1}'), ("time", b"\xff\x1b[0m")]):
            record = Record(Topic.EVENTS, 1, number, 1.7e9, b"u%d" % number, value, (("schema", b"1"),))
            letter = bury(record, PoisonError(reason, "a sentence"), 1.7e9 + number)
            await send("dead-letters", letter.value, key=letter.key, partition=2, headers=letter.headers)
    status, out, _ = await run("dead-letters", "list", "--json")
    letters = [json.loads(line) for line in out.splitlines()]
    assert status == 0
    assert [letter["id"] for letter in letters] == ["2:0", "2:1"]
    assert letters[1]["value"] == "/xtbMG0="
    assert letters[1]["failed_at"] == to_rfc3339(1.7e9 + 1)
    status, out, _ = await run("dead-letters", "list", "--reason", "time")
    assert status == 0
    assert "2:1" in out
    assert "2:0" not in out
    status, out, _ = await run("dead-letters", "show", "2:1")
    assert status == 0
    assert "a sentence" in out
    assert "\x1b" not in out
    status, out, _ = await run("dead-letters", "show", "2:0", "--raw")
    assert out == '{"bad": 1}'

    status, out, _ = await run("dead-letters", "replay", "2:0", "--value", "-", "--key", "u9", given=b'{"mended": 1}')
    assert (status, out) == (0, "replayed 1 dead letters\n")
    status, out, _ = await run("dead-letters", "replay", "--reason", "time", "--json")
    assert json.loads(out) == {"replayed": 1}
    records = await consume(settings, "events", lambda records: len(records) == 2)
    assert {(record.key, record.value) for record in records} == {(b"u9", b'{"mended": 1}'), (b"u1", b"\xff\x1b[0m")}
    assert {record.headers for record in records} == {(("schema", b"1"),)}


async def test_the_broker_says_that_it_keeps_nothing_and_leaves_nothing(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    process = await asyncio.create_subprocess_exec(
        *PROGRAM,
        "broker",
        "--port",
        "0",
        "--json",
        env=environment,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    async with asyncio.timeout(30):
        address = json.loads(await process.stdout.readline())["kafka"]
        warning = (await process.stderr.readline()).decode()
        reader, writer = await asyncio.open_connection(*address.split(":"))
        assert "keeps NOTHING" in warning
        assert list(tmp_path.iterdir())
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
        assert await reader.read() == b""
        writer.close()
    assert list(tmp_path.iterdir()) == []

"""A worker process on a real broker with an embedded index, as operators run it: what it keeps, and what it forgets."""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from streams.settings import Settings
from tests.support import worker_process
from tests.support.kafka import consume, create_topics, eventually, producing

ERASE_WITHIN_SECONDS = 12
BUSY_SECONDS = 8
"""What the test grants beyond, where others use the machine too."""
SECRETS = ("Aachen", "Bamberg", "Celle", "Dresden")
"""Words that stand in nothing but the texts of one user each."""
USERS = ("eve-after", "eve-before", "eve-quiet", "eve-twice")


@dataclass(frozen=True)
class Site:
    """A running worker."""

    settings: Settings
    environment: dict[str, str]
    index: Path

    def ask(self, path: str, status: int = 200) -> Any:
        """The JSON that a route answers."""
        found, body = worker_process.get(f"http://{self.environment['COLDSTREAM_HTTP']}{path}")
        assert found == status, body
        return json.loads(body)

    def counter(self, series: str) -> float:
        """A series of /metrics; 0 where there is none."""
        _, body = worker_process.get(f"http://{self.environment['COLDSTREAM_HTTP']}/metrics")
        return sum(float(line.rpartition(" ")[2]) for line in body.decode().splitlines() if line.startswith(series))

    def run(self, *arguments: str) -> Any:
        """A command's JSON."""
        done = worker_process.run(self.environment, *arguments, "--json")
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    def grep(self, words: tuple[str, ...]) -> list[str]:
        """The index's files that hold one of these words."""
        patterns = [argument for word in words for argument in ("-e", word)]
        done = subprocess.run(
            ["grep", "-rlaF", *patterns, str(self.index)], capture_output=True, text=True, check=False, timeout=60
        )
        return done.stdout.splitlines()


async def _fill(settings: Settings) -> None:
    async with producing(settings) as send:
        for number in range(8):
            item = {"item_id": f"saw{number}", "title": f"Hand saw number {number}", "categories": ["tools"]}
            await send("items", item, key=item["item_id"])


@pytest.fixture(scope="module")
def site(kafka, tmp_path_factory):
    folder = tmp_path_factory.mktemp("worker")
    settings = Settings(kafka=kafka.servers, topic_prefix=f"w{uuid.uuid4().hex[:10]}-")
    asyncio.run(create_topics(settings))
    environment = worker_process.settings(
        kafka.servers, folder, topic_prefix=settings.topic_prefix, erase_within_seconds=str(ERASE_WITHIN_SECONDS),
        kafka_embedded=str(not kafka.apache).lower(),
    )  # fmt: skip
    with worker_process.worker(environment, folder / "log"):
        made = Site(settings, environment, folder / "index")
        asyncio.run(_fill(settings))
        asyncio.run(eventually(lambda: made.counter("coldstream_known_items") == 8))
        yield made


def _event(event_id: str, user: str, kind: str, **fields: Any) -> dict[str, Any]:
    return {"event_id": event_id, "user_id": user, "type": kind, "timestamp": time.time(), **fields}


def _profile(user: str, town: str) -> dict[str, Any]:
    return {"user_id": user, "profile": f"builds boats in {town}"}


def _shown(records: list[Any], user: str) -> list[Any]:
    """The lists of a user in the order of their versions; None for tombstones."""
    mine = sorted((int(one.header("version")), one.value) for one in records if one.key == user.encode())
    return [None if value is None else json.loads(value) for _, value in mine]


async def test_a_tombstone_erases_in_every_order_and_a_later_event_starts_anew(site):
    after, before, quiet, twice = USERS
    async with producing(site.settings) as send:
        for user, town in zip(USERS, SECRETS, strict=True):
            if user != before:
                await send("users", _profile(user, town), key=user)
                await send("events", _event(f"{user}-1", user, "search", query=f"saws from {town}"), key=user)
                await send("events", _event(f"{user}-2", user, "purchase", item_id="saw1"), key=user)
        late = [
            _event(f"{before}-1", before, "search", query=f"saws from {SECRETS[1]}"),
            _event(f"{before}-2", before, "purchase", item_id="saw1"),
        ]
        await consume(
            site.settings, "recommendations",
            lambda all_: all(f"{user}-2" in str(_shown(all_, user)[-1:]) for user in (after, quiet, twice)),
        )  # fmt: skip
        assert site.grep(SECRETS)
        assert site.grep((after,))
        erased_at = time.monotonic()
        for user in USERS:
            await send("users", None, key=user, headers=[("quiet", b"1")] if user == quiet else [])
        await send("users", None, key=twice)
        await consume(site.settings, "recommendations", lambda all_: all(_shown(all_, u)[-1:] == [None] for u in USERS))
        for event in late:  # theirs is the time before the tombstone, whenever they arrive
            await send("events", event, key=before)
    await eventually(lambda: site.counter("coldstream_after_erasure_total") == 2)
    for user in USERS:
        assert site.ask(f"/users/{user}") == {
            "user_id": user, "known": False, "profile": "", "history": [], "taste": []
        }  # fmt: skip

    while site.grep((*SECRETS, *USERS)):
        assert time.monotonic() - erased_at < ERASE_WITHIN_SECONDS + BUSY_SECONDS
        await asyncio.sleep(0.2)

    async with producing(site.settings) as send:
        await send("events", _event(f"{after}-2", after, "click", item_id="saw3"), key=after)  # an id from before
    lists = await consume(site.settings, "recommendations", lambda all_: _shown(all_, after)[-1:] not in ([], [None]))
    newest = _shown(lists, after)[-1]
    assert newest["trigger"]["id"] == f"{after}-2"
    assert "saw1" in {item["item_id"] for item in newest["items"]}, "what was bought before is forgotten"
    story = site.ask(f"/users/{after}")
    assert [one["item_id"] for one in story["history"]] == ["saw3"]
    assert site.grep((after,))
    assert not site.grep((*SECRETS, *USERS[1:]))


async def test_items_leave_and_enter_last_lists_by_themselves(site):
    user, soon = "fay", time.time() + 4
    async with producing(site.settings) as send:
        comes = {"item_id": "comes", "title": "Boat hook of brass", "published_at": soon}
        goes = {"item_id": "goes", "title": "Boat hook of iron", "expires_at": soon}
        stays = {"item_id": "deleted", "title": "Boat hook of wood"}
        for item in (comes, goes, stays):
            await send("items", item, key=item["item_id"])
        await eventually(lambda: site.counter("coldstream_known_items") == 11)
        await send("users", {"user_id": user, "profile": "a boat hook"}, key=user)

        def held(records: list[Any]) -> set[str]:
            lists = _shown(records, user)
            return {item["item_id"] for item in lists[-1]["items"]} if lists else set()

        await consume(site.settings, "recommendations", lambda all_: held(all_) >= {"goes", "deleted"})
        lists = await consume(
            site.settings, "recommendations", lambda all_: "comes" in held(all_) and "goes" not in held(all_)
        )
        assert time.time() >= soon
        assert _shown(lists, user)[-1]["trigger"]["kind"] == "item"
        await send("items", None, key="deleted")
        await consume(site.settings, "recommendations", lambda all_: "deleted" not in held(all_))
        blocked = {"user_id": user, "profile": "a boat hook", "blocked_items": ["comes"],
                   "blocked_categories": ["tools"]}  # fmt: skip
        await send("users", blocked, key=user)
        await consume(site.settings, "recommendations", lambda all_: bool(all_) and not held(all_))
    assert site.ask(f"/recommendations/{user}")["items"] == []


async def test_a_dead_letter_is_mended_and_replayed(site):
    async with producing(site.settings) as send:
        bad = _event("g1", "gus", "click", item_id="saw2")
        bad["timestamp"] = time.time() + 10 * 86_400
        await send("events", bad, key="gus")
    (letter,) = await consume(site.settings, "dead-letters", lambda records: len(records) == 1)
    (listed,) = site.run("dead-letters", "list")
    assert (listed["reason"], listed["topic"]) == ("time", "events")
    mended = site.index.parent / "mended.json"
    mended.write_text(json.dumps(json.loads(letter.value) | {"timestamp": time.time()}))
    assert site.run("dead-letters", "replay", listed["id"], "--value", str(mended)) == [{"replayed": 1}]
    lists = await consume(site.settings, "recommendations", lambda all_: bool(_shown(all_, "gus")))
    assert _shown(lists, "gus")[-1]["trigger"]["id"] == "g1"


def test_every_route_of_the_document_answers_what_it_promises(site):
    document = site.ask("/openapi.json")
    examples = {"{user}": "gus", "{id}": "saw1"}
    questions = {"/items": "?query=saw", "/recommendations/{user}": "?limit=3&category=tools&exclude=saw2&query=a+saw"}
    for path, operations in document["paths"].items():
        url = path + questions.get(path, "")
        for variable, example in examples.items():
            url = url.replace(variable, example)
        status, body = worker_process.get(f"http://{site.environment['COLDSTREAM_HTTP']}{url}")
        assert status == 200, (url, body)
        ((kind, content),) = operations["get"]["responses"]["200"]["content"].items()
        answer = json.loads(body) if kind == "application/json" else body.decode()
        schema = {**content["schema"], "components": document["components"]}
        jsonschema.Draft202012Validator(schema).validate(answer)
        if path == "/recommendations/{user}":
            shown = [item["item_id"] for item in answer["items"]]
            assert len(shown) == 3
            assert "saw2" not in shown
    assert site.ask("/items/nothing/similar", 404)["error"]
    assert site.ask("/recommendations/gus?limit=0", 400)["error"]


def test_commands_ask_the_worker(site):
    (similar,) = site.run("similar", "saw1", "--limit", "3")
    assert [item["rank"] for item in similar["items"]] == [1, 2, 3]
    assert all(item["item_id"].startswith("saw") and item["item_id"] != "saw1" for item in similar["items"])
    done = worker_process.run(site.environment, "similar", "nothing")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "no item 'nothing'" in done.stderr
    (doctor,) = site.run("doctor")
    assert doctor["ok"]
    states = {finding["thing"]: finding["state"] for finding in doctor["findings"]}
    assert set(states) == {"broker", "topics", "index", "disk", "bundle", "provider", "clock", "worker"}
    assert {thing for thing, state in states.items() if state != "ok"} <= {"clock"}

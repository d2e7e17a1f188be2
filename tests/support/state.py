"""What a release leaves behind: an embedded index, and records of its own topics. Kept, and read by every later one.

    python -m tests.support.state FOLDER        writes it: once for each release, into tests/fixtures/state-VERSION

index.zip       the directory of an embedded index after a small shop's day: FILE@SIZE@OFFSET is a part of a file, what is
                in no part is a hole (600 MB of them)
records.json    what stands on its internal topics, by topic: base64 of the values
said.json       what is to be known afterwards, in plain words
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from encoder.hashing import HashingEncoder
from streams.index.edge import EdgeIndex
from streams.ports import Collection
from streams.values import Topic
from tests.support.service import Service

INTERNAL = (Topic.SIGNALS, Topic.REFRESHES, Topic.LESSONS, Topic.MODEL)
ENCODER = HashingEncoder(16)
PART = 1 << 16


async def live(service: Service) -> dict[str, list[bytes]]:
    """A day in a small shop; returns what was sent to the internal topics."""
    log = service.log
    sent: dict[str, list[bytes]] = {topic.value: [] for topic in INTERNAL}

    async def settle() -> None:
        for message in service.publisher.sent:
            if message.topic in INTERNAL and message.value is not None:
                sent[message.topic.value].append(message.value)
        await service.settle()

    await service.feed(
        *(log.item(f"saw-{number}", f"hand saw for wood {number}", price=number + 0.5, categories=["tools", "saws"])
          for number in range(4)),
        log.item("tea", "green tea from japan", partition=1, attributes={"leaf": "sencha", "grams": 100},
                 published_at=service.clock.at - 5.0, expires_at=service.clock.at + 1e9, description="It is green."),
        log.item("gone", "an old thing"), log.item("gone", None), log.item("out", "sold out", available=False),
    )  # fmt: skip
    await service.feed(log.user("ann", "a hand saw for wood", interests=["tools"], blocked_items=["saw-3"]))
    await service.feed(
        log.event("e1", "ann", "view", "saw-0"), log.event("e2", "ann", "purchase", "saw-1", price=9.5),
        log.event("e3", "ann", "rating", "saw-2", value=4.5), log.event("e4", "ann", "search", query="green tea"),
        log.event("e5", "bob", "like", "tea", partition=1), log.event("e6", "bob", "dislike", "saw-0", partition=1),
        log.event("e7", "eve", "click", "tea"), log.event("e8", "ann", "cart", "not-yet"),
    )  # fmt: skip
    await service.feed(log.user("eve", None))
    await service.feed(log.item("saw-9", "hand saw for wood 9", partition=1))
    await settle()
    await settle()
    await service.feed(*(log.record(Topic.LESSONS, "", value) for value in sent[Topic.LESSONS]))
    await service.parts.learning.publish(service.publisher, now=True)
    await settle()
    return sent


async def said(service: Service) -> dict[str, Any]:
    """What is known of users, items and counts, as plain JSON; what chance and order decide is left out."""
    users = {}
    for user in ("ann", "bob", "eve"):
        state = await service.state(user)
        assert state is not None
        users[user] = {
            "history": [[entry.type.value, entry.item_id, entry.query, entry.value] for entry in state.history],
            "exclusions": sorted(f"{one.type.value} {one.item_id}" for one in state.exclusions),
            "blocked": list(state.profile.blocked_items) if state.profile else [],
            "profile": state.profile.profile if state.profile else None,
            "marker": state.is_marker,
            "events_applied": {str(number): last[0] for number, last in state.applied.get("events", {}).items()},
            "version": state.version,
        }
    columns = service.parts.catalogue.columns
    items = {
        item_id: {
            "title": record.title, "price": record.price, "categories": list(record.categories),
            "attributes": record.attributes, "live": bool(columns.live[row]), "encoder": record.encoder,
            "source": [record.source.partition, record.source.offset] if record.source else None,
            "events": int(columns.counts.events[row]), "positives": int(columns.counts.positives[row]),
        }
        for item_id, row in sorted(columns.rows.items()) if (record := columns.records[row]) is not None
    }  # fmt: skip
    followers = {}
    for point in (await service.index.scan(Collection.STATISTICS)).points:
        followers[point.key] = sorted(json.loads(point.body).get("followers", {}))
    return {"users": users, "items": items, "followers": dict(sorted(followers.items()))}


def _pack(directory: Path, archive: Path) -> None:
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as packed:
        for path in sorted(directory.rglob("*")):
            name = path.relative_to(directory)
            if path.is_dir():
                packed.writestr(zipfile.ZipInfo(f"{name}/"), b"")
                continue
            content = path.read_bytes()
            packed.writestr(zipfile.ZipInfo(f"{name}@{len(content)}@0"), b"")
            for start in range(0, len(content), PART):
                part = content[start : start + PART]
                if part.strip(b"\0"):
                    entry = zipfile.ZipInfo(f"{name}@{len(content)}@{start}.")
                    entry.compress_type = zipfile.ZIP_DEFLATED
                    packed.writestr(entry, part)


def unpack(archive: Path, directory: Path) -> None:
    """The directory as it was, holes staying holes."""
    with zipfile.ZipFile(archive) as packed:
        for entry in packed.infolist():
            name, _, place = entry.filename.partition("@")
            path = directory / name
            if not place:
                path.mkdir(parents=True, exist_ok=True)
                continue
            size, start = (int(number.rstrip(".")) for number in place.split("@"))
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("r+b" if path.exists() else "w+b") as file:
                file.truncate(size)
                file.seek(start)
                file.write(packed.read(entry))


async def _write(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as name:
        index = EdgeIndex(Path(name) / "index")
        service = await Service(index=index, encoder=ENCODER, lessons=1000.0).open()
        sent = await live(service)
        (folder / "said.json").write_text(json.dumps(await said(service), indent=1, ensure_ascii=False) + "\n")
        await index.purge()  # so that nothing but what stands is in the files
        await index.close()
        _pack(Path(name) / "index", folder / "index.zip")
    records = {topic: [base64.b64encode(value).decode() for value in values] for topic, values in sent.items()}
    assert all(records.values()), {topic: len(values) for topic, values in records.items()}
    (folder / "records.json").write_text(json.dumps(records, indent=1) + "\n")


if __name__ == "__main__":
    Path(sys.argv[1]).mkdir(parents=True)
    asyncio.run(_write(Path(sys.argv[1])))

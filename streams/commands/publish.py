"""`coldstream publish`: records from files to a topic, also of other people's shape."""

from __future__ import annotations

import asyncio
import queue
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Final

import click

from streams.errors import ColdstreamError

if TYPE_CHECKING:
    from streams.files import Row
    from streams.settings import Settings
    from streams.values import Message, Topic

EXAMPLES = """\b
Examples:  coldstream publish items catalogue.jsonl.gz
           coldstream publish items products_export.csv --as shopify
           coldstream publish items goods.csv --map item_id=SKU --map title=Name --map categories=Group
           coldstream publish events clicks.jsonl --speed 60
           zcat old.jsonl.gz | coldstream publish events - --quiet
"""
CHUNK: Final = 500
"""Records sent together; each chunk is delivered before the next."""
TICK_SECONDS: Final = 0.05
NOTE_SECONDS: Final = 1.0


@click.command("publish", epilog=EXAMPLES)
@click.argument("topic", type=click.Choice(["items", "users", "events"]))
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option(
    "--as", "shape_name", type=click.Choice(["shopify", "google-merchant"]), help="Whose shape the files have."
)
@click.option(
    "--map", "mapping", multiple=True, metavar="FIELD=COLUMN", help="Take a field from a column (a.b: nested)."
)
@click.option("--rate", type=click.FloatRange(0, min_open=True), help="Records a second at most.")
@click.option(
    "--speed", type=click.FloatRange(0, min_open=True), help="Events in their own time, so many times as fast."
)
@click.option("--quiet", is_flag=True, help="State changes, but no list is made: for back-fills.")
@click.option("--delete", is_flag=True, help="Send a tombstone for each id instead: deletes items, erases users.")
@click.option("--json", "as_json", is_flag=True, help='{"topic", "published", "seconds"} as one line.')
def command(
    *, topic: str, files: tuple[str, ...], shape_name: str | None, mapping: tuple[str, ...], rate: float | None,
    speed: float | None, quiet: bool, delete: bool, as_json: bool,
) -> None:  # fmt: skip
    """Send the records of FILEs (JSON lines or CSV, .gz, - for stdin) to TOPIC; keys are taken from the values.

    Columns named like fields are taken as they are, others are left out. An event without event_id gets one made of the
    file's hash and the record's number, so that publishing a file again changes nothing.
    """
    from streams.commands.output import write_json
    from streams.settings import load
    from streams.values import Topic

    job = Job(Topic(topic), files, shape_name, _parse_mapping(mapping), quiet=quiet, delete=delete)
    if shape_name and job.topic is not Topic.ITEMS:
        raise click.UsageError(f"--as {shape_name} is for items")
    if speed and job.topic is not Topic.EVENTS:
        raise click.UsageError("--speed is for events: nothing else has a timestamp")
    if speed and rate:
        raise click.UsageError("--rate and --speed exclude each other")
    if delete and job.topic is Topic.EVENTS:
        raise click.UsageError("--delete is for items and users: an event can't be taken back")
    started = time.monotonic()
    count = asyncio.run(_publish(load(), job, rate, speed))
    seconds = time.monotonic() - started
    if as_json:
        write_json({"topic": topic, "published": count, "seconds": round(seconds, 3)})
    else:
        click.echo(f"published {count:,} records to {topic} in {seconds:.1f} s")


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be published."""

    topic: Topic
    files: Sequence[str]
    shape_name: str | None
    mapping: Mapping[str, str]
    quiet: bool
    delete: bool

    def values(self, stdin: IO[bytes]) -> Iterator[Row]:
        """The values in the order of the files, with all that they need."""
        from streams.feeds import SHAPES
        from streams.files import hash_file, hash_row, map_fields, read_rows, shape
        from streams.values import Topic

        for path in self.files:
            rows = map_fields(read_rows(path, stdin), self.mapping)
            if self.shape_name:
                rows = SHAPES[self.shape_name](rows)
            stem = ""
            for number, row in enumerate(rows, start=1):
                value = shape(row, self.topic)
                if self.topic is Topic.EVENTS and "event_id" not in value:
                    stem = hash_row(value) if path == "-" else stem or hash_file(path)
                    value["event_id"] = f"{stem}-{number}"
                self._check_key(value, path, number)
                yield value

    def message(self, value: Row) -> Message:
        """The message of a value."""
        from streams.files import KEYS
        from streams.values import Message
        from streams.wire import JSON

        headers = (("quiet", b"1"),) if self.quiet else ()
        body = None if self.delete else JSON.encode(value)
        return Message(self.topic, value[KEYS[self.topic]].encode(), body, headers)

    def _check_key(self, value: Row, path: str, number: int) -> None:
        from streams.files import KEYS

        name = KEYS[self.topic]
        key = value.get(name)
        if not isinstance(key, str) or not key:
            raise ColdstreamError(f"{path} record {number} has no {name}: name its column with --map {name}=COLUMN")


async def _publish(settings: Settings, job: Job, rate: float | None, speed: float | None) -> int:
    """Send all; returns how many."""
    from streams.commands.output import note
    from streams.kafka.publisher import KafkaPublisher

    publisher = KafkaPublisher(settings, idempotent=not settings.kafka_embedded)
    await publisher.start()
    count, noted = 0, time.monotonic()
    try:
        await publisher.load_partitions([job.topic])
        ahead: queue.Queue[Row | Exception | None] = queue.Queue(2 * CHUNK)
        threading.Thread(target=_read_ahead, args=(job, ahead), name="reader", daemon=True).start()
        async for values in _pace(ahead, rate, speed):
            await publisher.send([job.message(value) for value in values])
            count += len(values)
            if time.monotonic() - noted > NOTE_SECONDS:
                noted = time.monotonic()
                note(f"{count:,} records published")
    finally:
        await publisher.stop()
    return count


def _read_ahead(job: Job, ahead: queue.Queue[Row | Exception | None]) -> None:
    """In a thread of its own, so that a slow pipe delays nothing that has come out of it already."""
    try:
        for value in job.values(sys.stdin.buffer):
            ahead.put(value)
        ahead.put(None)
    except Exception as error:  # noqa: BLE001  (raised again where the values are asked for)
        ahead.put(error)


async def _pace(
    ahead: queue.Queue[Row | Exception | None], rate: float | None, speed: float | None
) -> AsyncIterator[list[Row]]:
    """The values in chunks, each as soon as it is due."""
    started, count = time.monotonic(), 0
    values: list[Row] = []
    first: float | None = None
    value = await asyncio.to_thread(ahead.get)
    while value is not None:
        if isinstance(value, Exception):
            if values:
                yield values
            raise value
        due = started
        if rate:
            due += count / rate
        elif speed:
            from streams.wire import to_seconds

            at = to_seconds(value.get("timestamp", ""))
            first = at if first is None else first
            due += (at - first) / speed
        wait = due - time.monotonic()
        if values and (wait > TICK_SECONDS or len(values) >= CHUNK):
            yield values
            values = []
            wait = due - time.monotonic()
        if wait > TICK_SECONDS:
            await asyncio.sleep(wait)
        values.append(value)
        count += 1
        if ahead.empty():
            yield values
            values = []
        value = await asyncio.to_thread(ahead.get) if ahead.empty() else ahead.get_nowait()
    if values:
        yield values


def _parse_mapping(mapping: Sequence[str]) -> dict[str, str]:
    parsed = dict(part.partition("=")[::2] for part in mapping)
    for field, column in parsed.items():
        if not field or not column:
            raise click.UsageError("--map needs FIELD=COLUMN")
    return parsed

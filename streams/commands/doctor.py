"""`coldstream doctor`: each thing that a worker needs, ok or what to do."""

from __future__ import annotations

import asyncio
import ctypes
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

import click

from streams.commands.output import beside, write_json
from streams.errors import ColdstreamError
from streams.settings import Settings, load

EXAMPLES = """\b
Examples:  coldstream doctor
           COLDSTREAM_KAFKA=broker:9092 coldstream doctor --json
"""
FREE_BYTES: Final = 2 << 30
EARLIEST: Final = 1_760_000_000.0  # October 2025: a clock before this release's making is wrong
LATEST: Final = 4_102_444_800.0  # 2100
NEWEST: Final = 50
"""So many records of a partition are looked at."""
AHEAD_SECONDS: Final = 2.0
PARTITIONER: Final = "use one partitioner in all producers: partitioner=murmur2_random in librdkafka and kcat"
CLOCK: Final = "set the clock and let NTP keep it, here and on the brokers: freshness, expiry and erasure depend on it"
RUNTIMES: Final = ("onnxruntime", "onnxruntime-gpu")
TEXT: Final = "Gooseneck kettle for green tea, with a thermometer in its lid. kitchen, tea"
TIMED: Final = 9
SLOW_SECONDS: Final = 0.05
"""A text that takes longer holds up every batch of events that has one."""
UNSYNCHRONISED: Final = 5
"""What adjtimex(2) returns while nothing keeps the clock right (TIME_ERROR)."""


class State(StrEnum):
    """How one thing is."""

    OK = "ok"
    NOTE = "note"
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: the thing, how it is, what was seen, and what to do where it is not ok."""

    thing: str
    state: State
    seen: str
    remedy: str = ""


@click.command("doctor", epilog=EXAMPLES)
@click.option(
    "--json", "as_json", is_flag=True, help="One line of JSON: {ok, findings: [{thing, state, seen, remedy}]}."
)
def command(*, as_json: bool) -> int:
    """Check broker, topics, partitioning, index, disk, encoder, clock and worker; nothing is changed.

    Exit status 1 where something is wrong; a note is worth reading and no failure.
    """
    settings = load()
    findings = list(examine(settings))
    well = all(finding.state is not State.WRONG for finding in findings)
    if as_json:
        write_json({"ok": well, "findings": [asdict(finding) for finding in findings]})
    else:
        _show(findings)
    return 0 if well else 1


def examine(settings: Settings) -> Iterator[Finding]:
    """Every finding, in the order in which they are best mended."""
    yield from check_broker(settings)
    yield from _guarded("index", lambda: check_index(settings))
    yield from _guarded("disk", lambda: check_disk(settings))
    yield from _guarded("encoder", lambda: check_encoder(settings))
    yield from check_clock(time.time())
    yield from check_worker(settings)


def check_broker(settings: Settings) -> Iterator[Finding]:
    """Whether the broker answers, and the topics are as they should be."""
    from streams.kafka.topics import TopicAdmin, find_differences, wanted_topics
    from streams.values import Topic

    async def look() -> Iterator[Finding]:
        started = time.perf_counter()
        async with TopicAdmin(settings) as admin:
            found = await admin.describe()
        milliseconds = 1000 * (time.perf_counter() - started)
        findings = [Finding("broker", State.OK, f"{settings.kafka} answers in {milliseconds:.0f} ms")]
        differences = find_differences(wanted_topics(settings), found)
        for one in differences:
            seen = f"{one.topic}: {one.what} is {one.found}, wanted {one.wanted}"
            thing = "partitioning" if one.what == "partitions" else "topics"
            findings.append(Finding(thing, State.WRONG if one.serious else State.NOTE, seen, one.remedy))
        if not differences:
            findings.append(Finding("topics", State.OK, f"all {len(found)} are as they should be"))
        if {Topic.EVENTS, Topic.USERS} <= found.keys():
            findings += await look_at_records(settings)
        return iter(findings)

    try:
        yield from asyncio.run(look())
    except ColdstreamError as error:
        yield Finding("broker", State.WRONG, str(error), "start one (`coldstream broker`), or set COLDSTREAM_KAFKA")


async def look_at_records(settings: Settings) -> list[Finding]:
    """What the newest records of people tell: whether producers agree about partitions, and clocks about the time."""
    from streams.kafka.follower import Follower
    from streams.values import Topic

    async with Follower(settings, (Topic.EVENTS, Topic.USERS), from_start=False) as follower:
        await follower.rewind(NEWEST)
        records = [record async for some in follower.read_whole() for record in some]
        now = time.time()
        astray = sum(map(follower.is_astray, records))
    findings = []
    if astray:
        seen = f"{astray} of the {len(records)} newest records of events and users lie where murmur2 would not put them"
        findings.append(Finding("partitioning", State.NOTE, seen, PARTITIONER))
    ahead = max((record.time for record in records), default=now) - now
    if ahead > AHEAD_SECONDS:
        seen = f"records are stamped {ahead:,.0f} s later than this machine's clock says"
        findings.append(Finding("clock", State.WRONG, seen, CLOCK))
    return findings


def check_index(settings: Settings) -> Iterator[Finding]:
    """Whether the embedded index can be used, or the server answers, is new enough and has what we need."""
    from streams.errors import IndexUnavailableError
    from streams.index.open import look

    try:
        yield Finding("index", State.OK, asyncio.run(look(settings)))
    except IndexUnavailableError as error:
        remedy = "set COLDSTREAM_INDEX to its REST port; gRPC is on the port after it, else add ?grpc_port=N"
        yield Finding("index", State.WRONG, str(error), remedy)


def check_disk(settings: Settings) -> Iterator[Finding]:
    """Whether there is room under an embedded index."""
    scheme, _, rest = settings.index.partition(":")
    if scheme != "edge":
        return
    folder = Path(rest).absolute()
    there = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(there).free
    seen = f"{free / (1 << 30):.1f} GiB free under {there}"
    if free < FREE_BYTES:
        yield Finding("disk", State.WRONG, seen, f"make room: a rebuild needs a copy, at least {FREE_BYTES >> 30} GiB")
    else:
        yield Finding("disk", State.OK, seen)


def check_encoder(settings: Settings) -> Iterator[Finding]:
    """Whether one runtime is installed, the bundle opens and is whole, runs where it should, and how fast."""
    from encoder import open_bundle

    both = [name for name in RUNTIMES if _is_installed(name)]
    if len(both) > 1:
        remedy = f"pip uninstall {' '.join(both)}, then install the extra cpu or the extra gpu, never both"
        yield Finding("runtime", State.WRONG, f"{' and '.join(both)} are both installed, one over the other", remedy)
    encoder = open_bundle(
        Path(settings.bundle) if settings.bundle else None, provider=settings.provider, threads=settings.encoder_threads
    )
    yield Finding("bundle", State.OK, f"{encoder.name}, {encoder.dimension} numbers, hashes and golden vectors agree")
    seconds = []
    for number in range(TIMED):  # another text each time: what it met lately it remembers
        started = time.perf_counter()
        encoder.encode([f"{TEXT} {number}"])
        seconds.append(time.perf_counter() - started)
    seen = f"{encoder.provider}, {1000 * statistics.median(seconds):.1f} ms for a text of {len(TEXT.split()) + 1} words"
    if settings.provider == "auto" and encoder.provider == "cpu" and Path("/dev/nvidia0").exists():
        remedy = "install the extra gpu instead of cpu, or set COLDSTREAM_PROVIDER=cpu to say that it is meant"
        yield Finding("provider", State.NOTE, f"there is a GPU, and the encoder runs on the CPU: {seen}", remedy)
    elif statistics.median(seconds) > SLOW_SECONDS:
        yield Finding("provider", State.NOTE, seen, "give the worker quicker cores, or COLDSTREAM_ENCODER_THREADS")
    else:
        yield Finding("provider", State.OK, seen)


def _is_installed(name: str) -> bool:
    try:
        return bool(version(name))
    except PackageNotFoundError:
        return False


def check_clock(now: float) -> Iterator[Finding]:
    """Whether the clock can be right: events that are more than a day ahead of their record are refused."""
    if not EARLIEST < now < LATEST:
        yield Finding("clock", State.WRONG, time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(now)), CLOCK)
    elif sys.platform == "linux" and _is_unsynchronised():
        yield Finding("clock", State.NOTE, "the kernel says that nothing synchronises it", CLOCK)
    else:
        yield Finding("clock", State.OK, time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now)))


def _is_unsynchronised() -> bool:
    state = ctypes.create_string_buffer(512)  # struct timex, all zero: mode 0 only reads
    return bool(ctypes.CDLL(None).adjtimex(state) == UNSYNCHRONISED)


def check_worker(settings: Settings) -> Iterator[Finding]:
    """Whether a worker runs at COLDSTREAM_HTTP and is ready, and whether producers agree about partitions."""
    from streams.commands.client import ask, read_counter

    try:
        ask(settings, ["readyz"])
    except ColdstreamError as error:
        yield Finding("worker", State.NOTE, str(error))
        return
    yield Finding("worker", State.OK, f"ready at {settings.http}")
    misrouted = read_counter(settings, "coldstream_misrouted_total")
    if misrouted:
        seen = f"{misrouted:,.0f} records of users came on other partitions"
        yield Finding("partitioning", State.NOTE, seen, PARTITIONER)


def _guarded(thing: str, check: Callable[[], Iterator[Finding]]) -> list[Finding]:
    """A check whose failure is its finding: its sentence says what to do."""
    from encoder import EncoderError

    try:
        return list(check())
    except (ColdstreamError, EncoderError, OSError) as error:
        return [Finding(thing, State.WRONG, str(error))]


def _show(findings: list[Finding]) -> None:
    signs = {State.OK: ("ok", "green"), State.NOTE: ("note", "yellow"), State.WRONG: ("WRONG", "red")}
    for finding in findings:
        sign, colour = signs[finding.state]
        remedy = beside(f"→ {finding.remedy}", 20, hang=2) if finding.remedy else []
        first, *others = beside(finding.seen, 20) + remedy
        click.echo("\n".join([f"{click.style(f'{sign:<6}', colour)}{finding.thing:<13} {first.lstrip()}", *others]))

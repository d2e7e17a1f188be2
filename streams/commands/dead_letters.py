"""`coldstream dead-letters`: look into refused records, and send the mended ones back."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from streams.errors import ColdstreamError

if TYPE_CHECKING:
    from streams.settings import Settings
    from streams.values import Message, Record

F = TypeVar("F", bound=Callable[..., Any])

EXAMPLES = """\b
Examples:  coldstream dead-letters list --reason time
           coldstream dead-letters show 2:17
           coldstream dead-letters show 2:17 --raw > mended.json   # mend it, then
           coldstream dead-letters replay 2:17 --value mended.json
           coldstream dead-letters replay --reason processing      # as they are, after the worker was mended
"""
OURS: Final = ("error", "reason", "topic", "partition", "offset", "failed_at")
"""Headers that a dead letter has beyond its source's."""
CHUNK: Final = 500


@click.group("dead-letters", epilog=EXAMPLES)
def command() -> None:
    """Look into the records that were refused, and send the mended ones back. An ID is PARTITION:OFFSET."""


def _choosing(function: F) -> F:
    function = click.option("--reason", help="Only those refused for this reason: encoding, schema, key, time, …")(
        function
    )
    return click.option("--topic", help="Only those that came from this topic.")(function)


@command.command("list")
@_choosing
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1), help="The newest so many.")
@click.option("--json", "as_json", is_flag=True, help="JSON lines, the original bytes in base64.")
def list_(*, topic: str | None, reason: str | None, limit: int, as_json: bool) -> None:
    """List the newest dead letters, oldest first."""
    from streams.commands.output import shorten, write_json
    from streams.settings import load

    letters = sorted(asyncio.run(_read(load(), _Choice(topic, reason))), key=lambda letter: letter.record.time)[-limit:]
    if as_json:
        for letter in letters:
            write_json(letter.describe())
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bright_black")
    for name in ("id", "failed at", "topic", "reason", "key", "error"):
        table.add_column(name, overflow="fold")
    for letter in letters:
        values = (letter.id, letter["failed_at"], letter["topic"], letter["reason"], letter.key, letter["error"])
        table.add_row(*(Text(shorten(value, 120)) for value in values))
    Console(highlight=False).print(table if letters else "no dead letters")


@command.command("show")
@click.argument("id_", metavar="ID")
@click.option("--raw", is_flag=True, help="The original bytes and nothing else, to be mended.")
@click.option("--json", "as_json", is_flag=True, help="One line, the original bytes in base64.")
def show(*, id_: str, raw: bool, as_json: bool) -> None:
    """Show one dead letter: why it was refused, where it came from, its bytes."""
    from streams.commands.output import clean, write_json
    from streams.settings import load

    (letter,) = asyncio.run(_read(load(), _Choice(ids=(id_,))))
    if raw:
        click.echo(letter.record.value or b"", nl=False)
    elif as_json:
        write_json(letter.describe())
    else:
        for name in OURS:
            click.echo(f"{name:10} {clean(letter[name])}")
        click.echo(f"{'key':10} {clean(letter.key)}")
        click.echo(f"{'value':10} {clean((letter.record.value or b'').decode(errors='replace'))}")


@command.command("replay")
@click.argument("ids", nargs=-1, metavar="[ID]...")
@_choosing
@click.option("--value", type=click.Path(dir_okay=False), help="File with the mended value, of the one ID; - is stdin.")
@click.option("--key", help="The mended key, of the one ID.")
@click.option("--all", "everything", is_flag=True, help="All of them.")
@click.option("--json", "as_json", is_flag=True, help='{"replayed"} as one line.')
def replay(
    *, ids: tuple[str, ...], topic: str | None, reason: str | None, value: str | None, key: str | None,
    everything: bool, as_json: bool,
) -> None:  # fmt: skip
    """Send dead letters back to the topics they came from, as they were or mended. They stay listed."""
    from streams.commands.output import write_json
    from streams.settings import load

    if not (ids or topic or reason or everything):
        raise click.UsageError("say which: IDs, --topic, --reason, or --all")
    if (value or key) and len(ids) != 1:
        raise click.UsageError("--value and --key mend one ID")
    mended = (sys.stdin.buffer.read() if value == "-" else Path(value).read_bytes()) if value else None
    count = asyncio.run(_replay(load(), _Choice(topic, reason, ids), mended, key.encode() if key else None))
    if as_json:
        write_json({"replayed": count})
    else:
        click.echo(f"replayed {count:,} dead letters")


@dataclass(frozen=True, slots=True)
class _Choice:
    topic: str | None = None
    reason: str | None = None
    ids: Sequence[str] = ()

    def takes(self, letter: _Letter) -> bool:
        return (
            (self.topic is None or letter["topic"] == self.topic)
            and (self.reason is None or letter["reason"] == self.reason)
            and (not self.ids or letter.id in self.ids)
        )


@dataclass(frozen=True, slots=True)
class _Letter:
    record: Record

    def __getitem__(self, header: str) -> str:
        return (self.record.header(header) or b"").decode(errors="replace")

    @property
    def id(self) -> str:
        return f"{self.record.partition}:{self.record.offset}"

    @property
    def key(self) -> str:
        return (self.record.key or b"").decode(errors="replace")

    def describe(self) -> dict[str, Any]:
        return {
            "id": self.id,
            **{name: self[name] for name in OURS},
            "key": self.record.key,
            "value": self.record.value,
        }

    def message(self, value: bytes | None, key: bytes | None) -> Message:
        from streams.values import Message, Topic

        headers = tuple(header for header in self.record.headers if header[0] not in OURS)
        try:
            topic = Topic(self["topic"])
        except ValueError as error:
            raise ColdstreamError(
                f"dead letter {self.id} does not name a topic of ours: it can't be replayed"
            ) from error
        mended = self.record.value if value is None else value
        return Message(topic, self.record.key if key is None else key, mended, headers)


async def _read(settings: Settings, choice: _Choice) -> list[_Letter]:
    """The chosen ones of all that there are at this moment. Raises `ColdstreamError` for an ID that is not there."""
    chosen = [letter async for letter in _read_all(settings) if choice.takes(letter)]
    missing = set(choice.ids) - {letter.id for letter in chosen}
    if missing:
        raise ColdstreamError(
            f"there is no dead letter {', '.join(sorted(missing))}: see `coldstream dead-letters list`"
        )
    return chosen


async def _read_all(settings: Settings) -> AsyncIterator[_Letter]:
    from streams.kafka.follower import Follower
    from streams.values import Topic

    async with Follower(settings, (Topic.DEAD_LETTERS,), from_start=True) as follower:
        async for records in follower.read_whole():
            for record in records:
                yield _Letter(record)


async def _replay(settings: Settings, choice: _Choice, value: bytes | None, key: bytes | None) -> int:
    from streams.kafka.publisher import KafkaPublisher

    messages = [letter.message(value, key) for letter in await _read(settings, choice)]
    publisher = KafkaPublisher(settings, idempotent=not settings.kafka_embedded)
    await publisher.start()
    try:
        for start in range(0, len(messages), CHUNK):
            await publisher.send(messages[start : start + CHUNK])
    finally:
        await publisher.stop()
    return len(messages)

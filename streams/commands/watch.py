"""`coldstream watch`: the recommendations as they are made."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Collection
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from rich.console import RenderableType

    from streams.settings import Settings
    from streams.values import Record
    from streams.wire import Recommendation

EXAMPLES = """\b
Examples:  coldstream watch
           coldstream watch 405 655
           coldstream watch --from-start --json | jq .items[0].item_id
"""
READ_SECONDS: Final = 0.5
SHOWN: Final = 5
"""Items of a list that stand in its line at most, as far as they fit; a user that was asked for gets a table of all."""
COLUMNS: Final = (12, 14, 9, 7)
SMALLEST_ROOM: Final = 20
SMALLEST_TITLE: Final = 12
"""Of the last title in a line so much must fit."""


@click.command("watch", epilog=EXAMPLES)
@click.argument("users", nargs=-1, metavar="[USER]...")
@click.option("--from-start", is_flag=True, help="Begin with the last list of everybody, not with the next one.")
@click.option("--count", type=click.IntRange(1), help="End after so many lists.")
@click.option(
    "--json", "as_json", is_flag=True, help='Values as JSON lines; an erased user is {"user_id", "erased": true}.'
)
def command(*, users: tuple[str, ...], from_start: bool, count: int | None, as_json: bool) -> None:
    """Follow the recommendations of everybody, a line each, or of each USER, with items and reasons."""
    from streams.settings import load

    settings = load()
    following = _follow(settings, frozenset(users), from_start=from_start, count=count)
    asyncio.run(_write_lines(following) if as_json else _show(settings, following, whole=bool(users)))


async def _follow(
    settings: Settings, users: Collection[str], *, from_start: bool, count: int | None
) -> AsyncIterator[Record]:
    from streams.kafka.follower import Follower
    from streams.values import Topic

    left = count
    async with Follower(settings, (Topic.RECOMMENDATIONS,), from_start=from_start) as follower:
        while True:
            for record in await follower.read(READ_SECONDS):
                if not users or (record.key or b"").decode(errors="replace") in users:
                    yield record
                    left = None if left is None else left - 1
                    if left == 0:
                        return


async def _write_lines(following: AsyncIterator[Record]) -> None:
    from streams.commands.output import write_json

    async for record in following:
        recommendation = _decode(record)
        user = (record.key or b"").decode(errors="replace")
        value: Any = recommendation if record.value is not None else {"user_id": user, "erased": True}
        if value is None:
            continue
        if sys.stdout.isatty():  # a terminal would obey some characters that JSON leaves as they are
            import msgspec

            click.echo(json.dumps(msgspec.to_builtins(value)))
        else:
            write_json(value)


async def _show(settings: Settings, following: AsyncIterator[Record], *, whole: bool) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    titles: dict[str, str] = {}
    learning = asyncio.create_task(_learn_titles(settings, titles))
    try:
        async for record in following:
            recommendation = _decode(record)
            if recommendation is not None:
                room = console.width - sum(COLUMNS) - len(COLUMNS)
                console.print(_table(recommendation, titles) if whole else _line(recommendation, titles, room))
            elif record.value is None:
                from streams.commands.output import clean

                console.print(f"user {clean((record.key or b'').decode(errors='replace'))} was erased", markup=False)
    finally:
        learning.cancel()


async def _learn_titles(settings: Settings, titles: dict[str, str]) -> None:
    """The titles of the catalogue, as they come. Without them ids are shown."""
    import msgspec

    from streams.kafka.follower import Follower
    from streams.values import Topic

    class Titled(msgspec.Struct):
        item_id: str
        title: str

    decode = msgspec.json.Decoder(Titled).decode
    async with Follower(settings, (Topic.ITEMS,), from_start=True) as follower:
        while True:
            for record in await follower.read(READ_SECONDS):
                try:
                    item = decode(record.value or b"")
                except (msgspec.DecodeError, UnicodeDecodeError):
                    continue  # a tombstone, or no item: its id will do
                titles[item.item_id] = item.title


def _decode(record: Record) -> Recommendation | None:
    """The list of a record; None for an erasure and, with a note, for what is no list."""
    import msgspec

    from streams.commands.output import note
    from streams.wire import Recommendation

    if record.value is None:
        return None
    try:
        return msgspec.json.decode(record.value, type=Recommendation)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        note(f"partition {record.partition} offset {record.offset} is no list: {error}")
        return None


def _line(recommendation: Recommendation, titles: dict[str, str], room: int) -> RenderableType:
    from rich.cells import cell_len
    from rich.table import Table
    from rich.text import Text

    from streams.commands.output import clean, shorten

    table = Table.grid(padding=(0, 1), expand=True)
    for width in COLUMNS:
        table.add_column(width=width, no_wrap=True)
    table.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    names = [clean(titles.get(item.item_id, item.item_id)) for item in recommendation.items[:SHOWN]]
    items = shorten(names[0], max(room, SMALLEST_ROOM)) if names else ""
    for name in names[1:]:
        left = room - cell_len(f"{items} · ")
        if cell_len(name) > left:
            items += f" · {shorten(name, left)}" if left >= SMALLEST_TITLE else ""
            break
        items += f" · {name}"
    table.add_row(
        Text(clean(recommendation.generated_at[11:23]), "bright_black"),
        Text(shorten(recommendation.user_id, 14), "bold"),
        Text(recommendation.strategy.value),
        Text(recommendation.trigger.kind.value, "bright_black"),
        Text(items),
    )
    return table


def _table(recommendation: Recommendation, titles: dict[str, str]) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    from streams.commands.output import clean, shorten

    heading = (
        f"user {clean(recommendation.user_id)} · {recommendation.strategy.value} · version {recommendation.version}"
        f" · {recommendation.trigger.kind.value} {shorten(recommendation.trigger.id, 24)}"
    )
    table = Table(title=Text(heading), title_justify="left", box=None, pad_edge=False, header_style="bright_black")
    table.add_column("", justify="right")
    for name in ("item", "score", "why"):
        table.add_column(name, overflow="fold")
    for item in recommendation.items:
        table.add_row(
            str(item.rank),
            Text(clean(titles.get(item.item_id, item.item_id))),
            f"{item.score:.3f}",
            Text(clean(item.reason.text)),
        )
    return table

"""`coldstream ranker`: see what ranks, stop it from learning, or go back to an earlier state, through the topic `model`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import click

from streams.errors import ColdstreamError

if TYPE_CHECKING:
    from rich.table import Table

    from streams.decide.prior import LearnerState
    from streams.settings import Settings
    from streams.values import Record

EXAMPLES = """\b
Examples:  coldstream ranker show
           coldstream ranker freeze
           coldstream ranker rollback linear-41200-9d1c07a3f2    # a daily state that `show` lists
           coldstream ranker rollback prior
           coldstream ranker unfreeze
"""
TOP: Final = 8
"""Features that are shown, of each kind of user."""
PRIOR: Final = "prior"
KINDS: Final = ("with history", "without")


@click.group("ranker", epilog=EXAMPLES)
def command() -> None:
    """Govern the ranker: what it has learned, whether it learns on, and from where.

    An order is a record on the topic `model`; every worker follows it within seconds.
    """


@command.command("show")
@click.option("--json", "as_json", is_flag=True, help="One line of JSON, with every weight.")
def show(*, as_json: bool) -> None:
    """Show version, lessons, weights by part of the score, experts, and the daily states."""
    from streams.commands.output import write_json
    from streams.settings import load

    found = asyncio.run(_read(load()))
    if as_json:
        write_json(_describe(found))
    else:
        _show(found)


@command.command("freeze")
def freeze() -> None:
    """Let the ranker learn nothing more; its weights of now go on ranking."""
    _order(lambda found: _changed(found.current, frozen=True), "frozen")


@command.command("unfreeze")
def unfreeze() -> None:
    """Let the ranker learn on from the weights of now."""
    _order(lambda found: _changed(found.current, frozen=False), "learning")


@command.command("rollback")
@click.argument("version")
def rollback(*, version: str) -> None:
    """Go back to VERSION, a daily state that `show` lists, or to `prior`, the shipped weights; and freeze.

    Frozen, since what went wrong might be learned again: `coldstream ranker unfreeze` lets it learn on.
    """

    def back(found: _Found) -> LearnerState:
        import msgspec

        state = found.state_of(version)
        return _changed(msgspec.structs.replace(state, offset=found.current.offset), found.current.epoch, frozen=True)

    _order(back, "rolled back and frozen")


@dataclass(frozen=True, slots=True)
class _Found:
    """What lies on the topic: the state that counts, and the daily ones, oldest first, each with its record's time."""

    current: LearnerState
    published_at: float | None
    """None: nothing was ever published, the shipped prior ranks."""
    daily: tuple[tuple[float, LearnerState], ...]

    def state_of(self, version: str) -> LearnerState:
        """The state of that version. Raises `ColdstreamError`."""
        from streams.decide.ranker import Learner

        if version == PRIOR:
            return Learner().state()
        for _, state in reversed(self.daily):
            if _version(state) == version:
                return state
        raise ColdstreamError(f"there is no state {version[:60]!r}: `coldstream ranker show` lists them, and `prior`")


def _version(state: LearnerState) -> str:
    from streams.decide.ranker import Learner

    return Learner(state).model().version


def _changed(state: LearnerState, epoch: int | None = None, *, frozen: bool) -> LearnerState:
    import msgspec

    return msgspec.structs.replace(state, frozen=frozen, epoch=(state.epoch if epoch is None else epoch) + 1)


async def _read(settings: Settings) -> _Found:
    """Everything that is on the topic at this moment."""
    from streams.decide.ranker import Learner, decode_learner
    from streams.flow.learning import CHECKPOINT, MODEL_KEY
    from streams.kafka.follower import Follower
    from streams.values import Topic

    current, published_at = Learner().state(), None
    daily: dict[bytes, Record] = {}
    async with Follower(settings, (Topic.MODEL,), from_start=True) as follower:
        async for records in follower.read_whole():
            for record in records:
                if record.value is None or record.key is None:
                    continue
                if record.key == MODEL_KEY:
                    state = decode_learner(record.value).state()
                    if published_at is None or (state.epoch, state.offset) >= (current.epoch, current.offset):
                        current, published_at = state, record.time
                elif record.key.startswith(CHECKPOINT):
                    daily[record.key] = record
    kept = sorted(daily.values(), key=lambda record: record.time)
    return _Found(
        current, published_at, tuple((record.time, decode_learner(record.value or b"").state()) for record in kept)
    )


def _order(change: Callable[[_Found], LearnerState], done: str) -> None:
    from streams.settings import load

    settings = load()
    state = change(asyncio.run(_read(settings)))
    asyncio.run(_send(settings, state))
    click.echo(f"{done}: {_version(state)}; workers follow within seconds")


async def _send(settings: Settings, state: LearnerState) -> None:
    import msgspec

    from streams.flow.learning import MODEL_KEY
    from streams.kafka.publisher import KafkaPublisher
    from streams.values import Message, Topic

    publisher = KafkaPublisher(settings, idempotent=not settings.kafka_embedded)
    await publisher.start()
    try:
        await publisher.send([Message(Topic.MODEL, MODEL_KEY, msgspec.json.encode(state), partition=0)])
    finally:
        await publisher.stop()


def _describe(found: _Found) -> dict[str, Any]:
    from streams.decide.features import NAMES
    from streams.decide.ranker import Learner
    from streams.flow.learning import Insight
    from streams.wire import to_rfc3339

    learner = Learner(found.current)
    model = learner.model()
    insight = Insight.of(learner, model)
    return {
        "version": model.version,
        "published_at": None if found.published_at is None else to_rfc3339(found.published_at),
        "frozen": found.current.frozen,
        "orders": found.current.epoch,
        "lessons": {"known": found.current.lessons[0], "cold": found.current.lessons[1]},
        "parts": dict(zip(("known", "cold"), insight.parts, strict=True)),
        "experts": {
            kind: dict(zip(learner.experts, map(float, shares), strict=True))
            for kind, shares in zip(("known", "cold"), learner.shares(), strict=True)
        },
        "weights": {
            kind: dict(zip(NAMES, map(float, weights), strict=True))
            for kind, weights in zip(("known", "cold"), model.weights, strict=True)
        },
        "daily": [
            {"version": _version(state), "published_at": to_rfc3339(time), "lessons": sum(state.lessons)}
            for time, state in found.daily
        ],
    }


def _show(found: _Found) -> None:
    from rich.console import Console

    said = _describe(found)
    console = Console(highlight=False)
    state = "frozen: it learns nothing" if said["frozen"] else "learning"
    since = "nothing was learned yet: the shipped prior ranks" if found.published_at is None else said["published_at"]
    console.print(f"[bold]{said['version']}[/]  {state}")
    lessons = said["lessons"]
    console.print(f"{lessons['known']:,} lessons of users with history, {lessons['cold']:,} without; {since}\n")
    console.print(_pairs("part of the score", "share of the weights", said["parts"], "{:.0%}"))
    console.print()
    console.print(_pairs("expert", "share in what ranks", said["experts"], "{:.0%}", most=TOP))
    console.print()
    console.print(_pairs("feature", "weight", said["weights"], "{:+.3f}", most=TOP))
    if found.daily:
        console.print("\n[bright_black]daily states[/]")
        for one in said["daily"]:
            console.print(f"{one['published_at'][:16]}  {one['version']}  {one['lessons']:,} lessons")


def _pairs(what: str, how: str, of: dict[str, dict[str, float]], form: str, most: int | None = None) -> Table:
    """A table of named numbers, those of users with history beside those without, the largest first."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bright_black")
    table.add_column(what, min_width=20)
    for kind in KINDS:
        table.add_column(f"{how}, {kind}", justify="right")
    known, cold = of["known"], of["cold"]
    for name in sorted(known, key=lambda name: -max(abs(known[name]), abs(cold[name])))[:most]:
        table.add_row(Text(name), form.format(known[name]), form.format(cold[name]))
    return table

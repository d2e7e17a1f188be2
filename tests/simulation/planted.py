"""Bugs that are put into the flow on purpose: the simulator must find each (it is tested by them)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from streams.decide import history
from streams.flow import users as flow_users
from streams.flow.batch import Pipeline
from streams.flow.lists import Lists

Patch = Callable[[], list[tuple[Any, str, Any]]]


def _nothing() -> list[tuple[Any, str, Any]]:
    return []


@dataclass(frozen=True, slots=True)
class Bug:
    """A bug and how it is put in: attributes replaced for a while, or an index whose writes ignore their condition."""

    name: str
    patches: Patch = _nothing
    unconditional: bool = False

    @contextmanager
    def planted(self) -> Iterator[None]:
        """The flow with this bug in it."""
        kept = []
        for owner, name, value in self.patches():
            kept.append((owner, name, getattr(owner, name)))
            setattr(owner, name, value)
        try:
            yield
        finally:
            for owner, name, value in reversed(kept):
                setattr(owner, name, value)


def _acknowledge_first() -> list[tuple[Any, str, Any]]:
    prepare = Pipeline.prepare

    async def hasty(self: Pipeline, records: Any) -> Any:
        self._world.ownership.acknowledge(records)
        return await prepare(self, records)

    return [(Pipeline, "prepare", hasty)]


def _signals_after_persist() -> list[tuple[Any, str, Any]]:
    send, persist = Pipeline._send_signals, Pipeline._persist

    async def nothing(_self: Pipeline, _works: Any, _report: Any) -> None:
        return

    async def late(self: Pipeline, batch: Any) -> None:
        await persist(self, batch)
        if (signals := await send(self, batch.users, batch.report)) is not None:
            await signals

    return [(Pipeline, "_send_signals", nothing), (Pipeline, "_persist", late)]


def _lists_are_not_awaited() -> list[tuple[Any, str, Any]]:
    finish = Pipeline.finish

    async def careless(self: Pipeline, batch: Any) -> None:
        batch.lists = None
        await finish(self, batch)

    return [(Pipeline, "finish", careless)]


def _deduplicate_by_id_alone() -> list[tuple[Any, str, Any]]:
    def never(*_: Any) -> bool:
        return False

    return [(history, "is_applied", never), (flow_users, "is_applied", never)]


def _forget_the_marker() -> list[tuple[Any, str, Any]]:
    apply = flow_users.apply_tombstone

    def forgetful(state: Any, source: Any) -> Any:
        state, outcome = apply(state, source)
        return msgspec.structs.replace(state, erased_at=None, erased_source=None, applied={}), outcome

    return [(flow_users, "apply_tombstone", forgetful)]


def _no_second_look() -> list[tuple[Any, str, Any]]:
    async def blind(_self: Lists, _works: Any) -> None:
        return

    return [(Lists, "repair", blind)]


BUGS: Final = (
    Bug("acknowledge before persist", _acknowledge_first),
    Bug("signals after persist", _signals_after_persist),
    Bug("acknowledge before the broker has the lists", _lists_are_not_awaited),
    Bug("deduplicate by event_id alone", _deduplicate_by_id_alone),
    Bug("write without its condition", unconditional=True),
    Bug("marker forgotten", _forget_the_marker),
    Bug("no second look at versions", _no_second_look),
)

"""A small catalogue for tests of ranking: two kinds of item, whose vectors lie apart, and users who like one kind."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from streams.decide.statistics import signals_of
from streams.decide.table import Table
from streams.values import EventType, Interaction, ItemRecord, UserState, Vector

DAY = 86_400.0
NOW = 1_700_000_000.0
DIMENSION = 16
KINDS = ("wine", "bread")


def vector_of(item_id: str) -> Vector:
    """Near its kind's axis; the rest is chance, the same in every run."""
    kind = KINDS.index(item_id.partition("-")[0])
    vector = np.random.default_rng(sum(map(ord, item_id))).normal(0, 0.1, DIMENSION).astype(np.float32)
    vector[kind] += 1.0
    return vector / np.float32(np.linalg.norm(vector))


def record(item_id: str, **changes: object) -> ItemRecord:
    kind, number = item_id.split("-")
    given = {
        "title": f"{kind} number {number}", "categories": (f"{kind}s {int(number) % 4}",), "price": 5.0,
        "attributes": {"maker": f"maker {int(number) % 5}"},
    }  # fmt: skip
    return ItemRecord(item_id, **(given | changes))  # type: ignore[arg-type]


def item_ids(count: int = 20) -> list[str]:
    return [f"{kind}-{number}" for kind in KINDS for number in range(count)]


def filled(count: int = 20) -> Table:
    table = Table(DIMENSION, 1000)
    table.put([(record(item_id), vector_of(item_id)) for item_id in item_ids(count)])
    return table


def interaction(
    item_id: str | None, at: float = NOW, kind: EventType = EventType.CLICK, offset: int = 0, **more: object
) -> Interaction:
    return Interaction(at, 0, offset, kind, item_id, **more)  # type: ignore[arg-type]


def user(*met: str, user_id: str = "u", at: float = NOW - DAY) -> UserState:
    return UserState(
        user_id, history=tuple(interaction(item_id, at + place, offset=place) for place, item_id in enumerate(met))
    )


def live_through(table: Table, users: Sequence[Sequence[str]], at: float = NOW - 10 * DAY) -> None:
    """Let users meet items one after the other, as the stream would tell it."""
    for number, met in enumerate(users):
        for place, item_id in enumerate(met):
            before = user(*met[:place], at=at + 100.0 * number)
            table.observe(signals_of(before, interaction(item_id, at + 100.0 * number + place, offset=place)))

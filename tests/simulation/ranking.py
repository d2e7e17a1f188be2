"""A quick stand-in for ranking: its lists say what state they were made of, so that a list can be checked exactly."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from zlib import crc32

import numpy as np

from streams.decide import table, wording, words
from streams.decide.policy import Policy
from streams.decide.table import Table
from streams.decide.taste import Request
from streams.flow import recommend as flow_recommend
from streams.values import ItemRecord, RankedItem, Ranking, Reason, Strategy, UserState, Vector


def digest(state: UserState) -> str:
    """A fingerprint of what a user did and said."""
    return f"{crc32(repr((state.history, state.exclusions, state.profile)).encode()):08x}"


def taste_of(_columns: Table, request: Request, _policy: Policy) -> Request:
    """In the place of a taste: the request itself."""
    return request


def recommend_tastes(columns: Table, requests: Sequence[Request], _model: Any, _policy: Policy) -> list[Ranking]:
    """Whatever may be shown, in an order that differs from user to user."""
    return [_list(columns, request) for request in requests]


def _list(columns: Table, request: Request) -> Ranking:
    state, now = request.state, request.now if request.clock is None else request.clock
    barred = {exclusion.item_id for exclusion in state.exclusions}
    if state.profile is not None:
        barred |= set(state.profile.blocked_items)
    shown = [
        item_id
        for item_id, row in columns.rows.items()
        if item_id not in barred and (record := columns.records[row]) is not None and record.recommendable(now)
    ]
    shown.sort(key=lambda item_id: crc32(f"{item_id} {state.user_id} {len(state.history)}".encode()))
    items = tuple(RankedItem(item_id, 1.0, {"base": 1.0}, Reason("new", "")) for item_id in shown[: request.limit])
    return Ranking(Strategy.NEWEST, items, digest(state))


def floor_of(_columns: Table, _taste: Vector | None, _ranking: Ranking | None) -> float:
    """Every new item may enter."""
    return -1.0


def vector_of(columns: Table, request: Request) -> Vector | None:
    """The vector of the last item that is known."""
    for interaction in reversed(request.state.history):
        row = columns.rows.get(interaction.item_id or "")
        if row is not None:
            vector = columns.vectors[row].astype(np.float32)
            norm = float(np.linalg.norm(vector))
            return vector / norm if norm else None
    return None


class NoWording:
    """In the place of a table's words, which the stand-in does not read."""

    def reserve(self, _rows: int) -> None:
        return

    def put(self, _row: int, _record: ItemRecord) -> int:
        return -1

    def clear(self, _rows: list[int]) -> None:
        return

    def count(self, _row: int, _grown: float) -> None:
        return

    def weigh(self, _rows: Any) -> None:
        return


@contextmanager
def ranking(*, quick: bool) -> Iterator[None]:
    """The stand-in in the place of the real ranking; or the real one, with a small space of words (tables are made anew
    for each life, and a large one costs milliseconds).
    """
    changes: list[tuple[Any, str, Any]]
    if quick:
        changes = [
            (flow_recommend, "taste_of", taste_of),
            (flow_recommend, "recommend_tastes", recommend_tastes),
            (flow_recommend, "floor_of", floor_of),
            (flow_recommend, "vector_of", vector_of),
            (table, "Wording", NoWording),
        ]
    else:
        changes = [(words, "SPACE", 256), (wording, "SPACE", 256)]
    kept = [(owner, name, getattr(owner, name)) for owner, name, _ in changes]
    for owner, name, value in changes:
        setattr(owner, name, value)
    try:
        yield
    finally:
        for owner, name, value in kept:
            setattr(owner, name, value)

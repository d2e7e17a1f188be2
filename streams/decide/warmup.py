"""Ranking once through, so that everything is compiled before the first user waits.

    python -m streams.decide.warmup        where an image is built

The first time on a machine takes some twenty seconds of a core; then what is kept on disk is read.
"""

from __future__ import annotations

import logging
from typing import Final

import numpy as np

from streams.decide.compiled import forget, keep
from streams.decide.policy import Policy
from streams.decide.ranker import Model
from streams.decide.recommend import learn_vectors, lessons_of, recommend
from streams.decide.statistics import signals_of
from streams.decide.table import Table
from streams.decide.taste import Request
from streams.values import EventType, Interaction, ItemRecord, UserState

log = logging.getLogger(__name__)

_ITEMS: Final = 12
_DIMENSION: Final = 16


def warm_up() -> None:
    """Compile every loop, or read what is kept; what can't be read (a disk that was cut off) is compiled anew."""
    try:
        _rank()
    except Exception:
        if not forget():
            raise
        log.warning("the machine code that was kept can't be read: it is compiled anew", exc_info=True)
        _rank()
    keep()


def _rank() -> None:
    """Make lists for a known and an unknown user of a catalogue of a dozen items, and learn from them."""
    table, chance = Table(_DIMENSION), np.random.default_rng(1)
    vectors = chance.normal(size=(_ITEMS, _DIMENSION)).astype(np.float32)
    items = [ItemRecord(f"{number}", f"item {number}", categories=("any",), price=1.0) for number in range(_ITEMS)]
    table.put(list(zip(items, vectors, strict=True)))
    history: tuple[Interaction, ...] = ()
    for number in (0, 1, 2, 1):
        one = Interaction(float(number + 1), 0, number, EventType.CLICK, f"{number}")
        table.observe(signals_of(UserState("known", history=history), one))
        history = (*history, one)
    requests = [Request(UserState("known", history=history), 9.0), Request(UserState("unknown"), 9.0)]
    recommend(table, requests, Model.prior(), Policy(exclude_seconds={}))
    for lesson in lessons_of(table, requests, [["3"], ["3"]], Policy(exclude_seconds={})):
        if lesson is not None:
            learn_vectors(table, lesson)
    table.put([(ItemRecord("new", "another item"), vectors[0])])


if __name__ == "__main__":
    warm_up()

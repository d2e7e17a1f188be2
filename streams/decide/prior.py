"""The shipped prior: weights learned on other catalogues, and which catalogues those were.

A catalogue is recognised by the CRC32 of its sorted item ids; whoever replays one of them gets the prior that was
learned without it, so that no set is ever judged by what was learned on it.
"""

from __future__ import annotations

import importlib.resources
from collections.abc import Iterable
from functools import cache
from zlib import crc32

import msgspec


class LearnerState(msgspec.Struct, omit_defaults=True):
    """A learner as the topic `model` carries it; arrays by feature name, so that releases may add features."""

    mean: dict[str, float]
    spread: dict[str, float]
    weights: list[dict[str, float]]
    squares: list[dict[str, float]] = []
    gains: list[dict[str, float]] = []
    expert_spreads: list[dict[str, float]] = []
    lessons: tuple[int, int] = (0, 0)
    offset: int = -1
    """The last lesson's offset on its topic."""
    frozen: bool = False
    epoch: int = 0
    """Orders of an operator (freeze, unfreeze, rollback) so far: the greater counts, then the greater offset."""


class Prior(msgspec.Struct, frozen=True):
    """`everything`: learned on all sets; `without`: by the hash of a set, learned on the others."""

    sets: dict[str, str]
    """{hash of the item ids: name of the set}."""
    everything: LearnerState
    without: dict[str, LearnerState] = {}


@cache
def shipped() -> Prior:
    """The prior in the package."""
    data = (importlib.resources.files("streams.decide") / "prior.json").read_bytes()
    return msgspec.json.decode(data, type=Prior)


def hash_of(item_ids: Iterable[str]) -> str:
    """The hash by which a catalogue is recognised: 8 hex digits."""
    return f"{crc32(chr(0).join(sorted(item_ids)).encode()):08x}"


def prior_for(item_ids: Iterable[str]) -> LearnerState:
    """A prior that has never seen this catalogue."""
    return shipped().without.get(hash_of(item_ids), shipped().everything)

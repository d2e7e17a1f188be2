"""What a batch did: travels with the result and is observed once, at the edge."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import NamedTuple

from streams.values import Strategy, TriggerKind


@dataclass(frozen=True, slots=True)
class Emission:
    """One list that was delivered. `seconds`: from the record's time to delivery; None for a repeated list."""

    kind: TriggerKind
    strategy: Strategy
    seconds: tuple[float, ...]
    """One for each new event, profile or refresh that the list answers."""
    arm: str = ""


class Made(NamedTuple):
    """How a list was made: what live quality is told apart by."""

    strategy: str
    arm: str
    ranker: str
    """prior or learned."""


@dataclass(frozen=True, slots=True)
class Reach:
    """What the lists of an arm show of the recommendable items."""

    coverage: float
    """Share of them that stood in a list within the last hour, 0 … 1."""
    gini: float
    """Gini coefficient of their exposure, which fades by half each hour: 0 all alike, 1 one alone; NaN without lists."""
    novelty: float
    """Bits: the mean −log2 of a shown item's share of all events, as in evaluation; NaN without lists."""


@dataclass(frozen=True, slots=True)
class Census:
    """Shares of the recommendable items, 0 … 1, and what lists show of them, by arm."""

    cold: float
    """That nobody has met yet."""
    foreign: float
    """Whose vectors another encoder made; of a sample."""
    reach: Mapping[str, Reach]


@dataclass(slots=True)
class BatchReport:
    """Counts and seconds of one batch."""

    records: Counter[str] = field(default_factory=Counter)
    """By topic."""
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By (topic, outcome): new, redelivery, duplicate, after_erasure, stale, erased, created, …"""
    dead_letters: Counter[str] = field(default_factory=Counter)
    """By reason."""
    emissions: list[Emission] = field(default_factory=list)
    choices: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """New positive choices by (whose list: coldstream or popular; place in it or none; known or cold user)."""
    hits: Counter[tuple[str, str, str, str, str]] = field(default_factory=Counter)
    """The same choices by (whose list; strategy of the user's; arm; cold or warm item; whether it stood in: yes, no)."""
    attributed: Counter[tuple[str, str]] = field(default_factory=Counter)
    """New events that name the list they came from, by (type; listed, elsewhere: not in that list, forgotten)."""
    list_outcomes: Counter[tuple[str, Made]] = field(default_factory=Counter)
    """Lists by (sent, clicked, converted) and how they were made; a list is clicked once, however often."""
    list_ranks: Counter[tuple[str, Made]] = field(default_factory=Counter)
    """Sum of the places (from 1) of the first click, or conversion, of each list, by (clicked, converted) and Made."""
    list_events: Counter[tuple[str, str, str, str]] = field(default_factory=Counter)
    """Events joined with their list by (click or conversion; place; arm; cold or warm item)."""
    list_users: Counter[tuple[str, str]] = field(default_factory=Counter)
    """The same lists by (sent, clicked, converted; known or cold user)."""
    places: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Places of lists by (cold: met by nobody, new: came within seven days, other; arm)."""
    floors: dict[tuple[str, str, str], float] = field(default_factory=dict)
    """Places of lists by (group that may have an exposure floor; all, promised, held: by the group, short: owed and not to
    be had; arm)."""
    first_seconds: list[float] = field(default_factory=list)
    """From each new item's coming to the first list that it stood in."""
    diversities: list[tuple[str, float]] = field(default_factory=list)
    """Of one list of the batch: its arm, and 1 − the mean cosine of two of its items."""
    tombstones: int = 0
    erased: list[str] = field(default_factory=list)
    """Users whose tombstone was sent."""
    conflated: int = 0
    """Triggers that shared another trigger's list."""
    embedded_texts: int = 0
    cached_users: int = 0
    loaded_users: int = 0
    signals: int = 0
    refreshes_sent: int = 0
    refreshes_dropped: int = 0
    """Over the fan-out's budget, or for somebody unknown."""
    lost_writes: int = 0
    """Conditional writes that another writer had won; each was applied again."""
    misrouted: int = 0
    """Records of a user on another partition than the user's home."""
    stages: dict[str, float] = field(default_factory=dict)
    """Seconds by stage."""

    def spend(self, stage: str, seconds: float) -> None:
        """Add seconds to a stage."""
        self.stages[stage] = self.stages.get(stage, 0.0) + seconds

    def add(self, other: BatchReport) -> None:
        """Add another report's counts and seconds."""
        for each in fields(self):
            mine, theirs = getattr(self, each.name), getattr(other, each.name)
            if isinstance(mine, Counter):
                mine.update(theirs)
            elif isinstance(mine, list):
                mine.extend(theirs)
            elif isinstance(mine, dict):
                for key, amount in theirs.items():
                    mine[key] = mine.get(key, 0.0) + amount
            else:
                setattr(self, each.name, mine + theirs)

    @property
    def size(self) -> int:
        """Records in the batch."""
        return self.records.total()

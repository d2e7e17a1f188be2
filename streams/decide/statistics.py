"""What events say about items, for all users: signals, and the bounded statistics that they are folded into.

Everything that is kept is a sum of integers, a minimum, a maximum or a bucket evicted by the greatest seen, so that
the order in which signals of different partitions arrive makes no difference; companions are exact below their bound.
No user is named here: nothing has to be taken back when somebody is erased.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from typing import Annotated, Final

import msgspec

from streams.decide.policy import is_positive
from streams.values import EventType, Interaction, UserState

PREDECESSORS: Final = 20
"""An event is a follower of at most so many items before it."""
PAIR_UNIT: Final = 720
"""Weight of a pair at distance 1; at distance d it is PAIR_UNIT / d, rounded: integers, so that sums commute."""
UNLIKED: Final = 0.3
"""Share of a pair's weight where the following event was not positive."""
HOURS_KEPT: Final = 48
DAYS_KEPT: Final = 90
PERIOD_SECONDS: Final = 45 * 86_400.0
COMPANIONS_KEPT: Final = 256
COMPANIONS_MOST: Final = 512
"""A list of companions that grows beyond MOST is cut to the KEPT heaviest."""


Weight = Annotated[int, msgspec.Meta(ge=0, le=PAIR_UNIT)]
_Number = Annotated[float, msgspec.Meta(ge=-1e12, le=1e12)]
"""Times, gaps and ratings lie far within; what a power of ten beyond would do to integers, nobody could have sent."""


class Signal(msgspec.Struct, frozen=True, array_like=True):
    """What one event says about one item: that it met the item, or (with `follower`) that another followed it."""

    item_id: str
    at: Annotated[float, msgspec.Meta(ge=0.0, le=1e12)]
    positive: bool
    follower: str | None = None
    weight: Weight = 0
    """Of the pair: PAIR_UNIT / distance."""
    rating: _Number | None = None
    gap_seconds: _Number | None = None
    """Since this user last met this item; None the first time."""
    before: tuple[tuple[str, Weight], ...] = ()
    """(item, weight) of each pair in which this item is the follower."""


class Companion(msgspec.Struct, array_like=True):
    """How much one item follows another: all of it, and by the last two periods of 45 days that saw any; how much it
    precedes it (an item that only does that is here with a `total` of 0), and how often they met, in either order.
    """

    total: int = 0
    period: int = 0
    current: int = 0
    previous: int = 0
    back: int = 0
    together: int = 0
    """Pairs, whatever their distance, whose later event was positive."""

    def add(self, weight: int, period: int) -> None:
        """Add a weight of a period; commutes."""
        self.total += weight
        if period > self.period:
            self.previous = self.current if period == self.period + 1 else 0
            self.current = 0
            self.period = period
        if period == self.period:
            self.current += weight
        elif period == self.period - 1:
            self.previous += weight


class ItemStatistics(msgspec.Struct, omit_defaults=True):
    """All that is known of how users in general treat an item: the body of one point of `statistics`."""

    item_id: str
    applied: dict[str, int] = {}
    """Last offset folded in, of each source partition."""
    events: int = 0
    positives: int = 0
    ratings: int = 0
    rating_hundredths: int = 0
    repeats: int = 0
    gap_log_hundredths: int = 0
    """Sum of 100 ln(hours + 1) of the gaps after which users came back to it."""
    first_at: float = math.inf
    last_at: float = -math.inf
    hours: dict[int, list[int]] = {}
    """{hour since the epoch: [events, positive events]}, of the last 48 hours seen."""
    days: dict[int, list[int]] = {}
    """{day since the epoch: [events, positive events]}, of the last 90 days seen."""
    companions: dict[str, Companion] = msgspec.field(default_factory=dict, name="followers")
    version: int = 0
    write_id: str = ""


def signals_of(state_before: UserState, interaction: Interaction, liked_from: float = 4.0) -> list[Signal]:
    """What an event says, given its user's state before it: one signal for its own item, first, then what it follows.

    Each signal belongs to the owner of `signal.item_id`. Empty for a search.
    """
    item_id = interaction.item_id
    if item_id is None:
        return []
    positive = is_positive(interaction, liked_from)
    history, order = state_before.history, interaction.order
    if history and history[-1].order >= order:  # it came late
        history = history[: bisect_left(history, order, key=lambda other: other.order)]
    before = [other for other in history if other.item_id is not None]
    gap = next((interaction.at - other.at for other in reversed(before) if other.item_id == item_id), None)
    signals = [
        Signal(
            item_id,
            interaction.at,
            positive,
            rating=interaction.value if interaction.type is EventType.RATING else None,
            gap_seconds=gap,
        )
    ]
    seen = {item_id}
    pairs: list[tuple[str, int]] = []
    for distance, other in enumerate(reversed(before[-PREDECESSORS:]), start=1):
        if other.item_id is None or other.item_id in seen:
            continue
        seen.add(other.item_id)
        weight = round(PAIR_UNIT * (1.0 if positive else UNLIKED) / distance)
        pairs.append((other.item_id, weight))
        signals.append(Signal(other.item_id, interaction.at, positive, item_id, weight))
    if pairs:
        signals[0] = msgspec.structs.replace(signals[0], before=tuple(pairs))
    return signals


def fold(
    statistics: ItemStatistics | None, item_id: str, source: str, offset: int, signals: Sequence[Signal]
) -> ItemStatistics | None:
    """Statistics with the signals of one record in them; what was given back unchanged when `offset` is not newer.

    `statistics` itself is changed and returned: whoever loses a race reads the point again and folds into that.
    """
    if statistics is None:
        statistics = ItemStatistics(item_id)
    if offset <= statistics.applied.get(source, -1):
        return statistics
    statistics.applied[source] = offset
    for signal in signals:
        if signal.follower is None:
            _count(statistics, signal)
            for other, weight in signal.before:
                preceding = statistics.companions.setdefault(other, Companion())
                preceding.back += weight
                preceding.together += signal.positive
        else:
            following = statistics.companions.setdefault(signal.follower, Companion())
            following.add(signal.weight, period_of(signal.at))
            following.together += signal.positive
    if len(statistics.companions) > COMPANIONS_MOST:
        heaviest = sorted(statistics.companions.items(), key=lambda pair: (-_weight(pair[1]), pair[0]))
        statistics.companions = dict(heaviest[:COMPANIONS_KEPT])
    return statistics


def period_of(at: float) -> int:
    """Number of the period of 45 days that a time lies in."""
    return math.floor(at / PERIOD_SECONDS)


def log_gap(gap_seconds: float) -> float:
    """ln(hours + 1) of a gap: the scale on which repeats are measured."""
    return math.log1p(max(gap_seconds, 0.0) / 3600.0)


def _weight(one: Companion) -> int:
    return one.total + one.back + 4 * (one.current + one.previous)


def _count(statistics: ItemStatistics, signal: Signal) -> None:
    positive = int(signal.positive)
    statistics.events += 1
    statistics.positives += positive
    if signal.rating is not None:
        statistics.ratings += 1
        statistics.rating_hundredths += round(100 * signal.rating)
    if signal.gap_seconds is not None:
        statistics.repeats += 1
        statistics.gap_log_hundredths += round(100 * log_gap(signal.gap_seconds))
    statistics.first_at = min(statistics.first_at, signal.at)
    statistics.last_at = max(statistics.last_at, signal.at)
    _put(statistics.hours, math.floor(signal.at / 3600.0), positive, HOURS_KEPT)
    _put(statistics.days, math.floor(signal.at / 86_400.0), positive, DAYS_KEPT)


def _put(buckets: dict[int, list[int]], number: int, positive: int, kept: int) -> None:
    newest = max(buckets, default=number)
    if number <= newest - kept:
        return
    counts = buckets.setdefault(number, [0, 0])
    counts[0] += 1
    counts[1] += positive
    if number > newest:
        for old in [other for other in buckets if other <= number - kept]:
            del buckets[old]

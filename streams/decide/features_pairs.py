"""Features of pairs: what follows what, and what goes with what."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streams.decide.companions import Pairs
from streams.decide.compiled import compiled
from streams.decide.counts import SIXTY_DAYS, Met
from streams.decide.grids import Batch, Cells, Past
from streams.decide.ragged import Doubles, Floats, Rows
from streams.decide.statistics import PAIR_UNIT, PERIOD_SECONDS
from streams.decide.table import Table

TOGETHER: Final = (
    "mixture", "mixture_brief", "mixture_if_new_user", "lift", "mixture_1", "mixture_2", "mixture_3", "information",
    "information_max", "either_root", "either_log", "either_information", "together_root", "together_log",
    "recent_mixture", "recent_lift",
)  # fmt: skip
_LAST: Final = 3
"""Interactions that have a mixture of their own."""
_FIRST_OF_LAST: Final = TOGETHER.index("mixture_1")
_SMOOTHING: Final = np.float32(5.0)
_LOG_SMOOTHING: Final = np.float32(math.log(5.0))
_NAN: Final = np.float32(np.nan)
_ONE: Final = np.float32(1)
_UNIT: Final = np.float32(1.0 / PAIR_UNIT)
"""What one of the pairs' integer weights is worth, in pairs at distance 1."""


class Times(NamedTuple):
    """What depends on when each list is made. Shape [users]."""

    period: Rows
    fresh: Floats
    """What still counts of the period before the current one."""
    decay: Doubles
    """Of the scaled units of 60 days."""
    totals: Doubles
    """Positive events of 60 days, smoothed."""


class Sums(NamedTuple):
    """What the pairs with one candidate sum to. Shape [candidates]."""

    usual: Floats
    """5 p."""
    rate: Floats
    """Events of all items for each of its own."""
    all: Floats
    brief: Floats
    lately: Floats
    lift: Floats
    lift_lately: Floats
    information: Floats
    information_most: Floats
    root: Floats
    log: Floats
    information_either: Floats
    root_number: Floats
    log_number: Floats


def together(table: Table, batch: Batch, places: Mapping[str, Rows]) -> None:
    """What follows what, as a mixture smoothed by popularity, as lift and information, lately too; and what goes with
    what in either order, by distance and by number.

    With C the pairs of interaction k and candidate j, n their events, p_j the candidate's share and 5 the smoothing, the
    mixture is Σ w_k (C + 5 p_j) / (n_k + 5). Most pairs are 0: each sum is that of a history that nothing follows, in
    closed form, and what the pairs add to it.
    """
    counts, now = table.counts, batch.past.now
    periods = now / PERIOD_SECONDS
    times = Times(
        np.floor(periods).astype(np.int64), (1.0 - periods % 1.0).astype(np.float32), counts.sixty_day_decay(now),
        counts.totals(now)[:, SIXTY_DAYS] + 0.1 * max(len(table), 1),
    )  # fmt: skip
    width, number = batch.cells.rows.shape[1], len(Sums._fields)
    sums = Sums(*np.empty((number, width), np.float32))
    _together(
        batch.cells, batch.past, table.companions.pairs, counts.met, times, np.float32(max(counts.total, 1.0)), sums,
        table.local, places["together"],
    )  # fmt: skip


@compiled
def _together(
    cells: Cells, past: Past, pairs: Pairs, met: Met, times: Times, total: np.float32, sums: Sums,
    local: NDArray[np.int32], places: Rows,
) -> None:  # fmt: skip
    """`local` [rows]: −1 before and after."""
    for user in range(len(cells.sizes)):
        size = cells.sizes[user]
        if not past.length[user]:
            for feature in range(len(places)):
                cells.values[places[feature], user, :size] = _NAN
            continue
        _begin(user, cells, past, met, times, total, sums, local, places)
        for one in range(past.length[user]):
            last = cells.values[places[_FIRST_OF_LAST + min(one, _LAST - 1)], user]
            _count(user, one, past, pairs, met, times, sums, local, last)
        _finish(user, cells, past, met, times, sums, places)
        for place in range(size):
            local[cells.rows[user, place]] = -1


@compiled
def _begin(
    user: int, cells: Cells, past: Past, met: Met, times: Times, total: np.float32, sums: Sums, local: NDArray[np.int32],
    places: Rows,
) -> None:  # fmt: skip
    """The sums of nothing, and what each of the last interactions is of itself where nothing follows it."""
    size = cells.sizes[user]
    for place in range(size):
        row = cells.rows[user, place]
        local[row] = place
        usual = (met.scaled[row, SIXTY_DAYS] * times.decay[user] + 0.1) / times.totals[user]
        sums.usual[place] = _SMOOTHING * np.float32(usual)
        sums.rate[place] = total / (np.float32(met.events[row]) + _ONE)
        for summed in sums[2:]:
            summed[place] = 0
    for one in range(_LAST):
        values = cells.values[places[_FIRST_OF_LAST + one], user]
        values[:size] = _NAN
        if one < past.length[user]:
            log_met = math.log(np.float32(met.events[past.rows[user, one]]) + _SMOOTHING)
            for place in range(size):
                values[place] = math.log(sums.usual[place]) - log_met


@compiled
def _count(
    user: int, one: int, past: Past, pairs: Pairs, met: Met, times: Times, sums: Sums, local: NDArray[np.int32],
    last: Floats,
) -> None:  # fmt: skip
    """Adds the pairs of an interaction to `sums`, and to `last` what it is of itself if it is one of the last."""
    row, share, brief = past.rows[user, one], past.weight[user, one], past.brief[user, one]
    events = np.float32(met.events[row])
    smoothed, lately = events + _SMOOTHING, np.float32(met.scaled[row, SIXTY_DAYS] * times.decay[user]) + _SMOOTHING
    by_root, by_all, by_brief, by_lately = (
        share / math.sqrt(events + _ONE),
        share / smoothed,
        brief / smoothed,
        share / lately,
    )
    for entry in range(pairs.start[row], pairs.start[row] + pairs.length[row]):
        place = local[pairs.item[entry]]
        if place < 0:
            continue
        either, number = _UNIT * pairs.either[entry], np.float32(pairs.together[entry])
        chance = sums.rate[place] / (events + _ONE)
        sums.root[place] += by_root * either
        sums.log[place] += by_all * either
        sums.information_either[place] += share * math.log(_ONE + either * chance)
        sums.root_number[place] += by_root * number
        sums.log_number[place] += by_all * number
        if not pairs.total[entry]:
            continue
        total, usual = _UNIT * pairs.total[entry], sums.usual[place]
        sums.all[place] += by_all * total
        sums.brief[place] += by_brief * total
        sums.lift[place] += share * math.log(_ONE + total / usual)
        information = math.log(_ONE + total * chance)
        sums.information[place] += share * information
        sums.information_most[place] = max(sums.information_most[place], information)
        if one < _LAST:
            last[place] = math.log((total + usual) / smoothed)
        ago, recent = times.period[user] - pairs.period[entry], np.float32(0)
        if ago <= 0:
            recent = _UNIT * (pairs.current[entry] + times.fresh[user] * pairs.previous[entry])
        elif ago == 1:
            recent = _UNIT * times.fresh[user] * pairs.current[entry]
        if recent > 0:
            sums.lately[place] += by_lately * recent
            sums.lift_lately[place] += share * math.log(_ONE + recent / usual)


@compiled
def _finish(user: int, cells: Cells, past: Past, met: Met, times: Times, sums: Sums, places: Rows) -> None:
    """The features from the sums of the pairs, and from what a history is worth that nothing follows."""
    loud = of_all = of_brief = of_lately = expected = expected_lately = np.float32(0)
    for one in range(past.length[user]):
        row, share = past.rows[user, one], past.weight[user, one]
        smoothed = np.float32(met.events[row]) + _SMOOTHING
        lately = np.float32(met.scaled[row, SIXTY_DAYS] * times.decay[user]) + _SMOOTHING
        loud += share
        expected += share * math.log(smoothed)
        expected_lately += share * math.log(lately)
        of_all += share / smoothed
        of_brief += past.brief[user, one] / smoothed
        of_lately += share / lately
    known = _ONE / (_ONE + np.float32(past.length[user]))
    tiny, least, values = np.float32(1e-9), np.float32(1e-4), cells.values
    for place in range(cells.sizes[user]):
        usual, root = sums.usual[place], math.sqrt(np.float32(met.events[cells.rows[user, place]]) + _ONE)
        level = math.log(usual) * (loud - _ONE) + _LOG_SMOOTHING
        mixture = math.log(usual * of_all + sums.all[place] + tiny)
        values[places[0], user, place] = mixture
        values[places[1], user, place] = math.log(usual * of_brief + sums.brief[place] + tiny)
        values[places[2], user, place] = mixture * known
        values[places[3], user, place] = level - expected + sums.lift[place]
        values[places[7], user, place] = sums.information[place]
        values[places[8], user, place] = sums.information_most[place]
        values[places[9], user, place] = sums.root[place] / root
        values[places[10], user, place] = math.log(sums.log[place] + least)
        values[places[11], user, place] = sums.information_either[place]
        values[places[12], user, place] = sums.root_number[place] / root
        values[places[13], user, place] = math.log(sums.log_number[place] + least)
        values[places[14], user, place] = math.log(usual * of_lately + sums.lately[place] + tiny)
        values[places[15], user, place] = level - expected_lately + sums.lift_lately[place]

"""Features of pairs: what follows what, and what goes with what."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from streams.decide.compiled import compiled
from streams.decide.counts import SIXTY_DAYS
from streams.decide.grids import Batch, Grid, Past
from streams.decide.ragged import Rows
from streams.decide.statistics import PAIR_UNIT, PERIOD_SECONDS
from streams.decide.table import Table

TOGETHER: Final = (
    "mixture", "mixture_brief", "mixture_if_new_user", "lift", "mixture_1", "mixture_2", "mixture_3", "information",
    "information_max", "either_root", "either_log", "either_information", "together_root", "together_log",
    "recent_mixture", "recent_lift",
)  # fmt: skip
_SMOOTHING: Final = np.float32(5.0)
_LOG_SMOOTHING: Final = np.float32(math.log(5.0))
_NAN: Final = np.float32(np.nan)
_ONE: Final = np.float32(1)


def together(table: Table, batch: Batch, past: Past, places: Mapping[str, Rows]) -> None:
    """What follows what, as a mixture smoothed by popularity, as lift and information, lately too; and what goes with
    what in either order, by distance and by number.

    With C the pairs of interaction k and candidate j, n their events, p_j the candidate's share and 5 the smoothing, the
    mixture is Σ w_k (C + 5 p_j) / (n_k + 5). Most pairs are 0: each sum is that of a history that nothing follows, in
    closed form, and what the pairs add to it.
    """
    counts, (start, length, pairs) = table.counts, table.companions.arrays
    totals = counts.totals(past.now)[:, SIXTY_DAYS] + 0.1 * max(len(table), 1)
    periods = past.now / PERIOD_SECONDS
    _together(
        batch.rows, batch.sizes, past.rows, past.count, past.weight, past.brief, start, length, pairs["row"],
        pairs["total"], pairs["period"], pairs["current"], pairs["previous"], pairs["either"], pairs["together"],
        np.float32(1.0 / PAIR_UNIT), np.floor(periods).astype(np.int64), (1.0 - periods % 1.0).astype(np.float32),
        counts.scaled, counts.sixty_day_decay(past.now), totals, counts.events, np.float32(max(counts.total, 1.0)),
        table.local, places["together"], batch.values,
    )  # fmt: skip


@compiled
def _together(
    rows: Rows, sizes: Rows, past: Rows, counts: Rows, weight: Grid, brief: Grid, start: Rows, length: Rows,
    companions: NDArray[np.int32], total: NDArray[np.int32], period: NDArray[np.int32], current: NDArray[np.int32],
    previous: NDArray[np.int32], either: NDArray[np.int32], number: NDArray[np.int32], unit: np.float32,
    periods: Rows, fresh: Grid, scaled: NDArray[np.float64], decay: NDArray[np.float64],
    totals: NDArray[np.float64], events: NDArray[np.float64], all_events: np.float32, local: NDArray[np.int32],
    places: Rows, values: Grid,
) -> None:  # fmt: skip
    """`local` [rows]: −1 before and after; `unit`: what one of the pairs' integer weights is worth."""
    width = rows.shape[1]
    usual, log_usual, rate = np.empty(width, np.float32), np.empty(width, np.float32), np.empty(width, np.float32)
    sums = np.empty((width, 12), np.float32)
    for user in range(len(sizes)):
        size, count = sizes[user], counts[user]
        if not count:
            for feature in range(len(places)):
                values[places[feature], user, :size] = _NAN
            continue
        for place in range(size):
            row = rows[user, place]
            local[row] = place
            usual[place] = _SMOOTHING * np.float32((scaled[row, 4] * decay[user] + 0.1) / totals[user])  # 5 p_j
            log_usual[place] = math.log(usual[place])
            rate[place] = all_events / (np.float32(events[row]) + _ONE)
            sums[place] = 0
        loud = mixed = mixed_brief = mixed_lately = expected = expected_lately = np.float32(0)
        for one in range(count):
            row, share = past[user, one], weight[user, one]
            met, lately = np.float32(events[row]), np.float32(scaled[row, 4] * decay[user])
            log_met = math.log(met + _SMOOTHING)
            loud += share
            expected += share * log_met
            expected_lately += share * math.log(lately + _SMOOTHING)
            of_all, of_brief = share / (met + _SMOOTHING), brief[user, one] / (met + _SMOOTHING)
            of_lately, of_root = share / (lately + _SMOOTHING), share / math.sqrt(met + _ONE)
            mixed, mixed_brief, mixed_lately = mixed + of_all, mixed_brief + of_brief, mixed_lately + of_lately
            if one < 3:
                for place in range(size):
                    values[places[4 + one], user, place] = log_usual[place] - log_met
            for entry in range(start[row], start[row] + length[row]):
                place = local[companions[entry]]
                if place < 0:
                    continue
                pair, pairs, often = unit * either[entry], unit * total[entry], np.float32(number[entry])
                chance, cell = rate[place] / (met + _ONE), sums[place]
                cell[6] += of_root * pair
                cell[7] += of_all * pair
                cell[8] += share * math.log(_ONE + pair * chance)
                cell[9] += of_root * often
                cell[10] += of_all * often
                if not total[entry]:
                    continue
                cell[0] += of_all * pairs
                cell[1] += of_brief * pairs
                cell[2] += share * math.log(_ONE + pairs / usual[place])
                shared = math.log(_ONE + pairs * chance)
                cell[3] += share * shared
                cell[4] = max(cell[4], shared)
                if one < 3:
                    values[places[4 + one], user, place] = math.log(pairs + usual[place]) - log_met
                ago, recent = periods[user] - period[entry], np.float32(0)
                if ago <= 0:
                    recent = unit * (current[entry] + fresh[user] * previous[entry])
                elif ago == 1:
                    recent = unit * fresh[user] * current[entry]
                if recent > 0:
                    cell[5] += of_lately * recent
                    cell[11] += share * math.log(_ONE + recent / usual[place])
        known = _ONE / (_ONE + np.float32(count))
        tiny, least = np.float32(1e-9), np.float32(1e-4)
        constant, constant_lately = _LOG_SMOOTHING - expected, _LOG_SMOOTHING - expected_lately
        for missing in range(count, 3):
            values[places[4 + missing], user, :size] = _NAN
        for place in range(size):
            cell, root = sums[place], _ONE / math.sqrt(np.float32(events[rows[user, place]]) + _ONE)
            mixture, level = math.log(usual[place] * mixed + cell[0] + tiny), log_usual[place] * (loud - _ONE)
            values[places[0], user, place] = mixture
            values[places[1], user, place] = math.log(usual[place] * mixed_brief + cell[1] + tiny)
            values[places[2], user, place] = mixture * known
            values[places[3], user, place] = level + constant + cell[2]
            values[places[7], user, place] = cell[3]
            values[places[8], user, place] = cell[4]
            values[places[9], user, place] = cell[6] * root
            values[places[10], user, place] = math.log(cell[7] + least)
            values[places[11], user, place] = cell[8]
            values[places[12], user, place] = cell[9] * root
            values[places[13], user, place] = math.log(cell[10] + least)
            values[places[14], user, place] = math.log(usual[place] * mixed_lately + cell[5] + tiny)
            values[places[15], user, place] = level + constant_lately + cell[11]
            local[rows[user, place]] = -1

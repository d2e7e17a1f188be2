"""Features of behaviour: popularity, arrival, repeats."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from streams.decide.arrivals import came_by
from streams.decide.compiled import compiled
from streams.decide.counts import DAY_SECONDS
from streams.decide.grids import Batch, Grid, Past
from streams.decide.ragged import Rows
from streams.decide.statistics import log_gap
from streams.decide.table import Table
from streams.values import Exclusion, Interaction, UserState

POPULAR: Final = (
    "popular_6h", "popular_1d", "popular_4d", "popular_14d", "popular_60d", "popular_ever", "met_ever",
    "positive_share", "usual_popularity", "unmet", "quiet", "popular_if_new_user",
)  # fmt: skip
ARRIVAL: Final = (
    "age", "age_6h", "age_2d", "age_14d", "age_90d", "age_1y", "since", "since_10", "since_50", "since_200", "velocity",
    "velocity_24h", "usual_age", "fresh_dense", "fresh_popular",
)  # fmt: skip
REPEATS: Final = ("repeat", "repeat_count", "repeat_age", "repeat_share", "repeat_gap")

_AGES: Final = np.array([0.25, 2.0, 14.0, 90.0, 365.0], np.float32) * 24.0
_SINCE: Final = np.array([10.0, 50.0, 200.0], np.float32)
_USUAL_GAP: Final = log_gap(30 * DAY_SECONDS)
_NAN: Final = np.float32(np.nan)
_ONE: Final = np.float32(1)
_LITTLE: Final = np.float32(0.3)


def popularity(table: Table, batch: Batch, past: Past, places: Mapping[str, Rows]) -> None:
    """How often the candidate is met, by horizon, and how usual that is for this user. `places`: of features, by group."""
    counts = table.counts
    _popularity(
        batch.rows, batch.sizes, past.rows, past.count, past.weight, past.now, counts.scaled, counts.decay(past.now),
        counts.events, counts.positives, counts.last_at, places["popular"], batch.values,
    )  # fmt: skip


@compiled
def _popularity(
    rows: Rows, sizes: Rows, past: Rows, counts: Rows, weight: Grid, now: NDArray[np.float64],
    scaled: NDArray[np.float64], decay: NDArray[np.float64], events: NDArray[np.float64], positives: NDArray[np.float64],
    last_at: NDArray[np.float64], places: Rows, values: Grid,
) -> None:  # fmt: skip
    """`scaled` [rows, horizons] times `decay` [users, horizons] are recent positive events."""
    for user in range(len(sizes)):
        count = counts[user]
        usual = np.float32(0) if count else _NAN
        for one in range(count):
            usual += weight[user, one] * math.log(np.float32(positives[past[user, one]]) + _LITTLE)
        known = _ONE / (_ONE + np.float32(count))
        for place in range(sizes[user]):
            row = rows[user, place]
            for horizon in range(5):
                recent = np.float32(scaled[row, horizon] * decay[user, horizon])
                values[places[horizon], user, place] = math.log(recent + _LITTLE)
            met, liked = np.float32(events[row]), np.float32(positives[row])
            ever = math.log(liked + _LITTLE)
            values[places[5], user, place] = ever
            values[places[6], user, place] = math.log(met + _ONE)
            values[places[7], user, place] = math.log((liked + np.float32(3)) / (met + np.float32(5)))
            values[places[8], user, place] = -abs(ever - usual)
            values[places[9], user, place] = met == 0
            quiet = _NAN
            if last_at[row] > -np.inf:
                quiet = math.log(_ONE + np.float32(max(now[user] - last_at[row], 0.0) / 3600.0))
            values[places[10], user, place] = quiet
            values[places[11], user, place] = values[places[3], user, place] * known


def arrival(table: Table, batch: Batch, past: Past, places: Mapping[str, Rows]) -> None:
    """How long the candidate has been there, how many came since, how fast it is met. After text and popularity."""
    arrivals = table.arrivals
    _arrival(
        batch.rows, batch.sizes, past.rows, past.count, past.at, past.now, arrivals.at, *arrivals.sorted_times,
        table.counts.events, places["arrival"], places["fresh"], batch.values,
    )  # fmt: skip


@compiled
def _arrival(
    rows: Rows, sizes: Rows, past: Rows, counts: Rows, met_at: NDArray[np.float64], now: NDArray[np.float64],
    at: NDArray[np.float64], times: NDArray[np.float64], late: NDArray[np.float64], gone: NDArray[np.float64],
    events: NDArray[np.float64], places: Rows, fresh: Rows, values: Grid,
) -> None:  # fmt: skip
    """`times`, `late` less `gone`: of all arrivals, sorted. `fresh`: the features that age_2d is multiplied with."""
    half = np.float32(0.5)
    for user in range(len(sizes)):
        usual, known = 0.0, 0
        for one in range(counts[user]):
            age = met_at[user, one] - at[past[user, one]]
            if age < np.inf:
                usual += math.log(1.0 + max(age, 0.0) / 3600.0)
                known += 1
        usual = usual / known if known else np.nan
        until = came_by(times, late, gone, now[user])
        for place in range(sizes[user]):
            row = rows[user, place]
            if at[row] == -np.inf:
                for feature in range(len(places)):
                    values[places[feature], user, place] = _NAN
                continue
            hours = np.float32(max(now[user] - at[row], 0.0) / 3600.0)
            since = np.float32(max(until - came_by(times, late, gone, at[row]), 0))
            age, met = math.log(hours + _ONE), np.float32(events[row]) + half
            values[places[0], user, place] = age
            for scale in range(len(_AGES)):
                values[places[1 + scale], user, place] = math.exp(-hours / _AGES[scale])
            values[places[6], user, place] = math.log(since + _ONE)
            for scale in range(len(_SINCE)):
                values[places[7 + scale], user, place] = math.exp(-since / _SINCE[scale])
            values[places[10], user, place] = math.log(met / (hours + _ONE))
            values[places[11], user, place] = math.log(met / (hours + np.float32(24)))
            values[places[12], user, place] = -abs(age - np.float32(usual))
            values[places[13], user, place] = values[places[2], user, place] * values[fresh[0], user, place]
            values[places[14], user, place] = values[places[2], user, place] * values[fresh[1], user, place]


def repeats(table: Table, batch: Batch, past: Past, places: Mapping[str, Rows]) -> None:
    """Whether, how often and when the user met the item, beside when users in general come back to it."""
    met = [_met(table, taste.request.state) for taste in batch.tastes]
    ends = np.cumsum([0, *map(len, met)])
    flat = [one for mine in met for one in mine]
    counts, rows = table.counts, np.array([row for row, _ in flat], np.int64)
    _repeats(
        batch.rows, batch.sizes, past.now, ends, rows, np.array([at for _, at in flat], np.float64), counts.events,
        counts.repeats, counts.gap_log_sum, _USUAL_GAP, table.local, places["repeats"], batch.values,
    )  # fmt: skip


@compiled
def _repeats(
    rows: Rows, sizes: Rows, now: NDArray[np.float64], ends: Rows, met: Rows, at: NDArray[np.float64],
    events: NDArray[np.float64], returned: NDArray[np.float64], gaps: NDArray[np.float64], usual_gap: float,
    local: NDArray[np.int32], places: Rows, values: Grid,
) -> None:  # fmt: skip
    """`met` at `at`, from ends[user] to ends[user + 1]: a user's meetings. `local` [rows]: −1 before and after."""
    for user in range(len(sizes)):
        size = sizes[user]
        values[places[0], user, :size] = 0
        for feature in range(1, len(places)):
            values[places[feature], user, :size] = _NAN
        for place in range(size):
            local[rows[user, place]] = place
        for one in range(ends[user], ends[user + 1]):
            place = local[met[one]]
            if place < 0:
                continue
            first = values[places[0], user, place] == 0
            values[places[0], user, place] = 1
            count, age = values[places[1], user, place], max(now[user] - at[one], 0.0) / 3600.0
            values[places[1], user, place] = 1 if first else count + 1
            if first or age < values[places[2], user, place]:
                values[places[2], user, place] = age
        for place in range(size):
            row = rows[user, place]
            local[row] = -1
            if values[places[0], user, place]:
                since = math.log(values[places[2], user, place] + _ONE)
                usual = np.float32((gaps[row] + 2 * usual_gap) / (returned[row] + 2))
                values[places[1], user, place] = math.log(values[places[1], user, place])
                values[places[2], user, place] = since
                values[places[3], user, place] = math.log((returned[row] + 0.5) / (events[row] + 5.0))
                values[places[4], user, place] = -abs(since - usual)


def _met(table: Table, state: UserState) -> list[tuple[int, float]]:
    """(row, time) of each meeting with an item that exclusions and history tell of, once each."""
    held = table.rows
    entries: tuple[Exclusion | Interaction, ...] = (*state.exclusions[-160:], *state.history)
    return list({(held[one.item_id], one.at): None for one in entries if one.item_id in held})  # type: ignore[index]

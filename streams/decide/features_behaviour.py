"""Features of behaviour: popularity, arrival, repeats."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from streams.decide.arrivals import Moments, came_by
from streams.decide.compiled import compiled
from streams.decide.counts import DAY_SECONDS, Met
from streams.decide.grids import Batch, Cells, Past
from streams.decide.ragged import Doubles, Rows
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


def popularity(table: Table, batch: Batch, places: Mapping[str, Rows]) -> None:
    """How often the candidate is met, by horizon, and how usual that is for this user. `places`: of features, by group."""
    counts = table.counts
    _popularity(batch.cells, batch.past, counts.met, counts.decay(batch.past.now), places["popular"])


@compiled
def _popularity(cells: Cells, past: Past, met: Met, decay: Doubles, places: Rows) -> None:
    """`decay` [users, horizons]: what scaled units are worth."""
    values = cells.values
    for user in range(len(cells.sizes)):
        count, usual = past.length[user], 0.0
        for one in range(count):
            usual += past.weight[user, one] * math.log(np.float32(met.positives[past.rows[user, one]]) + _LITTLE)
        known = _ONE / (_ONE + np.float32(count))
        for place in range(cells.sizes[user]):
            row = cells.rows[user, place]
            for horizon in range(5):
                recent = np.float32(met.scaled[row, horizon] * decay[user, horizon])
                values[places[horizon], user, place] = math.log(recent + _LITTLE)
            events, positives = np.float32(met.events[row]), np.float32(met.positives[row])
            ever, hours = math.log(positives + _LITTLE), max(past.now[user] - met.last_at[row], 0.0) / 3600.0
            values[places[5], user, place] = ever
            values[places[6], user, place] = math.log(events + _ONE)
            values[places[7], user, place] = math.log((positives + np.float32(3)) / (events + np.float32(5)))
            values[places[8], user, place] = -abs(ever - usual) if count else _NAN
            values[places[9], user, place] = events == 0
            values[places[10], user, place] = math.log(_ONE + np.float32(hours)) if hours < np.inf else _NAN
            values[places[11], user, place] = values[places[3], user, place] * known


def arrival(table: Table, batch: Batch, places: Mapping[str, Rows]) -> None:
    """How long the candidate has been there, how many came since, how fast it is met. After text and popularity."""
    moments, events = table.arrivals.moments, table.counts.events
    _arrival(batch.cells, batch.past, moments, events, places["arrival"], places["fresh"])


@compiled
def _arrival(cells: Cells, past: Past, moments: Moments, events: Doubles, places: Rows, fresh: Rows) -> None:
    """`fresh`: the features that age_2d is multiplied with."""
    half, values = np.float32(0.5), cells.values
    for user in range(len(cells.sizes)):
        usual, until = _usual_age(user, past, moments), came_by(moments, past.now[user])
        for place in range(cells.sizes[user]):
            row = cells.rows[user, place]
            if moments.at[row] == -np.inf:
                for feature in range(len(places)):
                    values[places[feature], user, place] = _NAN
                continue
            hours = np.float32(max(past.now[user] - moments.at[row], 0.0) / 3600.0)
            since = np.float32(max(until - came_by(moments, moments.at[row]), 0))
            age, met = math.log(hours + _ONE), np.float32(events[row]) + half
            values[places[0], user, place] = age
            for scale in range(len(_AGES)):
                values[places[1 + scale], user, place] = math.exp(-hours / _AGES[scale])
            values[places[6], user, place] = math.log(since + _ONE)
            for scale in range(len(_SINCE)):
                values[places[7 + scale], user, place] = math.exp(-since / _SINCE[scale])
            values[places[10], user, place] = math.log(met / (hours + _ONE))
            values[places[11], user, place] = math.log(met / (hours + np.float32(24)))
            values[places[12], user, place] = -abs(age - usual)
            values[places[13], user, place] = values[places[2], user, place] * values[fresh[0], user, place]
            values[places[14], user, place] = values[places[2], user, place] * values[fresh[1], user, place]


@compiled
def _usual_age(user: int, past: Past, moments: Moments) -> float:
    """Mean ln(hours + 1) of the items' ages when the user met them; NaN where unknown."""
    total, known = 0.0, 0
    for one in range(past.length[user]):
        age = past.at[user, one] - moments.at[past.rows[user, one]]
        if age < np.inf:
            total += math.log(1.0 + max(age, 0.0) / 3600.0)
            known += 1
    return total / known if known else math.nan


def repeats(table: Table, batch: Batch, places: Mapping[str, Rows]) -> None:
    """Whether, how often and when the user met the item, beside when users in general come back to it."""
    met = [_met(table, taste.request.state) for taste in batch.tastes]
    flat = [one for mine in met for one in mine]
    rows, at = np.array([row for row, _ in flat], np.int64), np.array([at for _, at in flat], np.float64)
    ends = np.cumsum([0, *map(len, met)])
    _repeats(batch.cells, batch.past.now, ends, rows, at, table.counts.met, table.local, places["repeats"])


@compiled
def _repeats(
    cells: Cells, now: Doubles, ends: Rows, rows: Rows, at: Doubles, met: Met, local: NDArray[np.int32], places: Rows
) -> None:
    """Users met `rows` at `at`, each from ends[user] to ends[user + 1]. `local` [rows]: −1 before and after."""
    values = cells.values
    for user in range(len(cells.sizes)):
        size = cells.sizes[user]
        values[places[0], user, :size] = 0
        for feature in range(1, len(places)):
            values[places[feature], user, :size] = _NAN
        for place in range(size):
            local[cells.rows[user, place]] = place
        for one in range(ends[user], ends[user + 1]):
            place = local[rows[one]]
            if place >= 0:
                hours = max(now[user] - at[one], 0.0) / 3600.0
                first = values[places[0], user, place] == 0
                values[places[0], user, place] = 1
                values[places[1], user, place] = 1 if first else values[places[1], user, place] + 1
                values[places[2], user, place] = hours if first else min(values[places[2], user, place], hours)
        for place in range(size):
            row = cells.rows[user, place]
            local[row] = -1
            if values[places[0], user, place]:
                since = math.log(values[places[2], user, place] + _ONE)
                usual = (met.gap_log_sum[row] + 2 * _USUAL_GAP) / (met.repeats[row] + 2)
                values[places[1], user, place] = math.log(values[places[1], user, place])
                values[places[2], user, place] = since
                values[places[3], user, place] = math.log((met.repeats[row] + 0.5) / (met.events[row] + 5.0))
                values[places[4], user, place] = -abs(since - usual)


def _met(table: Table, state: UserState) -> list[tuple[int, float]]:
    """(row, time) of each meeting with an item that exclusions and history tell of, once each."""
    held = table.rows
    entries: tuple[Exclusion | Interaction, ...] = (*state.exclusions[-160:], *state.history)
    return list({(held[one.item_id], one.at): None for one in entries if one.item_id in held})

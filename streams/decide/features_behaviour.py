"""Features of behaviour: popularity, what goes with what, arrival, repeats."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from streams.decide.candidates import Company
from streams.decide.counts import DAY_SECONDS, SIXTY_DAYS
from streams.decide.grids import Batch, Grid, Pairs, Past
from streams.decide.ragged import Rows
from streams.decide.statistics import log_gap
from streams.decide.table import Table
from streams.decide.taste import Taste
from streams.values import Exclusion, Interaction, UserState

_SMOOTHING: Final = 5.0
_AGES: Final = np.array([0.25, 2.0, 14.0, 90.0, 365.0], np.float32) * 24.0
_SINCE: Final = np.array([10.0, 50.0, 200.0], np.float32)
_USUAL_GAP: Final = log_gap(30 * DAY_SECONDS)


def popularity(table: Table, batch: Batch, past: Past) -> dict[str, Grid]:
    """How often the candidate is met, by horizon, and how usual that is for this user."""
    grids: dict[str, Grid] = {}
    counts, rows = table.counts, batch.rows
    recent = np.log(counts.recent(rows, past.now).astype(np.float32) + np.float32(0.3))
    for place, name in enumerate(("popular_6h", "popular_1d", "popular_4d", "popular_14d", "popular_60d")):
        grids[name] = recent[:, :, place]
    events, positives = counts.events[rows].astype(np.float32), counts.positives[rows].astype(np.float32)
    grids["popular_ever"] = np.log(positives + np.float32(0.3))
    grids["met_ever"] = np.log1p(events)
    grids["positive_share"] = np.log((positives + 3) / (events + 5))
    usual = (np.log(counts.positives[past.rows].astype(np.float32) + np.float32(0.3)) * past.weight).sum(axis=1)
    known = np.where(past.there[:, 0], usual, np.nan)
    grids["usual_popularity"] = -np.abs(grids["popular_ever"] - known[:, None])
    grids["unmet"] = (events == 0).astype(np.float32)
    hours = np.maximum(past.now[:, None] - counts.last_at[rows], 0.0) / 3600.0
    grids["quiet"] = np.where(np.isfinite(hours), np.log1p(hours), np.nan).astype(np.float32)
    return grids


def pairs_of(table: Table, rows: Rows, sizes: Rows, now: NDArray[np.float64], company: Company) -> Pairs:
    """The entries of `company` that are candidates of that user; `rows` [users, candidates], `now` [users]."""
    ends = np.searchsorted(company.user, np.arange(len(rows) + 1))
    local = np.full(len(table.live), -1, np.int32)
    places = np.empty(len(company.user), np.int32)
    for one in range(len(rows)):
        mine, found = slice(ends[one], ends[one + 1]), rows[one, : sizes[one]]
        local[found] = np.arange(len(found))
        places[mine] = local[company.companion[mine]]
        local[found] = -1
    known = np.flatnonzero(places >= 0)
    user, candidate = company.user[known], places[known].astype(np.int64)
    width, weights = rows.shape[1], table.companions.weights(company.entry[known], now[user])
    return Pairs(
        (len(rows), width),
        user,
        company.place[known],
        candidate,
        user * width + candidate,
        *weights,
    )


def together(table: Table, batch: Batch, past: Past) -> dict[str, Grid]:
    """What follows what, as a mixture smoothed by popularity, as lift and information, lately too; and what goes with
    what in either order, by distance and by number.

    With C the pairs of interaction k and candidate j, n their events, p_j the candidate's share and 5 the smoothing, the
    mixture is Σ w_k (C + 5 p_j) / (n_k + 5). Most pairs are 0: each sum is that of a history that nothing follows, in
    closed form, and what the entries of `batch.pairs` add to it.
    """
    grids: dict[str, Grid] = {}
    pairs, counts, nothing = batch.pairs, table.counts, past.unless_cold
    totals = counts.totals(past.now)[:, SIXTY_DAYS]
    sixty = counts.sixty_of(batch.rows, past.now)
    usual = (_SMOOTHING * (sixty + 0.1) / (totals[:, None] + 0.1 * max(len(table), 1))).astype(np.float32)  # 5 p_j
    met = counts.events[past.rows].astype(np.float32)
    events = counts.events[batch.rows].astype(np.float32)
    weights, at = past.weight * past.there, (pairs.user, pairs.place)
    seen, of_candidate = met[at], events.ravel()[pairs.cell]
    grids["mixture"] = _mixture(pairs, weights, pairs.weight, usual, met) + nothing
    grids["mixture_brief"] = _mixture(pairs, past.brief, pairs.weight, usual, met) + nothing
    grids["mixture_if_new_user"] = grids["mixture"] / (1.0 + past.count[:, None])
    grids["lift"] = _lift(pairs, weights, pairs.weight, usual, met) + nothing
    log_usual, log_met = np.log(usual), np.log(met + _SMOOTHING)
    log_pair = np.log(pairs.weight + usual.ravel()[pairs.cell]) - log_met[at]
    for place in range(3):
        here = np.flatnonzero(pairs.place == place)
        grid = log_usual - np.where(past.there[:, place], log_met[:, place], np.float32(np.nan))[:, None]
        grid.ravel()[pairs.cell[here]] = log_pair[here]
        grids[f"mixture_{place + 1}"] = grid
    rate = np.float32(max(counts.total, 1.0)) / ((seen + 1) * (of_candidate + 1))
    shared = np.log1p(pairs.weight * rate)
    grids["information"] = pairs.added(weights[at] * shared) + nothing
    grids["information_max"] = pairs.greatest(shared, np.zeros_like(usual)) + nothing
    root, smoothed = weights[at] / np.sqrt(seen + np.float32(1)), weights[at] / (seen + np.float32(_SMOOTHING))
    for name, entries in (("either", pairs.either), ("together", pairs.together)):
        grids[f"{name}_root"] = pairs.added(root * entries) / np.sqrt(events + np.float32(1)) + nothing
        grids[f"{name}_log"] = np.log(pairs.added(smoothed * entries) + np.float32(1e-4)) + nothing
    grids["either_information"] = pairs.added(weights[at] * np.log1p(pairs.either * rate)) + nothing
    lately = counts.sixty_of(past.rows, past.now).astype(np.float32)
    grids["recent_mixture"] = _mixture(pairs, weights, pairs.recent, usual, lately) + nothing
    grids["recent_lift"] = _lift(pairs, weights, pairs.recent, usual, lately) + nothing
    return grids


def _mixture(pairs: Pairs, weights: Grid, entries: Grid, usual: Grid, met: Grid) -> Grid:
    """The mixture's logarithm, ln Σ w (C + 5 p) / (n + 5).

    `weights` and `met` (n) [users, interactions], `entries` (C) [entries], `usual` (5 p) [users, candidates].
    """
    shares = weights / (met + np.float32(_SMOOTHING))
    gathered = pairs.added(shares[pairs.user, pairs.place] * entries)
    return np.asarray(np.log(usual * shares.sum(axis=1, keepdims=True) + gathered + np.float32(1e-9)))


def _lift(pairs: Pairs, weights: Grid, entries: Grid, usual: Grid, met: Grid) -> Grid:
    """The log lift, Σ w ln((C + 5 p) / (n + 5)) − ln p."""
    log_usual, expected = np.log(usual), (weights * np.log(met + np.float32(_SMOOTHING))).sum(axis=1, keepdims=True)
    gained = np.log1p(entries / usual.ravel()[pairs.cell])
    added = pairs.added(weights[pairs.user, pairs.place] * gained)
    whole = weights.sum(axis=1, keepdims=True) - 1
    return np.asarray(log_usual * whole - expected + added + np.float32(np.log(_SMOOTHING)))


def arrival(table: Table, batch: Batch, past: Past) -> dict[str, Grid]:
    """How long the candidate has been there, how many came since, how fast it is met."""
    grids: dict[str, Grid] = {}
    at = table.arrivals.at[batch.rows]
    known = np.isfinite(at)
    hours = np.where(known, np.maximum(past.now[:, None] - at, 0.0) / 3600.0, np.nan).astype(np.float32)
    log_hours = np.log1p(hours)
    grids["age"] = log_hours
    for scale, name in zip(_AGES, ("age_6h", "age_2d", "age_14d", "age_90d", "age_1y"), strict=True):
        grids[name] = np.exp(-hours / scale)
    since = table.arrivals.since(np.where(known, at, 0.0), past.now[:, None]).astype(np.float32)
    since = np.where(known, since, np.nan)
    grids["since"] = np.log1p(since)
    for scale, name in zip(_SINCE, ("since_10", "since_50", "since_200"), strict=True):
        grids[name] = np.exp(-since / scale)
    events = table.counts.events[batch.rows].astype(np.float32)
    grids["velocity"] = np.log((events + np.float32(0.5)) / (hours + 1))
    grids["velocity_24h"] = np.log((events + np.float32(0.5)) / (hours + 24))
    met = np.stack([_ages_met(table, taste) for taste in batch.tastes])
    grids["usual_age"] = -np.abs(log_hours - met[:, None])
    return grids


def _ages_met(table: Table, taste: Taste) -> np.float32:
    """Mean ln(hours + 1) of the items' ages when the user met them; NaN where unknown."""
    ages = np.array([one.at for one in taste.interactions]) - table.arrivals.at[taste.rows]
    known = np.isfinite(ages)
    return np.float32(np.log1p(np.maximum(ages[known], 0.0) / 3600.0).mean()) if known.any() else np.float32(np.nan)


def repeats(table: Table, batch: Batch) -> dict[str, Grid]:
    """Whether, how often and when the user met the item, beside when users in general come back to it."""
    shape = batch.rows.shape
    repeat = np.zeros(shape, np.float32)
    count, age, share, gap = (np.full(shape, np.nan, np.float32) for _ in range(4))
    for user, taste in enumerate(batch.tastes):
        times = _times_met(taste.request.state)
        rows = np.array([table.rows.get(item_id, -1) for item_id in times], np.int64)
        candidates = batch.rows[user, : batch.sizes[user]]
        order = np.argsort(candidates)
        spots = np.minimum(np.searchsorted(candidates, rows, sorter=order), max(len(candidates) - 1, 0))
        met = np.flatnonzero(candidates[order[spots]] == rows) if len(candidates) else spots[:0]
        if not len(met):
            continue
        places, rows = order[spots[met]], rows[met]
        instants = [list(times.values())[one] for one in met.tolist()]
        since = np.log1p(np.maximum(taste.request.now - np.array([max(one) for one in instants]), 0.0) / 3600.0)
        returns = table.counts.repeats[rows]
        usual = (table.counts.gap_log_sum[rows] + 2 * _USUAL_GAP) / (returns + 2)
        repeat[user, places], age[user, places] = 1.0, since
        count[user, places] = np.log([len(one) for one in instants])
        share[user, places] = np.log((returns + 0.5) / (table.counts.events[rows] + 5.0))
        gap[user, places] = -np.abs(since - usual)
    return {"repeat": repeat, "repeat_count": count, "repeat_age": age, "repeat_share": share, "repeat_gap": gap}


def _times_met(state: UserState) -> dict[str, set[float]]:
    """When the user met each item that their exclusions and history tell of."""
    times: dict[str, set[float]] = {}
    entries: tuple[Exclusion | Interaction, ...] = (*state.exclusions[-160:], *state.history)
    for one in entries:
        if one.item_id is not None:
            times.setdefault(one.item_id, set()).add(one.at)
    return times

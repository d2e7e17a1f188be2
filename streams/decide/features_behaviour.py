"""Features of behaviour: popularity, what follows what, arrival, repeats."""

from __future__ import annotations

from typing import Final

import numpy as np

from streams.decide.candidates import Following
from streams.decide.counts import DAY_SECONDS, SIXTY_DAYS
from streams.decide.grids import Batch, Grid, Past, mixed
from streams.decide.statistics import log_gap
from streams.decide.table import Table
from streams.decide.taste import HISTORY, Taste
from streams.values import Exclusion, Interaction

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


def follows(table: Table, batch: Batch, past: Past, following: Following) -> dict[str, Grid]:
    """What follows what: as cosine, as a mixture smoothed by popularity, as lift and information; lately too."""
    grids: dict[str, Grid] = {}
    users, width = batch.rows.shape
    weight, recent = (np.zeros((users, HISTORY, width), np.float32) for _ in range(2))
    local = np.full(len(table.live), -1, np.int32)
    ends = np.searchsorted(following.user, np.arange(users + 1))
    for user in range(users):
        mine = slice(ends[user], ends[user + 1])
        found = batch.rows[user, : batch.sizes[user]]
        local[found] = np.arange(len(found))
        places = local[following.follower[mine]]
        known = places >= 0
        weight[user, following.place[mine][known], places[known]] = following.weight[mine][known]
        recent[user, following.place[mine][known], places[known]] = following.recent[mine][known]
        local[found] = -1
    batch.follows = weight
    totals = table.counts.totals(past.now)[:, SIXTY_DAYS]
    sixty = table.counts.recent(batch.rows, past.now)[:, :, SIXTY_DAYS]
    chance = ((sixty + 0.1) / (totals[:, None] + 0.1 * max(len(table), 1))).astype(np.float32)
    log_chance = np.log(chance)
    met = table.counts.events[past.rows].astype(np.float32)[:, :, None]
    events = table.counts.events[batch.rows].astype(np.float32)
    nothing = past.unless_cold
    weights = past.weight * past.there
    grids["follows_root"] = (
        mixed(weights, weight / np.sqrt(met + np.float32(1))) / np.sqrt(events + np.float32(1)) + nothing
    )
    grids["follows_log"] = np.log(mixed(weights, weight / (met + _SMOOTHING)) + np.float32(1e-4)) + nothing
    mixture = (weight + _SMOOTHING * chance[:, None, :]) / (met + _SMOOTHING)
    logs = np.log(mixture)
    grids["mixture"] = np.log(mixed(weights, mixture) + np.float32(1e-9)) + nothing
    grids["mixture_brief"] = np.log(mixed(past.brief, mixture) + np.float32(1e-9)) + nothing
    for place in range(3):
        grids[f"mixture_{place + 1}"] = np.where(past.there[:, place : place + 1], logs[:, place, :], np.nan)
    grids["mixture_max"] = np.where(past.there[:, :, None], logs, -30).max(axis=1) + nothing
    grids["mixture_if_new_user"] = grids["mixture"] / (1.0 + past.count[:, None])
    grids["lift"] = mixed(weights, logs) - log_chance + nothing
    shared = np.log1p(weight * (max(table.counts.total, 1.0) / ((met + 1) * (events[:, None, :] + 1))))
    grids["information"] = mixed(weights, shared) + nothing
    grids["information_max"] = shared.max(axis=1) + nothing
    sums = np.bincount(following.user * HISTORY + following.place, following.recent, minlength=users * HISTORY)
    pairs = sums.reshape(users, HISTORY, 1).astype(np.float32)
    mixture = (recent + _SMOOTHING * chance[:, None, :]) / (pairs + _SMOOTHING)
    grids["recent_mixture"] = np.log(mixed(weights, mixture) + np.float32(1e-9)) + nothing
    grids["recent_lift"] = mixed(weights, np.log(mixture)) - log_chance + nothing
    return grids


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
        state = taste.request.state
        times: dict[str, list[float]] = {}
        entries: tuple[Exclusion | Interaction, ...] = (*state.exclusions[-160:], *state.history)
        for one in entries:
            if one.item_id is not None:
                times.setdefault(one.item_id, []).append(one.at)
        if not times:
            continue
        for place, row in enumerate(batch.rows[user, : batch.sizes[user]].tolist()):
            met = times.get(table.ids[row])
            if met is None:
                continue
            since = log_gap(taste.request.now - max(met))
            returns = table.counts.repeats[row]
            usual = (table.counts.gap_log_sum[row] + 2 * _USUAL_GAP) / (returns + 2)
            repeat[user, place], count[user, place], age[user, place] = 1.0, np.log(len(set(met))), since
            share[user, place] = np.log((returns + 0.5) / (table.counts.events[row] + 5.0))
            gap[user, place] = -abs(since - usual)
    return {"repeat": repeat, "repeat_count": count, "repeat_age": age, "repeat_share": share, "repeat_gap": gap}

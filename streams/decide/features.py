"""What the ranker sees of a user and a candidate: one number a feature, for all users of a batch at once.

Arrays are [users, candidates], padded; the history is [users, interactions]. NaN means that a feature has nothing to say;
it then counts as the average. Definitions and what each group brings: docs/quality.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from streams.decide.candidates import Following
from streams.decide.counts import DAY_SECONDS, SIXTY_DAYS
from streams.decide.ragged import Ragged, Rows
from streams.decide.statistics import log_gap
from streams.decide.table import Table
from streams.decide.taste import HISTORY, Taste
from streams.decide.words import KINDS, SPACE

Grid = NDArray[np.float32]
"""Shape [users, candidates]."""

HISTORY_PART: Final = "history"
SIMILAR_USERS_PART: Final = "similar_users"
POPULAR_PART: Final = "popular"
NEW_PART: Final = "new"
PROFILE_PART: Final = "profile"
WISH_PART: Final = "wish"

FEATURES: Final[dict[str, str]] = {
    **dict.fromkeys(
        ("dense_mean", "dense_brief", "dense_max", "dense_last", "dense_liked", "dense_low", "lexical_mean",
         "lexical_brief", "dense_if_rare", "lexical_if_rare", "dense_if_new_user", "facet_title", "facet_category",
         "facet_categories", "facet_attributes", "price", "usual_popularity", "repeat", "repeat_count", "repeat_age", "repeat_share",
         "repeat_gap"), HISTORY_PART),
    **dict.fromkeys(
        ("follows_text", "follows_root", "follows_log", "mixture", "mixture_brief", "mixture_1", "mixture_2",
         "mixture_3", "mixture_max", "lift", "information", "information_max", "recent_mixture", "recent_lift", "mixture_if_new_user"),
        SIMILAR_USERS_PART),
    **dict.fromkeys(
        ("popular_6h", "popular_1d", "popular_4d", "popular_14d", "popular_60d", "popular_ever", "met_ever",
         "positive_share", "unmet", "quiet", "facet_popular", "category_popular", "popular_if_new_user"), POPULAR_PART),
    **dict.fromkeys(
        ("age", "age_6h", "age_2d", "age_14d", "age_90d", "age_1y", "since", "since_10", "since_50", "since_200",
         "velocity", "velocity_24h", "fresh_dense", "fresh_popular", "usual_age"), NEW_PART),
    **dict.fromkeys(("profile_dense", "profile_lexical"), PROFILE_PART),
    **dict.fromkeys(("wish_dense", "wish_lexical"), WISH_PART),
}  # fmt: skip
"""Every feature, in order, with the part of the score that it belongs to."""
NAMES: Final = tuple(FEATURES)
PLACE: Final = {name: place for place, name in enumerate(NAMES)}

_SMOOTHING: Final = 5.0
_EXPECTED: Final = 64
_AGES: Final = np.array([0.25, 2.0, 14.0, 90.0, 365.0], np.float32) * 24.0
_SINCE: Final = np.array([10.0, 50.0, 200.0], np.float32)


@dataclass(slots=True)
class Batch:
    """Users with candidates, and their features."""

    tastes: Sequence[Taste]
    rows: Rows
    """[users, candidates], 0 beyond `sizes`."""
    sizes: NDArray[np.int64]
    values: Grid
    """[users, candidates, features]; NaN: nothing to say."""
    similarity: Grid
    """[users, interactions, candidates]: dense cosine, for reasons."""
    follows: Grid
    """[users, interactions, candidates]: pairs at distance 1, for reasons."""


def compute(table: Table, tastes: Sequence[Taste], candidates: Sequence[Rows], following: Following) -> Batch:
    """The features of each user's candidates."""
    users, width = len(tastes), max((len(rows) for rows in candidates), default=0)
    sizes = np.array([len(rows) for rows in candidates])
    rows = np.zeros((users, width), np.int64)
    for user, found in enumerate(candidates):
        rows[user, : len(found)] = found
    batch = Batch(tastes, rows, sizes, np.full((users, width, len(NAMES)), np.nan, np.float32), *_nothing(users, width))
    if not width:
        return batch
    grids: dict[str, Grid] = {}
    history = _History.of(tastes)
    now = np.array([taste.request.now for taste in tastes])
    _text(table, batch, history, following, grids)
    _popularity(table, batch, history, now, grids)
    _follows(table, batch, history, following, now, grids)
    _facets(table, batch, history, now, grids)
    _arrival(table, batch, history, now, grids)
    _repeats(table, batch, grids)
    _words(table, batch, grids)
    for name, grid in grids.items():
        batch.values[:, :, PLACE[name]] = grid
    return batch


@dataclass(slots=True)
class _History:
    """The tastes of a batch, padded to the same length."""

    rows: Rows
    there: NDArray[np.bool_]
    weight: Grid
    brief: Grid
    liking: Grid
    count: NDArray[np.float32]

    @classmethod
    def of(cls, tastes: Sequence[Taste]) -> _History:
        shape = (len(tastes), HISTORY)
        rows = np.zeros(shape, np.int64)
        there = np.zeros(shape, np.bool_)
        weight, brief, liking = (np.zeros(shape, np.float32) for _ in range(3))
        for user, taste in enumerate(tastes):
            length = len(taste.rows)
            rows[user, :length], there[user, :length] = taste.rows, True
            weight[user, :length], brief[user, :length], liking[user, :length] = taste.weight, taste.brief, taste.liking
        return cls(rows, there, weight, brief, liking, there.sum(axis=1).astype(np.float32))


def _nothing(users: int, width: int) -> tuple[Grid, Grid]:
    return np.zeros((users, HISTORY, width), np.float32), np.zeros((users, HISTORY, width), np.float32)


def _mixed(weights: Grid, values: Grid) -> Grid:
    """Σ over interactions: [users, interactions] with [users, interactions, candidates]."""
    return np.asarray(np.matmul(weights[:, None, :], values)[:, 0, :])


def _text(table: Table, batch: Batch, history: _History, following: Following, grids: dict[str, Grid]) -> None:
    vectors = table.short[batch.rows]
    past = table.short[history.rows] * history.there[:, :, None]
    sims = np.matmul(past, vectors.transpose(0, 2, 1))
    batch.similarity = sims
    warm = history.there[:, :1]
    nothing = np.where(warm, np.float32(0), np.float32(np.nan))
    grids["dense_mean"] = _mixed(history.weight, sims) + nothing
    grids["dense_brief"] = _mixed(history.brief, sims) + nothing
    grids["dense_max"] = sims.max(axis=1) + nothing
    grids["dense_last"] = sims[:, 0, :] + nothing
    grids["dense_liked"] = _mixed(history.weight * np.maximum(history.liking, 0), sims) + nothing
    grids["dense_low"] = _mixed(history.weight * np.maximum(-history.liking, 0), sims) + nothing
    lexical = _matched(table.wording.terms, "term", "weight", batch.rows, history, (history.weight, history.brief))
    grids["lexical_mean"], grids["lexical_brief"] = lexical[0] + nothing, lexical[1] + nothing
    rare = 1.0 / (1.0 + table.counts.positives[batch.rows].astype(np.float32))
    grids["dense_if_rare"] = grids["dense_mean"] * rare
    grids["lexical_if_rare"] = grids["lexical_mean"] * rare
    grids["dense_if_new_user"] = grids["dense_mean"] / (1.0 + history.count[:, None])
    expected = np.zeros((len(batch.tastes), vectors.shape[2]), np.float32)
    ends = np.searchsorted(following.user, np.arange(len(batch.tastes) + 1))
    for user, taste in enumerate(batch.tastes):
        mine = slice(ends[user], ends[user + 1])
        if mine.stop > mine.start:
            share = taste.weight / (table.counts.events[taste.rows] + _SMOOTHING)
            weights = following.weight[mine] * share[following.place[mine]]
            followers = following.follower[mine]
            if len(weights) > _EXPECTED:
                heaviest = np.argpartition(-weights, _EXPECTED)[:_EXPECTED]
                weights, followers = weights[heaviest], followers[heaviest]
            expected[user] = weights.astype(np.float32) @ table.short[followers]
    expected /= np.maximum(np.linalg.norm(expected, axis=1, keepdims=True), 1e-6)
    grids["follows_text"] = np.matmul(vectors, expected[:, :, None])[:, :, 0] + nothing


def _matched(
    pool: Ragged, name: str, weight: str, rows: Rows, history: _History, shares: Sequence[Grid]
) -> list[Grid]:
    """For each of `shares` (weights of interactions), Σ over terms of what the history has of it × what the candidate has."""
    users, width = rows.shape
    there = np.flatnonzero(history.there)
    owner, flat = pool.gather(history.rows.ravel()[there])
    terms = pool[name][flat]
    local = np.full(SPACE, -1, np.int32)
    distinct, inverse = np.unique(terms, return_inverse=True)
    local[distinct] = np.arange(len(distinct))
    said = pool[weight][flat]
    cells = (there[owner] // HISTORY) * len(distinct) + inverse
    owner_c, flat_c = pool.gather(rows.ravel())
    places = local[pool[name][flat_c]]
    known = places >= 0
    owner_c, places, has = owner_c[known], places[known], pool[weight][flat_c[known]]
    lookup = (owner_c // width) * len(distinct) + places
    found = []
    for share in shares:
        profile = np.bincount(cells, said * share.ravel()[there][owner], minlength=users * len(distinct))
        grid = np.bincount(owner_c, profile[lookup] * has, minlength=users * width) if len(distinct) else np.zeros(users * width)
        found.append(grid.reshape(users, width).astype(np.float32))
    return found


def _popularity(
    table: Table, batch: Batch, history: _History, now: NDArray[np.float64], grids: dict[str, Grid]
) -> None:
    counts, rows = table.counts, batch.rows
    recent = np.log(counts.recent(rows, now).astype(np.float32) + np.float32(0.3))
    for place, name in enumerate(("popular_6h", "popular_1d", "popular_4d", "popular_14d", "popular_60d")):
        grids[name] = recent[:, :, place]
    events, positives = counts.events[rows].astype(np.float32), counts.positives[rows].astype(np.float32)
    grids["popular_ever"] = np.log(positives + np.float32(0.3))
    grids["met_ever"] = np.log1p(events)
    grids["positive_share"] = np.log((positives + 3) / (events + 5))
    grids["popular_if_new_user"] = grids["popular_14d"] / (1.0 + history.count[:, None])
    usual = (np.log(counts.positives[history.rows].astype(np.float32) + np.float32(0.3)) * history.weight).sum(axis=1)
    known = np.where(history.there[:, 0], usual, np.nan)
    grids["usual_popularity"] = -np.abs(grids["popular_ever"] - known[:, None])
    grids["unmet"] = (events == 0).astype(np.float32)
    hours = np.maximum(now[:, None] - counts.last_at[rows], 0.0) / 3600.0
    grids["quiet"] = np.where(np.isfinite(hours), np.log1p(hours), np.nan).astype(np.float32)


def _follows(
    table: Table, batch: Batch, history: _History, following: Following, now: NDArray[np.float64], grids: dict[str, Grid]
) -> None:
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
    totals = table.counts.totals(now)[:, SIXTY_DAYS]
    sixty = table.counts.recent(batch.rows, now)[:, :, SIXTY_DAYS]
    chance = ((sixty + 0.1) / (totals[:, None] + 0.1 * max(len(table), 1))).astype(np.float32)
    log_chance = np.log(chance)
    met = table.counts.events[history.rows].astype(np.float32)[:, :, None]
    events = table.counts.events[batch.rows].astype(np.float32)
    nothing = np.where(history.there[:, :1], np.float32(0), np.float32(np.nan))
    weights = history.weight * history.there
    grids["follows_root"] = _mixed(weights, weight / np.sqrt(met + 1)) / np.sqrt(events + 1) + nothing
    grids["follows_log"] = np.log(_mixed(weights, weight / (met + _SMOOTHING)) + np.float32(1e-4)) + nothing
    mixture = (weight + _SMOOTHING * chance[:, None, :]) / (met + _SMOOTHING)
    logs = np.log(mixture)
    grids["mixture"] = np.log(_mixed(weights, mixture) + np.float32(1e-9)) + nothing
    grids["mixture_brief"] = np.log(_mixed(history.brief, mixture) + np.float32(1e-9)) + nothing
    for place in range(3):
        grids[f"mixture_{place + 1}"] = np.where(history.there[:, place : place + 1], logs[:, place, :], np.nan)
    grids["mixture_max"] = np.where(history.there[:, :, None], logs, -30).max(axis=1) + nothing
    grids["mixture_if_new_user"] = grids["mixture"] / (1.0 + history.count[:, None])
    grids["lift"] = _mixed(weights, logs) - log_chance + nothing
    shared = np.log1p(weight * (max(table.counts.total, 1.0) / ((met + 1) * (events[:, None, :] + 1))))
    grids["information"] = _mixed(weights, shared) + nothing
    grids["information_max"] = shared.max(axis=1) + nothing
    sums = np.bincount(following.user * HISTORY + following.place, following.recent, minlength=users * HISTORY)
    pairs = sums.reshape(users, HISTORY, 1).astype(np.float32)
    mixture = (recent + _SMOOTHING * chance[:, None, :]) / (pairs + _SMOOTHING)
    grids["recent_mixture"] = np.log(_mixed(weights, mixture) + np.float32(1e-9)) + nothing
    grids["recent_lift"] = _mixed(weights, np.log(mixture)) - log_chance + nothing


def _facets(table: Table, batch: Batch, history: _History, now: NDArray[np.float64], grids: dict[str, Grid]) -> None:
    """Σ over the candidate's facets, by kind: ln((n u + 2 p) / 2 p), u the facet's share in the history, p in general."""
    pool, (users, width) = table.wording.facets, batch.rows.shape
    decay = table.counts.sixty_day_decay(now)[:, None]
    owner_c, flat_c = pool.gather(batch.rows.ravel())
    facets_c, kinds_c = pool["facet"][flat_c], pool["kind"][flat_c]
    usual_count = np.log(
        (table.wording.facet_counts[facets_c] * decay[owner_c // width, 0] + 0.3) / (table.wording.having_facet[facets_c] + 1.0)
    )
    for name, there in (("facet_popular", kinds_c >= 0), ("category_popular", (kinds_c == 1) | (kinds_c == 2))):
        sums = np.bincount(owner_c[there], usual_count[there], minlength=users * width)
        had = np.bincount(owner_c[there], minlength=users * width)
        grids[name] = np.where(had > 0, sums / np.maximum(had, 1), np.nan).reshape(users, width).astype(np.float32)
    there = np.flatnonzero(history.there)
    owner, flat = pool.gather(history.rows.ravel()[there])
    distinct, inverse = np.unique(pool["facet"][flat], return_inverse=True)
    names = ("facet_title", "facet_category", "facet_categories", "facet_attributes")
    if not len(distinct):
        return
    cells = (there[owner] // HISTORY) * len(distinct) + inverse
    shares = np.bincount(cells, (history.weight * history.count[:, None]).ravel()[there][owner], minlength=users * len(distinct))
    total = table.counts.totals(now)[:, SIXTY_DAYS, None]
    chance = (table.wording.facet_counts[distinct] * decay + 0.5) / (total + 10.0)
    gains = np.log1p(shares.reshape(users, -1) / (2.0 * chance)).ravel()
    local = np.full(SPACE, -1, np.int32)
    local[distinct] = np.arange(len(distinct))
    places = local[facets_c]
    known = places >= 0
    owner_c, places, kinds = owner_c[known], places[known], kinds_c[known]
    gained = gains[(owner_c // width) * len(distinct) + places]
    sums = np.bincount(owner_c * KINDS + kinds, gained, minlength=users * width * KINDS).reshape(users, width, KINDS)
    nothing = np.where(history.there[:, :1], np.float32(0), np.float32(np.nan))
    for kind, name in enumerate(names):
        grids[name] = sums[:, :, kind].astype(np.float32) + nothing
    paid = np.where(history.there, table.log_price[history.rows], np.nan)
    priced = np.isfinite(paid)
    mean = np.where(priced, paid, 0).sum(axis=1) / np.maximum(priced.sum(axis=1), 1)
    usual = np.where(priced.any(axis=1), mean, np.nan).astype(np.float32)
    grids["price"] = -np.abs(table.log_price[batch.rows] - usual[:, None])


def _arrival(table: Table, batch: Batch, history: _History, now: NDArray[np.float64], grids: dict[str, Grid]) -> None:
    at = table.arrivals.at[batch.rows]
    known = np.isfinite(at)
    hours = np.where(known, np.maximum(now[:, None] - at, 0.0) / 3600.0, np.nan).astype(np.float32)
    log_hours = np.log1p(hours)
    grids["age"] = log_hours
    for scale, name in zip(_AGES, ("age_6h", "age_2d", "age_14d", "age_90d", "age_1y"), strict=True):
        grids[name] = np.exp(-hours / scale)
    since = table.arrivals.since(np.where(known, at, 0.0), now[:, None]).astype(np.float32)
    since = np.where(known, since, np.nan)
    grids["since"] = np.log1p(since)
    for scale, name in zip(_SINCE, ("since_10", "since_50", "since_200"), strict=True):
        grids[name] = np.exp(-since / scale)
    events = table.counts.events[batch.rows].astype(np.float32)
    grids["velocity"] = np.log((events + np.float32(0.5)) / (hours + 1))
    grids["velocity_24h"] = np.log((events + np.float32(0.5)) / (hours + 24))
    grids["fresh_dense"] = grids["age_2d"] * grids["dense_mean"]
    grids["fresh_popular"] = grids["age_2d"] * grids["popular_4d"]
    met = np.stack([_ages_met(table, taste) for taste in batch.tastes])
    grids["usual_age"] = -np.abs(log_hours - met[:, None])


def _ages_met(table: Table, taste: Taste) -> np.float32:
    """Mean ln(hours + 1) of the items' ages when the user met them; NaN where unknown."""
    ages = np.array([one.at for one in taste.interactions]) - table.arrivals.at[taste.rows]
    known = np.isfinite(ages)
    return np.float32(np.log1p(np.maximum(ages[known], 0.0) / 3600.0).mean()) if known.any() else np.float32(np.nan)


def _repeats(table: Table, batch: Batch, grids: dict[str, Grid]) -> None:
    """Whether, how often and when the user met the item, beside when users in general come back to it."""
    shape = batch.rows.shape
    repeat = np.zeros(shape, np.float32)
    count, age, share, gap = (np.full(shape, np.nan, np.float32) for _ in range(4))
    for user, taste in enumerate(batch.tastes):
        state = taste.request.state
        times: dict[str, list[float]] = {}
        for one in (*state.exclusions[-160:], *state.history):
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
    grids |= {"repeat": repeat, "repeat_count": count, "repeat_age": age, "repeat_share": share, "repeat_gap": gap}


_USUAL_GAP: Final = log_gap(30 * DAY_SECONDS)


def _words(table: Table, batch: Batch, grids: dict[str, Grid]) -> None:
    """Cosines with the user's own words; NaN for those who say none."""
    shape = batch.rows.shape
    found = {name: np.full(shape, np.nan, np.float32) for name in
             ("profile_dense", "profile_lexical", "wish_dense", "wish_lexical")}  # fmt: skip
    for user, taste in enumerate(batch.tastes):
        size = int(batch.sizes[user])
        rows = batch.rows[user, :size]
        for kind, texts in (("profile", (taste.profile,) if taste.profile else ()), ("wish", taste.wishes)):
            for place, text in enumerate(texts):
                share = np.float32(0.5**place)
                lexical = np.zeros(len(table.live), np.float32)
                table.wording.add_cosines(lexical, *table.wording.query(text))
                _raise_to(found[f"{kind}_lexical"][user, :size], share * lexical[rows])
                vector = taste.request.texts.get(text)
                if vector is not None:
                    _raise_to(found[f"{kind}_dense"][user, :size], share * (table.short[rows] @ table.project(vector[None])[0]))
    grids |= found


def _raise_to(into: NDArray[np.float32], values: NDArray[np.float32]) -> None:
    np.fmax(into, values, out=into)

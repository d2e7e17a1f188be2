"""Features of text: likeness to the history, to what follows it, to the user's own words; facets and price."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from streams.decide.candidates import Following
from streams.decide.counts import SIXTY_DAYS
from streams.decide.grids import Batch, Grid, Past, mixed
from streams.decide.ragged import Ragged, Rows
from streams.decide.table import Table
from streams.decide.taste import HISTORY
from streams.decide.words import KINDS, SPACE

_SMOOTHING: Final = 5.0
_EXPECTED: Final = 64
"""Followers that make the text that is expected next."""


def text(table: Table, batch: Batch, past: Past, following: Following) -> dict[str, Grid]:
    """Dense and lexical likeness to the history, and to what usually follows it."""
    grids: dict[str, Grid] = {}
    vectors = table.short[batch.rows]
    met = table.short[past.rows] * past.there[:, :, None]
    sims = np.matmul(met, vectors.transpose(0, 2, 1))
    batch.similarity = sims
    nothing = past.unless_cold
    grids["dense_mean"] = mixed(past.weight, sims) + nothing
    grids["dense_brief"] = mixed(past.brief, sims) + nothing
    grids["dense_max"] = sims.max(axis=1) + nothing
    grids["dense_last"] = sims[:, 0, :] + nothing
    grids["dense_liked"] = mixed(past.weight * np.maximum(past.liking, 0), sims) + nothing
    grids["dense_low"] = mixed(past.weight * np.maximum(-past.liking, 0), sims) + nothing
    lexical = _matched(table.wording.terms, "term", "weight", batch.rows, past, (past.weight, past.brief))
    grids["lexical_mean"], grids["lexical_brief"] = lexical[0] + nothing, lexical[1] + nothing
    rare = 1.0 / (1.0 + table.counts.positives[batch.rows].astype(np.float32))
    grids["dense_if_rare"] = grids["dense_mean"] * rare
    grids["lexical_if_rare"] = grids["lexical_mean"] * rare
    grids["dense_if_new_user"] = grids["dense_mean"] / (1.0 + past.count[:, None])
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
    return grids


def _matched(pool: Ragged, name: str, weight: str, rows: Rows, past: Past, shares: Sequence[Grid]) -> list[Grid]:
    """For each of `shares` (weights of interactions): Σ over terms of the history's weight × the candidate's."""
    users, width = rows.shape
    there = past.flat()
    owner, flat = pool.gather(past.rows.ravel()[there])
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
        grid = (
            np.bincount(owner_c, profile[lookup] * has, minlength=users * width)
            if len(distinct)
            else np.zeros(users * width)
        )
        found.append(grid.reshape(users, width).astype(np.float32))
    return found


def facets(table: Table, batch: Batch, past: Past) -> dict[str, Grid]:
    """Σ over the candidate's facets, by kind: ln((n u + 2 p) / 2 p), u the facet's share in the history, p in general.

    Also how popular the items of its facets are on average, and how far its price is from what the user looked at.
    """
    grids: dict[str, Grid] = {}
    pool, (users, width) = table.wording.facets, batch.rows.shape
    decay = table.counts.sixty_day_decay(past.now)[:, None]
    owner_c, flat_c = pool.gather(batch.rows.ravel())
    facets_c, kinds_c = pool["facet"][flat_c], pool["kind"][flat_c]
    usual_count = np.log(
        (table.wording.facet_counts[facets_c] * decay[owner_c // width, 0] + 0.3)
        / (table.wording.having_facet[facets_c] + 1.0)
    )
    for name, there in (("facet_popular", kinds_c >= 0), ("category_popular", (kinds_c == 1) | (kinds_c == 2))):
        sums = np.bincount(owner_c[there], usual_count[there], minlength=users * width)
        had = np.bincount(owner_c[there], minlength=users * width)
        grids[name] = np.where(had > 0, sums / np.maximum(had, 1), np.nan).reshape(users, width).astype(np.float32)
    there = past.flat()
    owner, flat = pool.gather(past.rows.ravel()[there])
    distinct, inverse = np.unique(pool["facet"][flat], return_inverse=True)
    names = ("facet_title", "facet_category", "facet_categories", "facet_attributes")
    if not len(distinct):
        return grids
    cells = (there[owner] // HISTORY) * len(distinct) + inverse
    shares = np.bincount(
        cells, (past.weight * past.count[:, None]).ravel()[there][owner], minlength=users * len(distinct)
    )
    total = table.counts.totals(past.now)[:, SIXTY_DAYS, None]
    chance = (table.wording.facet_counts[distinct] * decay + 0.5) / (total + 10.0)
    gains = np.log1p(shares.reshape(users, -1) / (2.0 * chance)).ravel()
    local = np.full(SPACE, -1, np.int32)
    local[distinct] = np.arange(len(distinct))
    places = local[facets_c]
    known = places >= 0
    owner_c, places, kinds = owner_c[known], places[known], kinds_c[known]
    gained = gains[(owner_c // width) * len(distinct) + places]
    sums = np.bincount(owner_c * KINDS + kinds, gained, minlength=users * width * KINDS).reshape(users, width, KINDS)
    nothing = past.unless_cold
    for kind, name in enumerate(names):
        grids[name] = sums[:, :, kind].astype(np.float32) + nothing
    paid = np.where(past.there, table.log_price[past.rows], np.nan)
    priced = np.isfinite(paid)
    mean = np.where(priced, paid, 0).sum(axis=1) / np.maximum(priced.sum(axis=1), 1)
    usual = np.where(priced.any(axis=1), mean, np.nan).astype(np.float32)
    grids["price"] = -np.abs(table.log_price[batch.rows] - usual[:, None])
    return grids


def own_words(table: Table, batch: Batch) -> dict[str, Grid]:
    """Cosines with the user's own words; NaN for those who say none."""
    shape = batch.rows.shape
    found = {name: np.full(shape, np.nan, np.float32) for name in
             ("profile_dense", "profile_lexical", "wish_dense", "wish_lexical")}  # fmt: skip
    for user, taste in enumerate(batch.tastes):
        size = int(batch.sizes[user])
        rows = batch.rows[user, :size]
        said = [("profile", taste.profile, 1.0)] if taste.profile else []
        said += [("wish", *wish) for wish in zip(taste.wishes, taste.wish_shares, strict=True)]
        for kind, text, part in said:
            share = np.float32(part)
            lexical = np.zeros(len(table.live), np.float32)
            table.wording.add_cosines(lexical, *table.wording.query(text))
            _raise_to(found[f"{kind}_lexical"][user, :size], share * lexical[rows])
            vector = taste.request.texts.get(text)
            if vector is not None:
                _raise_to(
                    found[f"{kind}_dense"][user, :size],
                    share * (table.short[rows] @ table.project(vector[None])[0]),
                )
    return found


def _raise_to(into: NDArray[np.float32], values: NDArray[np.float32]) -> None:
    np.fmax(into, values, out=into)

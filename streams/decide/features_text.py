"""Features of text: likeness to the history, to what goes with it, to the user's own words; facets and price."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from streams.decide.candidates import Company
from streams.decide.counts import SIXTY_DAYS
from streams.decide.grids import Batch, Grid, Past, mixed
from streams.decide.ragged import Ragged, Rows
from streams.decide.table import Table
from streams.decide.taste import HISTORY
from streams.decide.words import KINDS

_SMOOTHING: Final = 5.0
_EXPECTED: Final = 64
"""Companions that make the text that is expected next."""


def text(table: Table, batch: Batch, past: Past, company: Company) -> dict[str, Grid]:
    """Dense and lexical likeness to the history, and to what usually goes with it."""
    grids: dict[str, Grid] = {}
    sims = batch.similarity
    expects = np.zeros(batch.rows.shape, np.float32)
    expected = _expected(table, batch, company)
    for user, taste in enumerate(batch.tastes):  # one by one: what is gathered for one user stays in the cache
        vectors = table.short.take(batch.rows[user], axis=0)
        count = len(taste.rows)
        np.matmul(table.short[taste.rows], vectors.T, out=sims[user, :count])
        np.matmul(vectors, expected[user], out=expects[user])
    nothing = past.unless_cold
    grids["dense_mean"] = mixed(past.weight, sims) + nothing
    grids["dense_brief"] = mixed(past.brief, sims) + nothing
    grids["dense_max"] = sims.max(axis=1) + nothing
    grids["dense_last"] = sims[:, 0, :] + nothing
    grids["dense_liked"] = mixed(past.weight * np.maximum(past.liking, 0), sims) + nothing
    grids["dense_low"] = mixed(past.weight * np.maximum(-past.liking, 0), sims) + nothing
    lexical = _matched(table, batch.rows, past, (past.weight, past.brief))
    grids["lexical_mean"], grids["lexical_brief"] = lexical[0] + nothing, lexical[1] + nothing
    rare = 1.0 / (1.0 + table.counts.positives[batch.rows].astype(np.float32))
    grids["dense_if_rare"] = grids["dense_mean"] * rare
    grids["lexical_if_rare"] = grids["lexical_mean"] * rare
    grids["dense_if_new_user"] = grids["dense_mean"] / (1.0 + past.count[:, None])
    grids["together_text"] = expects + nothing
    return grids


def _expected(table: Table, batch: Batch, company: Company) -> NDArray[np.float32]:
    """The mean text of what usually goes with each user's history, unit rows. Shape [users, dimensions]."""
    expected = np.zeros((len(batch.tastes), table.short.shape[1]), np.float32)
    ends = np.searchsorted(company.user, np.arange(len(batch.tastes) + 1))
    for user, taste in enumerate(batch.tastes):
        mine = slice(ends[user], ends[user + 1])
        if mine.stop > mine.start:
            share = taste.weight / (table.counts.events[taste.rows] + _SMOOTHING)
            weights = company.either[mine] * share[company.place[mine]]
            companions = company.companion[mine]
            if len(weights) > _EXPECTED:
                heaviest = np.argpartition(-weights, _EXPECTED)[:_EXPECTED]
                weights, companions = weights[heaviest], companions[heaviest]
            expected[user] = weights.astype(np.float32) @ table.short[companions]
    return np.asarray(expected / np.maximum(np.linalg.norm(expected, axis=1, keepdims=True), np.float32(1e-6)))


def _matched(table: Table, rows: Rows, past: Past, shares: Sequence[Grid]) -> list[Grid]:
    """For each of `shares` (weights of interactions): Σ over terms of the history's weight × the candidate's."""
    pool = table.wording.terms
    said, entries = _Said.of(pool, "term", past), _Entries.of(pool, rows)
    if not len(said.distinct):
        return [np.zeros(rows.shape, np.float32) for _ in shares]
    cells = said.cells(table.wording.local, entries, pool["term"].take(entries.flat))
    has, spoken = pool["weight"].take(entries.flat), pool["weight"].take(said.flat)
    return [entries.sums(said.profile(spoken * share.take(said.there)).take(cells) * has) for share in shares]


@dataclass(frozen=True, slots=True)
class _Entries:
    """The entries of a pool that belong to the candidates of a batch, candidate by candidate."""

    shape: tuple[int, int]
    lengths: Rows
    """Of each of users × candidates."""
    owner: Rows
    flat: Rows

    @classmethod
    def of(cls, pool: Ragged, rows: Rows) -> _Entries:
        owner, flat = pool.gather(rows.ravel())
        return cls((len(rows), rows.shape[1]), pool.length[rows.ravel()], owner, flat)

    def by_user(self, values: NDArray[Any]) -> NDArray[Any]:
        """A value for each user, for each of their entries."""
        return np.repeat(values, self.lengths.reshape(self.shape).sum(axis=1))

    def sums(self, values: NDArray[np.float32]) -> Grid:
        """Sums of the candidates' entries."""
        starts = np.cumsum(self.lengths) - self.lengths
        found = np.add.reduceat(np.append(values, np.float32(0)), starts)
        found[self.lengths == 0] = 0.0
        return np.asarray(found.reshape(self.shape), np.float32)


@dataclass(frozen=True, slots=True)
class _Said:
    """What the histories of a batch say: their distinct terms (or facets), and where each entry lies."""

    there: Rows
    """The interaction of each entry, among users × interactions."""
    flat: Rows
    distinct: NDArray[Any]
    place: Rows
    """Of each entry among the distinct ones."""
    users: int

    @classmethod
    def of(cls, pool: Ragged, name: str, past: Past) -> _Said:
        there = past.flat()
        owner, flat = pool.gather(past.rows.ravel()[there])
        distinct, place = np.unique(pool[name][flat], return_inverse=True)
        return cls(there[owner], flat, distinct, place, len(past.rows))

    def profile(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Sums by user and distinct term; each user's first place is 0, for whatever their history does not say."""
        width = len(self.distinct) + 1
        sums = np.bincount(self.there // HISTORY * width + self.place + 1, values, self.users * width)
        return sums.astype(np.float32)

    def cells(self, local: NDArray[np.int32], entries: _Entries, terms: NDArray[Any]) -> Rows:
        """Where the terms of candidates' entries lie in a `profile`. `local`: −1 for every term, before and after."""
        width = len(self.distinct) + 1
        local[self.distinct] = np.arange(width - 1, dtype=np.int32)
        places = local.take(terms)
        local[self.distinct] = -1
        return np.asarray(places + entries.by_user(1 + width * np.arange(self.users)))


def facets(table: Table, batch: Batch, past: Past) -> dict[str, Grid]:
    """Σ over the candidate's facets, by kind: ln((n u + 2 p) / 2 p), u the facet's share in the history, p in general.

    Also how popular the items of its facets are on average, and how far its price is from what the user looked at.
    """
    grids: dict[str, Grid] = {}
    wording, pool, shape = table.wording, table.wording.facets, batch.rows.shape
    entries, decay = _Entries.of(pool, batch.rows), table.counts.sixty_day_decay(past.now)
    facets, kinds = pool["facet"].take(entries.flat), pool["kind"].take(entries.flat)
    met = wording.facet_counts.take(facets).astype(np.float32) * entries.by_user(decay.astype(np.float32))
    usual = np.log((met + np.float32(0.3)) / (wording.having_facet.take(facets).astype(np.float32) + np.float32(1)))
    of_category = ((kinds == 1) | (kinds == 2)).astype(np.float32)
    for name, there in (("facet_popular", np.ones_like(of_category)), ("category_popular", of_category)):
        had = entries.sums(there)
        grids[name] = np.where(had > 0, entries.sums(usual * there) / np.maximum(had, 1), np.float32(np.nan))
    paid = np.where(past.there, table.log_price[past.rows], np.nan)
    priced = np.isfinite(paid)
    mean = np.where(priced, paid, 0).sum(axis=1) / np.maximum(priced.sum(axis=1), 1)
    own = np.where(priced.any(axis=1), mean, np.nan).astype(np.float32)
    grids["price"] = -np.abs(table.log_price[batch.rows] - own[:, None])
    said = _Said.of(pool, "facet", past)
    if not len(said.distinct):
        return grids
    shares = said.profile((past.weight * past.count[:, None]).ravel()[said.there]).reshape(len(batch.tastes), -1)
    total = table.counts.totals(past.now)[:, SIXTY_DAYS, None]
    chance = np.ones_like(shares)
    chance[:, 1:] = (wording.facet_counts[said.distinct] * decay[:, None] + 0.5) / (total + 10.0)
    gained = np.log1p(shares / (2.0 * chance)).take(said.cells(wording.local, entries, facets))
    sums = np.bincount(entries.owner * KINDS + kinds, gained, shape[0] * shape[1] * KINDS).reshape(*shape, KINDS)
    for kind, name in enumerate(("facet_title", "facet_category", "facet_categories", "facet_attributes")):
        grids[name] = sums[:, :, kind].astype(np.float32) + past.unless_cold
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

"""Words and facets of all items: who has which, how rare they are, how popular a facet is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from streams.decide.compiled import compiled
from streams.decide.providers import Providers
from streams.decide.ragged import Posted, Postings, Ragged, Rows
from streams.decide.words import SPACE, facets_of, terms_of, text_of
from streams.values import ItemRecord

_HEAVY_SHARE = 0.05
_HEAVY_LEAST = 500
_HEAVY_MOST = 10_000
"""A word of more items than this counts nothing, however many items there are: what a text costs is bounded."""


class Said(NamedTuple):
    """Terms by row, for compiled loops."""

    start: Rows
    length: Rows
    term: NDArray[np.int32]
    weight: NDArray[np.float32]


class Kinds(NamedTuple):
    """Facets by row, for compiled loops."""

    start: Rows
    length: Rows
    facet: NDArray[np.int32]
    kind: NDArray[np.int8]
    having: Rows
    """How many items have a facet, by facet."""
    met: NDArray[np.float64]
    """Positive events of 60 days by facet, in the scaled units of `Counts`."""


class Wording:
    """Terms (TF-IDF, unit norm) and facets by row, and the rows by term."""

    def __init__(self) -> None:
        self.terms = Ragged(term=np.int32, count=np.float32, weight=np.float32)
        self.facets = Ragged(facet=np.int32, kind=np.int8)
        self.facet_counts = np.zeros(SPACE)
        """Positive events of 60 days by facet, in the scaled units of `Counts`."""
        self._postings = Postings(SPACE)
        self._facet_postings = Postings(SPACE)
        self._row_counts = np.zeros(0)
        self._norms = np.ones(0)
        self._scores = np.zeros(0, np.float32)
        """Zero between two calls."""
        self.sums, self.shares = np.zeros((SPACE, 2), np.float32), np.zeros(SPACE, np.float32)
        """For whoever sums by term or facet; zero between two calls."""
        self.facet_memo = np.zeros((SPACE, 2), np.float32)
        """For whoever remembers something by facet within a call; 0 and NaN between two."""
        self.facet_memo[:, 1] = np.nan
        self._placed: set[int] = set()
        """Rows that were put, those without any word included (deleted items, titles of signs)."""
        self._providers: Providers | None = None

    def reserve(self, rows: int) -> None:
        """Make rows exist."""
        self.terms.reserve(rows)
        self.facets.reserve(rows)
        more = max(0, rows - len(self._norms))
        self._row_counts = np.concatenate([self._row_counts, np.zeros(more)])
        self._norms = np.concatenate([self._norms, np.ones(more)])
        self._scores = np.zeros(len(self._norms), np.float32)
        if self._providers is not None:
            self._providers.reserve(rows)

    def providers(self, key: str, records: Sequence[ItemRecord | None]) -> Providers:
        """Who provides which row, kept up to date from the first call on; `records`: of all rows, for that call.

        The call with another key than before starts anew: some .3 s for 200,000 items.
        """
        if self._providers is None or self._providers.key != key:
            self._providers = Providers(key)
            self._providers.reserve(len(self._norms))
            for row in self._placed:
                record = records[row]
                if record is not None:
                    self._providers.put(row, record)
                    self._providers.count(row, float(self._row_counts[row]))
        return self._providers

    def put(self, row: int, record: ItemRecord) -> int:
        """Set a row's words and facets; returns the facet of its first category (−1: none)."""
        kept = float(self._row_counts[row])
        self.clear([row])
        terms = terms_of(text_of(record))
        ids = terms.ids.astype(np.int64)
        self._postings.add(row, ids)
        self._placed.add(row)
        weights = terms.weights * self._rarity(ids)
        self._norms[row] = max(float(np.linalg.norm(weights)), 1e-9)
        self.terms.replace(row, term=ids, count=terms.weights, weight=weights / self._norms[row])
        facets, kinds = facets_of(record)
        self.facets.replace(row, facet=facets, kind=kinds)
        self._facet_postings.add(row, facets)
        if self._providers is not None:
            self._providers.put(row, record)
        self.count(row, kept)
        return int(facets[kinds == 1][0]) if (kinds == 1).any() else -1

    def clear(self, rows: list[int]) -> None:
        """Forget rows that are given to other items."""
        rows = [row for row in rows if row in self._placed]
        if not rows:
            return
        for pool, name, postings in (
            (self.terms, "term", self._postings), (self.facets, "facet", self._facet_postings),
        ):  # fmt: skip
            owner, flat = pool.gather(np.array(rows))
            postings.remove(np.array(rows)[owner], pool[name][flat].astype(np.int64))
        self._placed.difference_update(rows)
        for row in rows:
            self.count(row, -float(self._row_counts[row]))
            if self._providers is not None:
                self._providers.clear(row)
            self.terms.length[row] = self.facets.length[row] = 0

    def count(self, row: int, grown: float) -> None:
        """Let the 60-day counts of a row's facets grow."""
        if grown:
            self._row_counts[row] += grown
            self.facet_counts[self.facets["facet"][self.facets.span(row)]] += grown
            if self._providers is not None:
                self._providers.count(row, grown)

    def weigh(self, rows: Rows) -> None:
        """Weigh the terms of these rows by how rare they are now."""
        owner, flat = self.terms.gather(rows)
        weights = self.terms["count"][flat] * self._rarity(self.terms["term"][flat])
        self._norms[rows] = np.maximum(np.sqrt(np.bincount(owner, weights * weights, minlength=len(rows))), 1e-9)
        self.terms["weight"][flat] = weights / self._norms[rows][owner]

    def query(self, text: str) -> tuple[Rows, NDArray[np.float32]]:
        """(terms, weights of unit norm) of a text."""
        terms = terms_of(text)
        ids = terms.ids.astype(np.int64)
        weights = terms.weights * self._rarity(ids)
        return ids, np.asarray(weights / max(float(np.linalg.norm(weights)), 1e-9), np.float32)

    def of_row(self, row: int) -> tuple[Rows, NDArray[np.float32]]:
        """(terms, weights) of an item."""
        span = self.terms.span(row)
        return self.terms["term"][span].astype(np.int64), self.terms["weight"][span]

    def add_cosines(self, scores: NDArray[np.float32], terms: Rows, weights: NDArray[np.float32]) -> None:
        """Add each item's cosine with the terms to `scores`, shape [rows]; nearly: common words count nothing."""
        self._add(scores, terms, weights)

    def cosines(self, terms: Rows, weights: NDArray[np.float32]) -> tuple[Rows, NDArray[np.float32]]:
        """What `add_cosines` would add, of the items that have any of the words: (row, cosine), each row once."""
        rows = self._add(self._scores, terms, weights)
        found = self._scores[rows]
        self._scores[rows] = 0.0
        return rows, found

    def between(self, row: int, rows: Rows) -> NDArray[np.float64]:
        """The same cosines of an item with those of `rows`, by looking at their words. Shape [rows]."""
        (terms, loud), found = self._light(*self.of_row(row)), np.empty(len(rows))
        _between(self.said, terms, loud, rows, self._norms, self.shares, found)
        return found

    def _add(self, scores: NDArray[np.float32], terms: Rows, weights: NDArray[np.float32]) -> Rows:
        """Adds cosines to `scores`; returns the rows whose score was 0 before."""
        terms, loud = self._light(terms, weights)
        rows = np.empty(int(self._postings.having[terms].sum()), np.int64)
        return rows[: _add_words(self._postings.posted(), terms, loud, self._norms, self.shares, scores, rows)]

    @property
    def said(self) -> Said:
        """Terms by row, until the next change."""
        return Said(self.terms.start, self.terms.length, self.terms["term"], self.terms["weight"])

    @property
    def kinds(self) -> Kinds:
        """Facets by row, until the next change."""
        pool = self.facets
        return Kinds(
            pool.start, pool.length, pool["facet"], pool["kind"], self._facet_postings.having, self.facet_counts
        )  # fmt: skip

    def with_facets(self) -> Posted:
        """Rows by facet, until the next change."""
        return self._facet_postings.posted()

    def _light(self, terms: Rows, weights: NDArray[np.float32]) -> tuple[Rows, NDArray[np.float64]]:
        """The words that are not too common, and their weights times their rarity."""
        heavy = min(max(_HEAVY_LEAST, int(_HEAVY_SHARE * len(self._placed))), _HEAVY_MOST)
        light = self._postings.having[terms] <= heavy
        return terms[light], weights[light] * self._rarity(terms[light])

    def _rarity(self, terms: NDArray[np.integer]) -> NDArray[np.float64]:
        return np.asarray(np.log((len(self._placed) + 2.0) / (self._postings.having[terms] + 1.0)))


@compiled
def _add_words(
    posted: Posted, terms: Rows, loud: NDArray[np.float64], norms: NDArray[np.float64], shares: NDArray[np.float32],
    scores: NDArray[np.float32], rows: Rows,
) -> int:  # fmt: skip
    """Adds to `scores` what each of the distinct terms adds to a row's cosine; puts rows whose score was 0 into `rows`:
    how many. `shares` [terms]: zero before and after.
    """
    size, there, late_rows, late_terms = 0, posted.rows, posted.late_rows, posted.late_terms
    for one in range(len(terms)):
        shares[terms[one]] = loud[one]
        for place in range(posted.ends[terms[one]], posted.ends[terms[one] + 1]):
            row = there[place]
            if row >= 0 and loud[one] > 0:
                if scores[row] == 0:
                    rows[size] = row
                    size += 1
                scores[row] += loud[one] / norms[row]
    for place in range(len(late_rows)):
        row, share = late_rows[place], shares[late_terms[place]]
        if row >= 0 and share > 0:
            if scores[row] == 0:
                rows[size] = row
                size += 1
            scores[row] += share / norms[row]
    shares[terms] = 0
    return size


@compiled
def _between(
    said: Said, terms: Rows, loud: NDArray[np.float64], rows: Rows, norms: NDArray[np.float64],
    shares: NDArray[np.float32], found: NDArray[np.float64],
) -> None:  # fmt: skip
    """Cosines of what the terms say with `rows`. `shares` [terms]: zero before and after."""
    for one in range(len(terms)):
        shares[terms[one]] = loud[one]
    for place in range(len(rows)):
        row, cosine = rows[place], 0.0
        for entry in range(said.start[row], said.start[row] + said.length[row]):
            cosine += shares[said.term[entry]]
        found[place] = cosine / norms[row]
    for one in range(len(terms)):
        shares[terms[one]] = 0

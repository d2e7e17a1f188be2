"""Words and facets of all items: who has which, how rare they are, how popular a facet is."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streams.decide.ragged import Ragged, Rows
from streams.decide.words import SPACE, facets_of, terms_of, text_of
from streams.values import ItemRecord

_HEAVY_SHARE = 0.05
_HEAVY_LEAST = 500
_TAIL_SHARE = 0.05
_TAIL_LEAST = 4096


class Wording:
    """Terms (TF-IDF, unit norm) and facets by row, and the rows by term."""

    def __init__(self) -> None:
        self.terms = Ragged(term=np.int32, count=np.float32, weight=np.float32)
        self.facets = Ragged(facet=np.int32, kind=np.int8)
        self.facet_counts = np.zeros(SPACE)
        """Positive events of 60 days by facet, in the scaled units of `Counts`."""
        self._postings = Postings()
        self._facet_postings = Postings()
        self._row_counts = np.zeros(0)
        self._norms = np.ones(0)
        self._placed: set[int] = set()
        """Rows that were put, those without any word included (deleted items, titles of signs)."""

    def reserve(self, rows: int) -> None:
        """Make rows exist."""
        self.terms.reserve(rows)
        self.facets.reserve(rows)
        more = max(0, rows - len(self._norms))
        self._row_counts = np.concatenate([self._row_counts, np.zeros(more)])
        self._norms = np.concatenate([self._norms, np.ones(more)])

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
        self.count(row, kept)
        return int(facets[kinds == 1][0]) if (kinds == 1).any() else -1

    def clear(self, rows: list[int]) -> None:
        """Forget rows that are given to other items."""
        rows = [row for row in rows if row in self._placed]
        if not rows:
            return
        if self.terms.length[rows].any() or self.facets.length[rows].any():
            self._postings.remove(rows)
            self._facet_postings.remove(rows)
        self._placed.difference_update(rows)
        for row in rows:
            self.count(row, -float(self._row_counts[row]))
            self.terms.length[row] = self.facets.length[row] = 0

    def count(self, row: int, grown: float) -> None:
        """Let the 60-day counts of a row's facets grow."""
        if grown:
            self._row_counts[row] += grown
            self.facet_counts[self.facets["facet"][self.facets.span(row)]] += grown

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
        heavy = max(_HEAVY_LEAST, int(_HEAVY_SHARE * len(self._placed)))
        light = self._postings.having[terms] <= heavy
        said = np.zeros(0) if not light.any() else weights[light] * self._rarity(terms[light])
        owner, rows = self._postings.find(terms[light])
        np.add.at(scores, rows, (said[owner] / self._norms[rows]).astype(np.float32))

    @property
    def having_facet(self) -> Rows:
        """How many items have a facet, by facet."""
        return self._facet_postings.having

    def find_facets(self, facets: Rows) -> tuple[Rows, Rows]:
        """(index into facets, row) of every item that has one of these distinct facets."""
        return self._facet_postings.find(facets)

    def _rarity(self, terms: NDArray[np.integer]) -> NDArray[np.float64]:
        return np.asarray(np.log((len(self._placed) + 2.0) / (self._postings.having[terms] + 1.0)))


class Postings:
    """The rows that have a term: sorted by term, and a short unsorted tail that is merged in when it has grown."""

    def __init__(self) -> None:
        self.having = np.zeros(SPACE, np.int64)
        """Items by term."""
        self._rows = np.zeros(0, np.int32)
        self._ends = np.zeros(SPACE + 1, np.int64)
        self._tail: list[tuple[Rows, Rows]] = []
        self._tail_entries = 0
        self._asked = np.full(SPACE, -1, np.int64)

    def add(self, row: int, terms: Rows) -> None:
        """A row that isn't in yet has these distinct terms."""
        self.having[terms] += 1
        self._tail.append((np.full(len(terms), row), terms))
        self._tail_entries += len(terms)

    def remove(self, rows: list[int]) -> None:
        """Take rows out."""
        self._merge()
        terms = np.repeat(np.arange(SPACE), np.diff(self._ends))
        stays = ~np.isin(self._rows, rows)
        self._sort(terms[stays], self._rows[stays])

    def find(self, terms: Rows) -> tuple[Rows, Rows]:
        """(index into terms, row) of every entry of these distinct terms."""
        if self._tail_entries > max(_TAIL_LEAST, int(_TAIL_SHARE * len(self._rows))):
            self._merge()
        starts = self._ends[terms]
        lengths = self._ends[terms + 1] - starts
        owner = np.repeat(np.arange(len(terms)), lengths)
        flat = np.arange(len(owner)) + np.repeat(starts - (np.cumsum(lengths) - lengths), lengths)
        rows = self._rows[flat].astype(np.int64)
        if not self._tail:
            return owner, rows
        self._asked[terms] = np.arange(len(terms))
        tail_rows, tail_terms = self._tail_arrays()
        asked = self._asked[tail_terms]
        self._asked[terms] = -1
        return np.concatenate([owner, asked[asked >= 0]]), np.concatenate([rows, tail_rows[asked >= 0]])

    def _tail_arrays(self) -> tuple[Rows, Rows]:
        if len(self._tail) > 1:
            self._tail = [
                (np.concatenate([rows for rows, _ in self._tail]), np.concatenate([terms for _, terms in self._tail]))
            ]
        return self._tail[0]

    def _merge(self) -> None:
        if not self._tail:
            return
        tail_rows, tail_terms = self._tail_arrays()
        terms = np.repeat(np.arange(SPACE), np.diff(self._ends))
        self._tail, self._tail_entries = [], 0
        self._sort(np.concatenate([terms, tail_terms]), np.concatenate([self._rows, tail_rows]))

    def _sort(self, terms: Rows, rows: NDArray[np.integer]) -> None:
        self.having = np.bincount(terms, minlength=SPACE)
        self._ends = np.concatenate([[0], np.cumsum(self.having)])
        self._rows = rows[np.argsort(terms, kind="stable")].astype(np.int32)

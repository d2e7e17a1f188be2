"""Words and facets of all items: who has which, how rare they are, how popular a facet is."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streams.decide.ragged import Ragged, Rows
from streams.decide.words import SPACE, facets_of, terms_of, text_of
from streams.values import ItemRecord

_HEAVY_SHARE = 0.05
_HEAVY_LEAST = 500


class Wording:
    """Terms (TF-IDF, unit norm) and facets by row, and the rows by term."""

    def __init__(self) -> None:
        self.terms = Ragged(term=np.int32, count=np.float32, weight=np.float32)
        self.facets = Ragged(facet=np.int32, kind=np.int8)
        self.facet_counts = np.zeros(SPACE)
        """Positive events of 60 days by facet, in the scaled units of `Counts`."""
        self._having = Ragged(row=np.int32)
        self._having.reserve(SPACE)
        self._items = 0
        self._row_counts = np.zeros(0)
        self._norms = np.ones(0)

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
        for term in ids.tolist():
            self._having.append(term, row=row)
        self._items += 1
        weights = terms.weights * self._rarity(ids)
        self._norms[row] = max(float(np.linalg.norm(weights)), 1e-9)
        self.terms.replace(row, term=ids, count=terms.weights, weight=weights / self._norms[row])
        facets, kinds = facets_of(record)
        self.facets.replace(row, facet=facets, kind=kinds)
        self.count(row, kept)
        return int(facets[kinds == 1][0]) if (kinds == 1).any() else -1

    def clear(self, rows: list[int]) -> None:
        """Forget rows that are given to other items."""
        for row in rows:
            if not self.terms.length[row]:
                continue
            for term in self.terms["term"][self.terms.span(row)].tolist():
                span = self._having.span(term)
                others = self._having["row"][span]
                self._having.replace(term, row=others[others != row].copy())
            self.count(row, -float(self._row_counts[row]))
            self.terms.length[row] = self.facets.length[row] = 0
            self._items -= 1

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
        """Add each item's cosine with the terms to `scores`, shape [rows], nearly: repeated words count once, common ones not."""
        heavy = max(_HEAVY_LEAST, int(_HEAVY_SHARE * self._items))
        light = self._having.length[terms] <= heavy
        owner, flat = self._having.gather(terms[light])
        rows = self._having["row"][flat]
        said = weights[light] * self._rarity(terms[light])
        np.add.at(scores, rows, (said[owner] / self._norms[rows]).astype(np.float32))

    def _rarity(self, terms: NDArray[np.integer]) -> NDArray[np.float64]:
        return np.asarray(np.log((self._items + 2.0) / (self._having.length[terms] + 1.0)))

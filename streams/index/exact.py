"""The exact index: in memory, every answer by a full look. The oracle of the others, and the simulator's store."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from streams.errors import ConfigurationError
from streams.index.stored import check_fields, check_match
from streams.ports import Collection, FieldValue, Hit, Match, Page, Point, Query, Terms, Write


class ExactIndex:
    """The port Index over dictionaries. It outlives `close`: opened again, it holds what it held (a simulated disk)."""

    name = "exact"
    behind = False

    def __init__(self, *, shared: bool = False) -> None:
        self.shared = shared
        self.points: dict[Collection, dict[str, Point]] = {collection: {} for collection in Collection}
        self._dimension: int | None = None
        self._matrices: dict[Collection, tuple[list[str], NDArray[np.float32]]] = {}

    async def open(self, dimension: int, encoder: str = "") -> None:  # noqa: ARG002  (one encoder only)
        """Fix the dimension of every vector."""
        if self._dimension not in (None, dimension):
            raise ConfigurationError(
                f"the index holds vectors of dimension {self._dimension}, the encoder makes {dimension}: "
                "use another index, or the encoder that filled this one"
            )
        self._dimension = dimension

    async def close(self) -> None:
        """Nothing to release."""

    async def read(self, collection: Collection, keys: Sequence[str], *, vectors: bool = False) -> list[Point | None]:
        """See the port."""
        points = self.points[collection]
        return [_shown(points.get(key), vectors=vectors) for key in keys]

    async def write(self, collection: Collection, writes: Sequence[Write]) -> None:
        """See the port."""
        points = self.points[collection]
        for write in writes:
            check_fields(collection, write.point.fields)
            self._check_dimension(write.point)
        for write in writes:
            stored = points.get(write.point.key)
            if (stored.version if stored else None) == write.expected:
                points[write.point.key] = replace(write.point, fields=dict(write.point.fields))
                self._matrices.pop(collection, None)

    async def search(self, collection: Collection, queries: Sequence[Query]) -> list[list[Hit]]:
        """See the port."""
        return [self._search(collection, query) for query in queries]

    async def find(self, collection: Collection, match: Match, limit: int) -> list[Hit]:
        """See the port."""
        check_match(collection, match)
        found = (point for point in self.points[collection].values() if matches(match, point))
        return [
            Hit(point.key if point.named else "", 0.0, dict(point.fields))
            for _, point in zip(range(limit), found, strict=False)
        ]

    async def scan(
        self, collection: Collection, *, cursor: str | None = None, limit: int = 1000, match: Match | None = None,
        vectors: bool = False,
    ) -> Page:  # fmt: skip
        """See the port. The order is that of the keys."""
        check_match(collection, match or Match())
        points = self.points[collection]
        keys = sorted(key for key, point in points.items() if match is None or matches(match, point))
        start = 0 if cursor is None else bisect_right(keys, cursor)
        page = keys[start : start + limit]
        found = tuple(point for key in page if (point := _shown(points[key], vectors=vectors)))
        return Page(found, page[-1] if start + limit < len(keys) else None)

    async def foreign(self, *, cursor: str | None = None, limit: int = 1000, match: Match | None = None) -> Page:  # noqa: ARG002
        """See the port: there are none."""
        return Page((), None)

    async def succeed(self) -> None:
        """See the port: it is so already."""

    async def count(self, collection: Collection) -> int:
        """See the port."""
        return len(self.points[collection])

    async def purge(self) -> None:
        """Nothing is kept beyond what is held."""

    def _search(self, collection: Collection, query: Query) -> list[Hit]:
        check_match(collection, query.match)
        points = self.points[collection]
        if query.vector is not None:
            keys, matrix = self._matrix(collection)
            scores = dict(zip(keys, (matrix @ query.vector).tolist(), strict=True)) if keys else {}
        elif query.terms is not None:
            wanted = dict(zip(query.terms.ids.tolist(), query.terms.weights.tolist(), strict=True))
            overlaps = {key: _overlap(wanted, point.terms) for key, point in points.items()}
            scores = {key: overlap for key, overlap in overlaps.items() if overlap is not None}
        else:
            raise ValueError("a query needs a vector or terms")
        hits = [
            Hit(key, score, dict(points[key].fields))
            for key, score in scores.items()
            if matches(query.match, points[key])
        ]
        return sorted(hits, key=lambda hit: -hit.score)[: query.limit]

    def _matrix(self, collection: Collection) -> tuple[list[str], NDArray[np.float32]]:
        if collection not in self._matrices:
            rows = [(key, point.vector) for key, point in self.points[collection].items() if point.vector is not None]
            self._matrices[collection] = (
                [key for key, _ in rows],
                np.array([row for _, row in rows], dtype=np.float32),
            )
        return self._matrices[collection]

    def _check_dimension(self, point: Point) -> None:
        if point.vector is not None and point.vector.shape != (self._dimension,):
            raise ValueError(f"vector of {point.key!r} has shape {point.vector.shape}, not ({self._dimension},)")


def matches(match: Match, point: Point) -> bool:
    """Whether all conditions hold; a condition on an absent field does not."""

    def value_of(name: str) -> FieldValue | None:
        return point.version if name == "version" else point.fields.get(name)

    for name, wanted in match.equals.items():
        value = value_of(name)
        if isinstance(value, tuple):
            if wanted not in value:
                return False
        elif value is None or value != wanted or isinstance(value, bool) != isinstance(wanted, bool):
            return False
    for conditions, holds in ((match.below, _below), (match.at_least, _at_least)):
        for name, bound in conditions.items():
            value = value_of(name)
            if not isinstance(value, int | float) or not holds(value, bound):
                return False
    return True


def _below(value: float, bound: float) -> bool:
    return value < bound


def _at_least(value: float, bound: float) -> bool:
    return value >= bound


def _overlap(wanted: dict[int, float], terms: Terms | None) -> float | None:
    """The dot product over the common terms; None where there is none."""
    if terms is None:
        return None
    products = [
        wanted[term] * weight
        for term, weight in zip(terms.ids.tolist(), terms.weights.tolist(), strict=True)
        if term in wanted
    ]
    return sum(products) if products else None


def _shown(point: Point | None, *, vectors: bool) -> Point | None:
    if point is None or (vectors and point.named):
        return point
    shown = point if vectors else replace(point, vector=None, terms=None)
    return shown if point.named else replace(shown, key="", named=False)

"""Measures of lists of ten against their targets, and their sums by method and slice."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

LENGTH: Final = 10


def ndcg(items: Sequence[int], targets: Sequence[int]) -> float:
    """NDCG@10 with binary gains; the ideal has min(10, targets) hits (Järvelin and Kekäläinen 2002)."""
    wanted = set(targets)
    gain = sum(1.0 / math.log2(rank + 2) for rank, item in enumerate(items[:LENGTH]) if item in wanted)
    return gain / sum(1.0 / math.log2(rank + 2) for rank in range(min(LENGTH, len(wanted))))


def hit(items: Sequence[int], targets: Sequence[int]) -> float:
    """1 where any target is in the list."""
    return float(not set(items[:LENGTH]).isdisjoint(targets))


def top(scores: NDArray[np.floating], allowed: NDArray[np.bool_]) -> list[int]:
    """The ten best of the allowed items; ties by position, so that every run agrees."""
    places = np.flatnonzero(allowed)
    values = scores[places]
    if len(places) > 4 * LENGTH:
        border = np.partition(values, len(values) - LENGTH)[len(values) - LENGTH]
        keep = values >= border
        places, values = places[keep], values[keep]
    return [int(place) for place in places[np.argsort(-values, kind="stable")[:LENGTH]]]


@dataclass(slots=True)
class Tally:
    """NDCG@10 and HR@10 of each step, by method and slice, in the order of the steps."""

    ndcgs: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    hits: dict[str, dict[str, list[float]]] = field(default_factory=dict)

    def add(self, method: str, slices: Sequence[str], items: Sequence[int], targets: Sequence[int]) -> None:
        """One list, counted in each of these slices."""
        gained, found = ndcg(items, targets), hit(items, targets)
        for name in slices:
            self.ndcgs.setdefault(method, {}).setdefault(name, []).append(gained)
            self.hits.setdefault(method, {}).setdefault(name, []).append(found)

    def summary(self) -> dict[str, dict[str, dict[str, float]]]:
        """{method: {slice: {n, ndcg@10, hr@10}}}."""
        return {
            method: {
                name: {
                    "n": len(values),
                    "ndcg@10": round(float(np.mean(values)), 6),
                    "hr@10": round(float(np.mean(self.hits[method][name])), 6),
                }
                for name, values in slices.items()
            }
            for method, slices in self.ndcgs.items()
        }

    def ratio(self, method: str, other: str, slice_name: str) -> tuple[float, float]:
        """(ratio of mean NDCG, its paired standard error) of two methods; NaN where there is nothing to divide by."""
        ours = np.array(self.ndcgs.get(method, {}).get(slice_name, []))
        theirs = np.array(self.ndcgs.get(other, {}).get(slice_name, []))
        if not len(ours) or len(ours) != len(theirs) or theirs.mean() == 0:
            return math.nan, math.nan
        ratio = float(ours.mean() / theirs.mean())
        error = float((ours - ratio * theirs).std() / math.sqrt(len(ours)) / theirs.mean())
        return ratio, error

    def against(self, other: str) -> dict[str, dict[str, dict[str, float]]]:
        """{method: {slice: {ratio, standard_error}}} of all others to one method, where there is one; see `ratio`."""
        found: dict[str, dict[str, dict[str, float]]] = {}
        for method, slices in self.ndcgs.items():
            for name in slices:
                ratio, error = self.ratio(method, other, name)
                if method != other and not math.isnan(ratio):
                    found.setdefault(method, {})[name] = {"ratio": round(ratio, 4), "standard_error": round(error, 4)}
        return found

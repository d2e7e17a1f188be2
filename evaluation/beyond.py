"""Beyond accuracy: what the lists do to the catalogue and to groups of users and items."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from evaluation.measures import ndcg
from evaluation.protocol import Stream
from evaluation.replay import Tested
from streams.decide.policy import Policy, Protected

_FEWEST: Final = 20
"""Steps that a group of users must have to be reported."""
_CALIBRATION_SHARE: Final = 0.01


def beyond_accuracy(
    stream: Stream, tested: Sequence[Tested], vectors: NDArray[np.float32], events: NDArray[np.float64], policy: Policy
) -> dict[str, Any]:
    """Coverage, Gini of exposure (over the items that could be shown), novelty in bits, intra-list diversity,
    share of new items, calibration by first category (Steck 2018), candidate recall, exposure floors, and the fairness report.

    `events`: how many events each item had by the end.
    """
    lists = [one.items for one in tested if one.items]
    if not lists:
        return {}
    exposure = np.bincount([item for items in lists for item in items], minlength=len(stream.items)).astype(np.float64)
    chance = (events + 1.0) / (events.sum() + len(events))
    centred = vectors - vectors.mean(axis=0)
    centred /= np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-6)
    targets = sum(len(one.step.targets) for one in tested)
    return {
        "coverage": round(float((exposure > 0).mean()), 6),
        "gini": round(_gini(exposure), 6),
        "novelty": round(float(np.mean([-np.log2(chance[items]).mean() for items in lists])), 6),
        "diversity": round(float(np.mean([_diversity(centred[items]) for items in lists])), 6),
        "new_items": round(float(np.mean([stream.late[items].mean() for items in lists])), 6),
        "calibration": _rounded(_calibration(stream, tested)),
        "candidate_recall": round(sum(one.found for one in tested) / max(targets, 1), 6),
        "floors": _floors(tested, policy),
        "fairness": {"users": _users(stream, tested), "items": _items(tested, events)},
    }


def _gini(exposure: NDArray[np.float64]) -> float:
    """0: every item is shown equally often; 1: a single one is."""
    shares = np.sort(exposure)
    count = len(shares)
    return float((2 * np.arange(1, count + 1) - count - 1) @ shares / (count * max(shares.sum(), 1e-9)))


def _diversity(vectors: NDArray[np.float32]) -> float:
    """1 − mean cosine of the pairs of a list."""
    count = len(vectors)
    if count < 2:
        return 0.0
    cosines = vectors @ vectors.T
    return 1.0 - float((cosines.sum() - np.trace(cosines)) / (count * (count - 1)))


def _calibration(stream: Stream, tested: Sequence[Tested]) -> float | None:
    """Mean KL divergence (nats) of a list's first categories from those of the user's targets over the whole test."""
    wanted: dict[str, Counter[str]] = {}
    shown: dict[str, Counter[str]] = {}
    for one in tested:
        for counts, items in ((wanted, one.step.targets), (shown, one.items)):
            names = (stream.items[item].categories[:1] for item in items)
            counts.setdefault(one.step.user_id, Counter()).update(name[0] for name in names if name)
    found = []
    for user_id, liked in wanted.items():
        if liked and shown[user_id]:
            all_wanted, all_shown = sum(liked.values()), sum(shown[user_id].values())
            divergence = 0.0
            for name, count in liked.items():
                p, q = count / all_wanted, shown[user_id][name] / all_shown
                divergence += p * math.log(p / ((1 - _CALIBRATION_SHARE) * q + _CALIBRATION_SHARE * p))
            found.append(divergence)
    return float(np.mean(found)) if found else None


def _floors(tested: Sequence[Tested], policy: Policy) -> dict[str, dict[str, float]]:
    """By group: the share of all places that its floor promises, that it holds, and that was owed and not to be had; and
    its share of the targets.
    """
    targets = max(sum(len(one.step.targets) for one in tested), 1)
    places = max(sum(len(one.items) for one in tested), 1)
    groups = dict.fromkeys(group for one in tested for group in one.protected)
    return {
        group: {
            "floor": policy.floors.get(Protected(group), 0.0),
            "share": round(sum(one.protected[group][0] for one in tested) / places, 6),
            "short": round(sum(one.protected[group][1] for one in tested) / places, 6),
            "wanted": round(sum(one.protected[group][2] for one in tested) / targets, 6),
        }
        for group in groups
    }


def _users(stream: Stream, tested: Sequence[Tested]) -> dict[str, dict[str, float]]:
    """NDCG@10 by each value of each user attribute: who is served how much worse."""
    groups: dict[str, list[float]] = {}
    for one in tested:
        gained = ndcg(one.items, one.step.targets)
        for name, value in stream.attributes.get(one.step.user_id, {}).items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                value = f"{int(value) // 10 * 10}-{int(value) // 10 * 10 + 9}"  # noqa: PLW2901 (numbers by tens)
            groups.setdefault(f"{name}={value}", []).append(gained)
    return {
        name: {"n": len(values), "ndcg@10": round(float(np.mean(values)), 6)}
        for name, values in sorted(groups.items())
        if len(values) >= _FEWEST
    }


def _items(tested: Sequence[Tested], events: NDArray[np.float64]) -> dict[str, dict[str, float]]:
    """By popularity of the items (thirds of all events): how often shown, wanted, and hit when wanted."""
    order = np.argsort(-events, kind="stable")
    third = np.empty(len(events), np.int64)
    third[order] = np.minimum((3 * np.cumsum(events[order]) / max(events.sum(), 1.0)).astype(np.int64), 2)
    names = ("head", "middle", "tail")
    shown, wanted, hits = (np.zeros(3) for _ in range(3))
    for one in tested:
        found = set(one.items)
        np.add.at(shown, third[one.items], 1)
        for target in one.step.targets:
            wanted[third[target]] += 1
            hits[third[target]] += target in found
    return {
        name: {
            "items": int((third == place).sum()),
            "shown": round(float(shown[place] / max(shown.sum(), 1)), 6),
            "wanted": round(float(wanted[place] / max(wanted.sum(), 1)), 6),
            "recall@10": round(float(hits[place] / max(wanted[place], 1)), 6),
        }
        for place, name in enumerate(names)
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)

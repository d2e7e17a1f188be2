"""What else one could run in an afternoon: seven methods, each as good as its idea allows, learned in the same pass."""

from __future__ import annotations

import math
import re
from collections import Counter, deque
from collections.abc import Sequence
from itertools import pairwise
from typing import Final, Protocol
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from evaluation.protocol import Group, Step, Stream
from streams.decide.words import text_of

Scores = NDArray[np.float32]

RECENT_SECONDS: Final = 14 * 86_400.0
KEPT: Final = 50
"""A user's last positive items that text and item-kNN look at."""
HALF_LIFE_ITEMS: Final = 20.0
_DENSE_PAIRS: Final = 8000
_WORDS: Final = re.compile(r"\w+|\.")


class Baseline(Protocol):
    """One method. `score` is asked for a step before `learn` is told of its group."""

    def score(self, step: Step) -> Scores:
        """A score for every item; higher is better. Must not be written to by the caller."""

    def learn(self, group: Group) -> None:
        """The group has happened."""


class Random:
    """Chance, the same in every run."""

    def __init__(self, stream: Stream) -> None:
        self._size = len(stream.items)

    def score(self, step: Step) -> Scores:
        """See `Baseline`."""
        return np.random.default_rng(crc32(f"{step.user_id}:{step.stamp}".encode())).random(self._size, np.float32)

    def learn(self, group: Group) -> None:
        """Nothing to learn."""


class Popular:
    """Positive events so far, or of the last 14 days."""

    def __init__(self, stream: Stream, seconds: float = math.inf) -> None:
        self._counts = np.zeros(len(stream.items), np.float32)
        self._window: deque[tuple[float, int]] = deque()
        self._seconds = seconds

    def score(self, step: Step) -> Scores:
        """See `Baseline`."""
        while self._window and self._window[0][0] < step.at - self._seconds:
            self._counts[self._window.popleft()[1]] -= 1
        return self._counts

    def learn(self, group: Group) -> None:
        """See `Baseline`."""
        for event in group.events:
            if event.positive and not event.hidden and event.item >= 0:
                self._counts[event.item] += 1
                if math.isfinite(self._seconds):
                    self._window.append((group.at, event.item))


class Newest:
    """By publication; without a date by first event."""

    def __init__(self, stream: Stream) -> None:
        self._came = stream.opens.copy()
        self._dated = np.isfinite(stream.opens)
        self._start = stream.groups[0].at if stream.groups else 0.0

    def score(self, step: Step) -> Scores:
        """See `Baseline`."""
        seconds = np.where(self._came <= step.at, step.at - self._came, np.inf)
        return np.asarray(-np.minimum(seconds, 1e12), np.float64)  # seconds need the digits

    def learn(self, group: Group) -> None:
        """See `Baseline`."""
        for event in group.events:
            if not event.hidden and event.item >= 0 and not self._dated[event.item]:
                self._dated[event.item], self._came[event.item] = True, group.at


class Histories:
    """The last positive items of each user, shared by the methods that need them."""

    def __init__(self) -> None:
        self._items: dict[str, deque[int]] = {}

    def of(self, user_id: str) -> list[int]:
        """Newest first."""
        return list(reversed(self._items.get(user_id, ())))

    def note(self, user_id: str, item: int) -> None:
        """One more."""
        self._items.setdefault(user_id, deque(maxlen=KEPT)).append(item)


def _fading(count: int) -> Scores:
    return np.asarray(np.exp2(-np.arange(count) / HALF_LIFE_ITEMS), np.float32)


class Text:
    """Cosine with the faded mean of what the user took: by TF-IDF (bigrams, sublinear tf) or centred dense vectors."""

    def __init__(self, vectors: NDArray[np.float32] | SparseRows, histories: Histories) -> None:
        self._vectors = vectors
        self._histories = histories

    def score(self, step: Step) -> Scores:
        """See `Baseline`."""
        items = self._histories.of(step.user_id)
        if not items:
            return np.zeros(len(self._vectors), np.float32)
        if isinstance(self._vectors, SparseRows):
            return self._vectors.dot(items, _fading(len(items)))
        return np.asarray(self._vectors @ (_fading(len(items)) @ self._vectors[items]))

    def learn(self, group: Group) -> None:
        """`ItemKnn` notes the histories."""


class SparseRows:
    """TF-IDF of every item, by rows and by terms."""

    def __init__(self, stream: Stream) -> None:
        numbers: dict[str, int] = {}
        rows, terms, weights = [], [], []
        for row, record in enumerate(stream.items):
            words = _WORDS.findall(text_of(record).lower())
            counts = Counter(word for word in words if word != ".")
            counts.update(f"{a} {b}" for a, b in pairwise(words) if "." not in (a, b))
            for term, count in counts.items():
                rows.append(row)
                terms.append(numbers.setdefault(term, len(numbers)))
                weights.append(1.0 + math.log(count))
        self._size = len(stream.items)
        self._rows, self._terms = np.array(rows, np.int64), np.array(terms, np.int64)
        having = np.bincount(self._terms, minlength=len(numbers))
        values = np.array(weights) * (np.log((1 + self._size) / (1 + having)) + 1)[self._terms]
        norms = np.sqrt(np.bincount(self._rows, values**2, minlength=self._size))
        self._values = (values / np.maximum(norms, 1e-9)[self._rows]).astype(np.float32)
        self._starts = np.searchsorted(self._rows, np.arange(self._size + 1))
        order = np.argsort(self._terms, kind="stable")
        self._by_term, self._values_by_term = self._rows[order], self._values[order]
        self._ends = np.concatenate([[0], np.cumsum(having)])

    def __len__(self) -> int:
        return self._size

    def dot(self, items: Sequence[int], weights: Scores) -> Scores:
        """The product of the weighted sum of these rows with every row."""
        spans = [slice(self._starts[item], self._starts[item + 1]) for item in items]
        terms = np.concatenate([self._terms[span] for span in spans])
        said = np.concatenate([self._values[span] * weight for span, weight in zip(spans, weights, strict=True)])
        distinct, inverse = np.unique(terms, return_inverse=True)
        said = np.bincount(inverse, said)
        starts, lengths = self._ends[distinct], self._ends[distinct + 1] - self._ends[distinct]
        flat = np.arange(lengths.sum()) + np.repeat(starts - (np.cumsum(lengths) - lengths), lengths)
        return np.bincount(
            self._by_term[flat], np.repeat(said, lengths) * self._values_by_term[flat], minlength=self._size
        ).astype(np.float32)


class ItemKnn:
    """Cosine of co-occurrence: users who took both / √(takers × takers), summed over what the user took."""

    def __init__(self, stream: Stream, histories: Histories) -> None:
        self._size = len(stream.items)
        self._taken = np.zeros(self._size, np.float32)
        self._histories = histories
        self._dense = np.zeros((self._size, self._size), np.float32) if self._size <= _DENSE_PAIRS else None
        self._sparse: dict[int, Counter[int]] = {}

    def score(self, step: Step) -> Scores:
        """See `Baseline`."""
        items = self._histories.of(step.user_id)
        scores = np.zeros(self._size, np.float32)
        if not items:
            return scores
        share = _fading(len(items)) / np.sqrt(np.maximum(self._taken[items], 1.0))
        if self._dense is not None:
            scores = np.asarray(share @ self._dense[items], np.float32)
        else:
            for item, weight in zip(items, share, strict=True):
                near = self._sparse.get(item)
                if near:
                    places = np.fromiter(near.keys(), np.int64, len(near))
                    scores[places] += weight * np.fromiter(near.values(), np.float32, len(near))
        return np.asarray(scores / np.sqrt(np.maximum(self._taken, 1.0)))

    def learn(self, group: Group) -> None:
        """See `Baseline`; a group's own items go together too."""
        for event in group.events:
            if not event.positive or event.hidden or event.item < 0:
                continue
            before = [item for item in dict.fromkeys(self._histories.of(event.user_id)) if item != event.item]
            self._taken[event.item] += 1
            if self._dense is not None:
                self._dense[before, event.item] += 1
                self._dense[event.item, before] += 1
            else:
                own = self._sparse.setdefault(event.item, Counter())
                for item in before:
                    own[item] += 1
                    self._sparse.setdefault(item, Counter())[event.item] += 1
            self._histories.note(event.user_id, event.item)


def centred(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vectors less their mean, renormalised: as ranking has them."""
    vectors = vectors - vectors.mean(axis=0)
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6), np.float32)


def all_of(stream: Stream, vectors: NDArray[np.float32]) -> dict[str, Baseline]:
    """Every baseline by name, in the order of learning."""
    histories = Histories()
    return {
        "random": Random(stream),
        "popular": Popular(stream),
        "recent_popular": Popular(stream, RECENT_SECONDS),
        "newest": Newest(stream),
        "tfidf": Text(SparseRows(stream), histories),
        "text_centred": Text(centred(vectors), histories),
        "item_knn": ItemKnn(stream, histories),
    }

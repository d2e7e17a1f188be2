"""The ranker: linear in the features, learned online from lessons, guarded by experts.

A lesson is what a user chose beside what they could have been shown instead. Learning is a softmax over it, by
AdaGrad, on features scaled by running moments. Users with and without history have weights of their own. The guard:
several experts (the learned weights, the shipped prior, single features) are judged by where they would have put what
was chosen, and the weights that serve are their mixture: since all are linear, so is the mixture, and the parts of a
score stay exact.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from streams.decide.compiled import compiled
from streams.decide.features import NAMES, PLACE
from streams.decide.lessons import Lesson
from streams.decide.prior import LearnerState, shipped

Weights = NDArray[np.float32]

RATE: Final = 0.1
FIRST_SQUARES: Final = 0.1
CLIP: Final = 10.0
HALF_LIFE_LESSONS: Final = 1000.0
MOMENTS_LESSONS: Final = 2000.0
TEMPERATURE: Final = 1.0
PRIOR_LESSONS: Final = 200
"""The prior's moments count as so many lessons."""
SINGLE_EXPERTS: Final = (
    "popular_14d", "popular_1d", "popular_60d", "popular_ever", "mixture", "mixture_brief", "mixture_1", "either_root",
    "dense_mean", "dense_last", "lexical_mean", "age", "velocity", "recent_mixture", "repeat_count", "learned_vectors",
)  # fmt: skip
_DESCENDING: Final = frozenset({"age"})
WORDS: Final = ("profile_dense", "profile_lexical", "wish_dense", "wish_lexical")
WORDS_SCALE: Final = np.array([0.1, 0.15, 0.1, 0.15], np.float32)
"""Cosines with a user's own words are scaled by fixed spreads: most streams hold too few of them to learn from."""
_WORDS_AT: Final = np.array([PLACE[name] for name in WORDS])


@dataclass(frozen=True, slots=True)
class Model:
    """What serves: weights for users with history (row 0) and without (row 1), on scaled features."""

    weights: Weights
    mean: Weights
    scale: Weights
    version: str
    lessons: int = 0
    """Lessons learned from."""

    @classmethod
    def prior(cls) -> Model:
        """The shipped prior: sane before anything is learned."""
        return Learner().model()

    def scores(self, values: Weights, sizes: NDArray[np.int64], cold: NDArray[np.bool_]) -> Weights:
        """Σ weight × scaled feature. `values` [features, users, candidates]; returns [users, candidates].

        Of each user's first `sizes` candidates; `cold`: by which weights, by user.
        """
        found = np.zeros(values.shape[1:], np.float32)
        _score(values, sizes, cold, self.weights, self.mean, np.reciprocal(self.scale), found)
        return found


@compiled
def _score(
    values: Weights, sizes: NDArray[np.int64], cold: NDArray[np.bool_], weights: Weights, mean: Weights, inverse: Weights,
    scores: Weights,
) -> None:  # fmt: skip
    most = np.float32(CLIP)
    for user in range(len(sizes)):
        score = scores[user]
        for feature in range(len(mean)):
            value, weight = values[feature, user], weights[int(cold[user]), feature]
            usual, steep = mean[feature], inverse[feature]
            for place in range(sizes[user]):
                scaled = min(max((value[place] - usual) * steep, -most), most)
                score[place] += weight * (scaled if value[place] == value[place] else np.float32(0))


def scale(values: Weights, mean: Weights, spread: Weights) -> Weights:
    """(values − mean) / spread, clipped at ±10, 0 where NaN."""
    scaled = values - mean
    scaled /= spread
    np.clip(scaled, np.float32(-CLIP), np.float32(CLIP), out=scaled)
    np.copyto(scaled, np.float32(0), where=np.isnan(scaled))
    return scaled


class Learner:
    """Learns from lessons one by one. `model()` is what serves now."""

    def __init__(self, state: LearnerState | None = None, prior: LearnerState | None = None) -> None:
        prior = prior or shipped().everything
        first = state or prior
        self.offset = first.offset
        self.frozen = first.frozen
        self.epoch = first.epoch
        # features that the state doesn't know yet, since a release before had none of them, begin as in the prior
        self._mean = _array([prior.mean | first.mean], 0.0)[0]
        self._square = _array([prior.spread | first.spread], 1.0)[0] ** 2
        self._weights = _array([old | new for old, new in zip(prior.weights, first.weights, strict=True)], 0.0)
        self._squares = (
            _array(first.squares, FIRST_SQUARES) if first.squares else np.full_like(self._weights, FIRST_SQUARES)
        )
        self._lessons = list(first.lessons) if state else [0, 0]
        self._moments = self._lessons[0] + self._lessons[1] + PRIOR_LESSONS
        names = ("learned", "prior", *SINGLE_EXPERTS)
        self._experts = np.zeros((2, len(names), len(NAMES)), np.float32)
        self._experts[:, 1] = _array(prior.weights, 0.0)
        for place, name in enumerate(SINGLE_EXPERTS, start=2):
            self._experts[:, place, PLACE[name]] = -1.0 if name in _DESCENDING else 1.0
        self.experts: tuple[str, ...] = names
        self._gains = _of_names(first.gains if state else [], names, 0.0)
        self._spreads = _of_names(first.expert_spreads if state else [], names, 1.0)

    def model(self) -> Model:
        """The weights that serve: the experts mixed by how well they have done."""
        experts = self._experts.copy()
        experts[:, 0] = self._weights
        mixed = np.einsum("ce,cef->cf", self.shares() / self._spreads, experts).astype(np.float32)
        mixed[:, _WORDS_AT] = self._weights[:, _WORDS_AT]
        spread = np.sqrt(np.maximum(self._square, 1e-6)).astype(np.float32)
        spread[_WORDS_AT] = WORDS_SCALE
        mean = self._mean.astype(np.float32)
        mean[_WORDS_AT] = 0.0
        digest = hashlib.sha256(mixed.tobytes() + mean.tobytes() + spread.tobytes()).hexdigest()[:10]
        lessons = sum(self._lessons)
        return Model(mixed, mean, spread, f"linear-{lessons}-{digest}", lessons)

    def shares(self) -> Weights:
        """The share of each expert in what serves, by kind of user. Shape [2, experts]; sums to 1."""
        gains = self._gains * TEMPERATURE + np.array([0.0, _PRIOR_LEAD] + [-_PRIOR_LEAD] * (len(self.experts) - 2))
        powers = np.exp(gains - gains.max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float32)

    def learn(self, lesson: Lesson, offset: int = -1) -> bool:
        """One step. A lesson at an offset that was learned already is left out; a frozen learner learns nothing.

        Returns whether anything was learned.
        """
        if 0 <= offset <= self.offset:
            return False
        self.offset = max(self.offset, offset)
        values = lesson.grid
        if self.frozen or values.shape[0] <= lesson.targets:
            return False
        self._follow_moments(values[lesson.targets :])
        spread = np.sqrt(np.maximum(self._square, 1e-6)).astype(np.float32)
        spread[_WORDS_AT] = WORDS_SCALE
        mean = self._mean.astype(np.float32)
        mean[_WORDS_AT] = 0.0
        scaled = scale(values, mean, spread)
        kind = int(lesson.cold)
        self._judge(kind, scaled, lesson)
        self._step(kind, scaled, lesson.targets)
        self._lessons[kind] += 1
        return True

    def state(self) -> LearnerState:
        """What `Learner(state)` goes on from."""
        return LearnerState(
            mean=_dict(self._mean),
            spread=_dict(np.sqrt(self._square)),
            weights=[_dict(weights) for weights in self._weights],
            squares=[_dict(squares) for squares in self._squares],
            gains=[dict(zip(self.experts, gains.tolist(), strict=True)) for gains in self._gains],
            expert_spreads=[dict(zip(self.experts, one.tolist(), strict=True)) for one in self._spreads],
            lessons=(self._lessons[0], self._lessons[1]),
            offset=self.offset,
            frozen=self.frozen,
            epoch=self.epoch,
        )

    def _follow_moments(self, values: Weights) -> None:
        there = np.isfinite(values)
        counts = there.sum(axis=0)
        filled = np.where(there, values, 0.0)
        seen = counts > 0
        self._moments += 1
        rate = max(1.0 / self._moments, 1.0 / MOMENTS_LESSONS)
        mean = filled.sum(axis=0)[seen] / counts[seen]
        square = ((filled - self._mean) ** 2 * there).sum(axis=0)[seen] / counts[seen]
        self._mean[seen] += rate * (mean - self._mean[seen])
        self._square[seen] += rate * (square - self._square[seen])

    def _judge(self, kind: int, scaled: Weights, lesson: Lesson) -> None:
        """Experts' discounted gain: 1/log2(2 + rank that the target would have had among all candidates)."""
        experts = self._experts[kind]
        experts[0] = self._weights[kind]
        scores = scaled @ experts.T
        others = scores[lesson.targets :]
        stretch = lesson.pool / len(others)
        gain = np.zeros(len(experts))
        for target in scores[: lesson.targets]:
            rank = ((others > target).sum(axis=0) + 0.5 * (others == target).sum(axis=0)) * stretch
            gain += 1.0 / np.log2(2.0 + rank)
        keep = 0.5 ** (1.0 / HALF_LIFE_LESSONS)
        self._gains[kind] = self._gains[kind] * keep + gain / lesson.targets
        rate = max(1.0 / (self._lessons[kind] + 20.0), 1.0 / MOMENTS_LESSONS)
        self._spreads[kind] += rate * (np.maximum(others.std(axis=0), 1e-3) - self._spreads[kind])

    def _step(self, kind: int, scaled: Weights, targets: int) -> None:
        """Softmax of each target among the others; AdaGrad."""
        scores = scaled @ self._weights[kind]
        powers = np.exp(scores - scores.max())
        chosen, others = powers[:targets], powers[targets:]
        sums = chosen + others.sum()
        pull = np.concatenate([chosen / sums - 1.0, others * (1.0 / sums).sum()]) / targets
        gradient = pull @ scaled
        self._squares[kind] += gradient * gradient
        self._weights[kind] -= RATE * gradient / np.sqrt(self._squares[kind])


_PRIOR_LEAD: Final = 1.0
"""Gain that the prior is given before any lesson, and that single features are in arrears."""


def encode_learner(learner: Learner) -> bytes:
    """A learner as the topic `model` carries it."""
    return msgspec.json.encode(learner.state())


def decode_learner(data: bytes) -> Learner:
    """The learner of `encode_learner`; raises `msgspec.DecodeError` for anything else."""
    return Learner(msgspec.json.decode(data, type=LearnerState))


def _array(named: Sequence[dict[str, float]], default: float) -> Weights:
    return np.array([[one.get(name, default) for name in NAMES] for one in named], np.float64)


def _of_names(named: Sequence[dict[str, float]], names: Sequence[str], default: float) -> NDArray[np.float64]:
    named = named or [{}, {}]
    return np.array([[one.get(name, default) for name in names] for one in named])


def _dict(values: Weights) -> dict[str, float]:
    return {name: float(value) for name, value in zip(NAMES, values, strict=True)}

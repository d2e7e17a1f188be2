"""Learned vectors: an item is its text vector and a residual that behaviour teaches; a user the mean of what they met.

    score(user, item) = SCALE · (text + residual)(item) · Σ share · (text + residual)(interaction) + bias(item)

All begin as text alone. What a lesson teaches: a softmax of each target among what could have been shown instead; AdaGrad
(Duchi, Hazan and Singer 2011) with one sum of squares a vector, as embeddings of recommenders are trained (Naumov et al.
2019, DLRM). One feature of the ranker, and one expert of its guard; `python -m evaluation.learned` compares other models.

Vectors live on the main axes of the table that holds them, and turn with these. What leaves the process is in the
encoder's own space (`full`), which is the same everywhere.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from streams.decide.compiled import compiled
from streams.decide.ragged import Doubles, Floats, Rows

SCALE: Final = np.float32(5.0)
"""The softmax's inverse temperature."""
RATE: Final = np.float32(0.03)
FIRST_SQUARES: Final = 0.1


class Vectors:
    """Residual and bias of every item, by row."""

    def __init__(self, dimension: int) -> None:
        """`dimension`: of the short vectors."""
        self.residual: Floats = np.zeros((0, dimension), np.float32)
        self.bias: Floats = np.zeros(0, np.float32)
        self.squares: Floats = np.zeros((0, 2), np.float32)
        """Mean squares of the gradients so far, of residual and bias."""
        self.moved: Floats = np.zeros(0, np.float32)
        """How far each has come since it was last told to others: Σ of the steps' lengths."""

    def reserve(self, rows: int) -> None:
        """Make rows exist."""
        more = max(0, rows - len(self.bias))
        for name, empty in (("residual", 0.0), ("bias", 0.0), ("squares", FIRST_SQUARES), ("moved", 0.0)):
            old = getattr(self, name)
            setattr(self, name, np.concatenate([old, np.full((more, *old.shape[1:]), empty, np.float32)]))

    def clear(self, rows: list[int]) -> None:
        """Forget rows that are given to other items."""
        self.residual[rows] = self.bias[rows] = self.moved[rows] = 0.0
        self.squares[rows] = FIRST_SQUARES

    def turn(self, old: Floats, new: Floats) -> None:
        """The axes have changed. Shape [full dimension, short dimension]."""
        if self.residual.any():
            self.residual[:] = self.residual @ (old.T @ new)

    def learn(self, short: Floats, rows: Rows, targets: int, history: Rows, shares: Floats) -> None:
        """One step of a lesson: the first `targets` of `rows` were chosen by a user of this history, the others not."""
        _learn(self.residual, self.bias, self.squares, self.moved, short, rows, targets, history, shares)


@compiled
def _dot(one: Floats, other: Floats) -> np.float32:
    """The product of two vectors; numba's own needs scipy."""
    found = np.float32(0)
    for axis in range(len(one)):
        found += one[axis] * other[axis]
    return found


@compiled
def _learn(
    residual: Floats, bias: Floats, squares: Floats, moved: Floats, short: Floats, rows: Rows, targets: int, history: Rows,
    shares: Floats,
) -> None:  # fmt: skip
    user, pull_user = np.zeros(short.shape[1], np.float32), np.zeros(short.shape[1], np.float32)
    for one in range(len(history)):
        user += shares[one] * (short[history[one]] + residual[history[one]])
    scores, pull = np.empty(len(rows)), np.zeros(len(rows))
    for place in range(len(rows)):
        row = rows[place]
        scores[place] = SCALE * _dot(short[row] + residual[row], user) + bias[row]
    powers = np.exp(scores - scores.max())
    others = powers[targets:].sum()
    for target in range(targets):
        whole = powers[target] + others
        pull[target] += (powers[target] / whole - 1.0) / targets
        for place in range(targets, len(rows)):
            pull[place] += powers[place] / whole / targets
    for place in range(len(rows)):
        loud = np.float32(pull[place])
        pull_user += SCALE * loud * (short[rows[place]] + residual[rows[place]])
    for place in range(len(rows)):
        row, loud = rows[place], np.float32(pull[place])
        _step(residual, squares, moved, row, SCALE * loud * user)
        squares[row, 1] += loud * loud
        bias[row] -= RATE * loud / math.sqrt(squares[row, 1])
        moved[row] += abs(RATE * loud / math.sqrt(squares[row, 1]))
    for one in range(len(history)):
        _step(residual, squares, moved, history[one], shares[one] * pull_user)


@compiled
def _step(residual: Floats, squares: Floats, moved: Floats, row: int, gradient: Floats) -> None:
    square = _dot(gradient, gradient)
    squares[row, 0] += square / np.float32(len(gradient))
    rate = RATE / math.sqrt(squares[row, 0])
    residual[row] -= rate * gradient
    moved[row] += rate * math.sqrt(square)


@compiled
def score_learned(
    residual: Floats, bias: Floats, short: Floats, events: Doubles, rows: Rows, sizes: Rows, history: Rows, length: Rows,
    shares: Floats, scores: Floats,
) -> None:  # fmt: skip
    """Fills `scores` [users, candidates] of `rows`, of each user's first `sizes`; `history`, `shares` [users, interactions].

    NaN for users without a past (`length` 0), and for items that nobody has met: there the vectors know nothing.
    """
    for user in range(len(sizes)):
        mean = np.zeros(short.shape[1], np.float32)
        for one in range(length[user]):
            row = history[user, one]
            mean += shares[user, one] * (short[row] + residual[row])
        for place in range(sizes[user]):
            row, likeness = rows[user, place], np.float32(0)
            if not length[user] or events[row] == 0:
                scores[user, place] = np.nan
                continue
            for axis in range(len(mean)):
                likeness += (short[row, axis] + residual[row, axis]) * mean[axis]
            scores[user, place] = SCALE * likeness + bias[row]

"""Errors of predicted ratings, beside the bias baseline: global mean + item + user, each drawn to 0."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

from evaluation.ours import Ours
from evaluation.protocol import Group, Step
from streams.decide.ratings import predict_rating
from streams.values import EventType

_ITEM: Final = 10.0
_USER: Final = 10.0


@dataclass(slots=True)
class Errors:
    """Sums of errors."""

    count: int = 0
    squares: float = 0.0
    absolutes: float = 0.0

    def add(self, error: float) -> None:
        """One prediction's error."""
        self.count += 1
        self.squares += error * error
        self.absolutes += abs(error)

    def summary(self) -> dict[str, float]:
        """RMSE and MAE."""
        return {
            "n": self.count,
            "rmse": round(math.sqrt(self.squares / self.count), 6),
            "mae": round(self.absolutes / self.count, 6),
        }


@dataclass(slots=True)
class Bias:
    """Running sums of ratings and of what biases leave over (Koren 2008, section 2.1), over all that a user rated."""

    total: float = 0.0
    count: int = 0
    items: dict[int, list[float]] = field(default_factory=dict)
    users: dict[str, list[float]] = field(default_factory=dict)

    def predict(self, user_id: str, item: int) -> float:
        """Mean + item's bias + user's bias."""
        mean = self.total / self.count if self.count else 0.0
        own, users = self.items.get(item, [0.0, 0.0]), self.users.get(user_id, [0.0, 0.0])
        return mean + (own[1] - own[0] * mean) / (own[0] + _ITEM) + users[1] / (users[0] + _USER)

    def learn(self, user_id: str, item: int, rating: float) -> None:
        """One rating."""
        mean = self.total / self.count if self.count else rating
        own = self.items.setdefault(item, [0.0, 0.0])
        left = rating - mean - (own[1] - own[0] * mean) / (own[0] + _ITEM)
        users = self.users.setdefault(user_id, [0.0, 0.0])
        users[0] += 1
        users[1] += left
        own[0] += 1
        own[1] += rating
        self.total += rating
        self.count += 1


@dataclass(slots=True)
class Ratings:
    """Predicts each tested rating before it is learned; `cold`: of items that had no rating before."""

    ours: Errors = field(default_factory=Errors)
    ours_cold: Errors = field(default_factory=Errors)
    bias: Errors = field(default_factory=Errors)
    bias_cold: Errors = field(default_factory=Errors)
    _model: Bias = field(default_factory=Bias)

    def test(self, ours: Ours, group: Group, steps: list[Step]) -> None:
        """Ratings of the users whose steps are tested."""
        users = {step.user_id for step in steps}
        for event in group.events:
            interaction = event.interaction
            if (
                event.user_id not in users or event.hidden or event.item < 0 or interaction.item_id is None
                or interaction.type is not EventType.RATING or interaction.value is None
            ):  # fmt: skip
                continue
            ours.flush()
            predicted = predict_rating(ours.columns, ours.state(event.user_id), interaction.item_id)
            baseline = self._model.predict(event.user_id, event.item)
            if predicted is None:
                continue
            cold = event.item not in self._model.items
            for error, kept in (
                (predicted, self.ours_cold if cold else None), (predicted, self.ours),
                (baseline, self.bias_cold if cold else None), (baseline, self.bias),
            ):  # fmt: skip
                if kept is not None:
                    kept.add(error - interaction.value)

    def learn(self, group: Group) -> None:
        """The group has happened."""
        for event in group.events:
            value = event.interaction.value
            if (
                event.interaction.type is EventType.RATING
                and value is not None
                and event.item >= 0
                and not event.hidden
            ):
                self._model.learn(event.user_id, event.item, value)

    def summary(self) -> dict[str, dict[str, float]]:
        """By method, and for cold items."""
        named = {
            "coldstream": self.ours, "bias": self.bias, "coldstream_cold_item": self.ours_cold,
            "bias_cold_item": self.bias_cold,
        }  # fmt: skip
        return {name: errors.summary() for name, errors in named.items() if errors.count}

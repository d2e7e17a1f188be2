"""A trial: users are split by a hash into arms, and each arm's lists are made its own way, so that they can be compared.

All arms share what is learned: lessons come from every user, whatever arm they are in.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

import numpy as np

from streams.decide.features import FEATURES, NAMES
from streams.decide.policy import Policy
from streams.decide.ranker import Model
from streams.errors import ConfigurationError
from streams.settings import ArmSettings, Settings

MOST_ARMS: Final = 4
"""Bounds the metrics, of which there is one for each arm."""
PARTS: Final = tuple(dict.fromkeys(FEATURES.values()))
"""The parts of a score, whose weights an arm may change."""
_OVERRIDES: Final = (
    "event_weights", "half_life_seconds", "half_life_events", "diversity", "category_cap", "explore", "floor_new",
    "floor_small",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Arm:
    """How the lists of some users are made. The one without a name is that of everybody while there is no trial."""

    policy: Policy
    name: str = ""
    share: float = 1.0
    weights: Mapping[str, float] = field(default_factory=dict)
    """Factors of the ranker's weights, by part of the score."""
    frozen_prior: bool = False
    """Whether the shipped prior ranks, whatever was learned."""


class Arms:
    """The arms, and whose lists each makes. Pure, but for a memory of the last model of each arm."""

    def __init__(self, policy: Policy, trial: Sequence[Arm] = ()) -> None:
        self.policy = policy
        """That of the settings, which lessons are made by."""
        self.all: tuple[Arm, ...] = tuple(trial) or (Arm(policy),)
        self._ends = np.cumsum([arm.share for arm in self.all])
        self._served: dict[str, tuple[Model, Model]] = {}

    @classmethod
    def of(cls, settings: Settings) -> Arms:
        """The arms of the settings. Raises `ConfigurationError`."""
        policy = Policy.of(settings)
        arms = settings.arms
        if len(arms) > MOST_ARMS:
            raise ConfigurationError(f"COLDSTREAM_ARMS has {len(arms)} arms: at most {MOST_ARMS}, as each has metrics")
        if arms and not math.isclose(sum(arm.share for arm in arms.values()), 1.0, abs_tol=1e-6):
            raise ConfigurationError("the shares in COLDSTREAM_ARMS must add up to 1")
        return cls(policy, [_arm(name, given, policy) for name, given in arms.items()])

    def of_user(self, user_id: str) -> Arm:
        """The arm of a user: the same on every worker and in every run, as long as names and shares are."""
        if len(self.all) == 1:
            return self.all[0]
        digest = sha256(user_id.encode("utf-8", "surrogatepass")).digest()
        place = int.from_bytes(digest[:8]) / 2**64
        return self.all[min(int(np.searchsorted(self._ends, place, side="right")), len(self.all) - 1)]

    def model(self, arm: Arm, learned: Model) -> Model:
        """The model that ranks for an arm while `learned` is what was learned."""
        if not arm.weights and not arm.frozen_prior:
            return learned
        source, served = self._served.get(arm.name, (None, learned))
        if source is not learned:
            served = _alter(Model.prior() if arm.frozen_prior else learned, arm)
            self._served[arm.name] = (learned, served)
        return served


def _arm(name: str, given: ArmSettings, policy: Policy) -> Arm:
    if not name or len(name) > 32 or not name.replace("-", "").replace("_", "").isalnum() or not name.isascii():
        raise ConfigurationError(f"an arm's name must be up to 32 letters, digits, - and _: {name[:40]!r} is not")
    unknown = set(given.weights) - set(PARTS)
    if unknown:
        raise ConfigurationError(f"arm {name} weighs {', '.join(sorted(unknown))}; there are: {', '.join(PARTS)}")
    overrides = {key: value for key in _OVERRIDES if (value := getattr(given, key)) is not None}
    if "event_weights" in overrides:
        overrides["event_weights"] = {**policy.event_weights, **overrides["event_weights"]}
    return Arm(dataclasses.replace(policy, **overrides), name, given.share, given.weights, given.frozen_prior)


def _alter(model: Model, arm: Arm) -> Model:
    if not arm.weights:
        return model
    factors = np.array([arm.weights.get(FEATURES[name], 1.0) for name in NAMES], np.float32)
    return dataclasses.replace(model, weights=model.weights * factors, version=f"{model.version}+{arm.name}")

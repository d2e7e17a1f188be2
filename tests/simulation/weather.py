"""Which faults a schedule has in store, drawn from its seed."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random


@dataclass(frozen=True, slots=True)
class Weather:
    """Which faults may happen, and how often at each step."""

    steps: int
    embedded: bool
    """One process on an index of its own."""
    static: bool
    processes: int
    kill: float
    sleep: float
    cut: float
    error: float
    part: float
    late: float
    rebalance: float
    impatient: float
    slow: float
    jump: float
    reset: float
    commit: float

    @classmethod
    def draw(cls, random: Random) -> Weather:
        def rate(chance: float, most: float) -> float:
            return random.uniform(0.1, 1.0) * most if random.random() < chance else 0.0

        embedded = random.random() < 0.15
        return cls(
            steps=random.randint(60, 260),
            embedded=embedded,
            static=random.random() < 0.5,
            processes=1 if embedded else random.choice((1, 2, 2, 3)),
            kill=rate(0.7, 0.04),
            sleep=0.0 if embedded else rate(0.5, 0.04),
            cut=0.0 if embedded else rate(0.2, 0.02),
            error=rate(0.5, 0.08),
            part=rate(0.3, 0.04),
            late=rate(0.3, 0.04),
            rebalance=rate(0.4, 0.03),
            impatient=rate(0.4, 0.3),
            slow=rate(0.3, 0.05),
            jump=rate(0.2, 0.02),
            reset=rate(0.1, 0.01),
            commit=random.choice((0.05, 0.3, 1.0)),
        )

"""A rate that is not to be exceeded."""

from __future__ import annotations

from dataclasses import dataclass

from streams.ports import Clock


@dataclass(slots=True)
class Budget:
    """A token bucket: `per_second`, at most one second's worth saved up."""

    per_second: float
    clock: Clock
    _tokens: float = 0.0
    _at: float | None = None

    def spend(self, wanted: int) -> int:
        """How many of `wanted` may be had now."""
        now = self.clock.monotonic()
        earned = self.per_second if self._at is None else (now - self._at) * self.per_second
        self._tokens = min(self.per_second, self._tokens + earned)
        self._at = now
        granted = min(wanted, int(self._tokens))
        self._tokens -= granted
        return granted

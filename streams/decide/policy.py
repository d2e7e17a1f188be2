"""What an operator decides about lists: the few settings that the pure functions need, made once by the app."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from streams.settings import Settings
from streams.values import EventType, Interaction


@dataclass(frozen=True, slots=True)
class Policy:
    """Weights, decays and bounds of a list; see the settings of the same names."""

    event_weights: Mapping[str, float] = field(default_factory=lambda: Settings().event_weights)
    exclude_seconds: Mapping[str, float] = field(default_factory=lambda: Settings().exclude_seconds)
    half_life_seconds: float = 3650 * 86_400.0
    half_life_events: float = 20.0
    diversity: float = 0.95
    category_cap: int = 5
    explore: bool = True
    list_size: int = 10
    liked_from: float = 4.0
    """A rating from here on is a positive event."""

    @classmethod
    def of(cls, settings: Settings) -> Policy:
        """The policy that the settings describe."""
        return cls(
            event_weights=settings.event_weights,
            exclude_seconds=settings.exclude_seconds,
            half_life_seconds=settings.half_life_seconds,
            half_life_events=settings.half_life_events,
            diversity=settings.diversity,
            category_cap=settings.category_cap,
            explore=settings.explore,
            list_size=settings.list_size,
        )


_NEVER_POSITIVE = frozenset({EventType.DISLIKE, EventType.SKIP, EventType.SEARCH})


def is_positive(interaction: Interaction, liked_from: float = 4.0) -> bool:
    """Whether an event says that its item was wanted: all but dislike, skip, search and ratings below `liked_from`."""
    if interaction.type in _NEVER_POSITIVE or interaction.item_id is None:
        return False
    return interaction.type is not EventType.RATING or (interaction.value or 0.0) >= liked_from

"""What an operator decides about lists: the few settings that the pure functions need, made once by the app."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from streams.errors import ConfigurationError
from streams.settings import Settings
from streams.values import EventType, Interaction

ATTRIBUTE: Final = "attributes."
CATEGORY: Final = "categories"


class Protected(StrEnum):
    """Items that an operator may promise a least share of the places: see docs/adr/exposure-floors.md."""

    NEW = "new"  # came within a week, and hardly anybody has met it
    SMALL = "small"  # of a provider who has little of what users want


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
    floor_new: float = 0.0
    floor_small: float = 0.0
    floor_provider: str = ""
    floor_small_below: float = 0.001
    liked_from: float = 4.0
    """A rating from here on is a positive event."""

    def __post_init__(self) -> None:
        """Raises `ConfigurationError` for floors that can't be held."""
        if self.floor_new + self.floor_small > 1.0:
            raise ConfigurationError(
                "floor_new and floor_small must not promise more than all places: lower one of them"
            )
        if self.floor_small and not self.floor_provider:
            raise ConfigurationError("floor_small needs floor_provider: attributes.NAME, or categories")
        if self.floor_provider not in ("", CATEGORY) and not self.floor_provider.removeprefix(ATTRIBUTE):
            raise ConfigurationError("floor_provider must name an attribute: attributes.NAME")
        if self.floor_provider not in ("", CATEGORY) and not self.floor_provider.startswith(ATTRIBUTE):
            raise ConfigurationError(
                f"floor_provider must be attributes.NAME or categories, not {self.floor_provider!r}"
            )

    @property
    def floors(self) -> dict[Protected, float]:
        """The promised shares, of the groups that are promised one."""
        given = {Protected.NEW: self.floor_new, Protected.SMALL: self.floor_small}
        return {group: share for group, share in given.items() if share > 0.0}

    @property
    def watched(self) -> tuple[Protected, ...]:
        """The groups whose share of the places is counted: those with a floor, and small providers where they are known."""
        known = {Protected.SMALL} if self.floor_provider else set()
        return tuple(group for group in Protected if group in self.floors or group in known)

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
            floor_new=settings.floor_new,
            floor_small=settings.floor_small,
            floor_provider=settings.floor_provider,
            floor_small_below=settings.floor_small_below,
        )


_NEVER_POSITIVE = frozenset({EventType.DISLIKE, EventType.SKIP, EventType.SEARCH})


def is_positive(interaction: Interaction, liked_from: float = 4.0) -> bool:
    """Whether an event says that its item was wanted: all but dislike, skip, search and ratings below `liked_from`."""
    if interaction.type in _NEVER_POSITIVE or interaction.item_id is None:
        return False
    return interaction.type is not EventType.RATING or (interaction.value or 0.0) >= liked_from

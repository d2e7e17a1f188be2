"""What the HTTP server needs of the worker, and the shapes of its answers. `streams.app` implements `Service`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from streams.wire import Event, Item, Recommendation, RecommendationReason, RecommendedItem


class SimilarItem(msgspec.Struct, frozen=True):
    """One neighbour of an item; `parts` sum to `score`."""

    item_id: str
    title: str
    rank: int
    score: float
    parts: dict[str, float]
    reason: RecommendationReason


class SimilarItems(msgspec.Struct, frozen=True):
    """Answer of /items/{id}/similar: the nearest items that can be recommended now, nearest first."""

    items: tuple[SimilarItem, ...]


class Items(msgspec.Struct, frozen=True):
    """Answer of /items: values of the topic `items`."""

    items: tuple[Item, ...]


class Interacted(msgspec.Struct, frozen=True):
    """One interaction of a user's history, as the live page tells it."""

    timestamp: str
    type: str
    item_id: str | None = None
    title: str | None = None
    query: str | None = None
    value: float | None = None


class Story(msgspec.Struct, frozen=True):
    """Answer of /users/{user}: what the worker knows and thinks of a user."""

    user_id: str
    known: bool
    profile: str
    history: tuple[Interacted, ...]
    """Newest first."""
    taste: tuple[SimilarItem, ...]
    """The items nearest to the user's taste, met ones included: what the vector means, in titles."""


class Health(msgspec.Struct, frozen=True):
    """Answer of /healthz and /readyz; `reasons` say what is missing, one sentence each."""

    status: str
    reasons: tuple[str, ...] = ()


class Failure(msgspec.Struct, frozen=True):
    """Answer of everything that failed: one sentence that says what to do."""

    error: str


@dataclass(frozen=True, slots=True)
class Wish:
    """What a reader asks of a list beyond the user. `profile` replaces the user's own; `query` is a wish of now."""

    limit: int
    exclude: frozenset[str] = frozenset()
    category: str | None = None
    query: str | None = None
    profile: str | None = None


class Service(Protocol):
    """The worker as its HTTP port sees it, called from the worker's event loop. Only `publish` changes anything.

    Raises `RetryableError` while a neighbour (index, broker) is away.
    """

    def readiness(self) -> list[str]:
        """What is missing for being ready, a sentence each; empty: ready. Never waits and never raises."""

    async def recommend(self, user_id: str, wish: Wish) -> Recommendation:
        """The list as it would be now, by the same path as the topic's; a stranger gets one too."""

    async def similar(self, item_id: str, limit: int) -> SimilarItems | None:
        """The items nearest to one; None for an item that is not in the catalogue."""

    async def items(self, item_ids: Sequence[str]) -> list[Item]:
        """Those of these items that are in the catalogue, in the order asked."""

    async def search(self, query: str, limit: int) -> list[Item]:
        """Items that fit a text, best first."""

    async def story(self, user_id: str) -> Story:
        """What is known of a user."""

    async def publish(self, value: Item | Event) -> None:
        """Send to the topic of that type as its producer would; returns when the broker has it."""


__all__ = [
    "Failure", "Health", "Interacted", "Items", "RecommendedItem", "Service", "SimilarItem", "SimilarItems", "Story",
    "Wish",
]  # fmt: skip

"""A worker of nothing but a catalogue, behind a real HTTP server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest

from streams.errors import IndexUnavailableError
from streams.http.server import HttpServer
from streams.http.service import SimilarItem, SimilarItems, Story, Wish
from streams.metrics import Metrics
from streams.settings import Settings
from streams.values import Strategy, TriggerKind
from streams.wire import Event, Item, Recommendation, RecommendationReason, RecommendationTrigger, RecommendedItem

CATALOGUE = {
    f"item/{number}": Item(item_id=f"item/{number}", title=f"Film <b>{number}</b>", categories=("Drama",))
    for number in range(150)
}


def make_list(user_id: str, ids: list[str]) -> Recommendation:
    reason = RecommendationReason("popular", "liked by many these days")
    places = [
        RecommendedItem(identity, rank, 1.0 / rank, {"popular": 1.0 / rank}, reason)
        for rank, identity in enumerate(ids, start=1)
    ]
    trigger = RecommendationTrigger(TriggerKind.REQUEST, "r", "2026-01-01T00:00:00.000Z")
    return Recommendation(
        "r", user_id, 0, "2026-01-01T00:00:00.000Z", trigger, (), Strategy.POPULAR, "hashing", "prior", tuple(places)
    )


@dataclass
class FakeService:
    """A worker of nothing but a catalogue; notes what it is asked."""

    missing: list[str] = field(default_factory=list)
    away: bool = False
    broken: bool = False
    wishes: list[tuple[str, Wish]] = field(default_factory=list)
    published: list[Item | Event] = field(default_factory=list)

    def readiness(self) -> list[str]:
        return self.missing

    async def recommend(self, user_id: str, wish: Wish) -> Recommendation:
        if self.away:
            raise IndexUnavailableError("the index does not answer")
        if self.broken:
            raise ZeroDivisionError("secret detail")
        self.wishes.append((user_id, wish))
        return make_list(user_id, [identity for identity in CATALOGUE if identity not in wish.exclude][: wish.limit])

    async def similar(self, item_id: str, limit: int) -> SimilarItems | None:
        if item_id not in CATALOGUE:
            return None
        reason = RecommendationReason("text", "much the same words", item_id)
        others = [item for item in CATALOGUE.values() if item.item_id != item_id][:limit]
        return SimilarItems(
            tuple(
                SimilarItem(item.item_id, item.title, rank, 0.5, {"text": 0.5}, reason)
                for rank, item in enumerate(others, start=1)
            )
        )

    async def items(self, item_ids: Any) -> list[Item]:
        return [CATALOGUE[identity] for identity in item_ids if identity in CATALOGUE]

    async def search(self, query: str, limit: int) -> list[Item]:
        return [item for item in CATALOGUE.values() if query in item.title][:limit]

    async def story(self, user_id: str) -> Story:
        return Story(user_id, False, "", (), ())

    async def publish(self, value: Item | Event) -> None:
        self.published.append(value)


@dataclass
class Site:
    service: FakeService
    server: HttpServer
    session: aiohttp.ClientSession

    async def get(self, path: str, **headers: str) -> tuple[int, Any]:
        async with self.session.get(self.server.url + path, headers=headers) as response:
            kind = response.content_type
            return response.status, await (response.json() if kind == "application/json" else response.text())


@asynccontextmanager
async def serve_fake(**settings: Any) -> AsyncIterator[Site]:
    """Serves a fake service with these settings on a free port."""
    service = FakeService()
    server = HttpServer(service, Metrics(), Settings(**{"http": "127.0.0.1:0", **settings}))
    await server.start()
    try:
        async with aiohttp.ClientSession() as session:
            yield Site(service, server, session)
    finally:
        await server.stop()


@pytest.fixture
def serve():
    """`serve_fake`, for tests that run on an event loop."""
    return serve_fake

"""The worker behind its HTTP port: the flow's answers in the shapes of `service`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from streams.errors import FatalError
from streams.flow.ask import Neighbour, Reader
from streams.http.service import Interacted, SimilarItem, SimilarItems, Story, Wish
from streams.ports import Publisher
from streams.values import ItemRecord, Message, Topic
from streams.wire import JSON, Event, Item, Recommendation, RecommendationReason, to_rfc3339

TASTE_ITEMS = 8


class WorkerService:
    """Implements `Service`."""

    def __init__(self, reader: Reader, publisher: Publisher, readiness: Callable[[], list[str]]) -> None:
        self._reader = reader
        self._publisher = publisher
        self._readiness = readiness

    def readiness(self) -> list[str]:
        """What is missing for being ready."""
        return self._readiness()

    async def recommend(self, user_id: str, wish: Wish) -> Recommendation:
        """The list as it would be now."""
        return await self._reader.recommend(
            user_id,
            limit=wish.limit,
            exclude=wish.exclude,
            category=wish.category,
            query=wish.query,
            profile=wish.profile,
        )

    async def similar(self, item_id: str, limit: int) -> SimilarItems | None:
        """The items nearest to one; None for an item that is not in the catalogue."""
        neighbours = await self._reader.similar(item_id, limit)
        if neighbours is None:
            return None
        item = await self._reader.item(item_id)
        return SimilarItems(_similar(neighbours, item))

    async def items(self, item_ids: Sequence[str]) -> list[Item]:
        """Those of these items that are in the catalogue, in the order asked."""
        found = [await self._reader.item(item_id) for item_id in item_ids]
        return [_to_wire(record) for record in found if record is not None]

    async def search(self, query: str, limit: int) -> list[Item]:
        """Items that fit a text, best first."""
        return [_to_wire(neighbour.record) for neighbour in await self._reader.search(query, limit)]

    async def story(self, user_id: str) -> Story:
        """What is known of a user."""
        state = await self._reader.state(user_id)
        if state is None or state.is_marker:
            return Story(user_id, known=False, profile="", history=(), taste=())
        history = []
        for one in reversed(state.history):
            record = await self._reader.item(one.item_id) if one.item_id is not None else None
            title = record.title if record else None
            history.append(Interacted(to_rfc3339(one.at), one.type.value, one.item_id, title, one.query, one.value))
        taste = _similar(await self._reader.taste(state, TASTE_ITEMS), None)
        profile = state.profile.text if state.profile else ""
        return Story(user_id, known=True, profile=profile, history=tuple(history), taste=taste)

    async def publish(self, value: Item | Event) -> None:
        """Send to the topic of that type as its producer would."""
        if isinstance(value, Item):
            message = Message(Topic.ITEMS, value.item_id.encode(), JSON.encode(value))
        elif isinstance(value, Event):
            message = Message(Topic.EVENTS, value.user_id.encode(), JSON.encode(value))
        else:
            raise FatalError(f"no topic takes a {type(value).__name__}")
        await self._publisher.send([message])


def _similar(neighbours: Sequence[Neighbour], item: ItemRecord | None) -> tuple[SimilarItem, ...]:
    return tuple(
        SimilarItem(
            item_id=neighbour.record.item_id,
            title=neighbour.record.title,
            rank=rank,
            score=neighbour.score,
            parts={"text": neighbour.score},
            reason=RecommendationReason("text", _why(neighbour.record, item), item.item_id if item else None),
        )
        for rank, neighbour in enumerate(neighbours, start=1)
    )


def _why(neighbour: ItemRecord, item: ItemRecord | None) -> str:
    """What the two have in common, as far as words can say it; else that their texts mean something near."""
    if item is None:
        return "near to the user's taste"
    shared = [category for category in neighbour.categories if category in item.categories]
    return f"both: {', '.join(shared)}" if shared else f"its text is near to “{item.title}”"


def _to_wire(record: ItemRecord) -> Item:
    return Item(
        item_id=record.item_id,
        title=record.title,
        description=record.description or None,
        categories=record.categories,
        price=record.price,
        attributes=record.attributes,
        available=record.available,
        published_at=record.published_at,
        expires_at=record.expires_at,
    )

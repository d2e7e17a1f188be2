"""Questions from outside: the list of a user as it would be now, what is like an item, what is known of somebody.

The same decisions as the pipeline's, on what is stored; nothing is written.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import msgspec
import numpy as np

from streams.decide.arms import Arms
from streams.decide.recommend import recommend
from streams.decide.taste import Request, stream_time, taste_vector, texts_of
from streams.flow.items import item_from_point
from streams.flow.parts import Parts, World
from streams.flow.recommend import to_recommendation
from streams.flow.users import UserWork, from_point
from streams.ports import Collection
from streams.values import ItemRecord, Profile, Trigger, TriggerKind, UserState, Vector
from streams.wire import Recommendation


@dataclass(frozen=True, slots=True)
class Neighbour:
    """An item near to something; `score` is the cosine of the centred vectors."""

    record: ItemRecord
    score: float


class Reader:
    """Answers from the index and this worker's columns. Raises `IndexUnavailableError` while the index is away."""

    def __init__(self, world: World, parts: Parts, arms: Arms) -> None:
        self._index = world.index
        self._clock = world.clock
        self._randomness = world.randomness
        self._catalogue = parts.catalogue
        self._texts = parts.texts
        self._learning = parts.learning
        self._quality = parts.quality
        self._arms = arms

    async def state(self, user_id: str) -> UserState | None:
        """What is stored of a user; None where nothing is."""
        (point,) = await self._index.read(Collection.USERS, [user_id])
        return from_point(point, user_id)

    async def item(self, item_id: str) -> ItemRecord | None:
        """An item of the catalogue; None for none such or a deleted one."""
        record = self._catalogue.columns.item(item_id)
        if record is None:
            (point,) = await self._index.read(Collection.ITEMS, [item_id])
            record = item_from_point(point)
        return None if record is None or record.deleted else record

    async def recommend(
        self, user_id: str, *, limit: int, exclude: frozenset[str] = frozenset(), category: str | None = None,
        query: str | None = None, profile: str | None = None,
    ) -> Recommendation:  # fmt: skip
        """The list of a user as it would be now; a stranger gets one too. `profile` replaces what is stored."""
        state = await self.state(user_id) or UserState(user_id)
        if profile is not None:
            kept = state.profile or Profile()
            state = msgspec.structs.replace(state, profile=msgspec.structs.replace(kept, profile=profile, interests=()))
        work = UserWork(user_id, [])
        work.state = state
        await self._catalogue.ensure([work])
        texts = await self._texts.vectors(texts_of(state, query))
        now = self._clock.now()
        request = Request(
            state,
            stream_time(self._catalogue.columns, state, now),
            limit,
            texts,
            query=query,
            exclude=exclude,
            category=category,
            seed=self._randomness.integer(),
            clock=now,
        )
        arm = self._arms.of_user(user_id)
        model = self._arms.model(arm, self._learning.model)
        (ranking,) = recommend(self._catalogue.columns, [request], model, arm.policy)
        request_id = self._randomness.token()
        answer = to_recommendation(
            replace(ranking, arm=arm.name), state, [Trigger(TriggerKind.REQUEST, request_id, now, now)],
            recommendation_id=request_id, generated_at=now, encoder=self._texts.encoder.name,
        )  # fmt: skip
        self._quality.remember(answer, now, known=bool(state.history), asked=True, short=ranking.short)
        return answer

    async def similar(self, item_id: str, limit: int) -> list[Neighbour] | None:
        """The recommendable items nearest to one, nearest first; None for an item that is not in the catalogue."""
        if await self.item(item_id) is None:
            return None
        vector = self._catalogue.columns.vector(item_id)
        return [] if vector is None else self._nearest(vector, limit, without=item_id)

    async def search(self, query: str, limit: int) -> list[Neighbour]:
        """The recommendable items nearest to a text, nearest first."""
        return self._nearest((await self._texts.vectors([query]))[query], limit)

    async def taste(self, state: UserState, limit: int) -> list[Neighbour]:
        """The items nearest to a user's taste, met ones included: what the vector means, in titles."""
        texts = await self._texts.vectors(texts_of(state))
        at = stream_time(self._catalogue.columns, state, self._clock.now())
        vector = taste_vector(self._catalogue.columns, state, texts, self._arms.of_user(state.user_id).policy, at)
        return [] if vector is None else self._nearest(vector + self._catalogue.columns.mean, limit)

    def _nearest(self, vector: Vector, limit: int, without: str | None = None) -> list[Neighbour]:
        columns = self._catalogue.columns
        rows, scores = columns.nearest(columns.project(vector[None])[0])
        now = self._clock.now()
        open_now = columns.recommendable(rows, now)
        rows, scores = rows[open_now], scores[open_now]
        if len(rows) > limit + 1:
            first = np.argpartition(-scores, limit)[: limit + 1]  # one more: it may be the item itself
            rows, scores = rows[first], scores[first]
        best: list[Neighbour] = []
        for place in np.lexsort((rows, -scores)).tolist():
            record = columns.records[rows[place]]
            if record is None or record.item_id == without or not record.recommendable(now):
                continue
            best.append(Neighbour(record, float(scores[place])))
            if len(best) == limit:
                break
        return best

"""From users with their new state to lists on the topic: texts, ranking, the wire's shape."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Final

from streams.decide.arms import Arms
from streams.decide.ranker import Model
from streams.decide.recommend import floor_of, recommend_tastes
from streams.decide.table import Table
from streams.decide.taste import Request, Taste, stream_time, taste_of, texts_of, vector_of
from streams.flow.users import UserWork
from streams.values import Message, Ranking, Topic, Trigger, UserState, Vector
from streams.wire import (
    JSON,
    Recommendation,
    RecommendationReason,
    RecommendationTrigger,
    RecommendedItem,
    to_rfc3339,
)

REASON_LENGTH: Final = 200
"""Characters of a reason at most: titles are as long as their makers like, and a list holds many."""


def wanted_texts(works: Sequence[UserWork]) -> list[str]:
    """The users' texts that need vectors for this batch."""
    return [text for work in works if not work.state.is_marker for text in texts_of(work.state)]


def rank_works(
    works: Sequence[UserWork],
    texts: Mapping[str, Vector],
    columns: Table,
    learned: Model,
    arms: Arms,
    clock: float,
    seeds: Sequence[int],
) -> None:
    """Give each work its taste, and its ranking where it wants a list, by the arm of its user. One seed a work."""
    wanting: dict[str, list[tuple[UserWork, Taste]]] = {arm.name: [] for arm in arms.all}
    for work, seed in zip(works, seeds, strict=True):
        work.ranking = work.taste = None
        if work.state.is_marker:
            continue
        arm, at = arms.of_user(work.user_id), stream_time(columns, work.state, clock)
        limit = arm.policy.list_size
        request = Request(work.state, at, limit, texts, seed=seed, came=work.came, clock=clock)
        taste = taste_of(columns, request, arm.policy)
        work.taste = vector_of(columns, taste)
        if work.wants_list:
            wanting[arm.name].append((work, taste))
    for arm in arms.all:
        tastes = [taste for _, taste in wanting[arm.name]]
        rankings = recommend_tastes(columns, tastes, arms.model(arm, learned), arm.policy) if tastes else []
        for (work, _), ranking in zip(wanting[arm.name], rankings, strict=True):
            work.ranking = dataclasses.replace(ranking, arm=arm.name) if arm.name else ranking
            work.floor = floor_of(columns, work.taste, work.ranking)


def to_recommendation(
    ranking: Ranking,
    state: UserState,
    triggers: Sequence[Trigger],
    *,
    recommendation_id: str,
    generated_at: float,
    encoder: str,
) -> Recommendation:
    """The topic's value: the latest trigger is named as such, the others as conflated."""
    latest = triggers[-1]
    others = dict.fromkeys(trigger.id for trigger in triggers if trigger.id != latest.id)
    return Recommendation(
        recommendation_id=recommendation_id,
        user_id=state.user_id,
        version=state.version,
        generated_at=to_rfc3339(generated_at),
        trigger=RecommendationTrigger(latest.kind, latest.id, to_rfc3339(latest.at)),
        conflated=tuple(others),
        strategy=ranking.strategy,
        encoder=encoder,
        ranker=ranking.ranker,
        items=tuple(
            RecommendedItem(
                item_id=item.item_id,
                rank=rank,
                score=item.score,
                parts=item.parts,
                reason=RecommendationReason(item.reason.kind, item.reason.text[:REASON_LENGTH], item.reason.item_id),
            )
            for rank, item in enumerate(ranking.items, start=1)
        ),
        arm=ranking.arm,
    )


def list_message(value: Recommendation, headers: tuple[tuple[str, bytes], ...] = ()) -> Message:
    """A list as a message: keyed by the user, the version in a header too, before other `headers`."""
    return Message(
        Topic.RECOMMENDATIONS,
        value.user_id.encode(),
        JSON.encode(value),
        (("version", str(value.version).encode()), *headers),
    )


def tombstone_message(state: UserState) -> Message:
    """The null that tells subscribers of an erasure, with its version in the header."""
    return Message(Topic.RECOMMENDATIONS, state.user_id.encode(), None, (("version", str(state.version).encode()),))

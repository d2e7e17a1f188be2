"""Learning from the stream: lessons are made by every worker, learned by one, and its weights are read by all.

The worker that owns the one partition of `lessons` learns, and publishes what it has learned on `model`, with the last
lesson's offset inside; of two such records the one with the greater offset counts. Best effort: a lesson lost is one
lesson fewer.

An operator's order (`coldstream ranker`) is such a record of a greater epoch, which counts before the offset. One state a
day is kept beside it under keys of its own, for eight days, so that there is something to roll back to.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from streams.decide.arms import PARTS
from streams.decide.features import FEATURES, NAMES
from streams.decide.lessons import Lesson, decode_lesson, encode_lesson
from streams.decide.policy import Policy, is_positive
from streams.decide.ranker import Learner, Model, decode_learner, encode_learner
from streams.decide.recommend import lessons_of
from streams.decide.table import Table
from streams.decide.taste import Request
from streams.errors import ColdstreamError, PoisonError
from streams.flow.fanout import Budget
from streams.flow.users import UserWork
from streams.flow.vectors import VectorFeed, is_vector
from streams.ports import Clock, Publisher
from streams.values import Message, Record, Topic, Vector

log = logging.getLogger(__name__)

MODEL_KEY: Final = b"ranker"
CHECKPOINT: Final = b"ranker-"
"""Keys of the daily states: this and the day modulo `CHECKPOINTS`."""
CHECKPOINTS: Final = 8
DAY_SECONDS: Final = 86_400.0
PUBLISH_SECONDS: Final = 2.0
LESSONS_A_BATCH: Final = 16


EXPERTS: Final = ("learned", "prior", "single")
"""The ranker's experts as they are shown; those of one feature are taken together."""


@dataclass(frozen=True, slots=True)
class Insight:
    """What ranks now, for people. Pairs are for users with history and for those without."""

    lessons: int
    frozen: bool
    parts: tuple[dict[str, float], dict[str, float]]
    """Share of the absolute weights, on scaled features, by part of the score; sums to 1."""
    experts: tuple[dict[str, float], dict[str, float]]
    """Share in what ranks, by expert of `EXPERTS`; sums to 1."""

    @classmethod
    def of(cls, learner: Learner, model: Model) -> Insight:
        """The insight into a learner and the model that it gave."""
        known, cold = (_shares_of_parts(weights) for weights in np.abs(model.weights))
        ours, strangers = (
            dict(zip(EXPERTS, (float(one[0]), float(one[1]), float(one[2:].sum())), strict=True))
            for one in learner.shares()
        )
        return cls(model.lessons, learner.frozen, (known, cold), (ours, strangers))


@dataclass(frozen=True, slots=True)
class _Choice:
    """A user's state before the first positive event of a batch, and all that they chose in it."""

    request: Request
    item_ids: tuple[str, ...]


class Learning:
    """The ranker's weights as this worker has them. Starts with the shipped prior."""

    def __init__(self, clock: Clock, lessons_per_second: float, vectors: VectorFeed) -> None:
        self._clock = clock
        self._vectors = vectors
        self._budget = Budget(lessons_per_second, clock)
        self._learner = Learner()
        self._known: bytes | None = None
        """The last record of `model` that counted."""
        self._records: list[Record] = []
        self._outbox: list[Message] = []
        self._published_at = clock.monotonic()
        self._checkpoint_day = -1
        """Day of the newest daily state on the topic."""
        self._stale = False
        """Whether the last record on the topic is of an epoch that is over: a later reader must find ours."""
        self.model: Model = self._learner.model()
        self._insight = Insight.of(self._learner, self.model)

    def insight(self) -> Insight:
        """What ranks now."""
        return self._insight

    def observe(self, works: Sequence[UserWork], texts: Mapping[str, Vector], columns: Table, policy: Policy) -> None:
        """Make lessons of a batch's new positive events, as many as the rate allows; the newest of each user."""
        choices = [choice for work in works if (choice := _choice_of(work, texts, policy)) is not None]
        choices = choices[: self._budget.spend(min(len(choices), LESSONS_A_BATCH))]
        found = lessons_of(
            columns, [choice.request for choice in choices], [choice.item_ids for choice in choices], policy
        ) if choices else []  # fmt: skip
        self._outbox += [Message(Topic.LESSONS, None, encode_lesson(lesson), partition=0) for lesson in found if lesson]

    def outgoing(self) -> list[Message]:
        """The lessons that were made since the last call. Who takes them sends them; best effort."""
        messages, self._outbox = self._outbox, []
        return messages

    def take(self, lessons: Sequence[tuple[Record, Lesson]], others: Sequence[Record] = ()) -> None:
        """Learn from records of `lessons`; `others` are done with them."""
        for record, lesson in lessons:
            if self._learner.learn(lesson, record.offset):
                self._vectors.learn(lesson)
            self._records.append(record)
        self._records += others

    async def publish(self, publisher: Publisher, *, now: bool = False) -> list[Record]:
        """Publish what was learned, if that is due (or `now`); returns the records of `lessons` that are done."""
        due = now or self._clock.monotonic() - self._published_at >= PUBLISH_SECONDS
        if not (self._records or self._stale) or not due:
            return []
        learner, value = self._learner, encode_learner(self._learner)
        messages = [Message(Topic.MODEL, MODEL_KEY, value, partition=0)]
        day = int(self._clock.now() // DAY_SECONDS)
        keeps_day = bool(self._records) and day > self._checkpoint_day
        if keeps_day:
            messages.append(Message(Topic.MODEL, CHECKPOINT + str(day % CHECKPOINTS).encode(), value, partition=0))
        if self._records:
            messages += self._vectors.messages()
        stale, self._stale = self._stale, False
        try:
            await publisher.send(messages)
        except ColdstreamError:
            self._stale = self._stale or stale
            raise
        self._vectors.told()
        self._published_at = self._clock.monotonic()
        if keeps_day:
            self._checkpoint_day = day
        if learner is self._learner:  # no order of an operator came meanwhile
            self._serve(learner, value)
        done, self._records = sorted(self._records, key=lambda record: record.offset), []
        return done

    def adopt(self, record: Record) -> None:
        """A record of `model`: it counts where its epoch is later than ours, or has seen more lessons than we.

        An item's vector is taken over as it is. Raises for what is neither.
        """
        if is_vector(record):
            self._vectors.adopt(record)
            return
        if record.value is None or record.key is None:
            return
        if record.key.startswith(CHECKPOINT):
            self._checkpoint_day = max(self._checkpoint_day, int(record.time // DAY_SECONDS))
        if record.key != MODEL_KEY:
            return
        learner = decode_learner(record.value)
        if (learner.epoch, learner.offset) > (self._learner.epoch, self._learner.offset):
            self._learner = learner
            self._serve(learner, record.value)
        self._stale = learner.epoch < self._learner.epoch

    def _serve(self, learner: Learner, value: bytes) -> None:
        self._known = value
        self.model = learner.model()
        self._insight = Insight.of(learner, self.model)

    def drop(self) -> None:
        """Forget what was learned since the last publication: the next owner of `lessons` learns it again."""
        if self._records:
            self._records.clear()
            self._learner = Learner() if self._known is None else decode_learner(self._known)


def _shares_of_parts(weights: NDArray[np.float32]) -> dict[str, float]:
    shares = dict.fromkeys(PARTS, 0.0)
    for name, weight in zip(NAMES, weights, strict=True):
        shares[FEATURES[name]] += float(weight)
    whole = max(sum(shares.values()), 1e-9)
    return {part: share / whole for part, share in shares.items()}


def decode_lessons(
    records: Sequence[Record],
) -> tuple[list[tuple[Record, Lesson]], list[Record], list[tuple[Record, PoisonError]]]:
    """Records of `lessons` with what they hold, those of releases with other features, and those that hold no lesson."""
    good, foreign, dead = [], [], []
    for record in records:
        try:
            lesson = decode_lesson(record.value or b"")
        except (msgspec.MsgspecError, ValueError) as error:
            dead.append((record, PoisonError("schema", f"not a lesson: {error}")))
            continue
        if lesson is None:
            foreign.append(record)
        else:
            good.append((record, lesson))
    if foreign:
        log.info("%d lessons of a release with other features are passed over", len(foreign))
    return good, foreign, dead


def _choice_of(work: UserWork, texts: Mapping[str, Vector], policy: Policy) -> _Choice | None:
    chosen = [
        (before, interaction, interaction.item_id)
        for before, entry in work.chosen
        if (interaction := entry.interaction).item_id is not None and is_positive(interaction, policy.liked_from)
    ]
    if not chosen:
        return None
    before, first, _ = chosen[0]
    met = {other.item_id for other in before.history}
    item_ids = tuple(dict.fromkeys(item_id for _, _, item_id in chosen if item_id not in met))
    seed = first.partition * 1_000_003 + first.offset
    return _Choice(Request(before, first.at, texts=texts, seed=seed), item_ids) if item_ids else None

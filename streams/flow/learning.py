"""Learning from the stream: lessons are made by every worker, learned by one, and its weights are read by all.

The worker that owns the one partition of `lessons` learns, and publishes what it has learned on `model`, with the last
lesson's offset inside; of two such records the one with the greater offset counts. Best effort: a lesson lost is one
lesson fewer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from streams.decide.lessons import Lesson, decode_lesson, encode_lesson
from streams.decide.policy import Policy, is_positive
from streams.decide.ranker import Learner, Model, decode_learner, encode_learner
from streams.decide.recommend import lessons_of
from streams.decide.table import Table
from streams.decide.taste import Request
from streams.errors import PoisonError
from streams.flow.fanout import Budget
from streams.flow.users import UserWork
from streams.ports import Clock, Publisher
from streams.values import Message, Record, Topic, Vector

MODEL_KEY: Final = b"ranker"
PUBLISH_SECONDS: Final = 2.0
LESSONS_A_BATCH: Final = 16


@dataclass(frozen=True, slots=True)
class _Choice:
    """A user's state before the first positive event of a batch, and all that they chose in it."""

    request: Request
    item_ids: tuple[str, ...]


class Learning:
    """The ranker's weights as this worker has them. Starts with the shipped prior."""

    def __init__(self, clock: Clock, lessons_per_second: float) -> None:
        self._clock = clock
        self._budget = Budget(lessons_per_second, clock)
        self._learner = Learner()
        self._known: bytes | None = None
        """The last record of `model` that counted."""
        self._records: list[Record] = []
        self._published_at = clock.monotonic()
        self.model: Model = self._learner.model()

    def lessons(
        self, works: Sequence[UserWork], texts: Mapping[str, Vector], columns: Table, policy: Policy
    ) -> list[Message]:
        """Lessons of this batch's new positive events, as many as the rate allows; the newest of each user."""
        choices = [choice for work in works if (choice := _choice_of(work, texts, policy)) is not None]
        choices = choices[: self._budget.spend(min(len(choices), LESSONS_A_BATCH))]
        found = lessons_of(
            columns, [choice.request for choice in choices], [choice.item_ids for choice in choices], policy
        ) if choices else []  # fmt: skip
        return [Message(Topic.LESSONS, None, encode_lesson(lesson), partition=0) for lesson in found if lesson]

    def take(self, lessons: Sequence[tuple[Record, Lesson]], others: Sequence[Record] = ()) -> None:
        """Learn from records of `lessons`; `others` are done with them."""
        for record, lesson in lessons:
            self._learner.learn(lesson, record.offset)
            self._records.append(record)
        self._records += others

    async def publish(self, publisher: Publisher, *, now: bool = False) -> list[Record]:
        """Publish what was learned, if that is due (or `now`); returns the records of `lessons` that are done."""
        due = now or self._clock.monotonic() - self._published_at >= PUBLISH_SECONDS
        if not self._records or not due:
            return []
        value = encode_learner(self._learner)
        await publisher.send([Message(Topic.MODEL, MODEL_KEY, value, partition=0)])
        self._published_at = self._clock.monotonic()
        self._known = value
        self.model = self._learner.model()
        done, self._records = sorted(self._records, key=lambda record: record.offset), []
        return done

    def adopt(self, record: Record) -> None:
        """A record of `model`: it counts where it has seen more lessons than we."""
        if record.key != MODEL_KEY or record.value is None:
            return
        learner = decode_learner(record.value)
        if learner.offset > self._learner.offset:
            self._known = record.value
            self._learner = learner
            self.model = learner.model()

    def drop(self) -> None:
        """Forget what was learned since the last publication: the next owner of `lessons` learns it again."""
        if self._records:
            self._records.clear()
            self._learner = Learner() if self._known is None else decode_learner(self._known)


def decode_lessons(
    records: Sequence[Record],
) -> tuple[list[tuple[Record, Lesson]], list[tuple[Record, PoisonError]]]:
    """Records of `lessons` with what they hold, and those that hold no lesson."""
    good, dead = [], []
    for record in records:
        try:
            good.append((record, decode_lesson(record.value or b"")))
        except (msgspec.MsgspecError, ValueError) as error:
            dead.append((record, PoisonError("schema", f"not a lesson: {error}")))
    return good, dead


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

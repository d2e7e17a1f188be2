"""Which weights serve: what was learned, what others published, what an operator ordered; and what is kept of the past."""

from __future__ import annotations

from itertools import count

import msgspec
import numpy as np
import pytest

from streams.decide.features import NAMES
from streams.decide.lessons import Lesson
from streams.decide.ranker import Learner, decode_learner
from streams.decide.table import Table
from streams.errors import BrokerUnavailableError
from streams.flow.learning import CHECKPOINT, CHECKPOINTS, DAY_SECONDS, Learning
from streams.flow.vectors import LEAST_MOVED, VECTOR, LearnedVector, VectorFeed
from streams.values import Message, Record, Topic
from tests.support.memory import ManualClock, MemoryPublisher
from tests.unit.decide.catalogue import DIMENSION, filled, record, vector_of

NUMBERS = count()


def lesson(seed: int) -> Lesson:
    values = np.random.default_rng(seed).normal(size=(12, len(NAMES))).astype(np.float16)
    items = tuple(f"wine-{number}" for number in range(12))
    return Lesson(
        1, False, 40, values.tobytes(), items=items, history=("wine-13",), shares=np.ones(1, np.float32).tobytes()
    )


def learning_of(clock: ManualClock, table: Table | None = None, encoder: str = "a", writer: str = "") -> Learning:
    return Learning(clock, 1.0, VectorFeed(table or filled(), encoder, writer or f"writer-{next(NUMBERS)}"))


def sent(message: Message, offset: int, time: float = 0.0) -> Record:
    return Record(message.topic, 0, offset, time, message.key, message.value)


def record_of(offset: int) -> Record:
    return Record(Topic.LESSONS, 0, offset, 0.0, None, b"")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def learn(learning: Learning, *offsets: int) -> None:
    learning.take([(record_of(offset), lesson(offset)) for offset in offsets])


def order(learning: Learning, **changes: object) -> Record:
    """What `coldstream ranker` sends: the state that stands, changed, in the next epoch."""
    state = decode_learner(learning._known).state() if learning._known else Learner().state()
    state = msgspec.structs.replace(state, epoch=state.epoch + 1, **changes)
    return Record(Topic.MODEL, 0, 99, 0.0, b"ranker", msgspec.json.encode(state))


async def test_what_was_learned_serves_once_it_is_published(clock: ManualClock) -> None:
    learning, publisher = learning_of(clock), MemoryPublisher()
    before = learning.model.version
    learn(learning, 0, 1)
    assert learning.model.version == before
    done = await learning.publish(publisher, now=True)
    assert [record.offset for record in done] == [0, 1]
    assert learning.model.version != before
    assert learning.insight().lessons == 2
    other = learning_of(clock)
    other.adopt(sent(publisher.sent[0], 0))
    assert other.model.version == learning.model.version


async def test_frozen_weights_stay_and_lessons_are_done_with(clock: ManualClock) -> None:
    learning, publisher = learning_of(clock), MemoryPublisher()
    learn(learning, 0)
    await learning.publish(publisher, now=True)
    learning.adopt(order(learning, frozen=True))
    version = learning.model.version
    learn(learning, 1, 2)
    assert [record.offset for record in await learning.publish(publisher, now=True)] == [1, 2]
    assert learning.model.version == version
    assert learning.insight().frozen
    learning.adopt(order(learning, frozen=False))
    learn(learning, 3)
    await learning.publish(publisher, now=True)
    assert learning.model.version != version


async def test_an_order_beats_a_worker_that_has_not_heard_of_it(clock: ManualClock) -> None:
    learning, publisher = learning_of(clock), MemoryPublisher()
    learn(learning, 0, 1, 2)
    await learning.publish(publisher, now=True)
    old = publisher.sent[0]
    prior = Learner().state()
    learning.adopt(order(learning, **{name: getattr(prior, name) for name in ("mean", "spread", "weights", "lessons")}))
    rolled_back = learning.model.version
    learning.adopt(sent(old, 100))
    assert learning.model.version == rolled_back, "an epoch that is over counts no more, whatever its offset"
    assert not await learning.publish(publisher, now=True)
    last = publisher.sent[-1]
    assert decode_learner(last.value or b"").epoch == 1, "who starts later must find the order, not what came after it"
    learning.adopt(sent(last, 101))
    count = len(publisher.sent)
    await learning.publish(publisher, now=True)
    assert len(publisher.sent) == count, "said once"


async def test_a_state_a_day_is_kept(clock: ManualClock) -> None:
    learning, publisher = learning_of(clock), MemoryPublisher()
    for day in range(CHECKPOINTS + 2):
        for offset in (2 * day, 2 * day + 1):
            learn(learning, offset)
            await learning.publish(publisher, now=True)
        clock.at += DAY_SECONDS
    keys = [message.key for message in publisher.sent if (message.key or b"").startswith(CHECKPOINT)]
    assert len(keys) == CHECKPOINTS + 2
    assert len(set(keys)) == CHECKPOINTS, "so that a compacted topic keeps as many and no more"
    restarted = learning_of(clock)
    for number, message in enumerate(publisher.sent):
        restarted.adopt(sent(message, number, time=clock.now()))
    learn(restarted, 100)
    count = len(publisher.sent)
    await restarted.publish(publisher, now=True)
    later = [message.key for message in publisher.sent[count:] if not (message.key or b"").startswith(VECTOR)]
    assert later == [b"ranker"], "today's is there already"


async def test_a_broker_that_is_away_loses_nothing(clock: ManualClock) -> None:
    class Away(MemoryPublisher):
        async def send(self, messages: object) -> None:
            raise BrokerUnavailableError("away")

    learning = learning_of(clock)
    learn(learning, 0)
    with pytest.raises(BrokerUnavailableError):
        await learning.publish(Away(), now=True)
    assert [record.offset for record in await learning.publish(MemoryPublisher(), now=True)] == [0]


def test_insight_tells_shares(clock: ManualClock) -> None:
    insight = learning_of(clock).insight()
    for parts, experts in zip(insight.parts, insight.experts, strict=True):
        assert sum(parts.values()) == pytest.approx(1.0)
        assert sum(experts.values()) == pytest.approx(1.0)
    assert set(insight.parts[0]) == {"history", "similar_users", "popular", "new", "profile", "wish"}


async def test_vectors_that_were_learned_are_told_and_say_the_same_on_other_axes(clock: ManualClock) -> None:
    table, publisher = filled(), MemoryPublisher()
    learning = learning_of(clock, table)
    learn(learning, *range(60))
    await learning.publish(publisher, now=True)
    told = [message for message in publisher.sent if (message.key or b"").startswith(VECTOR)]
    assert len(told) == 13
    assert not (table.learned.moved > LEAST_MOVED).any()
    other = filled()
    other.put([(record(f"bread-{number}"), vector_of(f"bread-{number}")) for number in range(30, 60)])  # turns the axes
    follower = learning_of(clock, other)
    for number, message in enumerate(told):
        follower.adopt(sent(message, number))
    mine, theirs = (one.full(one.learned.residual[[one.rows["wine-1"], one.rows["wine-3"]]]) for one in (table, other))
    assert np.abs(mine).max() > 0.01
    assert np.allclose(mine, theirs, atol=2e-3)
    assert other.learned.bias[other.rows["wine-3"]] == pytest.approx(table.learned.bias[table.rows["wine-3"]])
    before = table.learned.residual.copy()
    for number, message in enumerate(told):
        learning.adopt(sent(message, number))
    assert (table.learned.residual == before).all(), "nobody takes back what it told itself"


async def test_what_was_not_told_is_told_once_the_broker_is_back(clock: ManualClock) -> None:
    class Away(MemoryPublisher):
        async def send(self, messages: object) -> None:
            raise BrokerUnavailableError("away")

    learning, publisher = learning_of(clock), MemoryPublisher()
    learn(learning, *range(40))
    with pytest.raises(BrokerUnavailableError):
        await learning.publish(Away(), now=True)
    await learning.publish(publisher, now=True)
    assert any((message.key or b"").startswith(VECTOR) for message in publisher.sent)


async def test_vectors_of_items_that_nobody_holds_are_ended_by_who_learns(clock: ManualClock) -> None:
    publisher, empty = MemoryPublisher(), Table(DIMENSION)
    learning = learning_of(clock)
    learn(learning, *range(60))
    await learning.publish(publisher, now=True)
    told = [message for message in publisher.sent if (message.key or b"").startswith(VECTOR)]
    empty.put([(record("wine-1"), vector_of("wine-1"))])
    heir = learning_of(clock, empty)
    for number, message in enumerate(told):
        heir.adopt(sent(message, number))
    later = MemoryPublisher()
    assert not await heir.publish(later, now=True)
    learn(heir, 30)
    await heir.publish(later, now=True)
    ended = {message.key for message in later.sent if message.value is None}
    assert len(ended) == 12
    assert VECTOR + b"wine-1" not in ended


@pytest.mark.parametrize(
    "changes",
    [{"residual": b"\0" * 6}, {"residual": np.full(DIMENSION, np.inf, np.float16).tobytes()}, {"bias": float("nan")},
     {"squares": (0.0, 1.0)}],
)  # fmt: skip
def test_a_vector_that_is_none_is_refused(clock: ManualClock, changes: dict[str, object]) -> None:
    table = filled()
    good = LearnedVector("a", "somebody", np.ones(DIMENSION, np.float16).tobytes(), 0.5, (0.2, 0.2))
    learning = learning_of(clock, table)
    with pytest.raises(ValueError, match="learned vector"):
        learning.adopt(vector_record("wine-1", msgspec.structs.replace(good, **changes)))
    assert not table.learned.residual.any()
    learning.adopt(vector_record("wine-1", msgspec.structs.replace(good, encoder="b")))
    assert not table.learned.residual.any(), "another encoder's space"
    learning.adopt(vector_record("wine-1", good))
    assert table.learned.residual[table.rows["wine-1"]].any()


def vector_record(item_id: str, told: LearnedVector) -> Record:
    return Record(Topic.MODEL, 0, 7, 0.0, VECTOR + item_id.encode(), msgspec.msgpack.encode(told))

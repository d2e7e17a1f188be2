"""Which weights serve: what was learned, what others published, what an operator ordered; and what is kept of the past."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from streams.decide.features import NAMES
from streams.decide.lessons import Lesson
from streams.decide.ranker import Learner, decode_learner
from streams.errors import BrokerUnavailableError
from streams.flow.learning import CHECKPOINTS, DAY_SECONDS, Learning
from streams.values import Message, Record, Topic
from tests.support.memory import ManualClock, MemoryPublisher


def lesson(seed: int) -> Lesson:
    values = np.random.default_rng(seed).normal(size=(12, len(NAMES))).astype(np.float16)
    return Lesson(1, False, 40, values.tobytes())


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
    learning, publisher = Learning(clock, 1.0), MemoryPublisher()
    before = learning.model.version
    learn(learning, 0, 1)
    assert learning.model.version == before
    done = await learning.publish(publisher, now=True)
    assert [record.offset for record in done] == [0, 1]
    assert learning.model.version != before
    assert learning.insight().lessons == 2
    other = Learning(clock, 1.0)
    other.adopt(sent(publisher.sent[0], 0))
    assert other.model.version == learning.model.version


async def test_frozen_weights_stay_and_lessons_are_done_with(clock: ManualClock) -> None:
    learning, publisher = Learning(clock, 1.0), MemoryPublisher()
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
    learning, publisher = Learning(clock, 1.0), MemoryPublisher()
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
    learning, publisher = Learning(clock, 1.0), MemoryPublisher()
    for day in range(CHECKPOINTS + 2):
        for offset in (2 * day, 2 * day + 1):
            learn(learning, offset)
            await learning.publish(publisher, now=True)
        clock.at += DAY_SECONDS
    keys = [message.key for message in publisher.sent if message.key != b"ranker"]
    assert len(keys) == CHECKPOINTS + 2
    assert len(set(keys)) == CHECKPOINTS, "so that a compacted topic keeps as many and no more"
    restarted = Learning(clock, 1.0)
    for number, message in enumerate(publisher.sent):
        restarted.adopt(sent(message, number, time=clock.now()))
    learn(restarted, 100)
    count = len(publisher.sent)
    await restarted.publish(publisher, now=True)
    assert [message.key for message in publisher.sent[count:]] == [b"ranker"], "today's is there already"


async def test_a_broker_that_is_away_loses_nothing(clock: ManualClock) -> None:
    class Away(MemoryPublisher):
        async def send(self, messages: object) -> None:
            raise BrokerUnavailableError("away")

    learning = Learning(clock, 1.0)
    learn(learning, 0)
    with pytest.raises(BrokerUnavailableError):
        await learning.publish(Away(), now=True)
    assert [record.offset for record in await learning.publish(MemoryPublisher(), now=True)] == [0]


def test_insight_tells_shares(clock: ManualClock) -> None:
    insight = Learning(clock, 1.0).insight()
    for parts, experts in zip(insight.parts, insight.experts, strict=True):
        assert sum(parts.values()) == pytest.approx(1.0)
        assert sum(experts.values()) == pytest.approx(1.0)
    assert set(insight.parts[0]) == {"history", "similar_users", "popular", "new", "profile", "wish"}

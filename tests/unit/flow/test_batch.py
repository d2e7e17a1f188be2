"""One batch on its way, as DELIVERY section 1 promises it."""

from __future__ import annotations

import dataclasses

import pytest

from streams.errors import BrokerUnavailableError, TopicRemadeError
from streams.values import Record, Topic
from tests.support.service import Service, ids, named

TEAS = [("sencha", "green tea from japan"), ("assam", "black tea from assam"), ("rooibos", "red bush tea from africa")]
TOOLS = [("hammer", "steel claw hammer"), ("saw", "hand saw for wood"), ("drill", "cordless power drill")]


@pytest.fixture
async def service() -> Service:
    service = await Service().open()
    await service.feed(*(service.log.item(item_id, title) for item_id, title in TEAS + TOOLS))
    return service


async def test_a_profile_alone_gives_a_fitting_list(service: Service) -> None:
    await service.feed(service.log.user("ann", "hand saw, claw hammer, power drill"))
    (only,) = service.lists()
    assert only["strategy"] == "profile"
    assert only["trigger"]["kind"] == "user"
    assert set(ids(only)[:3]) == {"hammer", "saw", "drill"}
    assert only["items"][0]["reason"]["kind"] == "profile"


async def test_an_event_changes_the_list_and_parts_sum_to_the_score(service: Service) -> None:
    await service.feed(service.log.event("e1", "bob", "click", "sencha"))
    (only,) = service.lists()
    assert only["trigger"]["id"] == "e1"
    assert ids(only)[0] in {"assam", "rooibos"}
    for item in only["items"]:
        assert sum(item["parts"].values()) == pytest.approx(item["score"], abs=1e-5)


async def test_events_of_one_batch_share_a_list_that_names_them_all(service: Service) -> None:
    log = service.log
    await service.feed(
        *(log.event(f"e{n}", "bob", "view", "saw") for n in range(3)), log.event("f", "cat", "view", "saw")
    )
    lists = service.lists()
    assert len(lists) == 2
    assert named(lists) == {"e0", "e1", "e2", "f"}
    assert lists[0]["trigger"]["id"] == "e2"
    assert service.reports[-1].conflated == 2


async def test_a_redelivery_sends_its_list_again_and_changes_no_state(service: Service) -> None:
    event = service.log.event("e1", "bob", "purchase", "saw")
    await service.feed(event)
    before = await service.state("bob")
    messages = await service.feed(event)
    after = await service.state("bob")
    assert before is not None
    assert after is not None
    assert (after.history, after.exclusions) == (before.history, before.exclusions)
    assert after.version == before.version + 1
    assert [message.topic for message in messages] == [Topic.RECOMMENDATIONS]
    assert named(service.lists()[-1:]) == {"e1"}


async def test_a_duplicate_has_no_effect_and_is_named_nowhere(service: Service) -> None:
    await service.feed(service.log.event("e1", "bob", "view", "saw"))
    messages = await service.feed(service.log.event("e1", "bob", "view", "saw"))
    state = await service.state("bob")
    assert messages == []
    assert state is not None
    assert len(state.history) == 1


async def test_garbage_is_buried_and_the_others_go_on(service: Service) -> None:
    log = service.log
    bad = [
        log.record(Topic.EVENTS, "bob", b"\xff\xfe"),
        log.record(Topic.EVENTS, "bob", b'{"extra": ' + b"[" * 20_000),
        log.record(Topic.EVENTS, "bob", {"event_id": 7}),
        log.record(
            Topic.EVENTS, "bob", {"event_id": "x", "user_id": "eve", "type": "view", "item_id": "saw", "timestamp": 1}
        ),
        log.event("far", "bob", "view", "saw", timestamp="2100-01-01T00:00:00Z"),
        log.record(Topic.ITEMS, "i", b"null"),
        log.record(Topic.USERS, "u", b'{"user_id": "u", "interests": 3}'),
    ]
    await service.feed(*bad, log.event("good", "bob", "view", "saw"))
    letters = [message for message in service.publisher.sent if message.topic is Topic.DEAD_LETTERS]
    assert [dict(letter.headers)["reason"] for letter in letters] == [
        b"encoding",
        b"encoding",
        b"schema",
        b"key",
        b"time",
        b"schema",
        b"schema",
    ]
    assert [letter.value for letter in letters] == [record.value for record in bad]
    assert named(service.lists()) == {"good"}
    assert len(service.ownership.done) == len(TEAS + TOOLS) + len(bad) + 1


async def test_nothing_is_acknowledged_while_the_broker_refuses_and_all_of_it_after(service: Service) -> None:
    done = len(service.ownership.done)
    service.publisher.failing = BrokerUnavailableError("away")
    event = service.log.event("e1", "bob", "view", "saw")

    tries = 0
    sleep = service.clock.sleep

    async def sleep_and_recover(seconds: float) -> None:
        nonlocal tries
        tries += 1
        assert len(service.ownership.done) == done
        assert service.worker.hold is not None
        assert service.worker.hold.cause == "broker"
        if tries == 3:
            service.publisher.failing = None
        await sleep(seconds)

    service.clock.sleep = sleep_and_recover  # type: ignore[method-assign]
    await service.feed(event)
    assert service.worker.hold is None
    assert service.ownership.done[done:] == [event]
    assert named(service.lists()) == {"e1"}


async def test_a_rebalance_abandons_the_batch_before_anybody_sees_it(service: Service) -> None:
    done = len(service.ownership.done)
    service.ownership.why = "rebalance"
    messages = await service.feed(service.log.event("e1", "bob", "view", "saw"))
    assert messages == []
    assert await service.state("bob") is None
    assert len(service.ownership.done) == done


async def test_an_erasure_emits_a_tombstone_even_when_quiet(service: Service) -> None:
    await service.feed(service.log.event("e1", "bob", "view", "saw"))
    service.clock.at += 1
    messages = await service.feed(service.log.user("bob", None, headers={"quiet": b""}))
    state = await service.state("bob")
    assert state is not None
    assert state.is_marker
    assert [(message.topic, message.value) for message in messages] == [(Topic.RECOMMENDATIONS, None)]
    assert dict(messages[0].headers)["version"] == str(state.version).encode()


async def test_new_records_of_a_topic_made_anew_do_not_pass_for_redeliveries(service: Service) -> None:
    for n in range(3):
        await service.feed(service.log.event(f"e{n}", "bob", "view", "saw"))
    service.ownership.next_offsets["events", 0] = 1
    first = service.log.record(Topic.EVENTS, "bob", None)
    anew = dataclasses.replace(service.log.event("x", "bob", "view", "drill"), offset=0)
    assert first.offset == 3
    with pytest.raises(TopicRemadeError, match="made anew"):
        await service.feed(anew)


async def test_quiet_records_change_state_and_emit_nothing(service: Service) -> None:
    messages = await service.feed(service.log.event("e1", "bob", "view", "saw", headers={"quiet": b"1"}))
    state = await service.state("bob")
    assert state is not None
    assert len(state.history) == 1
    assert [message.topic for message in messages] == [Topic.SIGNALS]


async def test_quiet_items_come_and_go_without_a_word(service: Service) -> None:
    await service.feed(service.log.user("ann", "hand tools such as a saw or a hammer"))
    quiet = {"quiet": b"1"}
    assert await service.feed(service.log.item("plane", "hand plane, hammer and saw tools set", headers=quiet)) == []
    assert await service.feed(service.log.record(Topic.ITEMS, "saw", None, headers=quiet)) == []
    await service.feed(service.log.event("e1", "ann", "view", "drill"))
    assert "plane" in ids(service.lists()[-1])
    assert "saw" not in ids(service.lists()[-1])


async def test_a_late_event_lands_where_it_belongs_and_the_purchase_is_excluded_for_good(service: Service) -> None:
    now = service.clock.at
    await service.feed(service.log.event("new", "bob", "view", "sencha", timestamp=now - 10))
    await service.feed(service.log.event("old", "bob", "purchase", "hammer", timestamp=now - 90 * 86_400))
    await service.feed(*(service.log.event(f"e{n}", "bob", "view", "saw", timestamp=now - 5) for n in range(50)))
    state = await service.state("bob")
    assert state is not None
    assert [one.item_id for one in state.history] == ["saw"] * 50, "the newest by their own time"
    assert "hammer" not in ids(service.lists()[-1])


async def test_a_new_item_reaches_the_user_whom_it_fits_without_an_event(service: Service) -> None:
    await service.feed(service.log.user("ann", "hand tools such as a saw or a hammer"))
    await service.feed(service.log.item("plane", "hand plane, hammer and saw tools set"))
    refreshes = service.publisher.values(Topic.REFRESHES)
    assert [(one["user_id"], one["item_id"]) for one in refreshes] == [("ann", "plane")]
    await service.settle()
    last = service.lists()[-1]
    assert last["trigger"]["kind"] == "item"
    assert "plane" in ids(last)


async def test_a_deleted_item_leaves_the_lists_that_hold_it(service: Service) -> None:
    await service.feed(service.log.user("ann", "a hand saw for wood"))
    assert "saw" in ids(service.lists()[-1])
    await service.feed(service.log.record(Topic.ITEMS, "saw", None))
    await service.settle()
    assert "saw" not in ids(service.lists()[-1])


async def test_an_item_republished_unchanged_is_neither_embedded_nor_fanned_out(service: Service) -> None:
    await service.feed(service.log.user("ann", "a hand saw for wood"))
    messages = await service.feed(service.log.item("saw", "hand saw for wood"))
    assert messages == []
    assert service.reports[-1].embedded_texts == 0
    assert service.reports[-1].outcomes["items", "unchanged"] == 1


async def test_an_event_for_an_unknown_item_counts_from_the_moment_the_item_arrives(service: Service) -> None:
    await service.feed(service.log.event("e1", "bob", "click", "kettle"))
    await service.feed(service.log.item("kettle", "kettle for green tea and black tea"))
    await service.feed(service.log.event("e2", "bob", "click", "unheard of"))
    last = service.lists()[-1]
    assert ids(last)[0] in {item_id for item_id, _ in TEAS}


async def test_popularity_is_shared_through_signals_and_survives_a_restart(service: Service) -> None:
    for n in range(5):
        await service.feed(service.log.event(f"e{n}", f"user{n}", "click", "drill"))
    await service.settle()
    successor = await Service(index=service.index).open()
    successor.clock.at = service.clock.at
    await successor.feed(successor.log.event("x", "stranger", "view", "unknown item"))
    only = successor.lists()[-1]
    assert only["strategy"] == "popular"
    assert ids(only)[0] == "drill"


def test_records_know_their_size() -> None:
    assert Record(Topic.EVENTS, 0, 0, 0.0, b"ab", b"cde").size_bytes == 5

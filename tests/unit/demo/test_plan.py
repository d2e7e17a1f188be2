from __future__ import annotations

import json

import pytest

from streams.dataset import Dataset
from streams.demo.plan import make_plan
from streams.errors import ConfigurationError


def write(folder, items, events, users=()):
    for name, lines in (("items", items), ("events", events), ("users", users)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return Dataset(folder)


def event(number, item, user="u"):
    return {"event_id": str(number), "user_id": user, "item_id": item, "type": "view", "timestamp": number}


def test_a_tenth_of_the_catalogue_is_held_back_and_has_no_event_before_it_comes(tmp_path):
    items = [{"item_id": str(number), "title": "t"} for number in range(40)]
    events = [event(number, str(number // 3)) for number in range(60)]
    plan = make_plan(write(tmp_path, items, events), 60)
    assert [item["item_id"] for item in plan.late_items] == ["16", "17", "18", "19"]
    assert plan.late_at == 48
    assert len(plan.items) == 36
    assert not {event["item_id"] for event in plan.events[: plan.late_at]} & {"16", "17", "18", "19"}


def test_items_that_are_met_early_are_never_held_back(tmp_path):
    items = [{"item_id": str(number), "title": "t"} for number in range(20)]
    events = [event(number, str(number % 3)) for number in range(30)]
    plan = make_plan(write(tmp_path, items, events), 30)
    assert plan.late_items == ()
    assert plan.late_at == 30
    assert len(plan.items) == 20


def test_the_window_and_its_users_only(tmp_path):
    events = [event(number, "a", f"u{number}") for number in range(5)]
    users = [{"user_id": f"u{number}"} for number in range(9)]
    plan = make_plan(write(tmp_path, [{"item_id": "a", "title": "A"}], events, users), 2)
    assert [one["event_id"] for one in plan.events] == ["0", "1"]
    assert [user["user_id"] for user in plan.users] == ["u0", "u1"]


def test_nothing_to_show_is_said(tmp_path):
    with pytest.raises(ConfigurationError, match="has no events"):
        make_plan(write(tmp_path, [{"item_id": "a"}], []), 5)
    with pytest.raises(ConfigurationError, match="has no items"):
        make_plan(write(tmp_path, [], [event(1, "a")]), 5)

"""The protocol: what is a step, a target, a slice; told on data sets small enough to check by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pytest

from evaluation.protocol import Options, Past, Step, choose, foreign_profiles, is_kept, read
from streams.errors import ConfigurationError


def write(folder: Path, items: list[dict[str, Any]], events: list[dict[str, Any]]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, lines in (("items", items), ("events", events)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def event(user: str, item: str | None, at: Any, kind: str = "click", **more: Any) -> dict[str, Any]:
    return {"user_id": user, "timestamp": at, "type": kind, **({"item_id": item} if item else {}), **more}


ITEMS = [{"item_id": name, "title": name} for name in "abcde"]


ALL = Options(cut=0.0)


def steps_of(folder: Path, options: Options = ALL) -> list[tuple[Step, bool]]:
    stream = read(folder, options)
    past, found = Past(), []
    for group in stream.groups:
        found += [(step, group.tested) for step in past.steps(group, stream, options)]
        past.note(group)
    return found


def test_one_timestamp_is_one_group_and_one_user_in_it_one_step(tmp_path: Path) -> None:
    folder = write(
        tmp_path / "d", ITEMS, [event("u", "a", 1), event("v", "a", 1), event("u", "b", 1), event("u", "c", 2)]
    )
    assert [(step.user_id, step.targets, step.known) for step, _ in steps_of(folder)] == [
        ("u", [0, 1], False), ("v", [0], False), ("u", [2], True),
    ]  # fmt: skip


def test_what_was_met_is_no_target_unless_repeats_are_asked_for(tmp_path: Path) -> None:
    folder = write(
        tmp_path / "d", ITEMS, [event("u", "a", 1, "skip"), event("u", "a", 2), event("u", "b", 3), event("u", "b", 4)]
    )
    assert [step.targets for step, _ in steps_of(folder)] == [[1]]
    assert [step.targets for step, _ in steps_of(folder, Options(cut=0.0, repeats=True))] == [[0], [1], [1]]


@pytest.mark.parametrize(("greatest", "positive"), [(5.0, [4.0, 5.0]), (1.0, [1.0])])
def test_positive_events(tmp_path: Path, greatest: float, positive: list[float]) -> None:
    values = [value for value in (0.0, 0.5, 1.0, 3.5, 4.0, 5.0) if value <= greatest]
    ratings = [event(f"u{value}", "a", place, "rating", value=value) for place, value in enumerate(values, 1)]
    others = [event(kind, "a", 50, kind) for kind in ("dislike", "skip", "view", "purchase")]
    search = [event("s", None, 60, "search", query="a")]
    found = [step.user_id for step, _ in steps_of(write(tmp_path / "d", ITEMS, ratings + others + search))]
    assert found == [f"u{value}" for value in positive] + ["view", "purchase"]


def test_cut_and_until_are_counted_in_events_and_fall_on_groups(tmp_path: Path) -> None:
    events = [event("u", name, at) for name, at in zip("abcde", (1, 2, 2, 3, 4), strict=True)]
    folder = write(tmp_path / "d", ITEMS, events)
    assert [tested for _, tested in steps_of(folder, Options(cut=0.4, until=0.8))] == [False, False, True, False]
    assert [tested for _, tested in steps_of(folder, Options(cut=0.2, until=0.8))] == [False, True, True, False]


def test_an_item_that_is_not_published_yet_is_no_target(tmp_path: Path) -> None:
    items = [{**ITEMS[0], "published_at": 5}, *ITEMS[1:]]
    folder = write(tmp_path / "d", items, [event("u", "a", 4), event("v", "a", 5)])
    assert [step.user_id for step, _ in steps_of(folder)] == ["v"]


def test_late_items_have_their_first_event_after_the_cut_or_none(tmp_path: Path) -> None:
    folder = write(
        tmp_path / "d", ITEMS, [event("u", "a", 1), event("u", "b", 2), event("v", "a", 3), event("v", "c", 4)]
    )
    assert read(folder, Options(cut=0.5)).late.tolist() == [False, False, True, True, True]


def test_hidden_items_lose_their_events_before_the_cut_alone(tmp_path: Path) -> None:
    events = [event("u", name, at) for at, name in enumerate("abcdeabcde")]
    options = Options(cut=0.5, simulate_cold=0.5, repeats=True)
    stream = read(write(tmp_path / "d", ITEMS, events), options)
    hidden = {name for name in "abcde" if crc32(name.encode()) % 1000 < 500}
    assert 0 < len(hidden) < 5
    gone = [(happening.interaction.item_id, happening.hidden) for group in stream.groups for happening in group.events]
    assert gone == [(name, name in hidden) for name in "abcde"] + [(name, False) for name in "abcde"]
    assert {item for item, late in zip("abcde", stream.late.tolist(), strict=True) if late} == hidden


def test_the_sample_of_steps_is_by_hash_of_what_the_file_writes(tmp_path: Path) -> None:
    events = [event(f"u{n}", "a", f"2024-01-01T00:{n // 60:02}:{n % 60:02}Z") for n in range(400)]
    stream = read(write(tmp_path / "d", ITEMS, events), Options(cut=0.0))
    options = Options(cut=0.0, max_steps=100)
    count = choose(stream, options)
    assert count == 400
    steps = [step for step, _ in steps_of(tmp_path / "d")]
    kept = [step for step in steps if is_kept(step, count, options)]
    assert kept == [step for step in steps if crc32(f"{step.user_id}:{step.written}".encode()) % 100_000 < 25_000]
    assert 50 < len(kept) < 150
    assert all(is_kept(step, count, Options(max_steps=400)) for step in steps)


def test_events_out_of_order_are_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "d", ITEMS, [event("u", "a", 2), event("u", "b", 1)])
    with pytest.raises(ConfigurationError, match="line 2"):
        read(folder, Options())


def test_profiles_come_from_lines_or_from_what_was_liked_elsewhere(tmp_path: Path) -> None:
    lines = tmp_path / "profiles.jsonl"
    lines.write_text('{"user_id":"u","profile":"likes tea"}\n\n{"user_id":"v","profile":" "}\n')
    assert foreign_profiles(lines) == {"u": "likes tea"}
    other = write(tmp_path / "other", ITEMS, [event("u", "a", 1), event("u", "b", 2, "dislike"), event("u", "c", 3)])
    assert foreign_profiles(other) == {"u": "c, a"}
    stream = read(write(tmp_path / "d", ITEMS, [event("u", "a", 1)]), Options(), foreign_profiles(lines))
    assert stream.elsewhere == {"u"}
    assert stream.profiles["u"].text == "likes tea"
    lines.write_text("nonsense")
    with pytest.raises(ConfigurationError, match="user_id and profile"):
        foreign_profiles(lines)


def test_availability_is_infinitely_long_ago_without_a_date(tmp_path: Path) -> None:
    assert np.isneginf(read(write(tmp_path / "d", ITEMS, [event("u", "a", 1)]), Options()).opens).all()

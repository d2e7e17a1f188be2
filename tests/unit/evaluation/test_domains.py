"""Two domains of the same users: nothing is shared, and what is known from elsewhere is older."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evaluation.domains import split
from streams.dataset import Dataset
from streams.errors import ConfigurationError


def write(folder: Path, categories: list[str]) -> Path:
    folder.mkdir()
    items = [
        {"item_id": f"i{n}", "title": f"thing {n}", "categories": [categories[n % len(categories)]]} for n in range(12)
    ]
    events = [
        {"event_id": f"e{n}", "user_id": f"u{n % 3}", "item_id": f"i{n * 5 % 12}", "type": "click",
         "timestamp": f"2026-01-01T00:00:{n:02}Z"} for n in range(40)
    ]  # fmt: skip
    for name, lines in (("items", items), ("events", events)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_items_and_times_are_parted(tmp_path: Path) -> None:
    written = split(write(tmp_path / "all", ["a", "b", "c"]), tmp_path / "out")
    elsewhere, here = (Dataset(tmp_path / "out" / name) for name in ("elsewhere", "here"))
    items = [{item["item_id"] for item in part.items()} for part in (elsewhere, here)]
    assert items[0] | items[1] == {f"i{n}" for n in range(12)}
    assert not items[0] & items[1]
    events = [list(part.events()) for part in (elsewhere, here)]
    assert max(one["timestamp"] for one in events[0]) < min(one["timestamp"] for one in events[1])
    assert all(one["item_id"] in items[place] for place in range(2) for one in events[place])
    assert written == {
        name: {"items": len(items[place]), "events": len(events[place])}
        for place, name in enumerate(("elsewhere", "here"))
    }
    assert all(0 < len(one) < 20 for one in events)


def test_one_category_is_one_domain(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="two domains need two"):
        split(write(tmp_path / "all", ["a"]), tmp_path / "out")

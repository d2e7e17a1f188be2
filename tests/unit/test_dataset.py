from __future__ import annotations

import gzip
import json

import pytest

from streams.dataset import Dataset
from streams.errors import ConfigurationError


def write(folder, name, lines):
    (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_null_fields_are_absent_and_missing_event_ids_are_made(tmp_path):
    write(tmp_path, "items.jsonl", [{"item_id": "a", "title": "A", "price": None}])
    events = [{"user_id": "u", "type": "view"}, {"user_id": "u", "type": "view", "event_id": "own"}, {"user_id": "v"}]
    write(tmp_path, "events.jsonl", events)
    data = Dataset(tmp_path)
    assert list(data.items()) == [{"item_id": "a", "title": "A"}]
    assert list(data.users()) == []
    ids = [event["event_id"] for event in data.events()]
    assert ids == [event["event_id"] for event in Dataset(tmp_path).events()]
    assert ids[1] == "own"
    assert ids[0].endswith("-1")
    assert ids[2].endswith("-3")
    write(tmp_path, "events.jsonl", [*events, {}])
    assert next(data.events())["event_id"] != ids[0]


def test_gzip(tmp_path):
    for name in ("items", "events"):
        (tmp_path / f"{name}.jsonl.gz").write_bytes(gzip.compress(b'{"event_id":"1"}\n\n{"event_id":"2"}\n'))
    assert [event["event_id"] for event in Dataset(tmp_path).events()] == ["1", "2"]


def test_what_is_wrong_is_said_with_file_and_line(tmp_path):
    with pytest.raises(ConfigurationError, match="is no folder"):
        Dataset(tmp_path / "none")
    with pytest.raises(ConfigurationError, match=r"has no items\.jsonl"):
        Dataset(tmp_path)
    write(tmp_path, "items.jsonl", [{"a": 1}])
    (tmp_path / "events.jsonl").write_bytes(b'{"event_id":"1"}\n[1]\n')
    with pytest.raises(ConfigurationError, match=r"events\.jsonl line 2"):
        list(Dataset(tmp_path).events())
    (tmp_path / "events.jsonl").unlink()
    (tmp_path / "events.jsonl.gz").write_bytes(gzip.compress(b'{"event_id":"1"}\n' * 5000)[:-20])
    with pytest.raises(ConfigurationError, match=r"cannot read .*events\.jsonl\.gz"):
        list(Dataset(tmp_path).events())

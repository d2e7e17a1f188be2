from __future__ import annotations

import json
import re
from pathlib import Path

import jsonschema
import pytest

from streams import documents, settings
from streams.errors import PoisonError
from streams.values import Record, Topic
from streams.wire import decode_event, decode_item, decode_user

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("path", documents.generate())
def test_committed_documents_are_the_generated_ones(path):
    assert (ROOT / path).read_text(encoding="utf-8") == documents.generate()[path], "run: python -m streams.documents"


def test_the_readme_holds_the_table_of_settings():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert documents.SETTINGS_START in readme
    assert documents.embed_settings(readme) == readme, "run: python -m streams.documents"


def test_every_setting_and_its_variable_is_in_the_table():
    table = documents.settings_table()
    for field in settings.Settings.__struct_fields__:
        assert f"| `COLDSTREAM_{field.upper()}` |" in table


def test_a_readme_without_marks_is_left_alone():
    assert documents.embed_settings("# Hello\n") == "# Hello\n"


EVENT = {"event_id": "e", "user_id": "u", "type": "view", "item_id": "i", "timestamp": 1_700_000_000}
VALUES = [
    (Topic.EVENTS, EVENT),
    (Topic.EVENTS, {**EVENT, "timestamp": "2024-01-01T00:00:00Z", "context": {"page": 1}, "unknown": 1}),
    (Topic.EVENTS, {**EVENT, "item_id": None}),
    (Topic.EVENTS, {**EVENT, "type": "stare"}),
    (Topic.EVENTS, {**EVENT, "user_id": ""}),
    (Topic.EVENTS, {**EVENT, "type": "rating"}),
    (Topic.EVENTS, {**EVENT, "type": "rating", "value": None}),
    (Topic.EVENTS, {**EVENT, "type": "rating", "value": 4}),
    (Topic.EVENTS, {**EVENT, "type": "search", "item_id": None}),
    (Topic.EVENTS, {**EVENT, "type": "search", "item_id": None, "query": "  "}),
    (Topic.EVENTS, {**EVENT, "type": "search", "query": "boots", "item_id": None, "session_id": 7}),
    (Topic.EVENTS, {**EVENT, "timestamp": None}),
    (Topic.ITEMS, {"item_id": "i", "title": "Boots"}),
    (Topic.ITEMS, {"item_id": "i", "title": "Boots", "categories": None, "price": 3, "attributes": {"a": [1]}}),
    (Topic.ITEMS, {"item_id": "i"}),
    (Topic.ITEMS, {"item_id": "i", "title": 5}),
    (Topic.ITEMS, {"item_id": "i" * 513, "title": "t"}),
    (Topic.USERS, {"user_id": "u"}),
    (Topic.USERS, {"user_id": "u", "interests": ["a"], "blocked_categories": []}),
    (Topic.USERS, {"user_id": "u", "interests": "a"}),
]
DECODERS = {Topic.EVENTS: decode_event, Topic.ITEMS: decode_item, Topic.USERS: decode_user}


@pytest.mark.parametrize(("topic", "value"), VALUES)
def test_schema_and_decoder_agree(topic, value):
    key = value["item_id" if topic is Topic.ITEMS else "user_id"].encode()
    try:
        DECODERS[topic](Record(topic, 0, 0, 1_800_000_000.0, key, json.dumps(value).encode()))
        decoded = True
    except PoisonError:
        decoded = False
    schema = documents.topic_schema(topic)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert jsonschema.Draft202012Validator(schema).is_valid(value) is decoded


def test_asyncapi_names_every_public_topic_and_only_existing_files():
    document = documents.asyncapi()
    assert set(document["channels"]) == {"items", "users", "events", "recommendations", "dead-letters"}
    references = re.findall(r'"\$ref":"([^"]+)"', json.dumps(document, separators=(",", ":")))
    assert {reference for reference in references if reference.startswith("./")} == {
        f"./{topic}.schema.json" for topic in documents.TOPIC_TYPES
    }
    for reference in references:
        path, _, pointer = reference.partition("#")
        found = json.loads((ROOT / "docs/schemas" / path).read_text("utf-8")) if path else document
        for name in pointer.split("/")[1:]:
            found = found[name]


def test_asyncapi_says_what_a_list_and_its_null_carry():
    messages = documents.asyncapi()["components"]["messages"]
    assert messages["recommendations"]["headers"]["required"] == ["version"]
    for topic, message in messages.items():
        may_be_null = {"type": "null"} in message["payload"].get("schema", {}).get("oneOf", ())
        assert may_be_null == (topic in {"items", "users", "recommendations"})

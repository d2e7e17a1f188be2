"""What was sent out, heard as a subscriber and an operator hear it: lists, tombstones, dead letters."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from streams.values import Record
from streams.wire import Recommendation
from tests.simulation.oracle import Expectation, ExpectedItem

_LIST: Final = msgspec.json.Decoder(Recommendation)


class Lists:
    """The lists of a log, record by record: of each user the last one, and the greatest version."""

    def __init__(self) -> None:
        self.last: dict[str, tuple[int, Recommendation | None]] = {}
        """(version, list) by user; None is a tombstone."""
        self.last_at: dict[str, float] = {}
        self.named: set[str] = set()
        """Events that a list names."""
        self.wrong: list[str] = []
        self._greatest: dict[str, int] = {}

    def hear(self, record: Record) -> tuple[str, int, Recommendation | None]:
        """(user, version, list) of a record of `recommendations`."""
        user = (record.key or b"").decode()
        version = int(record.header("version") or b"0")
        value = None if record.value is None else _LIST.decode(record.value)
        self.last[user] = (version, value)
        self.last_at[user] = record.time
        self._greatest[user] = max(version, self._greatest.get(user, 0))
        if value is not None:
            self.named |= {value.trigger.id, *value.conflated}
            shown = [place.item_id for place in value.items]
            if len(set(shown)) != len(shown):
                self.wrong.append(f"list {version} of {user} holds an item twice: {shown}")
        return user, version, value

    def lost(self, wanted: dict[str, str]) -> list[str]:
        """Events, {id: user}, that no list names."""
        return [f"event {event} of {user} is named by no list" for event, user in wanted.items()
                if event not in self.named]  # fmt: skip

    def untimely(self, items: Mapping[str, ExpectedItem], since: float) -> list[str]:
        """What last lists made from `since` on, when all was known for long, hold and may not show."""
        wrong = []
        for user, (_, value) in self.last.items():
            at = self.last_at[user]
            for place in value.items if value is not None and at >= since else ():
                body = items[place.item_id].body if place.item_id in items else None
                if (
                    body is None
                    or not body.get("available", True)
                    or body.get("expires_at", math.inf) < at - 60.0
                    or body.get("published_at", 0.0) > at
                ):
                    wrong.append(f"the last list of {user} holds {place.item_id}: {body}")
        return wrong

    def last_of(self, user: str, *, marker: bool | None) -> list[str]:
        """What is wrong with a user's last list: it must be the latest, and a tombstone for who is erased.

        `marker`: whether the user is; None where both may be.
        """
        version, value = self.last.get(user, (0, None))
        if user not in self.last:
            return [f"{user} has no list"]
        if version != self._greatest[user]:
            return [f"the last list of {user} is version {version}, {self._greatest[user]} was sent"]
        if marker not in (None, value is None):
            who = "a marker" if marker else "who lives"
            return [f"the last list of {user}, {who}, is {value and value.items} (version {version})"]
        return []


def compare_dead(expected: Expectation, sent: Iterable[Record]) -> list[str]:
    """What is wrong with the dead letters: each refused record once by its source, with its bytes and reason."""
    found = {}
    for record in sent:
        headers = {name: value.decode() for name, value in record.headers}
        source = (headers["topic"], int(headers["partition"]), int(headers["offset"]))
        found[source] = (headers["reason"], record.key, record.value)
    return [
        f"dead letter of {source}: {found.get(source)} instead of {expected.dead.get(source)}"
        for source in sorted(found.keys() | expected.dead.keys())
        if found.get(source) != expected.dead.get(source)
        and not (source not in found and source in expected.superseded)
    ]

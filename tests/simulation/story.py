"""What the outside world sends in one schedule: a seeded log of items, users and events, good and bad."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, Final
from zlib import crc32

from streams.values import Topic
from tests.simulation.ports import POISON

BEGIN: Final = 1_750_000_000.0
TYPES: Final = ("view", "click", "like", "dislike", "cart", "purchase", "rating", "skip", "search")


@dataclass(frozen=True, slots=True)
class Sent:
    """One record that somebody sends, and what the sender knows about it."""

    number: int
    topic: Topic
    partition: int
    time: float
    key: bytes | None
    value: bytes | None
    quiet: bool = False
    schema: bytes | None = None
    reason: str | None = None
    """Why it must become a dead letter; None: it must be applied."""
    body: dict[str, Any] | None = None
    """The value, where it is good."""

    @property
    def headers(self) -> tuple[tuple[str, bytes], ...]:
        quiet = (("quiet", b"1"),) if self.quiet else ()
        return quiet if self.schema is None else (*quiet, ("schema", self.schema))

    @property
    def subject(self) -> str:
        """The user or item that it is about."""
        return (self.key or b"").decode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class Plot:
    """What may happen in a schedule; drawn anew for each, so that each stresses something else."""

    partitions: int
    users: int
    items: int
    records: int
    misrouted: float
    erasures: float
    duplicates: float
    bad: float
    quiet: float
    old: float
    """Share of events that happened long before they are sent."""
    hot: float
    """Share of events of one user."""

    @classmethod
    def draw(cls, random: Random) -> Plot:
        def share(chance: float, most: float) -> float:
            return random.uniform(0.02, most) if random.random() < chance else 0.0

        return cls(
            partitions=random.choice((1, 2, 2, 3)),
            users=random.randint(1, 5),
            items=random.randint(2, 6),
            records=random.randint(12, 44),
            misrouted=share(0.35, 0.2),
            erasures=share(0.4, 0.15),
            duplicates=share(0.4, 0.2),
            bad=share(0.4, 0.15),
            quiet=share(0.25, 0.3),
            old=share(0.5, 0.4),
            hot=share(0.3, 0.8),
        )


@dataclass(slots=True)
class Author:
    """Writes a log."""

    random: Random
    plot: Plot
    time: float = BEGIN
    sent: list[Sent] = field(default_factory=list)
    _repeatable: list[Sent] = field(default_factory=list)

    def write(self) -> list[Sent]:
        """The whole log, in order of time."""
        for number in range(self.plot.items):
            if self.random.random() < 0.8:
                self._item(f"i{number}")
        while len(self.sent) < self.plot.records:
            self._any()
        return self.sent

    def probe(self) -> list[Sent]:
        """One last good event of each user, some time after everything else."""
        self.time += 60.0
        begun = len(self.sent)
        for number in range(self.plot.users):
            self._event(f"u{number}", "view")
        self.sent[begun:] = [replace(sent, quiet=False) for sent in self.sent[begun:]]
        return self.sent[begun:]

    def _any(self) -> None:
        random = self.random
        user = "u0" if random.random() < self.plot.hot else f"u{random.randrange(self.plot.users)}"
        dice = random.random()
        if random.random() < self.plot.bad:
            self._bad(user)
        elif random.random() < self.plot.erasures:
            self._add(Topic.USERS, user, None)
        elif self._repeatable and random.random() < self.plot.duplicates:
            self._repeat()
        elif dice < 0.12:
            self._item(f"i{random.randrange(self.plot.items)}")
        elif dice < 0.16:
            self._add(Topic.ITEMS, f"i{random.randrange(self.plot.items)}", None)
        elif dice < 0.26:
            self._profile(user)
        else:
            self._event(user, random.choice(TYPES))

    def _pass(self) -> float:
        self.time = round(self.time + self.random.choice((0.001, 0.01, 0.1, 0.5, 2.0)) * (1 + self.random.random()), 6)
        return self.time

    def _home(self, topic: Topic, subject: str) -> int:
        partition = crc32(subject.encode()) % self.plot.partitions
        if self.random.random() < self.plot.misrouted:
            partition = (partition + 1) % self.plot.partitions
        return partition

    def _add(self, topic: Topic, subject: str, body: dict[str, Any] | None, reason: str | None = None) -> Sent:
        sent = Sent(
            number=len(self.sent),
            topic=topic,
            partition=self._home(topic, subject),
            time=self._pass(),
            key=subject.encode(),
            value=None if body is None else json.dumps(body).encode(),
            quiet=self.random.random() < self.plot.quiet,
            reason=reason,
            body=body,
        )
        self.sent.append(sent)
        return sent

    def _item(self, item_id: str) -> None:
        random = self.random
        body: dict[str, Any] = {"item_id": item_id, "title": f"{item_id} {random.choice(('red', 'blue', 'green'))}"}
        if random.random() < 0.3:
            body["categories"] = [random.choice(("a", "b"))]
        if random.random() < 0.25:
            body["available"] = random.random() < 0.3
        if random.random() < 0.15:
            body["expires_at"] = self.time + random.uniform(0.0, 30.0)
        if random.random() < 0.1:
            body["published_at"] = self.time + random.uniform(-5.0, 10.0)
        if random.random() < 0.1:
            body["price"] = 3.5
        self._add(Topic.ITEMS, item_id, body)

    def _profile(self, user: str) -> None:
        random = self.random
        body: dict[str, Any] = {"user_id": user, "profile": random.choice(("likes red", "likes blue", ""))}
        if random.random() < 0.3:
            body["interests"] = ["green"]
        if random.random() < 0.3:
            body["blocked_items"] = [f"i{random.randrange(self.plot.items)}"]
        self._add(Topic.USERS, user, body)

    def _event(self, user: str, kind: str) -> None:
        random = self.random
        ahead = False
        if random.random() < self.plot.old:
            happened = self.time - random.choice((1.0, 10.0, 5_000.0, 200_000.0)) * random.random()
        elif random.random() < 0.05:
            happened, ahead = self.time + 1000.0, True
        else:
            happened = self.time
        # distinct to the microsecond, so that no order rests on where a record lies
        body: dict[str, Any] = {
            "event_id": f"e{len(self.sent)}",
            "user_id": user,
            "type": kind,
            "timestamp": round(happened, 3) + len(self.sent) * 1e-6,
        }
        if kind == "search":
            body["query"] = random.choice(("red", "blue"))
        else:
            body["item_id"] = f"i{random.randrange(self.plot.items + 1)}"  # one is never in the catalogue
        if kind == "rating":
            body["value"] = random.choice((1, 3.5, 4, 5))
        sent = self._add(Topic.EVENTS, user, body)
        if not ahead:
            self._repeatable.append(sent)

    def _repeat(self) -> None:
        """The same event once more: of the same producer, or of another one that partitions differently."""
        old = self.random.choice(self._repeatable[-12:])
        assert old.body is not None
        misrouted = self.random.random() < self.plot.misrouted
        partition = (old.partition + 1) % self.plot.partitions if misrouted else old.partition
        self.sent.append(
            Sent(
                len(self.sent), Topic.EVENTS, partition, self._pass(), old.key, old.value,
                quiet=self.random.random() < self.plot.quiet, body=old.body,
            )
        )  # fmt: skip

    def _bad(self, user: str) -> None:
        random = self.random
        event = {
            "event_id": f"e{len(self.sent)}",
            "user_id": user,
            "type": "view",
            "item_id": "i0",
            "timestamp": self.time,
        }
        item = {"item_id": "i0", "title": "t"}
        choice = random.randrange(8)
        topic, key, value, schema = Topic.EVENTS, user.encode(), json.dumps(event).encode(), None
        if choice == 0:
            value, reason = b"\xff\xfe{", "encoding"
        elif choice == 1:
            value, reason = json.dumps({**event, "type": "stare"}).encode(), "schema"
        elif choice == 2:
            key, reason = b"somebody-else", "key"
        elif choice == 3:
            value, reason = json.dumps({**event, "timestamp": 4_102_444_800}).encode(), "time"
        elif choice == 4:
            schema, reason = b"7", "version"
        elif choice == 5:
            value, reason = json.dumps({**event, "query": "x" * 3000}).encode(), "size"
        elif choice == 6:
            topic, key, value, reason = Topic.ITEMS, b"i0", json.dumps({**item, "title": POISON}).encode(), "processing"
        else:
            topic, value, reason = Topic.USERS, json.dumps({"user_id": user, "profile": POISON}).encode(), "processing"
        partition = self._home(topic, key.decode())
        self.sent.append(Sent(len(self.sent), topic, partition, self._pass(), key, value, schema=schema, reason=reason))

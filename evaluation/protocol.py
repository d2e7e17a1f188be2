"""What is tested: events, groups, steps, targets and slices of a data set. No method is known here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from zlib import crc32

import msgspec
import numpy as np
from numpy.typing import NDArray

from streams.dataset import Dataset
from streams.decide.policy import is_positive
from streams.errors import ConfigurationError
from streams.values import EventType, Interaction, ItemRecord, Profile
from streams.wire import to_seconds

LIKED_FROM: Final = 4.0
_TITLES: Final = 10
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Options:
    """What `coldstream evaluate` was asked for."""

    cut: float = 0.8
    until: float = 1.0
    max_steps: int = 4000
    repeats: bool = False
    simulate_cold: float = 0.0
    floor_new: float = 0.0
    floor_small: float = 0.0
    floor_provider: str = ""
    floor_small_below: float = 0.001


@dataclass(frozen=True, slots=True)
class Happening:
    """One event of the file. `item` is its position in the catalogue, −1 where it has none there."""

    user_id: str
    item: int
    positive: bool
    hidden: bool
    interaction: Interaction


@dataclass(frozen=True, slots=True)
class Group:
    """The events of one timestamp. `written`: the timestamp as the file has it."""

    at: float
    written: Any
    tested: bool
    events: tuple[Happening, ...]

    @property
    def stamp(self) -> str:
        """The timestamp as text, for the sampling of steps."""
        return str(self.written)


@dataclass(slots=True)
class Step:
    """The events of one user in a group, as a test and as a lesson."""

    user_id: str
    at: float
    written: Any
    targets: list[int]
    known: bool
    """Whether the user had a positive event before."""

    @property
    def stamp(self) -> str:
        """The timestamp as text."""
        return str(self.written)


@dataclass(slots=True)
class Stream:
    """A data set in memory: catalogue by position, groups in time order."""

    name: str
    items: list[ItemRecord]
    groups: list[Group]
    profiles: dict[str, Profile]
    attributes: dict[str, dict[str, Any]]
    events: int
    liked_from: float
    opens: NDArray[np.float64]
    """When each item may be recommended first; −∞ without a date."""
    elsewhere: frozenset[str]
    """Users whose profile tells of behaviour in another catalogue."""
    late: Mask
    """Items whose first event, hidden ones excepted, is at or after the cut, and items without events."""


@dataclass(slots=True)
class Past:
    """What has happened so far, as the protocol needs it."""

    met: dict[str, set[int]] = field(default_factory=dict)
    positive: set[str] = field(default_factory=set)

    def steps(self, group: Group, stream: Stream, options: Options) -> list[Step]:
        """The steps of a group that have a target; nothing of the group may be noted yet."""
        by_user: dict[str, list[Happening]] = {}
        for event in group.events:
            if not event.hidden:
                by_user.setdefault(event.user_id, []).append(event)
        steps = []
        for user_id, events in by_user.items():
            met = set() if options.repeats else self.met.get(user_id, set())
            wanted = [event.item for event in events if event.positive and event.item >= 0 and event.item not in met]
            targets = [item for item in dict.fromkeys(wanted) if stream.opens[item] <= group.at]
            if targets:
                steps.append(Step(user_id, group.at, group.written, targets, user_id in self.positive))
        return steps

    def note(self, group: Group) -> None:
        """The group has happened."""
        for event in group.events:
            if not event.hidden and event.item >= 0:
                self.met.setdefault(event.user_id, set()).add(event.item)
                if event.positive:
                    self.positive.add(event.user_id)


def read(folder: Path, options: Options, foreign: Mapping[str, str] | None = None) -> Stream:
    """The data set of a folder; `foreign`: profiles of users who have behaviour elsewhere.

    Raises `ConfigurationError` for what is no data set.
    """
    dataset = Dataset(folder)
    items = [_record(line) for line in dataset.items()]
    position = {record.item_id: place for place, record in enumerate(items)}
    lines = list(dataset.events())
    greatest = max((float(line["value"]) for line in lines if line["type"] == "rating"), default=0.0)
    liked_from = 1.0 if greatest == 1.0 else LIKED_FROM
    first_tested, last_tested = int(options.cut * len(lines)), int(options.until * len(lines))
    hidden = {
        record.item_id for record in items if crc32(record.item_id.encode()) % 1000 < 1000 * options.simulate_cold
    }
    happenings: list[tuple[float, Any, Happening]] = []
    for number, line in enumerate(lines):
        interaction = _interaction(line, number)
        item = position.get(interaction.item_id, -1) if interaction.item_id is not None else -1
        gone = number < first_tested and interaction.item_id in hidden
        happening = Happening(str(line["user_id"]), item, is_positive(interaction, liked_from), gone, interaction)
        happenings.append((interaction.at, line["timestamp"], happening))
    groups = list(_groups(happenings, first_tested, last_tested))
    first = np.full(len(items), np.inf)
    number = 0
    for group in groups:
        for event in group.events:
            if event.item >= 0 and not event.hidden:
                first[event.item] = min(first[event.item], number)
            number += 1
    profiles, attributes = _users(dataset)
    profiles |= {user_id: Profile(text) for user_id, text in (foreign or {}).items()}
    return Stream(
        name=dataset.name,
        items=items,
        groups=groups,
        profiles=profiles,
        attributes=attributes,
        events=len(lines),
        liked_from=liked_from,
        opens=np.array([-np.inf if one.published_at is None else one.published_at for one in items]),
        elsewhere=frozenset(foreign or ()),
        late=first >= first_tested,
    )


def foreign_profiles(path: Path) -> dict[str, str]:
    """Profiles of a file of lines {user_id, profile}, or the latest titles liked in a folder that is a data set."""
    if path.is_dir():
        dataset = Dataset(path)
        titles = {str(line["item_id"]): str(line.get("title", "")) for line in dataset.items()}
        liked: dict[str, list[str]] = {}
        for number, line in enumerate(dataset.events()):
            interaction = _interaction(line, number)
            if is_positive(interaction, LIKED_FROM) and interaction.item_id in titles:
                liked.setdefault(str(line["user_id"]), []).append(titles[interaction.item_id])
        return {user_id: ", ".join(dict.fromkeys(reversed(names[-_TITLES:]))) for user_id, names in liked.items()}
    try:
        lines = [msgspec.json.decode(line, type=_Told) for line in path.read_bytes().splitlines() if line.strip()]
    except (OSError, msgspec.DecodeError) as error:
        raise ConfigurationError(f"{path} must hold lines of JSON with user_id and profile: {error}") from error
    return {line.user_id: line.profile for line in lines if line.profile.strip()}


class _Told(msgspec.Struct):
    user_id: str
    profile: str = ""


def choose(stream: Stream, options: Options) -> int:
    """How many steps could be tested: what `is_kept` samples from."""
    past, count = Past(), 0
    for group in stream.groups:
        if group.tested:
            count += len(past.steps(group, stream, options))
        past.note(group)
    return count


def is_kept(step: Step, steps: int, options: Options) -> bool:
    """Whether a step is in the sample."""
    number = crc32(f"{step.user_id}:{step.stamp}".encode()) % 100_000
    return steps <= options.max_steps or number < 100_000 * options.max_steps / steps


def _groups(happenings: list[tuple[float, Any, Happening]], first: int, last: int) -> Iterator[Group]:
    start = 0
    for end in range(1, len(happenings) + 1):
        if end == len(happenings) or happenings[end][0] != happenings[start][0]:
            at, written, _ = happenings[start]
            if start and at < happenings[start - 1][0]:
                raise ConfigurationError(f"events are not in time order at line {start + 1}: sort them by timestamp")
            yield Group(at, written, first <= start < last, tuple(one for _, _, one in happenings[start:end]))
            start = end


def _record(line: dict[str, Any]) -> ItemRecord:
    return ItemRecord(
        item_id=str(line["item_id"]),
        title=line.get("title", ""),
        description=line.get("description", ""),
        categories=tuple(line.get("categories", ())),
        price=line.get("price"),
        attributes=line.get("attributes", {}),
        available=line.get("available", True),
        published_at=None if "published_at" not in line else to_seconds(line["published_at"]),
        expires_at=None if "expires_at" not in line else to_seconds(line["expires_at"]),
    )


def _interaction(line: dict[str, Any], number: int) -> Interaction:
    session = line.get("session_id", line.get("session"))
    return Interaction(
        at=to_seconds(line["timestamp"]),
        partition=0,
        offset=number,
        type=EventType(line["type"]),
        item_id=line.get("item_id"),
        value=line.get("value"),
        query=line.get("query"),
        price=line.get("price"),
        session=None if session is None else str(session),
        context=line.get("context", {}),
    )


def _users(dataset: Dataset) -> tuple[dict[str, Profile], dict[str, dict[str, Any]]]:
    profiles: dict[str, Profile] = {}
    attributes: dict[str, dict[str, Any]] = {}
    for line in dataset.users():
        user_id = str(line["user_id"])
        attributes[user_id] = line.get("attributes", {})
        if line.get("profile") or line.get("interests"):
            profiles[user_id] = Profile(line.get("profile", ""), tuple(line.get("interests", ())))
    return profiles, attributes

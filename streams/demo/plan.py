"""What a demonstration publishes, and when: pure, decided before anything runs."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from streams.dataset import Dataset, Line
from streams.errors import ConfigurationError

LATE_SHARE: Final = 0.1
"""Of the catalogue: published only in the middle of the replay."""
EARLIEST_LATE: Final = 0.25
"""Of the replay: an item whose first event comes before this is never held back."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The catalogue in two parts, the users concerned, and the events in time order."""

    items: tuple[Line, ...]
    late_items: tuple[Line, ...]
    """Items whose first event comes late: none of them has an event before `late_at`."""
    late_at: int
    """The late items are published before the event of this index."""
    users: tuple[Line, ...]
    events: tuple[Line, ...]


def make_plan(dataset: Dataset, events: int) -> Plan:
    """The first `events` events of a data set. Raises `ConfigurationError` where it has none, or no items."""
    window = tuple(islice(dataset.events(), events))
    catalogue = tuple(dataset.items())
    if not window or not catalogue:
        raise ConfigurationError(f"{dataset.folder} has no {'items' if window else 'events'}: there is nothing to show")
    first: dict[Any, int] = {}
    for index, event in enumerate(window):
        first.setdefault(event.get("item_id"), index)
    late, late_at = _choose_late(catalogue, first, len(window))
    concerned = {event.get("user_id") for event in window}
    return Plan(
        items=tuple(item for item in catalogue if item.get("item_id") not in late),
        late_items=tuple(item for item in catalogue if item.get("item_id") in late),
        late_at=late_at,
        users=tuple(user for user in dataset.users() if user.get("user_id") in concerned),
        events=window,
    )


def _choose_late(catalogue: tuple[Line, ...], first: dict[Any, int], length: int) -> tuple[set[Any], int]:
    """The tenth of the catalogue that the window meets last, and the index of the first event of any of it."""
    met_late = sorted(
        (first[item["item_id"]], item["item_id"])
        for item in catalogue
        if first.get(item.get("item_id"), -1) >= length * EARLIEST_LATE
    )
    chosen = met_late[-int(len(catalogue) * LATE_SHARE) :] if len(catalogue) * LATE_SHARE >= 1 else []
    return {identity for _, identity in chosen}, min((index for index, _ in chosen), default=length)

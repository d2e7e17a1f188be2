"""Who provides which item, and how much of what users want each provider has."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streams.decide.policy import ATTRIBUTE, CATEGORY
from streams.decide.ragged import Rows
from streams.values import ItemRecord


class Providers:
    """Who provides each item, and how much of what users want each provider has. No more of them than items are held."""

    def __init__(self, key: str) -> None:
        """`key`: attributes.NAME or categories, as in the settings."""
        self.key = key
        self._numbers: dict[str, int] = {}
        self._names: list[str] = []
        self._free: list[int] = []
        self._of = np.full(0, -1, np.int32)
        self._items = np.zeros(0, np.int64)
        self._wanted = np.zeros(0)
        """Positive events of 60 days by provider, in the scaled units of `Counts`."""

    def reserve(self, rows: int) -> None:
        """Make rows exist."""
        more = max(0, rows - len(self._of))
        self._of = np.concatenate([self._of, np.full(more, -1, np.int32)])
        self._items = np.concatenate([self._items, np.zeros(more, np.int64)])
        self._wanted = np.concatenate([self._wanted, np.zeros(more)])

    def put(self, row: int, record: ItemRecord) -> None:
        """Set the provider of a row that has none; its counts come by `count`."""
        name = _provider_of(record, self.key)
        if name is None:
            return
        number = self._numbers.get(name)
        if number is None:
            number = self._numbers[name] = self._free.pop() if self._free else len(self._names)
            self._names[number : number + 1] = [name]
        self._of[row] = number
        self._items[number] += 1

    def clear(self, row: int) -> None:
        """Forget the provider of a row whose counts were taken back."""
        number = int(self._of[row])
        if number < 0:
            return
        self._of[row] = -1
        self._items[number] -= 1
        if not self._items[number]:
            del self._numbers[self._names[number]]
            self._free.append(number)
            self._wanted[number] = 0.0

    def count(self, row: int, grown: float) -> None:
        """Let the 60-day count of a row's provider grow."""
        if self._of[row] >= 0:
            self._wanted[self._of[row]] += grown

    def small(self, rows: Rows, most: float) -> NDArray[np.bool_]:
        """Whether rows have a provider whose items have less than `most`, in scaled units; all where nobody wants any."""
        numbers = self._of[rows]
        return np.asarray((numbers >= 0) & ((self._wanted[numbers] < most) | (most <= 0.0)))


def _provider_of(record: ItemRecord, key: str) -> str | None:
    """The name, in small letters, that a record gives its provider (the first where it names several); None: none."""
    if key == CATEGORY:
        named: object = record.categories[:1]
    else:
        named = record.attributes.get(key.removeprefix(ATTRIBUTE))
    if isinstance(named, list | tuple):
        named = named[0] if named else None
    if not isinstance(named, str | int | float) or isinstance(named, bool):
        return None
    return str(named).strip().lower() or None

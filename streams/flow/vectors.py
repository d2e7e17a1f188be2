"""Learned vectors between workers: the one that learns tells on `model` what has moved most, the others take it over.

Each item has a record of its own key there, beside the ranker's weights, so that the topic keeps the latest of each. Best
effort: what was learned after the last record is lost with the process, and grows again.
"""

from __future__ import annotations

from typing import Final

import msgspec
import numpy as np

from streams.decide.lessons import Lesson
from streams.decide.recommend import learn_vectors
from streams.decide.table import Table
from streams.values import Message, Record, Topic

VECTOR: Final = b"vector:"
"""Keys of the records: this and the item's id."""
TOLD_AT_ONCE: Final = 64
LEAST_MOVED: Final = 0.1
"""Vectors are of length 1 before they learn; what has moved less is not worth a record: each start reads them all."""
_ENDED_AT_ONCE: Final = 256
_ORPHANS: Final = 10_000
_NOBODY: Final = np.zeros(0, np.int64)


class LearnedVector(msgspec.Struct, frozen=True, array_like=True):
    """What was learned of an item, in the encoder's space, so that it says the same on any main axes."""

    encoder: str
    writer: str
    """Who told: a process doesn't take back what it told itself."""
    residual: bytes
    """Float16."""
    bias: float
    squares: tuple[float, float]


class VectorFeed:
    """What this worker tells and takes over. Lessons change the vectors of its columns."""

    def __init__(self, columns: Table, encoder: str, writer: str) -> None:
        self._columns = columns
        self._encoder = encoder
        self._writer = writer
        self._orphans: dict[str, None] = {}
        """Items that have a record and that nobody holds."""
        self._telling = _NOBODY

    def learn(self, lesson: Lesson) -> None:
        """What a lesson teaches of its items."""
        learn_vectors(self._columns, lesson)

    def messages(self) -> list[Message]:
        """What others shall know: the vectors that moved most since they were told; and an end to those of nobody."""
        columns, vectors = self._columns, self._columns.learned
        moved = np.flatnonzero(vectors.moved > LEAST_MOVED)
        if len(moved) > TOLD_AT_ONCE:
            moved = moved[np.argpartition(-vectors.moved[moved], TOLD_AT_ONCE)[:TOLD_AT_ONCE]]
        rows = [row for row in moved.tolist() if columns.ids[row]]
        full = columns.full(vectors.residual[rows]).astype(np.float16)
        told = [
            _message(
                columns.ids[row],
                LearnedVector(
                    self._encoder, self._writer, residual.tobytes(), float(vectors.bias[row]),
                    (float(vectors.squares[row, 0]), float(vectors.squares[row, 1])),
                ),
            )
            for row, residual in zip(rows, full, strict=True)
        ]  # fmt: skip
        self._telling = moved
        return told + self._ends()

    def told(self) -> None:
        """The messages have arrived."""
        self._columns.learned.moved[self._telling] = 0.0
        self._telling = _NOBODY

    def _ends(self) -> list[Message]:
        if len(self._columns) >= self._columns.capacity:  # not all items are held: nobody knows whose these are
            return []
        some = list(self._orphans)[:_ENDED_AT_ONCE]
        for item_id in some:
            del self._orphans[item_id]
        return [_message(item_id, None) for item_id in some if item_id not in self._columns]

    def adopt(self, record: Record) -> None:
        """Take over a record of an item's vector. Raises `msgspec.MsgspecError` and `ValueError` for what is none."""
        item_id = (record.key or b"").removeprefix(VECTOR).decode()
        if record.value is None:
            self._orphans.pop(item_id, None)
            return
        told = msgspec.msgpack.decode(record.value, type=LearnedVector)
        if told.writer == self._writer or told.encoder != self._encoder:
            return
        row = self._columns.rows.get(item_id)
        if row is None:
            if len(self._orphans) < _ORPHANS:
                self._orphans[item_id] = None
            return
        residual, vectors = np.frombuffer(told.residual, np.float16).astype(np.float32), self._columns.learned
        numbers = np.array([told.bias, *told.squares], np.float32)
        if residual.shape != (self._columns.dimension,) or not np.isfinite(residual).all():
            raise ValueError("a learned vector of another size, or of no numbers")
        if not np.isfinite(numbers).all() or (numbers[1:] <= 0.0).any():
            raise ValueError("a learned vector with an impossible bias or square")
        vectors.residual[row] = self._columns.to_short(residual)
        vectors.bias[row], vectors.squares[row], vectors.moved[row] = numbers[0], numbers[1:], 0.0


def is_vector(record: Record) -> bool:
    """Whether a record of `model` is of an item's vector."""
    return record.key is not None and record.key.startswith(VECTOR)


def _message(item_id: str, told: LearnedVector | None) -> Message:
    value = None if told is None else msgspec.msgpack.encode(told)
    return Message(Topic.MODEL, VECTOR + item_id.encode(), value, partition=0)

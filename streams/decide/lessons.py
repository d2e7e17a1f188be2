"""What a user chose, beside what they could have been shown instead: what the ranker learns from."""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from streams.decide.features import NAMES

DIGEST: Final = hashlib.sha256(" ".join(NAMES).encode()).hexdigest()[:8]


class Lesson(msgspec.Struct, frozen=True):
    """Features of what was chosen (first `targets` rows) and of what could have been. Float16, row-major."""

    targets: int
    cold: bool
    pool: int
    """Candidates that the others were drawn from."""
    values: bytes
    at: float = 0.0
    items: tuple[str, ...] = ()
    """Whose rows these are."""
    history: tuple[str, ...] = ()
    """What the user had met, newest first, …"""
    shares: bytes = b""
    """… and how much each counts; float32."""
    features: str = DIGEST
    """Which features these are: a lesson of a release that has others can't be learned from."""

    @property
    def grid(self) -> NDArray[np.float32]:
        """Shape [items, features]."""
        return np.frombuffer(self.values, np.float16).reshape(-1, len(NAMES)).astype(np.float32)


def encode_lesson(lesson: Lesson) -> bytes:
    """A lesson as the topic `lessons` carries it."""
    return msgspec.msgpack.encode(lesson)


def decode_lesson(data: bytes) -> Lesson | None:
    """The lesson of `encode_lesson`, None for one of other features; raises `msgspec.DecodeError` for anything else."""
    lesson = msgspec.msgpack.decode(data, type=Lesson)
    if lesson.features != DIGEST:
        return None
    rows = len(lesson.values) // (2 * len(NAMES))
    if rows * 2 * len(NAMES) != len(lesson.values) or not 0 < lesson.targets < rows:
        raise msgspec.DecodeError("a lesson of another size than its features have")
    if lesson.pool < rows:
        raise msgspec.DecodeError("a lesson drawn from fewer candidates than it has")
    if len(lesson.items) != rows or len(lesson.shares) != 4 * len(lesson.history):
        raise msgspec.DecodeError("a lesson that doesn't name its items, or how much its history counts")
    shares = np.frombuffer(lesson.shares, np.float32)
    if not ((shares >= 0.0) & (shares <= 1.0)).all():  # not so for NaN either
        raise msgspec.DecodeError("a lesson with shares that are none")
    return lesson

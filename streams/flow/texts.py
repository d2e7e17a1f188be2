"""Vectors of the texts that users write: searches and profiles. One call of the encoder for all that a batch needs."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from streams.errors import EncoderFailedError
from streams.ports import Encoder, Offload
from streams.values import Vector

PROBE = "coldstream"


class TextVectors:
    """A bounded cache (least recently used goes) in front of the encoder, which runs off the event loop."""

    def __init__(self, encoder: Encoder, offload: Offload[NDArray[np.float32]], capacity: int = 20_000) -> None:
        self.encoder = encoder
        self._offload = offload
        self._capacity = capacity
        self._cache: OrderedDict[str, Vector] = OrderedDict()

    async def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of texts, uncached. Shape [len(texts), dimension].

        Raises `EncoderFailedError` when the encoder can't even encode a harmless probe; any other exception is the
        texts' own fault.
        """
        if not texts:
            return np.zeros((0, self.encoder.dimension), np.float32)
        try:
            return await self._offload(lambda: self.encoder.encode(texts))
        except Exception:
            await self._probe()
            raise

    async def both(self, items: Sequence[str], users: Iterable[str]) -> tuple[NDArray[np.float32], dict[str, Vector]]:
        """Vectors of item texts (uncached) and of users' texts (cached), by one call of the encoder."""
        wanted = dict.fromkeys(users)
        missing = [text for text in wanted if text not in self._cache]
        rows = await self.encode([*items, *missing])
        for text, row in zip(missing, rows[len(items) :], strict=True):
            self._cache[text] = row
        vectors = {text: self._cache[text] for text in wanted}
        for text in wanted:
            self._cache.move_to_end(text)
        while len(self._cache) > self._capacity:
            self._cache.popitem(last=False)
        return rows[: len(items)], vectors

    async def vectors(self, texts: Iterable[str]) -> Mapping[str, Vector]:
        """Vectors of users' texts."""
        return (await self.both((), texts))[1]

    def forget(self, texts: Iterable[str]) -> None:
        """Drop what an erased user wrote."""
        for text in texts:
            self._cache.pop(text, None)

    async def _probe(self) -> None:
        try:
            await self._offload(lambda: self.encoder.encode([PROBE]))
        except Exception as error:
            raise EncoderFailedError(f"the encoder fails on every text: {error}; run coldstream doctor") from error

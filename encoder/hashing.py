"""A deterministic encoder without a model, for tests and simulations: texts that share words are near to each other."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

_WORD: Final = re.compile(r"\w+")


class HashingEncoder:
    """Each word has a fixed random direction; a text is the normalised sum of its words'.

    `dimension` numbers a vector. The text without a word is the vector of the empty word.
    """

    def __init__(self, dimension: int = 64) -> None:
        self.name = f"hashing-{dimension}"
        self.dimension = dimension
        self.template = 1
        self.provider = "cpu"
        self._words: dict[str, NDArray[np.float32]] = {}

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Shape [len(texts), dimension], rows of unit norm."""
        rows = np.zeros((len(texts), self.dimension), np.float32)
        for row, text in zip(rows, texts, strict=True):
            for word in _WORD.findall(text.lower()) or [""]:
                row += self._direction(word)
            norm = np.linalg.norm(row)
            row[:] = row / norm if norm > 0 else self._direction("")
        return rows

    def _direction(self, word: str) -> NDArray[np.float32]:
        found = self._words.get(word)
        if found is None:
            generator = np.random.default_rng(crc32(word.encode("utf-8", "surrogatepass")))
            found = generator.standard_normal(self.dimension).astype(np.float32)
            found /= np.linalg.norm(found)
            self._words[word] = found
        return found

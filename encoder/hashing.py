"""A deterministic encoder for tests: the sum of pseudo-random vectors of a text's words."""

import re
from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

_WORD = re.compile(r"\w+", re.UNICODE)
_LONGEST_TEXT = 10_000


class HashingEncoder:
    """Texts that share words are similar, others nearly orthogonal; numpy only, the same everywhere and always.

    A text without a word (empty, white space, punctuation) has the vector of the empty word: every row is of unit
    length.
    """

    template = 1
    provider = "none"

    def __init__(self, dimension: int = 64) -> None:
        """Vectors of `dimension` numbers; ValueError below 1."""
        if dimension < 1:
            message = f"a vector has at least one number, not {dimension}"
            raise ValueError(message)
        self.dimension = dimension
        self.name = f"hashing-{dimension}"
        self._words: dict[str, NDArray[np.float32]] = {}

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit rows, float32 [n, dimension]; never raises for any text."""
        vectors = np.zeros((len(texts), self.dimension), np.float32)
        for row, text in enumerate(texts):
            for word in _WORD.findall(text[:_LONGEST_TEXT].lower()) or [""]:
                vectors[row] += self._word(word)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors /= np.maximum(lengths, np.finfo(np.float32).tiny)
        for empty in np.flatnonzero(lengths[:, 0] == 0):
            vectors[empty] = self._word("") / np.linalg.norm(self._word(""))
        return vectors

    def agreement(self) -> float:
        """As of `OnnxEncoder`: there are no golden texts to disagree with."""
        return 1.0

    def _word(self, word: str) -> NDArray[np.float32]:
        if word not in self._words:
            seed = int.from_bytes(blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")
            self._words[word] = np.random.default_rng(seed).standard_normal(self.dimension).astype(np.float32)
        return self._words[word]

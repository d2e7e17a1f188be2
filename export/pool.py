"""The pool that a student learns from on a GPU: texts of many sources, variants and composed ones, as tokens on the device.

A folder of texts holds `sources.json`, a list of {file, name, licence}, and the files, one text a line (.txt or .txt.xz).
"""

import json
import lzma
import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor

from export.compose import Vocabulary, compose, variant
from export.texts import LONGEST_TEXT, Source, tidy
from export.training import Tokens, tokens_of

_TOKENS, _MOST_ROWS, _WINDOW = 24_576, 1024, 64
"""Of one batch: padded tokens, texts; batches whose texts are sorted by length together."""
_LENGTHS = 8
"""Lengths are padded up to a multiple of this."""
_DROPPED_TEXTS, _DROPPED_TOKENS = 0.3, 0.12
_JOINED_WORDS = 20


def read_sources(folder: Path) -> list[Source]:
    """The sources of a folder (see the module), each text at most `LONGEST_TEXT` characters."""
    sources = []
    for line in json.loads((folder / "sources.json").read_text(encoding="utf-8")):
        path = folder / line["file"]
        content = lzma.decompress(path.read_bytes()) if path.suffix == ".xz" else path.read_bytes()
        texts = dict.fromkeys(tidy(text) for text in content.decode("utf-8", "replace").splitlines())
        sources.append(Source(line["name"], line["licence"], tuple(text for text in texts if text)))
    return sources


@dataclass(frozen=True, slots=True)
class _Part:
    """One process's share of the pool."""

    texts: tuple[str, ...]
    composed: int
    seed: int


def gather(
    texts: Sequence[str], composed: int, vocabulary: Vocabulary, tokenizer: Tokenizer, processes: int, seed: int = 7
) -> Tokens:
    """`texts`, a variant of each, as many pairs joined, `composed` composed texts and a quarter of variants of those, as tokens.

    The same texts, seed and number of `processes` give the same tokens.
    """
    shuffled = list(texts)
    random.Random(seed).shuffle(shuffled)
    parts = [
        _Part(tuple(shuffled[number::processes]), composed // processes, seed + 1 + number)
        for number in range(processes)
    ]
    work = partial(_pool, vocabulary=vocabulary, tokenizer=tokenizer.to_str())
    with ProcessPoolExecutor(processes, mp_context=get_context("fork")) as workers:
        found = list(workers.map(work, parts))
    ids = np.concatenate([one.ids for one in found])
    lengths = np.concatenate([one.lengths for one in found])
    return Tokens(ids, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))


def _pool(part: _Part, vocabulary: Vocabulary, tokenizer: str) -> Tokens:
    chance = random.Random(part.seed)
    texts = list(part.texts)
    texts += [variant(text, chance) for text in part.texts]
    texts += [_joined(chance.choice(part.texts), chance.choice(part.texts), chance) for _ in part.texts]
    made = compose(vocabulary, part.composed, part.seed).texts
    texts += made
    texts += [variant(chance.choice(made), chance) for _ in range(len(made) // 4)]
    encoder = Tokenizer.from_str(tokenizer)
    return tokens_of([one.ids for one in encoder.encode_batch(texts)])


def _joined(one: str, other: str, chance: random.Random) -> str:
    """Two texts as one, or the end of the first and the beginning of the second."""
    if chance.random() < 1 / 2:
        return f"{one[: LONGEST_TEXT // 3]}{chance.choice(('. ', ', ', ' ', ': '))}{other[: LONGEST_TEXT // 3]}"
    words, more = one.split(), other.split()
    return " ".join(words[len(words) // 2 :][:_JOINED_WORDS] + more[: (len(more) + 1) // 2][:_JOINED_WORDS])


def batches(lengths: NDArray[np.int64], seed: int) -> Iterator[NDArray[np.int64]]:
    """Rows for ever: each round all of them in random order, those of a batch of like length (little padding)."""
    chance = np.random.default_rng(seed)
    window = _WINDOW * _MOST_ROWS
    while True:
        order = chance.permutation(len(lengths))
        for start in range(0, len(order), window):
            rows = order[start : start + window]
            rows = rows[np.argsort(lengths[rows], kind="stable")]
            made, at = [], 0
            while at < len(rows):
                size = min(_MOST_ROWS, len(rows) - at)
                while size > 1 and size * lengths[rows[at + size - 1]] > _TOKENS:
                    size = max(1, min(size - 1, int(_TOKENS // lengths[rows[at + size - 1]])))
                made.append(rows[at : at + size])
                at += size
            for index in chance.permutation(len(made)):
                yield made[index]


class DeviceTokens:
    """All tokens on the device, and batches of them with words dropped."""

    def __init__(self, tokens: Tokens, device: str, separator: int) -> None:
        """`separator` is the token that is never dropped; the first of a text isn't either."""
        self.ids = torch.from_numpy(tokens.ids).to(device)
        self.offsets = torch.from_numpy(tokens.offsets).to(device)
        self.lengths = tokens.lengths
        self.device, self.separator = device, separator

    def batch(self, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Ids and mask of `rows`, int64 [n, a multiple of `_LENGTHS`]; of some texts some words are gone."""
        longest = -(-int(self.lengths[rows].max()) // _LENGTHS) * _LENGTHS
        at = torch.from_numpy(rows).to(self.device)
        first = self.offsets[at]
        lengths = self.offsets[at + 1] - first
        places = torch.arange(longest, device=self.device)[None, :]
        mask = places < lengths[:, None]
        ids = self.ids[(first[:, None] + places).clamp(max=len(self.ids) - 1)].long() * mask
        hit = torch.rand(len(rows), 1, device=self.device) < _DROPPED_TEXTS
        gone = (torch.rand(ids.shape, device=self.device) < _DROPPED_TOKENS) & hit & (places > 0)
        keep = mask & (~gone | (ids == self.separator))
        order = torch.argsort((~keep).to(torch.uint8), dim=1, stable=True)
        ids = torch.gather(ids * keep, 1, order)
        return ids, (places < keep.sum(1, keepdim=True)).long()

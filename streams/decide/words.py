"""The words and facets of items and queries, as hashed numbers: no vocabulary to keep, no order that matters."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from math import log
from typing import Final
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from streams.ports import Terms
from streams.values import ItemRecord

SPACE: Final = 1 << 18
"""Terms and facets are numbers below this; collisions are rare and harmless beside what text says."""
KINDS: Final = 4
"""Kinds of facet: title, first category, other categories, attributes."""
MOST_FACETS: Final = 16
_MOST_TERMS: Final = 48

_WORD: Final = re.compile(r"\w+")


def terms_of(text: str) -> Terms:
    """Words and pairs of neighbouring words of a text, weight 1 + ln(count). Distinct ids, ascending."""
    words = [_stem(word) for word in _WORD.findall(text.lower())]
    counts = Counter(words)
    counts.update(f"{first} {second}" for first, second in pairwise(words))
    weights: dict[int, float] = {}
    for term, count in counts.most_common(_MOST_TERMS):
        number = crc32(term.encode()) % SPACE
        weights[number] = weights.get(number, 0.0) + 1.0 + log(count)
    ids = np.array(sorted(weights), np.uint32)
    return Terms(ids, np.array([weights[int(number)] for number in ids], np.float32))


def text_of(record: ItemRecord) -> str:
    """All words of an item, for `terms_of`."""
    values = (str(value) for name, value in _attributes(record) if name)
    return " . ".join((record.title, *record.categories, *values, record.description[:400]))


def facets_of(record: ItemRecord) -> tuple[NDArray[np.int64], NDArray[np.int8]]:
    """(facet, kind) of an item's title, categories and attribute values; at most 16."""
    named: list[tuple[int, str]] = [(0, record.title.lower())] if record.title else []
    named += [(1 if place == 0 else 2, category.lower()) for place, category in enumerate(record.categories)]
    named += [(3, f"{name}={value}".lower()) for name, value in _attributes(record)]
    facets = {crc32(f"{kind}:{name}".encode()) % SPACE: kind for kind, name in named[:MOST_FACETS]}
    return np.array(list(facets), np.int64), np.array(list(facets.values()), np.int8)


def _attributes(record: ItemRecord) -> Iterable[tuple[str, object]]:
    for name, value in record.attributes.items():
        for part in value if isinstance(value, list | tuple) else (value,):
            if isinstance(part, str | int | float) and not isinstance(part, bool):
                yield name, part
            elif part is True:
                yield name, name


def _stem(word: str) -> str:
    """A plural's s is dropped, nothing else: enough for titles, harmless in other languages."""
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word

"""Variants of training texts: what a catalogue, a searcher or a hurried typist leaves out or changes.

Every function takes its randomness from the caller, so that a seed reproduces a run.
"""

import random
import re
from collections.abc import Iterator, Sequence

_FIELD = re.compile(r"\s*[,.;:|]\s+")
_WORD_DROPOUT = 0.15
_LONGEST_QUERY = 4


def variant(text: str, chance: random.Random) -> str:
    """One variant of `text`: fields dropped or reordered, the title alone, words dropped, or a query of a few words.

    Never empty for a text that has a word; a text too short to vary comes back as it is.
    """
    kind = chance.choice((_fields_dropped, _fields_shuffled, _title, _words_dropped, _query))
    changed = kind(text, chance).strip()
    return changed or text


def variants(texts: Sequence[str], number: int, seed: int) -> Iterator[str]:
    """`number` variants of texts drawn from `texts` with replacement."""
    chance = random.Random(seed)
    for _ in range(number):
        yield variant(texts[chance.randrange(len(texts))], chance)


def _fields_dropped(text: str, chance: random.Random) -> str:
    fields = _FIELD.split(text)
    kept = [field for field in fields[1:] if chance.random() < 1 / 2]
    return ", ".join(fields[:1] + kept)


def _fields_shuffled(text: str, chance: random.Random) -> str:
    fields = _FIELD.split(text)
    chance.shuffle(fields)
    return ", ".join(fields)


def _title(text: str, _chance: random.Random) -> str:
    return _FIELD.split(text)[0]


def _words_dropped(text: str, chance: random.Random) -> str:
    return " ".join(word for word in text.split() if chance.random() > _WORD_DROPOUT)


def _query(text: str, chance: random.Random) -> str:
    words = [word.strip(".,;:()\"'") for word in text.split()]
    number = chance.randint(1, _LONGEST_QUERY)
    if len(words) <= number:
        return text.lower()
    if chance.random() < 1 / 2:
        start = chance.randrange(len(words) - number)
        return " ".join(words[start : start + number]).lower()
    return " ".join(chance.sample(words, number)).lower()

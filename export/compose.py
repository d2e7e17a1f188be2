"""Training texts that are made: composed from WordNet, or varied from others.

Composed are titles, listings, queries and profiles of many domains (`templates.json`).

A student must serve catalogues that nobody has seen. What it needs from training is every word in many company, and the
shapes in which catalogues, searchers and self-descriptions put words together; truth is not needed, because the teacher
labels whatever is composed. Every slot is a WordNet lexicographer file, so that no list of a test domain is learned.
Variants are what a catalogue, a searcher or a hurried typist leaves out or changes. A seed reproduces either.
"""

import json
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from export.texts import Source, Synset

_SLOT = re.compile(r"\{(\w+)\}")
_FIELD = re.compile(r"\s*[,.;:|]\s+")
_WORD_DROPOUT = 0.15
_LONGEST_QUERY = 4

_DATA = json.loads(Path(__file__).with_name("templates.json").read_text(encoding="utf-8"))
TEMPLATES: Mapping[str, tuple[str, ...]] = {domain: tuple(texts) for domain, texts in _DATA["templates"].items()}
"""Texts with slots, by domain."""
_WORDS: Mapping[str, tuple[str, ...]] = {slot: tuple(words) for slot, words in _DATA["words"].items()}


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Words by slot, most frequent first, and how many of each slot count as common."""

    slots: Mapping[str, tuple[str, ...]]
    common: Mapping[str, int]

    @classmethod
    def of(cls, synsets: Sequence[Synset], counts: Mapping[str, int]) -> "Vocabulary":
        """The vocabulary of WordNet's `synsets`; a word is common if it was tagged in WordNet's corpora (`counts`)."""
        gathered: dict[str, dict[str, int]] = {}
        for synset in synsets:
            slot = _slot(synset.lexical_file)
            for word in synset.words:
                if slot == "person" and word[:1].isupper():
                    gathered.setdefault("name", {})[word] = counts.get(word.lower(), 0)
                else:
                    gathered.setdefault(slot, {})[word] = counts.get(word.lower(), 0)
                    if slot not in {"adjective", "verb", "adverb"}:
                        gathered.setdefault("noun", {})[word] = counts.get(word.lower(), 0)
        slots = {slot: tuple(sorted(words, key=lambda word: (-words[word], word))) for slot, words in gathered.items()}
        common = {slot: max(1, sum(1 for word in words.values() if word > 0)) for slot, words in gathered.items()}
        return cls({**slots, **_WORDS}, {**common, **{slot: len(words) for slot, words in _WORDS.items()}})

    def draw(self, slot: str, chance: random.Random) -> str:
        """One word for `slot`, frequent ones more often (a quarter from all words alike); years and numbers are
        made.
        """
        if slot == "year":
            return str(chance.randint(1930, 2026))
        if slot == "number":
            return str(chance.choice((2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 24, 30, 45, 60, 100)))
        if slot == "model":
            return f"{chance.choice('ABCEGKLMRSTXZ')}{chance.randint(1, 999)}"
        words = self.slots[slot]
        if chance.random() < 1 / 4:
            return words[chance.randrange(len(words))]
        return words[int(self.common[slot] * chance.random() ** 2)]


def compose(vocabulary: Vocabulary, number: int, seed: int) -> Source:
    """`number` composed texts of all domains in equal parts; the same seed gives the same texts."""
    return Source("composed from WordNet 3.0", "WordNet 3.0 licence", tuple(_composed(vocabulary, number, seed)))


def _composed(vocabulary: Vocabulary, number: int, seed: int) -> Iterator[str]:
    chance = random.Random(seed)
    domains = sorted(TEMPLATES)
    for _ in range(number):
        template = chance.choice(TEMPLATES[chance.choice(domains)])
        text = _SLOT.sub(lambda match: vocabulary.draw(match[1], chance), template)
        style = chance.random()
        yield text.upper() if style < 0.05 else text.title() if style < 0.2 else text


def _slot(lexical_file: str) -> str:
    part, _, _ = lexical_file.partition(".")
    return {"adj": "adjective", "adv": "adverb", "verb": "verb", "noun": "cognition"}.get(part, part)


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

"""Texts composed from WordNet: titles, listings, queries and profiles of many domains.

A student must serve catalogues that nobody has seen. What it needs from training is every word in many company, and the
shapes in which catalogues, searchers and self-descriptions put words together; truth is not needed, because the teacher
labels whatever is composed. Every slot is a WordNet lexicographer file, so that no list of a test domain is learned.
"""

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from export.texts import Source, Synset

_SLOT = re.compile(r"\{(\w+)\}")

TEMPLATES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "product": (
            "{adjective} {artifact}",
            "{artifact} with {artifact}",
            "{color} {adjective} {artifact}, {size}",
            "set of {number} {adjective} {artifact}",
            "{brand} {artifact} {model}, {color}",
            "{artifact}, {artifact}, brand {brand}, {size}",
            "{substance} {artifact} for {person}",
            "{adjective} {animal} {artifact}",
            "{brand} {adjective} {food}, {size}",
            "{food}, {food}, {brand}, {size}",
            "{artifact} {size}, {substance}, {color}. {adjective} {artifact} for {act} and {act}.",
            "{plant} {artifact}",
            "{body} {substance} {adjective}, {size}",
        ),
        "film": (
            "The {adjective} {noun} ({year}), {genre}, {genre}",
            "{noun} ({year}), {genre}",
            "The {person} and the {noun} ({year}), {genre}, {genre}",
            "{location} {noun} ({year}), a {genre} film",
            "{verb} the {noun} ({year}), {genre}",
            "{noun} of {noun}. A {adjective} {person} {verb}s a {noun} in {location}.",
            "{number} {person}s, {genre} series about {event} and {state}",
        ),
        "book": (
            "{noun} and {noun} by {name}",
            "The {adjective} {noun}, a novel of {state} and {feeling}",
            "A history of {noun} in {location}",
            "{cognition}: an introduction to {cognition}, {year}",
            "{name}, {person} of {location}: letters and {communication}",
            "The {person}'s {noun}, {genre}, {name}, {year}",
        ),
        "food": (
            "{adjective} {food} with {food} and {food}",
            "How to make {food}",
            "{food} and {food} {artifact}, ready in {number} minutes, {food}, {food}, {food}",
            "{location} {food}, serves {number}, {food}, {food}, {substance}",
            "{adjective} {food}, {location}, {food}, pairs with {food}, {food}, {food}, {adjective}, {number} %",
            "{color} {food} from {location}, {year}, {name}",
            "{food} {plant} {size}",
        ),
        "work": (
            "{adjective} {person}, {location}",
            "{person} for {cognition} and {act}, full time, {location}, {brand}",
            "{person} ({act}), part time, salary {number},000",
            "We look for a {person} with experience in {act}, {cognition} and {communication}",
        ),
        "news": (
            "{location} {person} {verb}s {noun} after {event}",
            "{person}s {verb} {noun} in {location}",
            "{adjective} {event} in {location}: {noun}, {noun} and {state}",
            "Why {noun} {verb}s {noun}",
            "{number} {person}s {verb} as {phenomenon} hits {location}",
            "What the {event} means for {group} and {possession}",
        ),
        "music": (
            "{noun} {noun} ({adjective} mix) by {name}, {genre}, {year}",
            "{name}, The {adjective} {noun}, {genre} album",
            "{feeling} {communication} for {act}, {genre}",
        ),
        "place": (
            "{adjective} {artifact} in {location}, {number} {artifact}s, near {location}",
            "{food} restaurant in {location}, {adjective}, {food}, {food}",
            "{number} days in {location}: {object}, {artifact} and {act}",
            "{location} {act} tour with {person}",
        ),
        "question": (
            "How do I {verb} a {noun}?",
            "Where can I find {adjective} {noun} in {location}?",
            "Can a {person} {verb} {artifact} in {location} without {possession}?",
            "What is the difference between {noun} and {noun}?",
            "Is it {adjective} to {verb} {noun} with {noun}?",
            "Which {artifact} should I {verb} for {act} in {location}?",
            "Why does my {artifact} {verb} when I {verb}?",
            "{noun} and {noun} for {person}s",
            "What is the best {artifact} for {act} with a {person}?",
            "Do I need a {communication} to {verb} {noun} in {location}?",
            "Can I {verb} my {artifact} if it is {adjective}?",
            "How long does it take to {verb} a {artifact} from {location} to {location}?",
            "How much does a {artifact} cost in {location}?",
            "Is there any {artifact} near {location} that {verb}s {food}?",
            "What happens if my {possession} is {adjective} after {event}?",
            "Why is {food} so {adjective} in {location}?",
            "Are {person}s allowed to {verb} {animal}s in {location}?",
            "Should I {verb} the {body} before or after {act}?",
            "What should a {person} know about {cognition} and {act}?",
            "How can I tell if a {plant} is {adjective}?",
            "When is the best {time} to {verb} {food}?",
            "{location} or {location} for {act} in {time}?",
            "Does a {brand} {artifact} work with a {artifact}?",
            "I am a {adjective} {person} with a {possession}: may I {verb} in {location} for {number} {time}s?",
            "My {artifact} was {verb}ed by a {person}. How do I get my {possession} back?",
            "Who {verb}s the {communication} when the {person} has no {possession}?",
            "How did {name} {verb} the {event} of {location}?",
            "Any {adjective} way to {verb} {number} {artifact}s at once?",
            "Who was {name}, and what did this {person} {verb}?",
            "{act} in {location}: is {noun} {adjective} enough?",
        ),
        "software": (
            "{cognition} library for {act} and {communication}",
            "A {adjective} {artifact} to {verb} {communication} in {number} {time}s",
            "{act} course for {person}s: {cognition}, {cognition}",
            "{adjective} {act} game for {number} {person}s, {genre}",
        ),
        "query": (
            "{noun} {noun}",
            "{adjective} {noun}",
            "{artifact} for {person}",
            "cheap {artifact} {color}",
            "{noun} {location}",
            "{noun}",
            "{food} {food}",
            "{genre} {noun} {year}",
            "{verb} {noun}",
        ),
        "profile": (
            "I like {noun}, {noun} and {noun}",
            "{person} from {location}, interested in {cognition}, {act} and {noun}",
            "I love {genre} films and {adjective} {noun}",
            "My hobbies are {act}, {act} and {food}",
            "looking for {adjective} {artifact} and {artifact}, not {adjective} {artifact}",
            "{noun}, {noun}, {noun}, {noun}",
            "Fan of {name}, {genre} and {location}",
        ),
    }
)

_LISTS: Mapping[str, str] = MappingProxyType(
    {
        "genre": """action,adventure,animation,biography,children,comedy,crime,documentary,drama,family,fantasy,horror,
            musical,mystery,romance,sci-fi,sport,thriller,war,western,jazz,rock,folk,pop,classical,electronic,hip-hop,
            noir,historical""",
        "color": "red,blue,green,white,black,pink,ivory,gold,silver,grey,brown,purple,yellow,orange,beige,navy",
        "size": "small,medium,large,XL,12 oz,500 ml,1 kg,2 pack,6 pack,pack of 12,10 x 15 cm,1 l,16 GB",
        "brand": """Acme,Norden,Halden,Brightway,Kestrel,Luma,Orbis,Tarn,Veldt,Solway,Marlow,Pinecrest,Ostara,Quill,Zephyr,
            Fable,Corvus,Delphi,Hazel,Ironwood""",
    }
)
_WORDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {slot: tuple(word.strip() for word in words.split(",")) for slot, words in _LISTS.items()}
)


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

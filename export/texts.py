"""Sources of training texts: what they are, who licensed them, how to read them.

A source is read whole and in a fixed order, so that a seed reproduces a run. Nothing is downloaded here: the person who
distils names files and folders that they have. Reading never guesses: a missing or empty source is an error.
"""

import gzip
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, TextIO

from encoder import item_text
from export import TextsError

LONGEST_TEXT = 600
"""Characters kept of one training text; about 128 tokens, the longest input of a student."""

_LEXICAL_FILES = """
adj.all adj.pert adv.all noun.tops act animal artifact attribute body cognition communication event feeling food group
location motive object person phenomenon plant possession process quantity relation shape state substance time verb.body
verb.change verb.cognition verb.communication verb.competition verb.consumption verb.contact verb.creation verb.emotion
verb.motion verb.perception verb.possession verb.social verb.stative verb.weather adj.ppl
"""
LEXICAL_FILES: Mapping[int, str] = MappingProxyType(dict(enumerate(_LEXICAL_FILES.split())))
"""WordNet's lexicographer files by number, from lexnames(5WN); nouns without their prefix."""

_SYNSET_HEAD = 4
_RELATED_FOLDERS_LEFT_OUT = (
    "stopwords",
    "primes",
    "fibonnaci",
    "popular-movies",
    "conjugations",
    "obscenity",
    "pronouns",
)


@dataclass(frozen=True, slots=True)
class Source:
    """One named source: where its texts come from, under which licence, and the texts, each at most `LONGEST_TEXT`
    long.
    """

    name: str
    licence: str
    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Synset:
    """A WordNet entry: its words (spaces, no underscores), lexicographer file, definition and examples."""

    words: tuple[str, ...]
    lexical_file: str
    definition: str
    examples: tuple[str, ...]


def tidy(text: str) -> str:
    """`text` with runs of white space made one space, cut at a word to `LONGEST_TEXT` characters."""
    text = " ".join(text.split())
    if len(text) <= LONGEST_TEXT:
        return text
    return text[: LONGEST_TEXT + 1].rsplit(" ", 1)[0][:LONGEST_TEXT]


def read_wordnet(folder: Path) -> tuple[Synset, ...]:
    """Every synset of WordNet's `data.*` files in `folder` (format: wndb(5WN)), adjectives to verbs in file order.

    Raises TextsError if a file is missing.
    """
    synsets: list[Synset] = []
    for part in ("noun", "verb", "adj", "adv"):
        path = folder / f"data.{part}"
        with _open(path) as lines:
            synsets.extend(_synset(line) for line in lines if not line.startswith("  "))
    return tuple(synsets)


def read_word_counts(folder: Path) -> Mapping[str, int]:
    """How often each word (lower case, spaces) was tagged in WordNet's corpora, from `cntlist.rev`; absent words are
    rare.
    """
    counts: dict[str, int] = {}
    with _open(folder / "cntlist.rev") as lines:
        for line in lines:
            key, _, count = line.split()
            word = key.split("%", 1)[0].replace("_", " ")
            counts[word] = counts.get(word, 0) + int(count)
    return counts


def wordnet(folder: Path) -> Source:
    """WordNet's words, definitions and examples as texts: `word, word`, `word: definition`, the definition, each
    example.
    """
    texts: list[str] = []
    for synset in read_wordnet(folder):
        texts.append(f"{synset.words[0]}: {synset.definition}")
        texts.append(synset.definition)
        texts.append(", ".join(synset.words))
        texts.extend(synset.examples)
    return _source("WordNet 3.0", "WordNet 3.0 licence", texts)


def summaries(name: str, path: Path, column: int, minimum: int = 18) -> Source:
    """One-line summaries of packages: tab-separated `path`, the summary in `column`, those of at least `minimum`
    characters.
    """
    texts: list[str] = []
    with _open(path) as lines:
        for line in lines:
            fields = line.rstrip("\n").split("\t")
            if len(fields) > column and len(fields[column]) >= minimum:
                texts.append(fields[column])
    return _source(name, "facts of a public index; the authors' one-line summaries", texts)


def descriptions(name: str, path: Path) -> Source:
    """Long descriptions from a Debian package index (deb822 format, `Description:` and its continuation lines)."""
    texts: list[str] = []
    gathered: list[str] | None = None
    with _open(path) as lines:
        for line in lines:
            if line.startswith(("Description:", "Description-en:")):
                gathered = [line.split(":", 1)[1]]
            elif gathered is not None and line.startswith(" "):
                gathered.append("" if line.strip() == "." else line)
            elif gathered is not None:
                texts.append(" ".join(gathered))
                gathered = None
    return _source(name, "DFSG-free, each package's own", texts)


def word_lists(folder: Path) -> Source:
    """Every string of two words or more, and every string that names a thing, in the JSON files under `folder`."""
    texts: list[str] = []
    for path in sorted(folder.rglob("*.json")):
        if any(part in str(path) for part in _RELATED_FOLDERS_LEFT_OUT):
            continue
        texts.extend(_strings(_json(path)))
    return _source("corpora", "CC0 1.0", (text for text in texts if re.search(r"[^\W\d_]{3}", text)))


def catalogue(name: str, licence: str, path: Path, template: int) -> Source:
    """The items of a catalogue (`items.jsonl[.gz]` of DESIGN section 7) by template, and their titles alone."""
    texts: list[str] = []
    with _open(path) as lines:
        for number, line in enumerate(lines, 1):
            try:
                item = json.loads(line)
                texts.append(catalogue_text(item, template))
                texts.append(str(item["title"]))
            except (ValueError, KeyError, TypeError) as error:
                message = f"{path}, line {number}: not an item ({error}); each line is a value of the topic `items`"
                raise TextsError(message) from error
    return _source(name, licence, texts)


def catalogue_text(item: Any, template: int) -> str:
    """The text of one item as read from JSON; raises KeyError without a title, TypeError for wrong types."""
    if not isinstance(item, dict):
        message = "not an object"
        raise TypeError(message)
    categories, attributes, price = item.get("categories") or [], item.get("attributes") or {}, item.get("price")
    if not isinstance(categories, list) or not isinstance(attributes, dict):
        message = "categories is a list and attributes an object"
        raise TypeError(message)
    description = item.get("description")
    return item_text(
        title=str(item["title"]),
        description=None if description is None else str(description),
        categories=[str(category) for category in categories],
        attributes=attributes,
        price=float(price) if isinstance(price, int | float) else None,
        template=template,
    )


def _source(name: str, licence: str, texts: Iterator[str] | list[str]) -> Source:
    unique = tuple(dict.fromkeys(text for text in map(tidy, texts) if text))
    if not unique:
        message = f"the source {name!r} has no text; name a file or folder that holds some"
        raise TextsError(message)
    return Source(name, licence, unique)


def _synset(line: str) -> Synset:
    head, _, gloss = line.partition(" | ")
    fields = head.split(" ")
    number = int(fields[_SYNSET_HEAD - 1], 16)
    words = tuple(
        re.sub(r"\((?:a|p|ip)\)$", "", fields[_SYNSET_HEAD + 2 * index]).replace("_", " ") for index in range(number)
    )
    definition = re.split(r';\s*"', gloss, maxsplit=1)[0].strip()
    return Synset(words, LEXICAL_FILES[int(fields[1])], definition, tuple(re.findall(r'"([^"]{12,})"', gloss)))


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for part in value:
            yield from _strings(part)
    elif isinstance(value, dict):
        for key, part in value.items():
            if key not in {"description", "source", "url", "hex", "color", "id"}:
                yield from _strings(part)


def _json(path: Path) -> object:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        message = f"{path} is no JSON ({error}); remove or mend it"
        raise TextsError(message) from error


def _open(path: Path) -> TextIO:
    opener: Callable[..., TextIO] = gzip.open if path.suffix == ".gz" else open
    try:
        return opener(path, "rt", encoding="utf-8", errors="replace")
    except OSError as error:
        message = f"can't read {path} ({error.strerror}); name an existing file"
        raise TextsError(message) from error

"""The one text of an item, from which its vector is made.

The wording matters: a sentence encoder reads `Heat (1995), Action, Crime` better than fields joined by dots (MEASURED).
A template has a number; the number travels in the bundle's manifest, because a student is proved with one template.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

LATEST_TEMPLATE = 1
LONGEST_DESCRIPTION = 400
"""Characters kept of a description: with title and categories about 128 tokens, the longest input of a student."""
MOST_VALUES = 12
"""Attribute values kept; a catalogue of specifications would drown the title."""

_YEAR = re.compile(r"^\s*(1[6-9]\d\d|20\d\d)\s*$")
_YEAR_NAMES = frozenset({"year", "release_year", "released", "published_year", "vintage"})
_IDENTIFIER = re.compile(
    r"(^|_)(id|ids|sku|ean|upc|gtin|isbn|asin|url|link|image|thumbnail|code|hash|uuid)$", re.IGNORECASE
)
_SPACES = re.compile(r"\s+")


def item_text(
    *,
    title: str,
    description: str | None,
    categories: Sequence[str],
    attributes: Mapping[str, object],
    price: float | None = None,
    template: int,
) -> str:
    """The text of an item by `template` (1 is the only one so far); one line, never raises for any content.

    Template 1: `title (year), category, category, value, value. description`. Identifiers, links, nested values, and
    what the text says already are left out; the price is not said (measured: it moves vectors without helping).
    Raises ValueError for a template that doesn't exist.
    """
    try:
        compose = _TEMPLATES[template]
    except KeyError:
        message = f"there is no template {template}; use {LATEST_TEMPLATE}"
        raise ValueError(message) from None
    return compose(title, description, categories, attributes, price)


def shorten(text: str, longest: int) -> str:
    """`text` as one line of at most `longest` characters, cut at a word where there is one."""
    text = _SPACES.sub(" ", text[: longest * 4]).strip()
    if len(text) <= longest:
        return text
    cut = text[: longest + 1]
    return cut.rsplit(" ", 1)[0] if " " in cut else text[:longest]


def _first(
    title: str,
    description: str | None,
    categories: Sequence[str],
    attributes: Mapping[str, object],
    _price: float | None,
) -> str:
    head = shorten(title, 300)
    year = next(
        (str(value) for name, value in attributes.items() if name.lower() in _YEAR_NAMES and _YEAR.match(str(value))),
        "",
    )
    if year and year.strip() not in head:
        head = f"{head} ({year.strip()})"
    said = head.lower()
    parts = [head] if head else []
    for value in [*categories, *_values(attributes)]:
        words = shorten(value, 80)
        if words and words.lower() not in said:
            parts.append(words)
            said = f"{said}, {words.lower()}"
    text = ", ".join(parts)
    more = shorten(description or "", LONGEST_DESCRIPTION)
    return ". ".join(part for part in (text, more) if part)


def _values(attributes: Mapping[str, object]) -> list[str]:
    values: list[str] = []
    for name, value in attributes.items():
        if name.lower() in _YEAR_NAMES or _IDENTIFIER.search(name):
            continue
        for part in value if isinstance(value, list | tuple) else (value,):
            words = _said(name, part)
            if words:
                values.append(words)
    return values[:MOST_VALUES]


def _said(name: str, value: object) -> str:
    """How one attribute value is said: text as it is, a number with its name, a flag by its name, anything else not
    at all.
    """
    if isinstance(value, bool):
        return name.replace("_", " ") if value else ""
    if isinstance(value, int | float):
        return f"{name.replace('_', ' ')} {value:g}"
    return value if isinstance(value, str) else ""


_TEMPLATES: Mapping[int, Callable[[str, str | None, Sequence[str], Mapping[str, object], float | None], str]] = (
    MappingProxyType({1: _first})
)

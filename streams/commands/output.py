"""What the commands write: text of items and users made safe for a terminal, JSON lines, one console.

Titles, profiles and queries are data from outside. A terminal obeys control characters, so none of them gets there.
"""

from __future__ import annotations

import math
import shutil
import sys
import textwrap
import time
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Final

import click
import msgspec

HIDDEN: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Unicode categories without a glyph: controls, direction overrides, surrogates, unassigned, line separators."""
KEPT: Final = frozenset({"\u200c", "\u200d"})
"""Joiners: format characters that scripts and emoji need and that can do no harm."""


def clean(text: str) -> str:
    """The text on one line without anything that a terminal would obey: such characters become spaces, runs shrink."""
    if text.isascii() and text.isprintable():
        return " ".join(text.split())
    return " ".join("".join(c if c in KEPT or unicodedata.category(c) not in HIDDEN else " " for c in text).split())


def shorten(text: str, width: int) -> str:
    """Clean text of at most `width` characters; what is cut off is shown as …"""
    text = clean(text)
    return text if len(text) <= width else text[: max(width - 1, 0)].rstrip() + "…"


def write_json(value: Any) -> None:
    """One line of JSON on stdout, flushed, so that a pipe's reader has it at once."""
    click.echo(msgspec.json.encode(value))
    sys.stdout.flush()


def note(sentence: str) -> None:
    """Progress for a human: a line on stderr, only where that is a terminal."""
    if sys.stderr.isatty():
        click.echo(clean(sentence), err=True)


@contextmanager
def progress() -> Iterator[Callable[[str, float, float], None]]:
    """Bars on stderr where that is a terminal: `report(what, share done, seconds that it will take yet)`.

    A bar for each `what`. Seconds that are NaN are reckoned from the share and the time passed.
    """
    if not sys.stderr.isatty():
        yield lambda _what, _share, _seconds: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    began: dict[str, float] = {}
    tasks: dict[str, Any] = {}
    columns = (
        TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:.0f} %"), TextColumn("{task.fields[left]}"),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:

        def report(what: str, share: float, seconds: float) -> None:
            if what not in tasks:
                tasks[what], began[what] = bars.add_task(what, total=1.0, left=""), time.monotonic()
            if math.isnan(seconds) and share > 0.0:
                seconds = (time.monotonic() - began[what]) * (1.0 - share) / share
            left = "" if math.isnan(seconds) else f"{timedelta(seconds=round(seconds))} left"
            bars.update(tasks[what], completed=share, left=left)

        yield report


def describe_parts(parts: Mapping[str, float], most: int = 3) -> str:
    """The largest parts of a score, with signs: what speaks for and against."""
    largest = sorted(parts.items(), key=lambda part: -abs(part[1]))[:most]
    return " ".join(f"{clean(name)} {value:+.2f}" for name, value in largest if round(value, 2))


def beside(text: str, indent: int, hang: int = 0) -> list[str]:
    """Lines of a cleaned sentence, `indent` columns in and `hang` more from the second on, within the terminal.

    Names, paths and commands stay whole.
    """
    width = max(shutil.get_terminal_size().columns, indent + 30)
    first, later = " " * indent, " " * (indent + hang)
    return textwrap.wrap(clean(text), width, initial_indent=first, subsequent_indent=later,
                         break_long_words=False, break_on_hyphens=False) or [first]  # fmt: skip

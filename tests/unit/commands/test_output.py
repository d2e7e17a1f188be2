from __future__ import annotations

import io
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.commands.output import beside, clean, describe_parts, shorten
from tests.support.http_service import make_list


def test_what_a_terminal_would_obey_is_taken_out():
    assert clean("a\x1b[31mred\x1b[0m\x07b") == "a [31mred [0m b"
    assert clean("one\r\ntwo\tthree") == "one two three"
    assert clean("price \u202e00.1\u202c, c1 \x9b2J, line\u2028end") == "price 00.1 , c1 2J, line end"
    assert clean("Amélie – 愛 👩\u200d🚀") == "Amélie – 愛 👩\u200d🚀"


@given(st.text())
def test_no_control_character_survives(text):
    assert not any(ord(char) < 32 or 127 <= ord(char) < 160 for char in clean(text))


@given(st.text(), st.integers(1, 50))
def test_shortened_text_fits(text, width):
    assert len(shorten(text, width)) <= width


def test_shortening_is_shown():
    assert shorten("abcdef", 4) == "abc…"
    assert shorten("abcd", 4) == "abcd"


def test_the_largest_parts_with_signs():
    assert (
        describe_parts({"text": 0.2, "popular": -0.5, "recent": 0.001, "price": 0.3})
        == "popular -0.50 price +0.30 text +0.20"
    )


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_a_list_of_watch_fills_one_line(width):
    from rich.console import Console

    from streams.commands.watch import COLUMNS, _line

    titles = {f"i{number}": f"A title of film number {number} (199{number})" for number in range(10)}
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(_line(make_list("somebody with a very long name", list(titles)), titles, width - sum(COLUMNS) - 4))
    (line,) = console.file.getvalue().splitlines()
    assert len(line) <= width
    shown = line[sum(COLUMNS) + 4 :].rstrip().split(" · ")
    assert shown[0].startswith("A title")
    assert all(title in titles.values() for title in shown[:-1]), "only the last one may be cut"
    assert len(shown) == {60: 1, 80: 1, 120: 2, 200: 5}[width]


def test_sentences_are_wrapped_beside_what_they_are_about(monkeypatch):
    monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((60, 24)))
    lines = beside(
        "set `COLDSTREAM_KAFKA-that-stays-whole` and\tlook again at what the broker says of itself", 20, hang=2
    )
    assert lines == [
        " " * 20 + "set `COLDSTREAM_KAFKA-that-stays-whole`",
        " " * 22 + "and look again at what the broker says",
        " " * 22 + "of itself",
    ]
    assert beside("", 3) == ["   "]

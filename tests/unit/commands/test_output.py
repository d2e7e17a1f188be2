from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streams.commands.output import clean, describe_parts, shorten


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

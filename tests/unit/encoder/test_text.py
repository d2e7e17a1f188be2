from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from encoder import LATEST_TEMPLATE, item_text


def text(**fields):
    given = {"title": "Heat", "description": None, "categories": (), "attributes": {}, "template": 1} | fields
    return item_text(**given)


def test_title_year_categories_values_description_in_this_order():
    assert (
        text(categories=["Action", "Crime"], attributes={"year": 1995, "director": "Mann"}, description="Two men.")
        == "Heat (1995), Action, Crime, Mann. Two men."
    )


def test_a_year_that_the_title_has_is_not_said_again():
    assert text(title="Heat (1995)", attributes={"year": "1995"}) == "Heat (1995)"


def test_identifiers_links_and_nested_values_are_left_out():
    attributes = {"sku": "A1", "image_url": "x", "manufacturer_id": "9", "deep": {"a": 1}, "size": "12 OZ"}
    assert text(attributes=attributes) == "Heat, 12 OZ"


def test_numbers_are_said_with_their_name_and_flags_by_it():
    assert text(attributes={"abv": 12.5, "gift_wrapped": True, "used": False}) == "Heat, abv 12.5, gift wrapped"


def test_what_was_said_is_not_repeated():
    assert (
        text(title="Red wine", categories=["Red"], attributes={"type": "red", "grapes": ["Merlot"]})
        == "Red wine, Merlot"
    )


def test_a_long_description_is_cut_at_a_word():
    cut = text(description="word " * 1000)
    assert len(cut) < 420
    assert cut.endswith("word")


def test_an_unknown_template_is_refused_with_the_one_to_use():
    with pytest.raises(ValueError, match=str(LATEST_TEMPLATE)):
        text(template=99)


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.lists(st.text()), st.just({"a": 1})
)


@given(st.text(), st.none() | st.text(), st.lists(st.text()), st.dictionaries(st.text(), VALUES))
def test_no_content_raises_and_the_text_is_one_line(title, description, categories, attributes):
    made = text(title=title, description=description, categories=categories, attributes=attributes)
    assert "\n" not in made

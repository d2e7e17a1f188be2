from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from encoder import HashingEncoder


def test_texts_that_share_words_are_similar():
    red, rose, train = HashingEncoder().encode(["red wine", "rose wine", "night train"])
    assert red @ rose > 0.3 > red @ train


@given(st.lists(st.text(st.characters(), max_size=30), max_size=5))
def test_rows_are_of_unit_length_and_the_same_everywhere(texts):
    first, second = HashingEncoder(16).encode(texts), HashingEncoder(16).encode(texts)
    assert first.shape == (len(texts), 16)
    assert first.dtype == np.float32
    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(np.linalg.norm(first, axis=1), 1, atol=1e-5)


def test_lone_surrogates_are_text_too():
    assert np.isfinite(HashingEncoder().encode(["\ud800 x"])).all()


def test_a_dimension_below_one_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        HashingEncoder(0)

from __future__ import annotations

import random
from pathlib import Path

import pytest

from export import TextsError
from export.compose import TEMPLATES, Vocabulary, compose, variant, variants
from export.texts import LEXICAL_FILES, LONGEST_TEXT, Synset, read_wordnet, summaries, tidy, word_lists

NOUN = (
    '00001740 13 n 02 red_wine 0 claret 0 001 @ 00001930 n 0000 | wine made of red grapes; "a glass of good red wine"\n'
)


@pytest.fixture
def wordnet_folder(tmp_path: Path) -> Path:
    for part in ("verb", "adj", "adv"):
        (tmp_path / f"data.{part}").write_text("  1 a licence\n", encoding="utf-8")
    (tmp_path / "data.noun").write_text("  1 a licence\n" + NOUN, encoding="utf-8")
    return tmp_path


def test_wordnet_is_read_as_its_manual_says(wordnet_folder):
    assert read_wordnet(wordnet_folder) == (
        Synset(("red wine", "claret"), "food", "wine made of red grapes", ("a glass of good red wine",)),
    )


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(TextsError, match=r"data\.noun"):
        read_wordnet(tmp_path)


def test_a_source_without_texts_is_an_error(tmp_path):
    (tmp_path / "empty.tsv").write_text("a\tb\n", encoding="utf-8")
    with pytest.raises(TextsError, match="no text"):
        summaries("empty", tmp_path / "empty.tsv", 4)


def test_lists_of_words_are_found_in_nested_json(tmp_path):
    (tmp_path / "x.json").write_text('{"description": "no", "birds": [{"name": "Wood duck"}, "12"]}', encoding="utf-8")
    assert word_lists(tmp_path).texts == ("Wood duck",)


def test_long_texts_are_cut_at_a_word():
    assert len(tidy("word " * 500)) <= LONGEST_TEXT
    assert tidy("word " * 500).endswith("word")


def test_composed_texts_are_reproducible_and_fill_every_slot():
    files = [name for name in LEXICAL_FILES.values() if name != "noun.tops"]
    synsets = [Synset((f"word of {file}",), file, "meaning", ()) for file in files]
    synsets.append(Synset(("Ada Lovelace",), "person", "a mathematician", ()))
    vocabulary = Vocabulary.of(synsets, {})
    first = compose(vocabulary, 500, 1).texts
    assert first == compose(vocabulary, 500, 1).texts != compose(vocabulary, 500, 2).texts
    assert not any("{" in text for text in first)
    assert len(TEMPLATES) >= 10


def test_variants_are_reproducible_and_never_empty():
    texts = ["Heat (1995), Action, Crime. Two men meet.", "x", "red wine from France, dry"]
    assert list(variants(texts, 50, 3)) == list(variants(texts, 50, 3))
    assert all(variant(text, random.Random(seed)) for text in texts for seed in range(100))

"""The recipe of the shipped student on a CPU, with some hundred texts: only direction is asked for, not height."""

from __future__ import annotations

import json
import lzma
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from encoder import open_bundle, read_bundle  # noqa: E402
from encoder.bundle import unpack  # noqa: E402
from export import TeacherError  # noqa: E402
from export.lean import pack, quantised_table  # noqa: E402
from export.pool import DeviceTokens, batches, read_sources  # noqa: E402
from export.shipped import Lane  # noqa: E402
from export.student import Shape, make_student  # noqa: E402
from export.teacher import load_teacher, tokenizer_of  # noqa: E402
from export.training import encoded, shipped_table, tokens_of  # noqa: E402

SHAPE = "0,3,5x512"
TEXTS = tuple(
    f"{colour} {thing} {style}"
    for colour in ("red", "blue", "green", "white", "black")
    for thing in ("lamp", "shoes", "novel", "train", "soup", "guitar", "tent", "clock")
    for style in ("for children", "from Italy", "made of wood", "under 20 euros, with handles")
)


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "things.txt.xz").write_bytes(lzma.compress("\n".join((*TEXTS, "", TEXTS[0])).encode()))
    (folder / "more.txt").write_text("\n".join(f"How do I mend a {number} year old clock?" for number in range(999)))
    line = [{"file": "things.txt.xz", "name": "things", "licence": "made for this test"}]
    (folder / "sources.json").write_text(json.dumps([*line, {"file": "more.txt", "name": "more", "licence": "test"}]))
    return folder


@pytest.fixture
def wordnet(tmp_path: Path) -> Path:
    folder = tmp_path / "wordnet"
    folder.mkdir()
    lines = {
        "noun": [f'{n:08d} {n % 26 + 3:02d} n 02 thing{n} 0 Person_{n} 0 000 | a thing of kind {n}; "they saw thing {n} there"  '
                 for n in range(300)],
        "verb": [f"{n:08d} 30 v 01 move{n} 0 000 | move in the way {n}  " for n in range(40)],
        "adj": [f"{n:08d} 00 a 01 bright{n} 0 000 | bright in the degree {n}  " for n in range(40)],
        "adv": [f"{n:08d} 02 r 01 soon{n} 0 000 | soon by {n} hours  " for n in range(40)],
    }  # fmt: skip
    for part, some in lines.items():
        (folder / f"data.{part}").write_text("\n".join(some) + "\n")
    (folder / "cntlist.rev").write_text("thing1%1:03:00:: 1 7\n")
    return folder


def test_sources_are_read_without_doubles(texts: Path) -> None:
    things, more = read_sources(texts)
    assert things.texts == TEXTS
    assert things.licence == "made for this test"
    assert len(more.texts) == 999


def test_batches_hold_each_text_once_a_round_and_little_padding() -> None:
    lengths = np.random.default_rng(3).integers(3, 128, 5000)
    turn = batches(lengths, 7)
    seen: list[np.ndarray] = []
    while sum(map(len, seen)) < len(lengths):
        seen.append(next(turn))
    assert np.array_equal(np.sort(np.concatenate(seen)), np.arange(len(lengths)))
    assert all(len(rows) * lengths[rows].max() <= 24_576 or len(rows) == 1 for rows in seen)
    padded = sum(len(rows) * int(lengths[rows].max()) for rows in seen)
    assert padded < 1.2 * lengths.sum()


def test_words_are_dropped_but_never_the_first_token_nor_the_separator() -> None:
    tokens = tokens_of([[101, *range(1000, 1000 + number % 30), 102] for number in range(200)])
    ids, mask = DeviceTokens(tokens, "cpu", 102).batch(np.arange(200))
    lengths = mask.sum(1).numpy()
    assert ids.shape[1] % 8 == 0
    assert (lengths <= tokens.lengths).all()
    assert (lengths < tokens.lengths).any()
    for row, length in zip(ids.numpy(), lengths, strict=True):
        assert row[0] == 101
        assert row[length - 1] == 102
        assert not row[length:].any()
        assert (np.diff(row[1 : length - 1]) > 0).all()


def test_the_table_that_trains_is_the_table_that_is_shipped() -> None:
    table = np.random.default_rng(5).normal(0, 0.05, (9000, 64)).astype(np.float32)
    quantised, scale, zero = quantised_table(table)
    packed = unpack(**pack(quantised, int(zero)), zero=int(zero))
    assert np.array_equal(shipped_table(table), (packed.astype(np.float32) - zero) * scale)
    assert 0 < np.abs(shipped_table(table) - table).mean() < 0.005


def test_a_lane_learns_what_the_teacher_says() -> None:
    teacher = load_teacher("all-MiniLM-L6-v2", "cpu")
    lane = Lane(Shape.parse(SHAPE), teacher, TEXTS[:64], "cpu")
    tokens = tokens_of([one.ids for one in tokenizer_of(teacher).encode_batch(list(TEXTS))])
    wanted = teacher.encode(TEXTS)
    before = float((encoded(lane.settled(), tokens, "cpu") * wanted).sum(1).mean())
    pool = DeviceTokens(tokens, "cpu", 102)
    for step in range(16):
        ids, mask = pool.batch(np.arange(step % 4, len(TEXTS), 4))
        with torch.no_grad():
            states = teacher.transformer(input_ids=ids, attention_mask=mask).last_hidden_state
        lane.learn(ids, mask, states, lane.student.pool(states, mask), 3e-4, 0.5 if step < 8 else 0.0)
    assert float((encoded(lane.settled(), tokens, "cpu") * wanted).sum(1).mean()) > before + 0.05


def test_the_command_trains_and_writes_a_bundle(tmp_path: Path, texts: Path, wordnet: Path) -> None:
    out, bundle = tmp_path / "out", tmp_path / "bundle"
    command = [sys.executable, "-m", "export.shipped"]
    ran = subprocess.run(
        [*command, "train", "--texts", texts, "--wordnet", wordnet, "--held-out", texts, "--device", "cpu",
         "--shape", SHAPE, "--minutes", "0.01", "--composed", "200", "--out", out],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert f"{SHAPE}: 0 steps" in ran.stdout
    assert "in the pool" in ran.stdout
    weights = out / f"{SHAPE}.safetensors"
    subprocess.run([*command, "write", "--weights", weights, "--shape", SHAPE, "--out", bundle], check=True)
    recipe = read_bundle(bundle).manifest.recipe
    assert recipe["layers"] == [0, 3, 5]
    assert recipe["steps"] >= 1
    assert {each["name"]: each["texts"] for each in recipe["sources"]}["composed from WordNet 3.0"] == 200
    assert open_bundle(bundle, provider="cpu").encode(["a red lamp"]).shape == (1, 384)


@pytest.mark.parametrize("text", ["six layers", "", "0,1x", "0,1x0", "-1,2", "0,,1", "0;1", "0,1x1.5"])
def test_a_shape_that_is_none_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(TeacherError, match="0,2,4,5x1024"):
        Shape.parse(text)


def test_a_shape_is_read_and_written() -> None:
    assert Shape.parse("0,2,5x512") == Shape((0, 2, 5), 512)
    assert [str(Shape.parse(text)) for text in ("0,2,5x512", "0,1", "1,0x3")] == ["0,2,5x512", "0,1", "0,1x3"]


@pytest.mark.parametrize(("shape", "reason"), [("0,6x512", "6 layers"), ("0,5x2000", "1536 neurons")])
def test_a_shape_beyond_the_teacher_is_refused(shape: str, reason: str) -> None:
    with pytest.raises(TeacherError, match=reason):
        make_student(load_teacher("all-MiniLM-L6-v2", "cpu"), Shape.parse(shape), ["a lamp"])

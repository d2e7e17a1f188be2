from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from encoder import SHIPPED, BundleError, open_bundle, read_bundle
from encoder.bundle import BLOCK, unpack
from encoder.sessions import half_tensors


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return Path(shutil.copytree(SHIPPED, tmp_path / "bundle"))


def change(path: Path, **fields) -> None:
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | fields), encoding="utf-8")


def test_the_shipped_bundle_is_whole_small_and_says_what_it_learned_from():
    manifest = read_bundle().manifest
    assert sum(size for _, size in manifest.files.values()) <= 18_000_000
    assert manifest.recipe["sources"]
    assert all(source["licence"] for source in manifest.recipe["sources"])
    assert not {"movielens-100k", "travel-questions", "x-wines-slim"} & {
        source["name"] for source in manifest.recipe["sources"]
    }


@pytest.mark.parametrize("name", ["weights.bin", "cpu.onnx", "cuda.onnx", "tokenizer.json.gz"])
def test_one_changed_byte_is_refused_by_name(bundle: Path, name: str):
    content = bytearray((bundle / name).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / name).write_bytes(content)
    with pytest.raises(BundleError, match=f"{name} was changed.*install"):
        open_bundle(bundle, provider="cpu")


@pytest.mark.parametrize("name", ["weights.bin", "cpu.onnx", "cuda.onnx", "tokenizer.json.gz"])
def test_a_cut_file_is_refused_by_name(bundle: Path, name: str):
    (bundle / name).write_bytes((bundle / name).read_bytes()[:-10])
    with pytest.raises(BundleError, match=f"{name} has .* cut or replaced"):
        read_bundle(bundle)


@pytest.mark.parametrize("name", ["manifest.json", "weights.bin"])
def test_a_missing_file_is_named(bundle: Path, name: str):
    (bundle / name).unlink()
    with pytest.raises(BundleError, match=name):
        read_bundle(bundle)


@pytest.mark.parametrize(
    "fields",
    [
        {"format": 99},
        {"template": 99},
        {"files": {}},
        {"tensors": {"x": ["float32", [10**9], 0]}},
        {"tensors": {"x": ["object", [1], 0]}},
        {"tensors": {"x": ["float32", [-2, -2], 0]}},
        {"golden": {"texts": ["a"], "vectors": [], "cosine": 0.9}},
        {"dimension": "many"},
    ],
)  # fmt: skip
def test_a_manifest_that_lies_is_refused(bundle: Path, fields):
    change(bundle / "manifest.json", **fields)
    with pytest.raises(BundleError):
        read_bundle(bundle)


@pytest.mark.parametrize("content", ["", "[]", "{}", "null", "\x00", '{"format": 1}'])
def test_what_is_no_manifest_is_refused(bundle: Path, content: str):
    (bundle / "manifest.json").write_text(content, encoding="utf-8")
    with pytest.raises(BundleError, match=r"manifest\.json"):
        read_bundle(bundle)


def test_golden_vectors_of_another_model_are_noticed(bundle: Path):
    golden = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))["golden"]
    golden["vectors"] = golden["vectors"][1:] + golden["vectors"][:1]
    change(bundle / "manifest.json", golden=golden)
    with pytest.raises(BundleError, match="gives another vector"):
        open_bundle(bundle, provider="cpu")


def test_figures_written_later_do_not_rename_a_bundle(bundle: Path):
    before = read_bundle(bundle).name
    change(bundle / "manifest.json", figures={"measured": 1})
    assert read_bundle(bundle).name == before


def test_a_bundle_of_the_first_format_is_read_and_takes_a_mask(bundle: Path):
    line = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    assert not read_bundle(bundle).manifest.masked
    del line["masked"]
    (bundle / "manifest.json").write_text(json.dumps(line | {"format": 1}), encoding="utf-8")
    assert read_bundle(bundle).manifest.masked


TABLE = "encoder.embeddings.word_embeddings.weight_quantized"


def test_the_token_table_is_packed_and_unpacked_for_either_device():
    bundle = read_bundle()
    assert bundle.manifest.packed == (TABLE,)
    assert TABLE not in bundle.manifest.tensors
    table = bundle.tensor(TABLE)
    assert (table.dtype, table.shape) == (np.uint8, (30522, 384))
    stored = sum(bundle.tensor(f"{TABLE}_{part}").nbytes for part in ("codes", "low_bits", "steps"))
    assert stored < 0.6 * table.nbytes
    name = TABLE.removesuffix("_quantized")
    half = half_tensors(bundle, {name: "float16"})[name]
    exact = (table.astype(np.float32) - bundle.tensor(f"{name}_zero_point")) * bundle.tensor(f"{name}_scale")
    np.testing.assert_array_equal(half, exact.astype(np.float16))


@pytest.mark.parametrize("rows", [1, 7, 1024, 2050])
def test_packed_numbers_are_what_the_definition_says(rows: int):
    rng, width, fine = np.random.default_rng(rows), 2 * BLOCK, rows // 2
    codes = rng.integers(0, 256, (rows, width // 2), np.uint8)
    low_bits = rng.integers(0, 256, (fine, width // 8), np.uint8)
    steps = rng.integers(0, 256, (rows, width // BLOCK), np.uint8)
    table = unpack(codes, low_bits, steps, 83)
    for row in {0, fine - 1, fine, rows - 1} - {-1}:
        for column in range(width):
            byte = int(codes[row, column % (width // 2)])
            code = 2 * (byte >> 4 if column >= width // 2 else byte & 15)
            if row < fine:
                code += int(low_bits[row, column // 8]) >> (7 - column % 8) & 1
            exact = 83 + ((code - 16) * int(steps[row, column // BLOCK]) + 8) // 16
            assert table[row, column] == min(max(exact, 0), 255)


@pytest.mark.parametrize(
    ("part", "entry"),
    [
        ("codes", ["uint8", [30522, 191], 0]),
        ("codes", ["uint8", [30522 * 192], 0]),
        ("codes", ["int8", [30522, 192], 0]),
        ("low_bits", ["uint8", [30523, 48], 0]),
        ("low_bits", None),
        ("steps", ["uint8", [30521, 12], 0]),
        ("steps", ["float16", [30522, 12], 0]),
        ("zero_point", ["uint8", [2], 0]),
        ("zero_point", None),
    ],
)
def test_a_packed_table_whose_parts_do_not_fit_is_refused(bundle: Path, part: str, entry):
    tensors = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))["tensors"]
    name = f"{TABLE}_{part}" if part != "zero_point" else TABLE.replace("_quantized", "_zero_point")
    assert tensors.pop(name)
    change(bundle / "manifest.json", tensors=tensors if entry is None else tensors | {name: entry})
    with pytest.raises(BundleError, match=f"packed table {TABLE} whose parts don't fit"):
        read_bundle(bundle)


def test_a_table_both_packed_and_whole_is_refused(bundle: Path):
    tensors = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))["tensors"]
    change(bundle / "manifest.json", tensors=tensors | {TABLE: ["uint8", [30522, 384], 0]})
    with pytest.raises(BundleError, match="don't fit"):
        read_bundle(bundle)

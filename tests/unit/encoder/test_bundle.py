from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from encoder import SHIPPED, BundleError, open_bundle, read_bundle


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
    assert line["format"] == 2
    assert not read_bundle(bundle).manifest.masked
    del line["masked"]
    (bundle / "manifest.json").write_text(json.dumps(line | {"format": 1}), encoding="utf-8")
    assert read_bundle(bundle).manifest.masked

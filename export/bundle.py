"""Writing a bundle: graphs, tokenizer, and the manifest with hashes, recipe, figures and golden vectors."""

import gzip
import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from numpy.typing import NDArray

from encoder.bundle import (
    BLOCK,
    CPU_GRAPH,
    CUDA_GRAPH,
    FORMAT,
    MANIFEST,
    ROTATION,
    TOKENIZER,
    WEIGHTS,
    Tensor,
    read_bundle,
    zero_of,
)
from encoder.onnx import OnnxEncoder
from encoder.sessions import open_session
from encoder.text import LATEST_TEMPLATE
from export import ExportError
from export.graph import Graphs, export_graphs, graphs_of, restore
from export.lean import pack
from export.student import Shape, Student, make_student
from export.teacher import LONGEST_INPUT, load_teacher, tokenizer_of

if TYPE_CHECKING:
    from tokenizers import Tokenizer

GOLDEN_TEXTS = (
    "",
    "The Matrix (1999), Action, Sci-Fi",
    "Sauvignon Blanc, white, France, Loire, pairs with shellfish and goat cheese",
    "Where can I store my luggage at the main station of Prague?",
    "SET OF 6 RED SPOTTY TEA CUPS",
    "wireless headphones with noise cancelling",
    "ein Roman über das Meer und eine lange Reise",
    (
        "Senior data engineer, Berlin, full time. You build pipelines with Kafka, and care for the people who "
        "read what you write. We offer a quiet office, four weeks in the mountains and no meetings before ten."
    ),
)
GOLDEN_COSINE = 0.97
_ALIGNMENT = 64
_SMALL = 64
"""Tensors of fewer bytes stay in the graph: ONNX Runtime folds scalars and shapes before external data is there."""
_LARGE = 1 << 20
"""Tables of uint8 of at least as many bytes are packed: token tables, not positions."""
_COMPONENTS = 192
"""Principal components kept for shorter vectors; more of them would be most of the full vector."""


def write_bundle(
    folder: Path,
    student: Student | Graphs,
    tokenizer: "Tokenizer",
    *,
    name: str,
    teacher: str,
    rotation: NDArray[np.float32],
    recipe: Mapping[str, Any],
    figures: Mapping[str, Any],
) -> Path:
    """Writes the bundle of `student` to `folder` in one move and reads it back; returns `folder`.

    Raises ExportError for a folder that holds something else, or a student whose graph can't be fused.
    `rotation` [dimension, dimension] holds principal components in its columns, strongest first.
    """
    if folder.exists() and any(folder.iterdir()) and not (folder / MANIFEST).exists():
        message = f"{folder} exists and is no bundle; name another folder, or empty this one"
        raise ExportError(message)
    graphs = student if isinstance(student, Graphs) else export_graphs(student, _ids(tokenizer))
    store = _Store()
    store.add(ROTATION, rotation[:, :_COMPONENTS].astype(np.float16))
    _move_out(graphs.cpu, store)
    cuda_tensors = _empty(graphs.cuda, store)
    partial = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    contents = {
        TOKENIZER: gzip.compress(tokenizer.to_str(pretty=False).encode("utf-8"), mtime=0),
        WEIGHTS: store.content(),
        CPU_GRAPH: graphs.cpu.SerializeToString(),
        CUDA_GRAPH: graphs.cuda.SerializeToString(),
    }
    for file, content in contents.items():
        (partial / file).write_bytes(content)
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "name": name,
        "teacher": teacher,
        "dimension": len(rotation),
        "template": LATEST_TEMPLATE,
        "longest_input": LONGEST_INPUT,
        "masked": graphs.masked,
        "files": {
            file: {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
            for file, content in contents.items()
        },
        "tensors": {key: [place.dtype, list(place.shape), place.offset] for key, place in store.places.items()},
        "cuda_tensors": cuda_tensors,
        "golden": {"texts": [], "vectors": [], "cosine": GOLDEN_COSINE},
        "recipe": {**recipe, "parameters": graphs.parameters},
        "figures": dict(figures),
    }
    _write_manifest(partial, manifest)
    vectors = _golden(partial, GOLDEN_TEXTS, len(rotation))
    manifest["golden"] |= {"texts": list(GOLDEN_TEXTS), "vectors": np.round(vectors, 5).tolist()}
    _write_manifest(partial, manifest)
    read_bundle(partial)
    if folder.exists():
        shutil.rmtree(folder)
    os.replace(partial, folder)
    return folder


def renew(folder: Path | None, out: Path) -> Path:
    """The weights of the bundle in `folder` (None: the shipped one) in today's format, in `out`.

    A graph with a mask is written anew, from weights as exact as int8 kept them. Other graphs stay, to the digit, and their token
    table is packed. Figures of old graphs are left out. Raises BundleError, TeacherError without the bundle's teacher, and
    ExportError for a bundle that says not where its weights are, or has a packed table already.
    """
    bundle = read_bundle(folder)
    manifest = bundle.manifest
    if manifest.packed:
        message = f"{bundle.name} is of today's format; there is nothing to renew"
        raise ExportError(message)
    teacher = load_teacher(manifest.teacher)
    student: Student | Graphs
    if manifest.masked:
        shape = Shape(tuple(manifest.recipe.get("layers", ())), manifest.recipe.get("feed_forward"))
        student = make_student(teacher, shape, GOLDEN_TEXTS)
        restore(student, bundle)
    else:
        student = graphs_of(bundle)
    rotation = np.zeros((manifest.dimension, manifest.dimension), np.float32)
    kept = bundle.tensor(ROTATION)
    rotation[:, : kept.shape[1]] = kept
    return write_bundle(
        out, student, tokenizer_of(teacher), name=manifest.name, teacher=manifest.teacher, rotation=rotation,
        recipe=manifest.recipe, figures={},
    )  # fmt: skip


def rewrite_figures(folder: Path, figures: Mapping[str, Any]) -> None:
    """Records `figures`, measured on the finished bundle, in its manifest (they change its hash, not its vectors)."""
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    manifest["figures"] = dict(figures)
    _write_manifest(folder, manifest)


def _ids(tokenizer: "Tokenizer") -> list[list[int]]:
    return [found.ids for found in tokenizer.encode_batch(list(GOLDEN_TEXTS))]


def _golden(folder: Path, texts: Sequence[str], dimension: int) -> NDArray[np.float32]:
    """The vectors of `texts`, each computed alone: the first bundle has no golden vectors yet, hence nothing to
    prove.
    """
    bundle = read_bundle(folder)
    encoder = OnnxEncoder(bundle, open_session(bundle, "cpu", 1), remembered=0)
    return np.concatenate([encoder.encode([text]) for text in texts]).reshape(len(texts), dimension)


def _write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    partial = folder / f"{MANIFEST}.part"
    partial.write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(partial, folder / MANIFEST)


class _Store:
    """Tensors one after the other, each at a multiple of `_ALIGNMENT` bytes."""

    def __init__(self) -> None:
        self.places: dict[str, Tensor] = {}
        self._parts: list[bytes] = []
        self._size = 0

    def add(self, name: str, value: NDArray[Any]) -> Tensor:
        gap = -self._size % _ALIGNMENT
        content = np.ascontiguousarray(value).tobytes()
        place = Tensor(value.dtype.name, tuple(value.shape), self._size + gap)
        self._parts += [b"\0" * gap, content]
        self._size += gap + len(content)
        self.places[name] = place
        return place

    def content(self) -> bytes:
        return b"".join(self._parts)


def _move_out(model: Any, store: _Store) -> None:
    """Moves the large tensors of `model` to `store`, named as they are (tables of uint8 packed), and refers to them there."""
    values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for tensor in model.graph.initializer:
        value = values[tensor.name]
        if tensor.name in store.places:
            message = f"two tensors are named {tensor.name}; rename one"
            raise ExportError(message)
        zero = values.get(zero_of(tensor.name))
        if value.nbytes >= _LARGE and value.dtype == np.uint8 and value.shape[-1] % BLOCK == 0 and zero is not None:
            for part, content in pack(value, zero.item()).items():
                store.add(f"{tensor.name}_{part}", content)
            _refer(tensor, 0, value.nbytes, tensor.name)
            continue
        place = store.add(tensor.name, value)
        if value.nbytes >= _SMALL:
            _refer(tensor, place.offset, value.nbytes)


def _empty(model: Any, store: _Store) -> dict[str, str]:
    """Takes the large tensors out of the fp16 `model`; returns the dtype in which each is to be given."""
    wanted: dict[str, str] = {}
    for tensor in model.graph.initializer:
        value = onnx.numpy_helper.to_array(tensor)
        if value.nbytes < _SMALL:
            continue
        if not {tensor.name, f"{tensor.name}_quantized", f"{tensor.name}_quantized_codes"} & set(store.places):
            store.add(tensor.name, value)
        wanted[tensor.name] = value.dtype.name
        _refer(tensor, 0, value.nbytes)
    return wanted


def _refer(tensor: Any, offset: int, size: int, location: str = WEIGHTS) -> None:
    for field in ("raw_data", "float_data", "int32_data", "int64_data"):
        tensor.ClearField(field)
    tensor.data_location = onnx.TensorProto.EXTERNAL
    del tensor.external_data[:]
    for key, value in (("location", location), ("offset", offset), ("length", size)):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, str(value)

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
from numpy.typing import NDArray

from encoder.bundle import CPU_GRAPH, CUDA_GRAPH, FORMAT, MANIFEST, ROTATION, TOKENIZER, WEIGHTS, read_bundle
from encoder.onnx import OnnxEncoder
from encoder.sessions import open_session
from encoder.text import LATEST_TEMPLATE
from export.errors import ExportError
from export.graph import export_graphs
from export.student import LONGEST_INPUT, Student

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
_COMPONENTS = 192
"""Principal components kept for shorter vectors; more of them would be most of the full vector."""


def write_bundle(
    folder: Path,
    student: Student,
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
    graphs = export_graphs(student, {ROTATION: rotation[:, :_COMPONENTS].astype(np.float16)})
    partial = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    contents = {
        TOKENIZER: gzip.compress(tokenizer.to_str(pretty=False).encode("utf-8"), mtime=0),
        WEIGHTS: graphs.weights,
        CPU_GRAPH: graphs.cpu,
        CUDA_GRAPH: graphs.cuda,
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
        "files": {
            file: {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
            for file, content in contents.items()
        },
        "tensors": {key: [place.dtype, list(place.shape), place.offset] for key, place in graphs.tensors.items()},
        "cuda_tensors": graphs.cuda_tensors,
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


def rewrite_figures(folder: Path, figures: Mapping[str, Any]) -> None:
    """Records `figures`, measured on the finished bundle, in its manifest (they change its hash, not its vectors)."""
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    manifest["figures"] = dict(figures)
    _write_manifest(folder, manifest)


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

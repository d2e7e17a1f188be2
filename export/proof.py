"""How well a student stands for its teacher: agreement on texts that it never learned from.

cosine        mean cosine of the two vectors of a text
spearman      rank correlation of the two similarities of each pair of texts (Spearman 1904), within one source
recall@10     share of a text's ten nearest by the teacher that are among its ten nearest by the student, within one
source
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from encoder import open_bundle, read_bundle
from export import ProofError
from export.bundle import rewrite_figures
from export.teacher import load_teacher

_NEAREST = 10
_MOST_TEXTS = 1500


class Encodes(Protocol):
    """Whatever turns texts into unit rows."""

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit rows, float32 [n, dimension]."""
        ...


@dataclass(frozen=True, slots=True)
class Agreement:
    """Agreement on `texts` texts: see the module."""

    texts: int
    cosine: float
    spearman: float
    recall: float

    def figures(self) -> dict[str, float]:
        """As written in manifests: `recall@10` for `recall`, four digits."""
        return {name.replace("recall", "recall@10"): round(value, 4) for name, value in asdict(self).items()}


def agreement(student: NDArray[np.float32], teacher: NDArray[np.float32]) -> Agreement:
    """Agreement of unit rows [n, dimension] with unit rows [n, dimension of the teacher], n at least 2.

    The cosine is nan where the dimensions differ (a shortened student is compared by its similarities alone).
    """
    if len(student) != len(teacher) or len(student) < 2:
        message = f"a proof needs the same texts twice and at least two, not {len(student)} and {len(teacher)}"
        raise ProofError(message)
    cosine = float((student * teacher).sum(axis=1).mean()) if student.shape == teacher.shape else float("nan")
    ours, theirs = student @ student.T, teacher @ teacher.T
    upper = np.triu_indices(len(ours), 1)
    spearman = float(np.corrcoef(_ranks(ours[upper]), _ranks(theirs[upper]))[0, 1])
    nearest = min(_NEAREST, len(ours) - 1)
    hits = [
        len(set(mine) & set(right)) / nearest
        for mine, right in zip(_top(ours, nearest), _top(theirs, nearest), strict=True)
    ]
    return Agreement(len(ours), cosine, spearman, float(np.mean(hits)))


def mean_agreement(found: Mapping[str, Agreement]) -> Agreement:
    """The plain mean over sources (each counts alike), and the number of texts in all."""
    if not found:
        message = "a proof needs at least one source of held-out texts"
        raise ProofError(message)
    values = list(found.values())
    return Agreement(
        sum(value.texts for value in values),
        float(np.mean([value.cosine for value in values])),
        float(np.mean([value.spearman for value in values])),
        float(np.mean([value.recall for value in values])),
    )


def compare(student: Encodes, teacher: Encodes, held_out: Mapping[str, Sequence[str]]) -> dict[str, Agreement]:
    """Agreement on each source of `held_out`, on its first 1,500 distinct texts."""
    found = {}
    for name, texts in held_out.items():
        distinct = list(dict.fromkeys(texts))[:_MOST_TEXTS]
        found[name] = agreement(student.encode(distinct), teacher.encode(distinct))
    return found


def prove(
    path: Path | None, held_out: Mapping[str, Sequence[str]], *, teacher: str | None = None, least_cosine: float = 0.0,
    record: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """The figures of the bundle in `path` (None: the shipped one) on `held_out` texts by source.

    `teacher` replaces the name that the manifest gives; `record` writes the figures to the manifest. Raises
    ProofError if
    the mean cosine is below `least_cosine`, BundleError for a damaged bundle, TeacherError without the teacher.
    """
    encoder = open_bundle(path, provider="cpu")
    found = compare(encoder, load_teacher(teacher or read_bundle(path).manifest.teacher), held_out)
    mean = mean_agreement(found)
    figures = {"held_out": mean.figures(), "by_source": {name: value.figures() for name, value in found.items()}}
    if mean.cosine < least_cosine:
        message = f"cosine {mean.cosine:.4f} on held-out texts is below {least_cosine}; train longer, or accept less"
        raise ProofError(message)
    if record and path is not None:
        rewrite_figures(path, figures)
    return figures


def _top(similarities: NDArray[np.float32], number: int) -> NDArray[np.int64]:
    hidden = similarities.copy()
    np.fill_diagonal(hidden, -np.inf)
    return np.argpartition(-hidden, number - 1, axis=1)[:, :number]


def _ranks(values: NDArray[np.float32]) -> NDArray[np.float64]:
    ranks = np.empty(len(values), np.float64)
    ranks[np.argsort(values, kind="stable")] = np.arange(len(values))
    return ranks

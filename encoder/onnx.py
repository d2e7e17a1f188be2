"""The encoder that runs in production: a bundle by ONNX Runtime."""

import gzip
import os
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from encoder.bundle import ROTATION, TOKENIZER, Bundle, read_bundle
from encoder.errors import BundleError, EncoderError
from encoder.sessions import Provider, Session, open_session

LONGEST_TEXT = 4096
"""Characters of a text that are looked at; more than the longest input holds."""
_REMEMBERED = 8192


class OnnxEncoder:
    """Texts in, unit vectors out. Synchronous; called from one thread at a time, never after the process forked.

    On CPU equal texts give equal vectors, whatever they are computed with (where the manifest says `masked`, and on CUDA, only
    while they are remembered: there a vector may differ in the third digit). White space at the ends and in runs doesn't count;
    the empty text has the vector that the model gives to no words. No text raises: lone surrogates become `?`, and what exceeds
    the longest input is ignored.
    """

    def __init__(
        self, bundle: Bundle, session: Session, *, dimension: int | None = None, remembered: int = _REMEMBERED
    ) -> None:
        """`dimension`: fewer numbers (the strongest principal components, of unit length again); None: the full vector.

        `remembered` texts are kept with their vectors, least recently used last. Raises EncoderError for a dimension
        that the bundle can't give, BundleError if the golden texts give other vectors here than where it was made.
        """
        full = bundle.manifest.dimension
        most = bundle.manifest.tensors[ROTATION].shape[1]
        if dimension not in {None, full} and not 1 <= (dimension or 0) <= most:
            message = (
                f"the bundle {bundle.name} gives {full} or 1 to {most} numbers, not {dimension}; choose one of these"
            )
            raise EncoderError(message)
        self.dimension = dimension or full
        self.name = bundle.name if self.dimension == full else f"{bundle.name}-{self.dimension}"
        self.template = bundle.manifest.template
        self.provider = session.provider
        self._session = session
        self._tokenizer = _tokenizer(bundle)
        self._rotation = None
        if self.dimension < full:
            self._rotation = bundle.tensor(ROTATION)[:, : self.dimension].astype(np.float32)
        self._remembered = remembered
        self._known: OrderedDict[str, NDArray[np.float32]] = OrderedDict()
        self._golden = bundle.manifest.golden  # without texts only while the bundle is being made
        self._prove()

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit rows, float32 [n, dimension], in the order of `texts`; computes each distinct unknown text once."""
        tidy = [_tidy(text) for text in texts]
        unknown = [text for text in dict.fromkeys(tidy) if text not in self._known]
        fresh = dict(zip(unknown, self._compute(unknown), strict=True)) if unknown else {}
        vectors = np.empty((len(tidy), self.dimension), np.float32)
        for row, text in enumerate(tidy):
            if text in fresh:
                vectors[row] = fresh[text]
            else:
                vectors[row] = self._known[text]
                self._known.move_to_end(text)
        for text, vector in fresh.items():
            self._known[text] = vector
        while len(self._known) > self._remembered:
            self._known.popitem(last=False)
        return vectors

    def _compute(self, texts: Sequence[str]) -> NDArray[np.float32]:
        encoded = self._tokenizer.encode_batch_fast(list(texts))
        return self._unit(self._session.run([found.ids for found in encoded]))

    def _unit(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        if self._rotation is not None:
            vectors = vectors @ self._rotation
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return np.asarray(vectors / np.maximum(lengths, np.finfo(np.float32).tiny), np.float32)

    def agreement(self) -> float:
        """The smallest cosine of the golden texts' vectors, computed now, with those that the maker's runtime gave.

        1 where there are no golden texts. As expensive as embedding them; called from the thread that encodes.
        """
        return min(self._agreements(), default=1.0)

    def _agreements(self) -> list[float]:
        if not self._golden.texts:
            return []
        computed = self._compute([_tidy(text) for text in self._golden.texts])
        return [float(one) for one in (computed * self._unit(self._golden.vectors)).sum(axis=1)]

    def _prove(self) -> None:
        """Runs the golden texts: warms everything up, and shows that this machine computes what the maker's did."""
        agreements = self._agreements()
        if agreements and not min(agreements) >= self._golden.cosine:
            worst = int(np.argmin(agreements))
            message = (
                f"{self.name} on {self.provider} gives another vector for {self._golden.texts[worst]!r} than its "
                f"maker's (cosine {agreements[worst]:.3f} < {self._golden.cosine}); use another provider or version of "
                "onnxruntime"
            )
            raise BundleError(message)


def open_bundle(
    path: Path | None = None,
    *,
    provider: Provider = "auto",
    threads: int = 1,
    dimension: int | None = None,
    allow_cpu: bool = False,
) -> OnnxEncoder:
    """The encoder of the bundle in `path` (None: the shipped one), verified, proved on its golden texts, and warm.

    `threads`: how many cores one call may use (the worker shares its cores, hence 1); with more than one texts are tokenised
    on all cores, unless RAYON_NUM_THREADS or TOKENIZERS_PARALLELISM say otherwise. Raises BundleError for a damaged bundle,
    ProviderError if `cuda` is asked for and unusable (unless `allow_cpu`), EncoderError for a dimension that the bundle can't
    give.
    """
    if threads == 1:
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    bundle = read_bundle(path)
    return OnnxEncoder(bundle, open_session(bundle, provider, threads, allow_cpu=allow_cpu), dimension=dimension)


def _tidy(text: str) -> str:
    if not text.isascii():
        text = text[: 4 * LONGEST_TEXT].encode("utf-8", "replace").decode("utf-8")
    return " ".join(text[: 4 * LONGEST_TEXT].split())[:LONGEST_TEXT]


def _tokenizer(bundle: Bundle) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_buffer(gzip.decompress(bundle.files[TOKENIZER]))
    except Exception as error:
        message = f"{TOKENIZER} of {bundle.name} can't be read ({error}); make the bundle again"
        raise BundleError(message) from error
    tokenizer.no_padding()
    tokenizer.enable_truncation(bundle.manifest.longest_input)
    return tokenizer

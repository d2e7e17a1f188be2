"""What `doctor` and `bundle check` tell about a bundle: is it whole, does it run here, how fast."""

import statistics
import time
from dataclasses import dataclass
from pathlib import Path

from encoder.bundle import read_bundle
from encoder.onnx import OnnxEncoder
from encoder.sessions import Provider, open_session

_ROUNDS = 15
_BATCH = 64
_SUBJECTS = (
    "red wine",
    "a thriller",
    "running shoes",
    "train to Rome",
    "garden lamp",
    "jazz album",
    "data engineer",
    "soup",
)
_STYLES = (
    "cheap",
    "for children",
    "from 1995",
    "near the sea",
    "with two blue handles",
    "that everybody liked at once",
)


@dataclass(frozen=True, slots=True)
class BundleReport:
    """A verified bundle that runs here. `bytes` is the size of all its files; times are medians of warm calls."""

    name: str
    teacher: str
    provider: str
    dimension: int
    template: int
    bytes: int
    milliseconds_for_one: float
    texts_per_second: float
    figures: dict[str, object]


def check_bundle(
    path: Path | None = None, *, provider: Provider = "auto", threads: int = 1, allow_cpu: bool = False
) -> BundleReport:
    """Verifies the bundle in `path` (None: the shipped one), proves its golden vectors here, and times it (under a
    second).

    Raises BundleError or ProviderError as `open_bundle` does.
    """
    bundle = read_bundle(path)
    encoder = OnnxEncoder(bundle, open_session(bundle, provider, threads, allow_cpu=allow_cpu), remembered=0)
    texts = [f"{_SUBJECTS[number % 8]} {_STYLES[number % 6]} {number}" for number in range(_BATCH)]
    singles = [_seconds(encoder, [text]) for text in texts[:_ROUNDS]]
    batches = [_seconds(encoder, texts) for _ in range(_ROUNDS)]
    return BundleReport(
        name=bundle.name,
        teacher=bundle.manifest.teacher,
        provider=encoder.provider,
        dimension=encoder.dimension,
        template=encoder.template,
        bytes=sum(size for _, size in bundle.manifest.files.values()),
        milliseconds_for_one=1000 * statistics.median(singles),
        texts_per_second=_BATCH / statistics.median(batches),
        figures=dict(bundle.manifest.figures),
    )


def _seconds(encoder: OnnxEncoder, texts: list[str]) -> float:
    started = time.perf_counter()
    encoder.encode(texts)
    return time.perf_counter() - started

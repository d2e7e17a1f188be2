"""ONNX Runtime sessions for a bundle, on CPU or CUDA. onnxruntime is imported when the first session is made, not
before.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from encoder.bundle import CPU_GRAPH, CUDA_GRAPH, WEIGHTS, Bundle
from encoder.errors import BundleError, ProviderError

if TYPE_CHECKING:
    import onnxruntime

Provider = Literal["auto", "cpu", "cuda"]
OUTPUT = "vectors"
_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
_ATTENTION = {"sdpa_kernel": "55"}
"""Bits of ONNX Runtime's AttentionBackend: flash (1), memory-efficient (2), TensorRT's (4, 32) and plain (16) kernels, but not
cuDNN's (8), which on Hopper is the default and plans anew, for 43 ms, each number and length of texts (docs/encoder.md).
"""
_FATAL_LOG_ONLY = 3
_log = logging.getLogger(__name__)


class Session(Protocol):
    """Runs texts; called from one thread at a time."""

    provider: str
    """`cpu` or `cuda`."""

    def run(self, texts: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Rows of float32 [n, dimension], about unit length, for the token ids of n texts, n at least 1."""
        ...


@dataclass(slots=True)
class LoneSession:
    """int8 on CPU, each text by itself: no padding, no mask, and a vector that depends on its text alone.

    With a `pool` several texts are computed at the same time, each by one thread.
    """

    session: "onnxruntime.InferenceSession"
    pool: Executor | None = None
    provider: str = "cpu"

    def run(self, texts: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """See Session."""
        each = map if self.pool is None or len(texts) == 1 else self.pool.map
        return np.concatenate(list(each(self._one, texts)))

    def _one(self, ids: Sequence[int]) -> NDArray[np.float32]:
        vectors: NDArray[np.float32] = self.session.run([OUTPUT], {"input_ids": np.array([ids], np.int64)})[0]
        return vectors


@dataclass(slots=True)
class PaddedSession:
    """Batches of like length, padded and masked: int8 on CPU for graphs with a mask, and what CUDA builds on."""

    session: "onnxruntime.InferenceSession"
    longest_input: int
    provider: str = "cpu"
    length_step: int = 1
    """Lengths are padded up to a multiple of this."""
    most_tokens: int = 512
    """Padded tokens that a batch should not exceed."""

    def run(self, texts: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """See Session."""
        vectors: list[NDArray[np.float32]] = [np.empty(0, np.float32)] * len(texts)
        for rows in self._micro_batches([len(ids) for ids in texts]):
            longest = self._padded(max(len(texts[row]) for row in rows))
            ids = np.zeros((len(rows), longest), np.int64)
            mask = np.zeros((len(rows), longest), np.int64)
            for place, row in enumerate(rows):
                ids[place, : len(texts[row])] = texts[row]
                mask[place, : len(texts[row])] = 1
            for row, vector in zip(rows, self._batch(ids, mask), strict=True):
                vectors[row] = vector
        return np.stack(vectors)

    def _batch(self, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[np.float32]:
        vectors: NDArray[np.float32] = self.session.run([OUTPUT], {"input_ids": ids, "attention_mask": mask})[0]
        return vectors

    def _micro_batches(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """Rows in batches of like length: little padding, and what is worked on stays in the processor's cache."""
        batch: list[int] = []
        for row in sorted(range(len(lengths)), key=lengths.__getitem__):
            if batch and (len(batch) + 1) * self._padded(lengths[row]) > self.most_tokens:
                yield batch
                batch = []
            batch.append(row)
        if batch:
            yield batch

    def _padded(self, length: int) -> int:
        return min(-(-length // self.length_step) * self.length_step, max(self.longest_input, length))


@dataclass(slots=True)
class CudaSession(PaddedSession):
    """fp16 with IOBinding: inputs are copied once, the output stays on the device until it is whole.

    Lengths are padded to multiples of 16, so that few shapes occur and the device's allocations are used again.
    """

    provider: str = "cuda"
    length_step: int = 16
    most_tokens: int = 16_384
    device: str = "cuda"
    lent: object = None

    def _batch(self, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[np.float32]:
        binding = self.session.io_binding()
        binding.bind_cpu_input("input_ids", ids)
        binding.bind_cpu_input("attention_mask", mask)
        binding.bind_output(OUTPUT, self.device)
        self.session.run_with_iobinding(binding)
        return np.asarray(binding.copy_outputs_to_cpu()[0], dtype=np.float32)


def open_session(bundle: Bundle, provider: Provider, threads: int, *, allow_cpu: bool = False) -> Session:
    """A session on what `provider` asks for; `auto` takes CUDA where it works and says so where it is installed but
    doesn't.

    Raises ProviderError if `cuda` is asked for and unusable, unless `allow_cpu`: then it warns and takes the CPU.
    """
    runtime = _runtime()
    if provider not in ("auto", "cpu", "cuda"):
        message = f"there is no provider {provider!r}; use auto, cpu or cuda"
        raise ProviderError(message)
    if provider == "cpu":
        return _cpu(runtime, bundle, threads)
    if _CUDA not in runtime.get_available_providers():
        reason = "this onnxruntime has no CUDA; install the extra `gpu` instead of `cpu`"
    else:
        try:
            return _cuda(runtime, bundle)
        except ProviderError as error:
            reason = str(error)
    if provider == "cuda" and not allow_cpu:
        raise ProviderError(reason)
    if provider == "cuda" or _CUDA in runtime.get_available_providers():
        _log.warning("texts are embedded on the CPU, because CUDA is unusable: %s", reason)
    return _cpu(runtime, bundle, threads)


def half_tensors(bundle: Bundle, wanted: Mapping[str, str]) -> dict[str, NDArray[Any]]:
    """The tensors of the CUDA graph, made from those of the CPU graph.

    `wanted` maps names to numpy dtypes. `X` is stored as `X`, or as `X_quantized` with `X_scale` and perhaps `X_zero_point`,
    one for all or one a column, and perhaps a factor a row, `X_rows`: value = row x scale x (stored - zero point).
    """
    made: dict[str, NDArray[Any]] = {}
    for name, dtype in wanted.items():
        if name in bundle.manifest.tensors:
            made[name] = bundle.tensor(name).astype(dtype)
            continue
        values = bundle.tensor(f"{name}_quantized").astype(np.float32)
        if f"{name}_zero_point" in bundle.manifest.tensors:
            values -= bundle.tensor(f"{name}_zero_point").astype(np.float32)
        values *= bundle.tensor(f"{name}_scale")
        if f"{name}_rows" in bundle.manifest.tensors:
            values *= bundle.tensor(f"{name}_rows")[:, None]
        made[name] = values.astype(dtype)
    return made


def _cpu(runtime: Any, bundle: Bundle, threads: int) -> Session:
    masked = bundle.manifest.masked
    options = _options(runtime)
    options.intra_op_num_threads = threads if masked else 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    lent = {WEIGHTS: bundle.files[WEIGHTS]} | {name: bundle.tensor(name).tobytes() for name in bundle.manifest.packed}
    options.add_external_initializers_from_files_in_memory([*lent], [*lent.values()], [*map(len, lent.values())])
    session = _session(runtime, bundle, CPU_GRAPH, options, [_CPU])
    if masked:
        return PaddedSession(session, bundle.manifest.longest_input)
    return LoneSession(session, ThreadPoolExecutor(threads, "encoder") if threads > 1 else None)


def _cuda(runtime: Any, bundle: Bundle) -> CudaSession:
    if hasattr(runtime, "preload_dlls"):
        runtime.preload_dlls()
    try:
        return half_session(bundle, [_CUDA, _CPU])
    except BundleError as error:
        message = (
            f"CUDA refused the graph ({error}); see that driver and CUDA libraries fit, `coldstream doctor` shows more"
        )
        raise ProviderError(message) from error


def half_session(bundle: Bundle, providers: list[str]) -> CudaSession:
    """The fp16 graph on the first of `providers` (CUDA; a test may run it on the CPU, slowly).

    Raises ProviderError if that provider isn't taken, BundleError if the runtime refuses the graph.
    """
    runtime = _runtime()
    options = _options(runtime)
    made = {
        name: np.ascontiguousarray(value) for name, value in half_tensors(bundle, bundle.manifest.cuda_tensors).items()
    }
    lent = [runtime.OrtValue.ortvalue_from_numpy(value) for value in made.values()]
    options.add_external_initializers(list(made), lent)
    chosen = [(name, _ATTENTION) if name == _CUDA else name for name in providers]
    session = _session(runtime, bundle, CUDA_GRAPH, options, chosen)
    if session.get_providers()[0] != providers[0]:
        message = "onnxruntime could not load CUDA; see that the driver and the libraries of the extra `gpu` are there"
        raise ProviderError(message)
    # The runtime may go on reading what it was lent.
    device = "cuda" if providers[0] == _CUDA else "cpu"
    return CudaSession(session, bundle.manifest.longest_input, device=device, lent=(made, lent))


def _options(runtime: Any) -> Any:
    options = runtime.SessionOptions()
    options.log_severity_level = _FATAL_LOG_ONLY
    options.inter_op_num_threads = 1
    return options


def _session(runtime: Any, bundle: Bundle, graph: str, options: Any, providers: Sequence[object]) -> Any:
    try:
        return runtime.InferenceSession(bundle.files[graph], options, providers=providers)
    except Exception as error:
        message = f"onnxruntime {runtime.__version__} can't run {graph} of {bundle.name} ({error}); install another"
        raise BundleError(message) from error


def _runtime() -> Any:
    try:
        import onnxruntime  # noqa: PLC0415 - importing this package must not load a runtime
    except ImportError as error:
        message = f"onnxruntime can't be imported ({error}); install one of the extras `cpu` and `gpu`, never both"
        raise ProviderError(message) from error
    return onnxruntime

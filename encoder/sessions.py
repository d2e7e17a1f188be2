"""ONNX Runtime sessions for a bundle, on CPU or CUDA. onnxruntime is imported when the first session is made, not
before.
"""

import logging
from collections.abc import Mapping
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
_FATAL_LOG_ONLY = 3
_log = logging.getLogger(__name__)


class Session(Protocol):
    """Runs one padded batch; called from one thread at a time."""

    provider: str
    """`cpu` or `cuda`."""
    length_step: int
    """Lengths are padded up to a multiple of this."""
    most_tokens: int
    """Padded tokens that a batch should not exceed."""

    def run(self, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[np.float32]:
        """Rows of float32 [n, dimension], about unit length, for ids and mask of shape [n, length]."""
        ...


@dataclass(slots=True)
class CpuSession:
    """int8 on CPU."""

    session: "onnxruntime.InferenceSession"
    provider: str = "cpu"
    length_step: int = 1
    most_tokens: int = 512

    def run(self, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[np.float32]:
        """See Session."""
        vectors: NDArray[np.float32] = self.session.run([OUTPUT], {"input_ids": ids, "attention_mask": mask})[0]
        return vectors


@dataclass(slots=True)
class CudaSession:
    """fp16 with IOBinding: inputs are copied once, the output stays on the device until it is whole.

    Lengths are padded to multiples of 16, so that few shapes occur and the device's allocations are used again.
    """

    session: "onnxruntime.InferenceSession"
    device: str = "cuda"
    lent: object = None
    provider: str = "cuda"
    length_step: int = 16
    most_tokens: int = 16_384

    def run(self, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[np.float32]:
        """See Session."""
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

    `wanted` maps names to numpy dtypes. `X` is stored as `X`, or as `X_quantized` with `X_scale` and `X_zero_point`,
    one for
    all or one a column (affine quantisation: value = scale x (stored - zero point)).
    """
    made: dict[str, NDArray[Any]] = {}
    for name, dtype in wanted.items():
        if name in bundle.manifest.tensors:
            made[name] = bundle.tensor(name).astype(dtype)
            continue
        stored = bundle.tensor(f"{name}_quantized").astype(np.float32)
        zero = bundle.tensor(f"{name}_zero_point").astype(np.float32)
        made[name] = ((stored - zero) * bundle.tensor(f"{name}_scale")).astype(dtype)
    return made


def _cpu(runtime: Any, bundle: Bundle, threads: int) -> CpuSession:
    options = _options(runtime)
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    weights = bundle.files[WEIGHTS]
    options.add_external_initializers_from_files_in_memory([WEIGHTS], [weights], [len(weights)])
    return CpuSession(_session(runtime, bundle, CPU_GRAPH, options, [_CPU]))


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
    session = _session(runtime, bundle, CUDA_GRAPH, options, providers)
    if session.get_providers()[0] != providers[0]:
        message = "onnxruntime could not load CUDA; see that the driver and the libraries of the extra `gpu` are there"
        raise ProviderError(message)
    # The runtime may go on reading what it was lent.
    return CudaSession(session, device="cuda" if providers[0] == _CUDA else "cpu", lent=(made, lent))


def _options(runtime: Any) -> Any:
    options = runtime.SessionOptions()
    options.log_severity_level = _FATAL_LOG_ONLY
    options.inter_op_num_threads = 1
    return options


def _session(runtime: Any, bundle: Bundle, graph: str, options: Any, providers: list[str]) -> Any:
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

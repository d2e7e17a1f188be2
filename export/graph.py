"""A student as the graphs of a bundle: int8 for CPU, fp16 for CUDA, both over one file of weights.

Found by trying (MEASURED): only the TorchScript exporter with eager attention gives a graph in which ONNX Runtime's
optimiser finds attention; dynamic quantisation after that needs to be told the default tensor type; int8 must be per
channel. The CUDA graph holds no weights: the runtime makes them from the int8 ones, so that the bundle stays small.
"""

import copy
import logging
import warnings
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.transformers import optimizer
from onnxruntime.transformers.fusion_options import FusionOptions
from onnxruntime.transformers.onnx_model import OnnxModel

from encoder.bundle import WEIGHTS, Tensor
from encoder.sessions import OUTPUT
from export.errors import ExportError
from export.restore import Places, places_of
from export.student import LONGEST_INPUT, Student

_OPSET = 17
_ALIGNMENT = 64
_SMALL = 64
"""Tensors of fewer bytes stay in the graph: ONNX Runtime folds scalars and shapes before external data is there."""


@dataclass(frozen=True, slots=True)
class Graphs:
    """The files of a bundle that hold the network, and the entries of its manifest that describe them."""

    cpu: bytes
    cuda: bytes
    weights: bytes
    tensors: dict[str, Tensor]
    cuda_tensors: dict[str, str]
    parameters: Places


def export_graphs(student: Student, extra: dict[str, NDArray[Any]]) -> Graphs:
    """The graphs of `student` with their weights, and the `extra` tensors beside them. ExportError if nothing was
    fused.
    """
    with TemporaryDirectory() as name:
        folder = Path(name)
        plain, fused, quantised = (str(folder / f"{part}.onnx") for part in ("plain", "fused", "quantised"))
        _trace(student, plain)
        _fuse(student, plain, fused)
        _quantise(fused, quantised)
        cpu = onnx.load(quantised)
        half = OnnxModel(onnx.load(fused))
        values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in half.model.graph.initializer}
        parameters = places_of(student, values)
        half.convert_float_to_float16(keep_io_types=True)
    store = _Store()
    for tensor_name, value in extra.items():
        store.add(tensor_name, value)
    _move_out(cpu, store)
    cuda_tensors = _empty(half.model, store)
    return Graphs(
        cpu.SerializeToString(), half.model.SerializeToString(), store.content(), store.places, cuda_tensors, parameters
    )


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


def _trace(student: Student, path: str) -> None:
    eager = copy.deepcopy(student).eval().to("cpu")
    encoder: Any = eager.encoder
    encoder.set_attn_implementation("eager")
    _cut_positions(encoder)
    ids = torch.ones(2, 8, dtype=torch.long)
    axes = {0: "texts", 1: "tokens"}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the tracer warns of every Python branch; the proof compares the outcome
        torch.onnx.export(
            eager,
            (ids, torch.ones_like(ids)),
            path,
            dynamo=False,
            opset_version=_OPSET,
            input_names=["input_ids", "attention_mask"],
            output_names=[OUTPUT],
            dynamic_axes={"input_ids": axes, "attention_mask": axes, OUTPUT: {0: "texts"}},
        )


def _cut_positions(encoder: Any) -> None:
    """Leaves out the positions beyond the longest input (teachers whose positions count from 0 only)."""
    embeddings: Any = getattr(encoder, "embeddings", None)
    table = getattr(embeddings, "position_embeddings", None)
    if encoder.config.model_type != "bert" or table is None or table.num_embeddings <= LONGEST_INPUT:
        return
    table.weight = torch.nn.Parameter(table.weight.detach()[:LONGEST_INPUT].clone())
    table.num_embeddings = LONGEST_INPUT
    embeddings.position_ids = embeddings.position_ids[:, :LONGEST_INPUT].clone()
    embeddings.token_type_ids = embeddings.token_type_ids[:, :LONGEST_INPUT].clone()


def _fuse(student: Student, plain: str, fused: str) -> None:

    config: Any = student.encoder.config
    logging.getLogger("onnxruntime.transformers").setLevel(logging.WARNING)
    model = optimizer.optimize_model(
        plain,
        model_type="bert",
        num_heads=config.num_attention_heads,
        hidden_size=config.hidden_size,
        optimization_options=FusionOptions("bert"),
        opt_level=0,
    )
    layers = config.num_hidden_layers
    found = model.get_fused_operator_statistics()
    if config.model_type == "bert" and found.get("Attention", 0) != layers:
        message = (
            f"onnxruntime fused {found.get('Attention', 0)} of {layers} attentions; use the extra `train`'s versions"
        )
        raise ExportError(message)
    model.save_model_to_file(fused)


def _quantise(fused: str, quantised: str) -> None:

    quantize_dynamic(
        fused,
        quantised,
        weight_type=QuantType.QInt8,
        per_channel=True,
        extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
    )


def _move_out(model: Any, store: _Store) -> None:
    """Moves the large tensors of `model` to `store`, named as they are, and refers to them as external data."""
    for tensor in model.graph.initializer:
        value = onnx.numpy_helper.to_array(tensor)
        if tensor.name in store.places:
            message = f"two tensors are named {tensor.name}; rename one"
            raise ExportError(message)
        place = store.add(tensor.name, value)
        if value.nbytes < _SMALL:
            continue
        tensor.ClearField("raw_data")
        for field in ("float_data", "int32_data", "int64_data"):
            tensor.ClearField(field)
        _refer(tensor, place.offset, value.nbytes)


def _empty(model: Any, store: _Store) -> dict[str, str]:
    """Takes the large tensors out of the fp16 `model`; returns the dtype in which each is to be given."""
    wanted: dict[str, str] = {}
    for tensor in model.graph.initializer:
        value = onnx.numpy_helper.to_array(tensor)
        if value.nbytes < _SMALL:
            continue
        if not {tensor.name, f"{tensor.name}_quantized"} & set(store.places):
            store.add(tensor.name, value)
        wanted[tensor.name] = value.dtype.name
        tensor.ClearField("raw_data")
        for field in ("float_data", "int32_data", "int64_data"):
            tensor.ClearField(field)
        _refer(tensor, 0, value.nbytes)
    return wanted


def _refer(tensor: Any, offset: int, size: int) -> None:
    tensor.data_location = onnx.TensorProto.EXTERNAL
    del tensor.external_data[:]
    for key, value in (("location", WEIGHTS), ("offset", offset), ("length", size)):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, str(value)

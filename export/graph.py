"""A student as graphs: int8 for CPU, fp16 for CUDA.

Only the TorchScript exporter with eager attention gives a graph in which ONNX Runtime's optimiser finds attention (MEASURED).
From that fused graph come both: of a BERT the CPU's is written anew (`export.lean`); of other architectures it is quantised
as it is, which needs the default tensor type told, and int8 per channel. The exporter renames and merges tensors; where each
parameter went is noted by comparing values, so that a bundle can become a student again (`restore`): domain adaptation.
"""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.transformers import optimizer
from onnxruntime.transformers.fusion_options import FusionOptions
from onnxruntime.transformers.onnx_model import OnnxModel

from encoder.bundle import CPU_GRAPH, CUDA_GRAPH, Bundle
from encoder.sessions import half_tensors
from export import ExportError
from export.lean import write_lean
from export.student import Student, token_table, trace

_KNOWN = ("EmbedLayerNormalization", "Attention", "MatMul", "SkipLayerNormalization", "BiasGelu")


Places = dict[str, tuple[str, bool, int, int]]
"""For each parameter: the tensor that holds it, whether transposed, and its first and last column there (0, 0: all)."""


@dataclass(frozen=True, slots=True)
class Graphs:
    """The graphs of a student with their weights, whether the CPU's takes a mask, and where each parameter went."""

    cpu: Any
    masked: bool
    cuda: Any
    parameters: Places


def export_graphs(student: Student, calibration: Sequence[Sequence[int]]) -> Graphs:
    """The graphs of `student`; `calibration` holds the token ids of some texts. ExportError if nothing was fused."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        plain, fused, quantised = (str(folder / f"{part}.onnx") for part in ("plain", "fused", "quantised"))
        trace(student, plain)
        _fuse(student, plain, fused)
        half = OnnxModel(onnx.load(fused))
        values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in half.model.graph.initializer}
        parameters = places_of(student, values)
        lean = _is_plain_bert(student, half.model)
        if lean:
            cpu = write_lean(half.model, values, student.pooling, _largest(half.model, calibration))
        else:
            _quantise(fused, quantised)
            cpu = onnx.load(quantised)
        half.convert_float_to_float16(keep_io_types=True)
    return Graphs(cpu, not lean, half.model, parameters)


def graphs_of(bundle: Bundle) -> Graphs:
    """The graphs of `bundle` with all their tensors in them."""
    names = (*bundle.manifest.tensors, *bundle.manifest.packed)
    values = {name: bundle.tensor(name) for name in names}
    halves = half_tensors(bundle, bundle.manifest.cuda_tensors)
    filled = []
    for graph, tensors in ((CPU_GRAPH, values), (CUDA_GRAPH, halves)):
        model = onnx.load_from_string(bundle.files[graph])
        for tensor in model.graph.initializer:
            if tensor.data_location == onnx.TensorProto.EXTERNAL:
                tensor.CopyFrom(onnx.numpy_helper.from_array(tensors[tensor.name], tensor.name))
        filled.append(model)
    return Graphs(filled[0], bundle.manifest.masked, filled[1], bundle.manifest.recipe.get("parameters", {}))


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


def _is_plain_bert(student: Student, fused: Any) -> bool:
    config: Any = student.encoder.config
    layers = config.num_hidden_layers
    wanted = dict(zip(_KNOWN, (1, layers, 3 * layers, 2 * layers, layers), strict=True))
    found = Counter(node.op_type for node in fused.graph.node if node.op_type in _KNOWN)
    return config.model_type == "bert" and found == wanted


def _largest(fused: Any, calibration: Sequence[Sequence[int]]) -> dict[str, NDArray[np.float32]]:
    """For every input of a product the largest absolute value of each of its channels on the calibration texts."""
    watched = onnx.ModelProto()
    watched.CopyFrom(fused)
    names = list(dict.fromkeys(node.input[0] for node in fused.graph.node if node.op_type in {"Attention", "MatMul"}))
    watched.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names
    )
    session = onnxruntime.InferenceSession(watched.SerializeToString(), providers=["CPUExecutionProvider"])
    seen = []
    for ids in calibration:
        row = np.array([ids], np.int64)
        seen.append(session.run(names, {"input_ids": row, "attention_mask": np.ones_like(row)}))
    return {
        name: np.max([np.abs(text[place][0]).max(axis=0) for text in seen], axis=0) for place, name in enumerate(names)
    }


def places_of(student: Student, tensors: Mapping[str, NDArray[Any]]) -> Places:
    """Where the parameters of `student` are among the `tensors` of its exported graph, token table excepted.

    Raises ExportError if one that training would change is in none of them.
    """
    table = token_table(student)
    found: Places = {}
    for name, parameter in student.named_parameters():
        if parameter is table:
            continue
        place = _place(parameter.detach().cpu().numpy(), tensors)
        if place is not None:
            found[name] = place
        elif parameter.ndim > 1:
            message = (
                f"the exported graph has no tensor with the values of {name}; adapting this student is not possible"
            )
            raise ExportError(message)
    return found


def restore(student: Student, bundle: Bundle) -> None:
    """Gives `student` (of the bundle's teacher and shape) the weights of the bundle, as exact as int8 kept them.

    Raises ExportError if the bundle says not where they are.
    """
    places = bundle.manifest.recipe.get("parameters")
    if not isinstance(places, dict) or not places:
        message = f"the bundle {bundle.name} can't be trained on; distil from the teacher instead"
        raise ExportError(message)
    values = half_tensors(bundle, {place[0]: "float32" for place in places.values()})
    parameters = dict(student.named_parameters())
    with torch.no_grad():
        for name, (tensor, transposed, first, last) in places.items():
            value = values[tensor]
            if last:
                value = value[..., first:last]
            value = value.T if transposed else value
            target = parameters[name]
            count = len(value)
            if target.shape[1:] != value.shape[1:] or count > len(target):
                message = f"the bundle's {name} has the shape {value.shape}, the teacher's copy {tuple(target.shape)}"
                raise ExportError(message)
            target[:count].copy_(torch.from_numpy(np.ascontiguousarray(value)))


def _place(value: NDArray[Any], tensors: Mapping[str, NDArray[Any]]) -> tuple[str, bool, int, int] | None:
    forms = ((value, False), (value.T, True)) if value.ndim > 1 else ((value, False),)
    for name, tensor in tensors.items():
        for form, transposed in forms:
            if tensor.ndim != form.ndim or tensor.size < form.size:
                continue
            columns = _columns(form, tensor)
            if columns is not None:
                return name, transposed, *columns
    for name, tensor in tensors.items():  # tables that were cut (positions)
        cut = value[: len(tensor)] if tensor.ndim == value.ndim == len(forms) else value
        if len(cut) < len(value) and np.array_equal(tensor, cut):
            return name, False, 0, 0
    return None


def _columns(form: NDArray[Any], tensor: NDArray[Any]) -> tuple[int, int] | None:
    """Which columns of `tensor` equal `form`: (0, 0) for all, None for none."""
    if np.array_equal(tensor, form):
        return 0, 0
    width = form.shape[-1]
    if tensor.shape[:-1] != form.shape[:-1] or tensor.shape[-1] % width:
        return None
    for first in range(0, tensor.shape[-1], width):
        if np.array_equal(tensor[..., first : first + width], form):
            return first, first + width
    return None

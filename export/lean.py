"""The CPU graph of a BERT, written anew from the fused one: for speed with one text, and for what int8 keeps.

- No mask and no padding: texts are computed one by one, which costs 8 % at 64 texts, and lets a vector depend on its text alone.
- A layer norm is InstanceNormalization and a product: SkipLayerNormalization takes five times as long (onnxruntime 1.32, 16
  tokens of 384). Its shift goes into the biases behind it, for nothing.
- Inputs of products are evened out and their weights take over the factors (SmoothQuant: Xiao et al. 2023, section 4), so that
  a few large channels don't take int8's digits from the others; behind a layer norm its gain does that, for nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from encoder.bundle import BLOCK
from encoder.sessions import OUTPUT
from export import ExportError
from export.student import OPSET

Floats = NDArray[np.float32]
_MICROSOFT = "com.microsoft"
_SMOOTHING = 0.7
"""SmoothQuant's α. Cosine and recall@10 of the shipped student on held-out texts: .9478 and .721 without, .9466 and .720
with .5, .9490 and .726 with .7, .9485 and .724 with .85."""

_FINE_ROWS = 8000
"""Rows of a packed table with codes of five bits; the others have four. Vocabularies begin with what occurs most."""
_LEAST, _MOST = 0.7, 1.2
"""Steps that are tried for a block, relative to the smallest that reaches its largest value."""


def write_lean(fused: Any, values: Mapping[str, NDArray[Any]], pooling: str, largest: Mapping[str, Floats]) -> Any:
    """The int8 graph: `input_ids` int64 [texts, tokens], of one length and without padding, to unit rows.

    `values` are the tensors of `fused`, `largest` each product's input's largest absolute values, channel by channel. A weight
    `X` [n, m] is written as `X_quantized`, `X_scale` [m] and, where it took over factors, `X_rows` [n]:
    X = rows × scale × quantized.
    """
    writer = _Writer(fused, values, largest)
    for node in fused.graph.node:
        if node.op_type in _WRITE:
            _WRITE[node.op_type](writer, node)
    writer.pool(pooling)
    make = onnx.helper
    graph = make.make_graph(
        writer.nodes,
        "student",
        [make.make_tensor_value_info("input_ids", onnx.TensorProto.INT64, ["texts", "tokens"])],
        [make.make_tensor_value_info(OUTPUT, onnx.TensorProto.FLOAT, ["texts", "numbers"])],
        [onnx.numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in writer.constants.items()],
    )
    opsets = [make.make_opsetid("", OPSET), make.make_opsetid(_MICROSOFT, 1)]
    return make.make_model(graph, opset_imports=opsets, ir_version=fused.ir_version)


def quantised_table(table: Floats) -> tuple[NDArray[np.uint8], np.float32, np.uint8]:
    """The `table` as uint8, one scale and zero point for all: value = scale x (quantised - zero)."""
    low, high = min(float(table.min()), 0.0), max(float(table.max()), 0.0)
    scale = np.float32((high - low) / 255)
    zero = np.uint8(round(-low / scale))
    return np.clip(np.rint(table / scale) + zero, 0, 255).astype(np.uint8), scale, zero


def pack(table: NDArray[np.uint8], zero: int) -> dict[str, NDArray[np.uint8]]:
    """The parts of the packed `table` [n, m] (`encoder.bundle.unpack`): of all steps that with the smallest squared error."""
    blocks = (table.astype(np.int16) - zero).reshape(-1, BLOCK)
    fine = np.arange(len(blocks)) // (table.shape[1] // BLOCK) < _FINE_ROWS
    coarse = np.where(fine, 1, 2).astype(np.int16)
    reach = np.maximum(-blocks.min(axis=1), blocks.max(axis=1) * 16 / (16 - coarse))
    best = np.full(len(blocks), np.inf)
    steps, codes = np.ones(len(blocks), np.uint8), np.zeros(blocks.shape, np.uint8)
    for step in range(1, 256):
        rows = np.flatnonzero((_LEAST * reach - 1 <= step) & (step <= _MOST * reach + 1))
        grid = coarse[rows, None]
        found = np.clip(np.rint(blocks[rows] * (16 / step) / grid), -16 // grid, 16 // grid - 1).astype(np.int16) * grid
        kept = np.clip(((found * step + 8) >> 4) + zero, 0, 255) - zero
        error = np.square(kept - blocks[rows], dtype=np.float32).sum(axis=1)
        better = error < best[rows]
        rows = rows[better]
        best[rows], steps[rows], codes[rows] = error[better], step, found[better] + 16
    whole, half = codes.reshape(table.shape), table.shape[1] // 2
    return {
        "codes": (whole[:, :half] >> 1 | whole[:, half:] >> 1 << 4).astype(np.uint8),
        "low_bits": np.packbits(whole[:_FINE_ROWS] & 1, axis=1),
        "steps": steps.reshape(len(table), -1),
    }


@dataclass(frozen=True, slots=True)
class _Normed:
    """A layer norm in parts: the name of what it gave before gain and shift, and the names of these."""

    plain: str
    gain: str
    shift: str


class _Writer:
    """The nodes and constants written so far; one method for each kind of fused node."""

    def __init__(self, fused: Any, values: Mapping[str, NDArray[Any]], largest: Mapping[str, Floats]) -> None:
        self.nodes: list[Any] = []
        self.constants: dict[str, NDArray[Any]] = {}
        self._values, self._largest = values, largest
        self._normed: dict[str, _Normed] = {}
        self._last: _Normed | None = None
        self._products = {node.output[0]: node.input for node in fused.graph.node if node.op_type == "MatMul"}
        self._add("Shape", ["input_ids"], "tokens", start=1, end=2)
        for name, value in (("ones", 1.0), ("zeros", 0.0)):
            filling = onnx.helper.make_tensor("value", onnx.TensorProto.FLOAT, [1], [value])
            self._add("ConstantOfShape", ["tokens"], name, value=filling)

    def embed(self, node: Any) -> None:
        """EmbedLayerNormalization: token, position, and the one kind of token that a student is given."""
        tokens, positions, kinds, gain, shift = node.input[2:7]
        table = self._values[tokens]
        quantised, scale, zero = quantised_table(table)
        names = [self._constant(f"{tokens}_quantized", quantised), "input_ids"]
        scales = [self._constant(f"{tokens}_scale", scale), self._constant(f"{tokens}_zero_point", zero)]
        rows = self._add("Gather", names, "token_rows")
        rows = self._add("DequantizeLinear", [rows, *scales], "token_values")
        places = [self._constant(positions, self._values[positions].astype(np.float16))]
        places += [self._constant("start", np.array([0])), "tokens"]
        self._add("Slice", places, "position_rows")
        self._add("Cast", ["position_rows"], "position_values", to=onnx.TensorProto.FLOAT)
        kind = self._constant(f"{kinds}_first", self._values[kinds][0])
        self._add("Add", ["position_values", kind], "places")
        self._norm(self._add("Add", [rows, "places"], "embedded"), gain, shift, node)

    def attend(self, node: Any) -> None:
        """Attention: queries, keys and values by one product, without a mask."""
        source, weights, bias = node.input[:3]
        even, shift, parts = self._product(source, weights)
        shifted = self._constant(f"{bias}_shifted", self._values[bias] + shift)
        rounded, scale, zero = (f"{even}_{part}" for part in ("int8", "scale", "zero"))
        self._add("DynamicQuantizeLinear", [even], rounded, scale, zero)
        heads = next(part.i for part in node.attribute if part.name == "num_heads")
        inputs = [rounded, parts[0], shifted, scale, parts[1], "", zero]
        self._add("QAttention", inputs, node.output[0], domain=_MICROSOFT, num_heads=heads)

    def skip(self, node: Any) -> None:
        """SkipLayerNormalization of a product and what went around it."""
        product, around, gain, shift, bias = node.input[:5]
        normed = self._normed[around]
        dense = self._dense(product, bias, self._values[normed.shift])
        beside = self._add(
            "Mul", [normed.plain, self._constant(normed.gain, self._values[normed.gain])], f"{around}_gained"
        )
        self._norm(self._add("Add", [dense, beside], f"{node.output[0]}_sum"), gain, shift, node)

    def activate(self, node: Any) -> None:
        """BiasGelu of a product."""
        self._add("Gelu", [self._dense(node.input[0], node.input[1])], node.output[0], domain=_MICROSOFT)

    def pool(self, pooling: str) -> None:
        """One unit row a text; gain and shift of the last layer norm come after the mean, which is the same and less."""
        normed = self._last
        if normed is None:
            message = "the fused graph has no layer norm"
            raise ExportError(message)
        if pooling == "cls":
            self._add("Gather", [normed.plain, self._constant("first", np.array(0))], "pooled", axis=1)
        else:
            self._add("ReduceMean", [normed.plain], "pooled", axes=[1], keepdims=0)
        self._add("Mul", ["pooled", self._constant(normed.gain, self._values[normed.gain])], "gained")
        self._add("Add", ["gained", self._constant(normed.shift, self._values[normed.shift])], "shifted")
        self._add("LpNormalization", ["shifted"], OUTPUT, axis=1)

    def _norm(self, source: str, gain: str, shift: str, node: Any) -> None:
        epsilon = next((part.f for part in node.attribute if part.name == "epsilon"), 1e-12)
        plain = self._add(
            "InstanceNormalization", [source, "ones", "zeros"], f"{node.output[0]}_plain", epsilon=epsilon
        )
        self._last = self._normed[node.output[0]] = _Normed(plain, gain, shift)

    def _dense(self, product: str, bias: str, more: Floats | float = 0.0) -> str:
        source, weights = self._products[product]
        even, shift, parts = self._product(source, weights)
        shifted = self._constant(f"{bias}_shifted", self._values[bias] + shift + more)
        inputs = [even, parts[0], parts[1], "", shifted]
        return self._add("DynamicQuantizeMatMul", inputs, product, domain=_MICROSOFT)

    def _product(self, source: str, weights: str) -> tuple[str, Floats, tuple[str, str]]:
        """Of a product's input the evened form, what its shift adds to the bias, and the names of weights and scales."""
        matrix, normed = self._values[weights], self._normed.get(source)
        shift = np.zeros(matrix.shape[1], np.float32)
        even, factors = source, None
        if normed is not None or source not in self._attended():
            factors = _factors(self._largest[source], matrix)
            gain = np.float32(1) if normed is None else self._values[normed.gain]
            inputs = [source if normed is None else normed.plain, self._constant(f"{weights}_even", gain / factors)]
            even = self._add("Mul", inputs, f"{weights}_input")
            self._constant(f"{weights}_rows", 1 / factors)
            if normed is not None:
                shift = self._values[normed.shift] @ matrix
        scaled = matrix if factors is None else matrix * factors[:, None]
        scale = (np.maximum(np.abs(scaled).max(axis=0), np.finfo(np.float32).tiny) / 127).astype(np.float32)
        quantised = self._constant(f"{weights}_quantized", np.rint(scaled / scale).astype(np.int8))
        return even, shift, (quantised, self._constant(f"{weights}_scale", scale))

    def _attended(self) -> set[str]:
        """What attention gave: mixed values, without large channels, so that evening out would be for nothing."""
        return {node.output[0] for node in self.nodes if node.op_type == "QAttention"}

    def _constant(self, name: str, value: Any) -> str:
        self.constants[name] = np.asarray(value)
        return name

    def _add(self, kind: str, inputs: Sequence[str], *outputs: str, domain: str = "", **attributes: Any) -> str:
        self.nodes.append(onnx.helper.make_node(kind, inputs, outputs, domain=domain, **attributes))
        return outputs[0]


def _factors(largest: Floats, matrix: Floats) -> Floats:
    """What each row of `matrix` [n, m] is multiplied with and its input divided by; 1 on (geometric) average."""
    inputs = np.maximum(largest, 1e-3) ** _SMOOTHING
    found = inputs / np.maximum(np.abs(matrix).max(axis=1), 1e-4) ** (1 - _SMOOTHING)
    return np.asarray(found / np.exp(np.log(found).mean()), np.float32)


_WRITE: dict[str, Callable[[_Writer, Any], None]] = {
    "EmbedLayerNormalization": _Writer.embed,
    "Attention": _Writer.attend,
    "SkipLayerNormalization": _Writer.skip,
    "BiasGelu": _Writer.activate,
}

"""The student: some of the teacher's own layers, thinned, with the teacher's token table and tokenizer.

Why copies and not a fresh net: for the same budget, students made from the teacher's layers agree better than any trained
from scratch (MEASURED). Why thin layers and not fewer whole ones: the same arithmetic, and depth keeps more (docs/adr).
"""

import copy
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from encoder.sessions import OUTPUT
from export import TeacherError
from export.teacher import LONGEST_INPUT, Teacher

_RIDGE = 1e-3
OPSET = 17


@dataclass(frozen=True, slots=True)
class Shape:
    """Which of the teacher's layers are copied, and how many neurons of each feed-forward block are kept (None:
    all).
    """

    layers: tuple[int, ...]
    feed_forward: int | None = None

    @classmethod
    def usual(cls, teacher: Teacher) -> "Shape":
        """Six layers, the first and the last among them and evenly spread, of two thirds of the neurons: the shipped shape."""
        config: Any = teacher.transformer.config
        last = config.num_hidden_layers - 1
        return cls(tuple(sorted({round(place * last / 5) for place in range(6)})), config.intermediate_size * 2 // 3)

    @classmethod
    def parse(cls, text: str) -> "Shape":
        """From `0,2,4,5x1024`: layers, and neurons of each (`0,2,4,5` keeps all of them). TeacherError for anything else."""
        if not re.fullmatch(r"\d+(,\d+)*(x[1-9]\d*)?", text, re.ASCII):
            message = f"{text!r} is no shape; write the layers that are kept and their neurons, such as 0,2,4,5x1024"
            raise TeacherError(message)
        layers, _, neurons = text.partition("x")
        return cls(tuple(sorted({int(each) for each in layers.split(",")})), int(neurons) if neurons else None)

    def __str__(self) -> str:
        """As `parse` reads it."""
        return ",".join(map(str, self.layers)) + (f"x{self.feed_forward}" if self.feed_forward else "")


class Student(nn.Module):
    """Token ids and their mask in, unit vectors out: a thinned copy of the teacher's encoder, and mean pooling."""

    def __init__(self, encoder: nn.Module, pooling: str) -> None:
        """`encoder` is a transformers model; `pooling` is `mean` or `cls`."""
        super().__init__()
        self.encoder = encoder
        self.pooling = pooling

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Unit rows, float32 [n, dimension], of token ids and mask, both int64 [n, length]."""
        return self.pool(
            self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state, attention_mask
        )

    def pool(self, states: Tensor, mask: Tensor) -> Tensor:
        """Unit rows [n, dimension] of the tokens' `states` [n, length, dimension] and their mask [n, length]."""
        if self.pooling == "cls":
            pooled = states[:, 0]
        else:
            weights = mask.unsqueeze(-1).to(states.dtype)
            pooled = (states * weights).sum(1) / weights.sum(1).clamp(min=1.0)
        return nn.functional.normalize(pooled, dim=1)


def make_student(teacher: Teacher, shape: Shape, calibration: Sequence[str]) -> Student:
    """A student of `shape` with the teacher's weights; neurons are kept by their effect on the `calibration` texts.

    Raises TeacherError for a teacher without a stack of layers or with a pooling other than mean or cls.
    """
    original = teacher.transformer
    stack = _stack(original)
    if max(shape.layers) >= len(stack):
        message = f"the teacher {teacher.name} has {len(stack)} layers; choose among 0 to {len(stack) - 1}"
        raise TeacherError(message)
    wide = getattr(original.config, "intermediate_size", None)
    if shape.feed_forward and wide and shape.feed_forward > wide:
        message = f"the teacher {teacher.name} has {wide} neurons a layer, fewer than {shape.feed_forward}; keep fewer"
        raise TeacherError(message)
    seen = _observe(teacher, stack, calibration) if shape.feed_forward else {}
    encoder: Any = copy.deepcopy(original)
    if getattr(encoder, "pooler", None) is not None:
        encoder.pooler = None
    layers = _stack(encoder)
    kept = nn.ModuleList([layers[index] for index in shape.layers])
    for index, layer in zip(shape.layers, kept, strict=True):
        if shape.feed_forward and index in seen and shape.feed_forward < len(seen[index].sums):
            _thin(layer, seen[index], shape.feed_forward)
    _set_stack(encoder, kept)
    encoder.config.num_hidden_layers = len(kept)
    if shape.feed_forward:
        encoder.config.intermediate_size = shape.feed_forward
    return Student(encoder, _pooling(teacher))


def token_table(student: Student) -> nn.Parameter:
    """The student's token table [vocabulary, width], which training leaves as the teacher made it."""
    encoder: Any = student.encoder
    weight: nn.Parameter = encoder.get_input_embeddings().weight
    return weight


@dataclass(slots=True)
class _Seen:
    """What the neurons of one feed-forward block did on the calibration texts: sums over tokens, of values and products."""

    tokens: int
    sums: Tensor
    products: Tensor


def _observe(teacher: Teacher, stack: nn.ModuleList, calibration: Sequence[str]) -> dict[int, _Seen]:
    seen: dict[int, _Seen] = {}
    hooks = []
    for index, layer in enumerate(stack):
        block: Any = layer
        if not _has_feed_forward(block):
            continue

        def note(_module: nn.Module, inputs: tuple[Tensor, ...], number: int = index) -> None:
            values = inputs[0].detach().flatten(0, -2)
            found = _Seen(len(values), values.sum(0), values.T @ values)
            before = seen.get(number)
            if before is not None:
                found = _Seen(before.tokens + found.tokens, before.sums + found.sums, before.products + found.products)
            seen[number] = found

        hooks.append(block.output.dense.register_forward_pre_hook(note))
    try:
        teacher.encode(calibration)
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def _thin(layer: nn.Module, seen: _Seen, number: int) -> None:
    """Keeps the `number` neurons that matter most; what the others did on average is foretold from the kept ones.

    The kept neurons' outgoing weights take over the least-squares prediction of the dropped ones (with a small ridge), and
    the bias their mean: the reconstruction step of structured pruning (He, Zhang and Sun 2017, section 3.2).
    """
    block: Any = layer
    wide, back = block.intermediate.dense, block.output.dense
    outgoing = back.weight.detach()
    spread = seen.products.diagonal() / seen.tokens
    order = (spread.sqrt() * outgoing.norm(dim=0)).argsort(descending=True)
    kept, dropped = order[:number].sort().values, order[number:]
    mean = seen.sums / seen.tokens
    covariance = seen.products / seen.tokens - torch.outer(mean, mean)
    inner = covariance[kept][:, kept]
    inner = inner + _RIDGE * inner.diagonal().mean() * torch.eye(len(kept), device=inner.device)
    foretold = torch.linalg.solve(inner, covariance[kept][:, dropped])
    weights = outgoing[:, kept] + outgoing[:, dropped] @ foretold.T
    shift = outgoing[:, dropped] @ (mean[dropped] - foretold.T @ mean[kept])
    wide.weight = nn.Parameter(wide.weight.detach()[kept].clone())
    wide.bias = nn.Parameter(wide.bias.detach()[kept].clone())
    back.weight, back.bias = nn.Parameter(weights.contiguous()), nn.Parameter(back.bias.detach() + shift)
    wide.out_features = back.in_features = len(kept)


def _has_feed_forward(layer: Any) -> bool:
    return hasattr(layer, "intermediate") and hasattr(layer, "output") and hasattr(layer.output, "dense")


def _stack(encoder: nn.Module) -> nn.ModuleList:
    """The longest list of layers in the encoder: its transformer stack."""
    lists = [module for module in encoder.modules() if isinstance(module, nn.ModuleList)]
    if not lists:
        message = "the teacher has no list of layers to copy from; choose a transformer"
        raise TeacherError(message)
    return max(lists, key=len)


def _set_stack(encoder: nn.Module, kept: nn.ModuleList) -> None:
    stack = _stack(encoder)
    for module in encoder.modules():
        for name, child in module.named_children():
            if child is stack:
                setattr(module, name, kept)
                return


def _pooling(teacher: Teacher) -> str:
    for module in teacher.model:
        mode = getattr(module, "pooling_mode", None)
        names = {mode} if isinstance(mode, str) else set(mode or ()) if not callable(mode) else set()
        if getattr(module, "pooling_mode_mean_tokens", False):
            names.add("mean")
        if getattr(module, "pooling_mode_cls_token", False):
            names.add("cls")
        if len(names) == 1 and names <= {"mean", "cls"}:
            return names.pop()
    message = f"the teacher {teacher.name} pools otherwise than by mean or cls; choose another"
    raise TeacherError(message)


def trace(student: Student, path: str) -> None:
    """Writes `student` to the file `path` as plain ONNX: `input_ids` and `attention_mask` to `vectors`."""
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
            opset_version=OPSET,
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

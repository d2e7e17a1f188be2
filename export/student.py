"""The student: some of the teacher's own layers, thinned, with the teacher's token table and tokenizer.

Why copies and not a fresh net: for the same budget, students made from the teacher's layers agree better than any
trained
from scratch (MEASURED). Why three thin layers and not two whole ones: the same arithmetic, and depth keeps more (docs).
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer
from torch import Tensor, nn

from export.errors import TeacherError
from export.teacher import Teacher

LONGEST_INPUT = 128
"""Tokens of the longest input, the special ones included."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Which of the teacher's layers are copied, and how many neurons of each feed-forward block are kept (None:
    all).
    """

    layers: tuple[int, ...] = (0, 4, 5)
    feed_forward: int | None = 768


class Student(nn.Module):
    """Token ids and their mask in, unit vectors out: a thinned copy of the teacher's encoder, and mean pooling."""

    def __init__(self, encoder: nn.Module, pooling: str) -> None:
        """`encoder` is a transformers model; `pooling` is `mean` or `cls`."""
        super().__init__()
        self.encoder = encoder
        self.pooling = pooling

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Unit rows, float32 [n, dimension], of token ids and mask, both int64 [n, length]."""
        states: Tensor = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        if self.pooling == "cls":
            pooled = states[:, 0]
        else:
            weights = attention_mask.unsqueeze(-1).to(states.dtype)
            pooled = (states * weights).sum(1) / weights.sum(1).clamp(min=1.0)
        return nn.functional.normalize(pooled, dim=1)


def make_student(teacher: Teacher, shape: Shape, calibration: Sequence[str]) -> Student:
    """A student of `shape` with the teacher's weights; neurons are kept by their effect on the `calibration` texts.

    Raises TeacherError for a teacher without a stack of layers or with a pooling other than mean or cls.
    """
    transformer: Any = teacher.model[0]
    original: Any = getattr(transformer, "auto_model", None) or transformer.model
    stack = _stack(original)
    if max(shape.layers) >= len(stack):
        message = f"the teacher {teacher.name} has {len(stack)} layers; choose among 0 to {len(stack) - 1}"
        raise TeacherError(message)
    strengths = _strengths(teacher, stack, calibration) if shape.feed_forward else {}
    encoder: Any = copy.deepcopy(original)
    if getattr(encoder, "pooler", None) is not None:
        encoder.pooler = None
    layers = _stack(encoder)
    kept = nn.ModuleList([layers[index] for index in shape.layers])
    for index, layer in zip(shape.layers, kept, strict=True):
        if shape.feed_forward and index in strengths:
            _thin(layer, strengths[index].topk(min(shape.feed_forward, len(strengths[index]))).indices.sort().values)
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


def _strengths(teacher: Teacher, stack: nn.ModuleList, calibration: Sequence[str]) -> dict[int, Tensor]:
    """For each layer, each neuron's mean activation on `calibration` times the length of its outgoing weights."""
    sums: dict[int, Tensor] = {}
    hooks = []
    for index, layer in enumerate(stack):
        block: Any = layer
        if not _has_feed_forward(block):
            continue

        def observe(_module: nn.Module, inputs: tuple[Tensor, ...], number: int = index) -> None:
            total = inputs[0].detach().abs().flatten(0, -2).sum(0)
            sums[number] = sums[number] + total if number in sums else total

        hooks.append(block.output.dense.register_forward_pre_hook(observe))
    try:
        teacher.encode(calibration)
    finally:
        for hook in hooks:
            hook.remove()
    return {index: total.cpu() * _outgoing(stack[index]).cpu() for index, total in sums.items()}


def _outgoing(layer: nn.Module) -> Tensor:
    block: Any = layer
    lengths: Tensor = block.output.dense.weight.detach().norm(dim=0)
    return lengths


def _thin(layer: nn.Module, kept: Tensor) -> None:
    block: Any = layer
    wide, back = block.intermediate.dense, block.output.dense
    kept = kept.to(wide.weight.device)
    wide.weight, wide.bias = (
        nn.Parameter(wide.weight.detach()[kept].clone()),
        nn.Parameter(wide.bias.detach()[kept].clone()),
    )
    back.weight = nn.Parameter(back.weight.detach()[:, kept].clone())
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

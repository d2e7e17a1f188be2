"""From a bundle back to a student that can be trained on: what domain adaptation starts from.

The exporter renames and merges tensors, so that the bundle's maker notes, by comparing values, where each parameter
went.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from encoder.bundle import Bundle
from encoder.sessions import half_tensors
from export import ExportError
from export.student import Student, token_table

Places = dict[str, tuple[str, bool, int, int]]
"""For each parameter: the tensor that holds it, whether transposed, and its first and last column there (0, 0: all)."""


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

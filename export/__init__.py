"""Make a bundle: distil a student from a teacher, export it, prove it. Needs the extra `train` when a function runs.

distill_command(items, teacher, out)   the body of `coldstream distill`
distill(sources, out)                  the same for any sources of texts
prove(path, held_out)                  agreement of a bundle with its teacher
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from export.errors import ExportError, ProofError, TeacherError, TextsError

if TYPE_CHECKING:
    from export.distillation import Distilled, distill, distill_command
    from export.proof import prove

__all__ = [
    "Distilled",
    "ExportError",
    "ProofError",
    "TeacherError",
    "TextsError",
    "distill",
    "distill_command",
    "prove",
]
_LATE = {
    "Distilled": "export.distillation",
    "distill": "export.distillation",
    "distill_command": "export.distillation",
    "prove": "export.proof",
}


def __getattr__(name: str) -> Any:
    """Imports what needs torch when it is asked for, so that the errors can be named without it."""
    if name not in _LATE:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    try:
        return getattr(import_module(_LATE[name]), name)
    except ModuleNotFoundError as error:
        message = f"{error.name} is not installed; distilling needs the extra `train` (make dev-train)"
        raise ExportError(message) from error

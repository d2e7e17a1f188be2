"""Make a bundle: distil a student from a teacher, export it, prove it. Needs the extra `train` when a function runs.

distill_command(items, teacher, out)   the body of `coldstream distill`
distill(sources, out)                  the same for any sources of texts
renew(folder, out)                     a bundle's weights by today's graphs
prove(path, held_out)                  agreement of a bundle with its teacher

ExportError           everything that stops the making of a bundle; the message says who must act and how
  TextsError          a source of training texts is missing or unreadable
  TeacherError        the teacher can't be loaded, or is of a kind that can't be copied from
  ProofError          what was made is not what was asked for (too large, too unlike its teacher)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from export.bundle import renew
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
    "renew",
]
_LATE = {
    "Distilled": "export.distillation",
    "distill": "export.distillation",
    "distill_command": "export.distillation",
    "prove": "export.proof",
    "renew": "export.bundle",
}


class ExportError(Exception):
    """The bundle can't be made; the message names the cause and the remedy."""


class TextsError(ExportError):
    """A source of texts is missing, empty or unreadable: the person who named it must mend the path or the file."""


class TeacherError(ExportError):
    """The teacher can't be loaded or copied from: the person who named it must choose another."""


class ProofError(ExportError):
    """The student failed its proof: train longer, or accept less on purpose."""


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

"""Errors of making a bundle.

ExportError           everything that stops the making of a bundle; the message says who must act and how
  TextsError          a source of training texts is missing or unreadable
  TeacherError        the teacher can't be loaded, or is of a kind that can't be copied from
  ProofError          what was made is not what was asked for (too large, too unlike its teacher)
"""


class ExportError(Exception):
    """The bundle can't be made; the message names the cause and the remedy."""


class TextsError(ExportError):
    """A source of texts is missing, empty or unreadable: the person who named it must mend the path or the file."""


class TeacherError(ExportError):
    """The teacher can't be loaded or copied from: the person who named it must choose another."""


class ProofError(ExportError):
    """The student failed its proof: train longer, or accept less on purpose."""

"""Where a computation may fail on somebody's data, and how that is told from a neighbour's failure."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from streams.errors import ColdstreamError


class ComputeError(Exception):
    """Decoding passed, but applying, embedding or ranking failed: some record of the batch is at fault."""


@contextmanager
def computing() -> Iterator[None]:
    """Turns any error of a computation into `ComputeError`; Coldstream's own errors pass."""
    try:
        yield
    except ColdstreamError:
        raise
    except Exception as error:
        raise ComputeError(f"{type(error).__name__}: {error}") from error

"""Loops that are compiled to machine code: what ranking does for each candidate, entry and word.

numba compiles each when it is first called and keeps the result on disk: in a folder beside these modules, or of the user's
where that can't be written, or in `NUMBA_CACHE_DIR`. Its name is a digest of all modules here, since what one takes from
another would else go unnoticed. Only the first start on a machine takes the time; where nothing can be written each does.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

Function = TypeVar("Function", bound=Callable[..., Any])

_COMPLETE: Final = "complete"
_RELAXED: Final = {"contract", "reassoc", "nsz", "arcp", "afn"}
"""Sums may be taken in another order; NaN and infinities keep their meaning."""


def _folder() -> Path | None:
    """Where machine code is kept; None where no folder can be written."""
    here = Path(__file__).parent
    own, given = here / "__pycache__", os.environ.get("NUMBA_CACHE_DIR")
    made_of = [page.read_bytes() for page in sorted(here.glob("*.py"))]
    made_for = f"{numba.__version__} {sys.version}"
    digest = sha256(b"".join([*made_of, made_for.encode()])).hexdigest()[:16]
    try:
        bases = [Path(given)] if given else [own, Path.home() / ".cache" / "coldstream"]
    except RuntimeError:  # nobody's home
        bases = [own]
    for base in bases:
        folder = base / f"compiled-{digest}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(folder, os.W_OK):
            if base == own:  # nobody else's: what was compiled from other texts than these is of no more use
                for old in own.glob("compiled-*"):
                    if old != folder:
                        shutil.rmtree(old, ignore_errors=True)
            return folder
    return None


FOLDER: Final = _folder()
if FOLDER is not None:
    numba.config.CACHE_DIR = str(FOLDER)  # type: ignore[attr-defined]


def compiled(function: Function) -> Function:
    """A function of arrays and numbers as machine code that runs without the interpreter's lock."""
    made = numba.njit(cache=FOLDER is not None, nogil=True, fastmath=_RELAXED, error_model="numpy")(function)
    return cast("Function", made)


def is_kept() -> bool:
    """Whether everything was compiled on this machine before."""
    return FOLDER is not None and (FOLDER / _COMPLETE).exists()


def keep() -> None:
    """Everything is compiled now."""
    if FOLDER is not None:
        (FOLDER / _COMPLETE).touch()


def forget() -> bool:
    """Delete what is kept, so that it is compiled anew; whether there was anything."""
    files = [] if FOLDER is None else [path for path in FOLDER.rglob("*") if path.is_file()]
    for path in files:
        path.unlink(missing_ok=True)
    return bool(files)


@compiled
def heaviest(scores: NDArray[np.float64], count: int, places: NDArray[np.int64]) -> int:
    """Put the places of the `count` greatest scores into `places`, in their order there; returns how many they are."""
    size = len(scores)
    if size <= count:
        for place in range(size):
            places[place] = place
        return size
    least = np.partition(scores, size - count)[size - count]
    equal = count
    for place in range(size):
        equal -= scores[place] > least
    found = 0
    for place in range(size):
        if scores[place] > least:
            places[found] = place
            found += 1
        elif scores[place] == least and equal > 0:
            places[found] = place
            found += 1
            equal -= 1
    return found


@compiled
def up_to(times: NDArray[np.float64], at: float) -> int:
    """How many of ascending times are not later than `at`."""
    low, high = 0, len(times)
    while low < high:
        middle = (low + high) // 2
        if times[middle] <= at:
            low = middle + 1
        else:
            high = middle
    return low

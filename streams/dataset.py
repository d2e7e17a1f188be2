"""A DATASET: a folder with `items.jsonl[.gz]`, `events.jsonl[.gz]` and perhaps `users.jsonl[.gz]`.

Each line is a value of the topic of that name; events are in time order. Null fields are absent fields. An `event_id`
that is missing is made of the file's hash and the line's number, so that the same file always yields the same ids.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from streams.errors import ConfigurationError

ITEMS: Final = "items"
USERS: Final = "users"
EVENTS: Final = "events"

Line = dict[str, Any]


class Dataset:
    """The files of one folder. Lines are read as they are asked for; nothing is kept.

    Raises `ConfigurationError` where the folder has no items or events, and for a line that is no JSON object, naming
    file and line.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = folder.resolve().name
        if not folder.is_dir():
            raise ConfigurationError(f"{folder} is no folder: a data set is a folder with items.jsonl and events.jsonl")
        for name in (ITEMS, EVENTS):
            if self._file(name) is None:
                raise ConfigurationError(f"{folder} has no {name}.jsonl or {name}.jsonl.gz: it is no data set")

    def items(self) -> Iterator[Line]:
        """The catalogue, in the file's order."""
        return self._lines(ITEMS)

    def users(self) -> Iterator[Line]:
        """The users, in the file's order; nothing where there is no such file."""
        return self._lines(USERS)

    def events(self) -> Iterator[Line]:
        """The events in the file's order, each with an `event_id`."""
        path = self._file(EVENTS)
        stem = ""
        for number, line in enumerate(self._lines(EVENTS), start=1):
            if "event_id" not in line:
                stem = stem or _hash(path)
                line["event_id"] = f"{stem}-{number}"
            yield line

    def _file(self, name: str) -> Path | None:
        candidates = (self.folder / f"{name}.jsonl", self.folder / f"{name}.jsonl.gz")
        return next((path for path in candidates if path.is_file()), None)

    def _lines(self, name: str) -> Iterator[Line]:
        path = self._file(name)
        if path is None:
            return
        opened: Callable[..., Any] = gzip.open if path.suffix == ".gz" else open
        decode = msgspec.json.Decoder(Line).decode
        number = 0
        try:
            with opened(path, "rb") as file:
                for raw in file:
                    number += 1
                    if raw.strip():
                        yield {key: value for key, value in decode(raw).items() if value is not None}
        except msgspec.DecodeError as error:
            raise ConfigurationError(f"{path} line {number} is no JSON object: {error}") from error
        except (OSError, EOFError) as error:
            raise ConfigurationError(f"cannot read {path} after line {number}: {error}") from error


def _hash(path: Path | None) -> str:
    assert path is not None  # only asked for the file that is being read
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]

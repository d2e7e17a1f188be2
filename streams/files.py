"""Files of records: JSON lines, CSV and feeds in XML, compressed or not.

What a file holds is seen from its content, not from its name. A defect raises `ColdstreamError` naming file and
record, before anything behind it is read.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import xml.etree.ElementTree as ET
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, Final, TypeVar, cast

import msgspec

from streams.errors import ColdstreamError, ConfigurationError
from streams.values import Topic
from streams.wire import TOPIC_TYPES

Row = dict[str, Any]
T = TypeVar("T")

KEYS: Final = {Topic.ITEMS: "item_id", Topic.USERS: "user_id", Topic.EVENTS: "user_id"}
"""The topics that can be published to, and which field of the value is the record's key."""
BOM: Final = b"\xef\xbb\xbf"
GZIP: Final = b"\x1f\x8b"
LISTS: Final = frozenset({"categories", "interests", "blocked_items", "blocked_categories"})
IDS: Final = frozenset({"item_id", "user_id", "event_id"})
NUMBERS: Final = frozenset({"price", "value"})
LARGEST_FIELD: Final = 16_777_216
"""Bytes of a line of JSON, characters of a field of CSV."""
LARGEST_ARRAY: Final = 1 << 30


def read_rows(path: str, stdin: IO[bytes]) -> Iterator[Row]:
    """The records of a file (`-`: of stdin) as they are written there, without null and empty fields."""
    with ExitStack() as stack:
        try:
            raw = stdin if path == "-" else stack.enter_context(Path(path).open("rb"))
            buffered = io.BufferedReader(cast("io.RawIOBase", raw)) if not hasattr(raw, "peek") else raw
            if cast("io.BufferedReader", buffered).peek(2)[:2] == GZIP:
                buffered = io.BufferedReader(cast("io.RawIOBase", gzip.GzipFile(fileobj=buffered)))
            rows = _choose_reader(cast("io.BufferedReader", buffered))
            if isinstance(rows, Generator):
                stack.callback(rows.close)  # before the file is: whoever reads no further leaves the rows in the middle
            for number, row in enumerate(_guard(rows, path), start=1):
                if not isinstance(row, dict):
                    raise ColdstreamError(f"{path} record {number} is no object")
                yield {name: value for name, value in row.items() if value is not None and value != "" and name}
        except (OSError, EOFError) as error:
            raise ConfigurationError(f"cannot read {path}: {error}") from error


def _guard(rows: Iterable[T], path: str) -> Iterator[T]:
    number, iterator = 0, iter(rows)
    while True:
        number += 1
        try:
            row = next(iterator)
        except StopIteration:
            return
        except (msgspec.DecodeError, UnicodeDecodeError, csv.Error, ET.ParseError, RecursionError) as error:
            raise ColdstreamError(f"{path} record {number} can't be read: {error}") from error
        yield row


def _choose_reader(file: io.BufferedReader) -> Iterable[Row]:
    if file.peek(3)[:3] == BOM:
        file.read(3)
    head = file.peek(4096).lstrip()
    if head.startswith(b"{"):
        return (msgspec.json.decode(line) for line in _lines(file) if line.strip())
    if head.startswith(b"["):
        return _read_array(file)
    if head.startswith(b"<"):
        return _read_xml(file)
    return _read_csv(file, head.splitlines()[0].decode(errors="replace")) if head else ()


def _lines(file: io.BufferedReader) -> Iterator[bytes]:
    """Lines, none without end: what is compressed may be a thousand times its size."""
    while line := file.readline(LARGEST_FIELD + 1):
        if len(line) > LARGEST_FIELD:
            raise msgspec.DecodeError(f"a line of more than {LARGEST_FIELD >> 20} MiB")
        yield line


def _read_array(file: io.BufferedReader) -> Iterator[Row]:
    whole = file.read(LARGEST_ARRAY + 1)
    if len(whole) > LARGEST_ARRAY:
        raise msgspec.DecodeError(f"a JSON array of more than {LARGEST_ARRAY >> 20} MiB: write one record a line")
    yield from msgspec.json.decode(whole, type=list[Any])


def _read_csv(file: io.BufferedReader, first: str) -> Iterator[Row]:
    delimiter = max((",", ";", "\t"), key=first.count)
    csv.field_size_limit(LARGEST_FIELD)
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    try:
        reader = csv.DictReader(text, delimiter=delimiter, strict=True)
        yield from reader
        if reader.line_num <= 1 and len(reader.fieldnames or ()) == 1:
            raise csv.Error("it is neither JSON lines nor CSV with a header and rows")
    finally:
        text.detach()  # the file is its opener's to close


def _read_xml(file: IO[bytes]) -> Iterator[Row]:
    """The entries of an RSS or Atom feed: tags without their namespace; a tag that comes again makes a list."""
    for _, element in ET.iterparse(file, events=("end",)):  # noqa: S314  (expat from 2.4.1 on bounds what entities become)
        if _tag(element) not in ("item", "entry"):
            continue
        row: Row = {}
        for child in element:
            text = (child.text or "").strip()
            known = row.get(_tag(child))
            row[_tag(child)] = text if known is None else [*(known if isinstance(known, list) else [known]), text]
        yield row
        element.clear()


def _tag(element: ET.Element) -> str:
    return element.tag.rpartition("}")[2]


def map_fields(rows: Iterable[Row], mapping: Mapping[str, str]) -> Iterator[Row]:
    """Rows with fields taken from other columns; `a.b` names what is nested. The other columns stay."""
    for row in rows:
        taken = {field: _pick(row, column) for field, column in mapping.items()}
        kept = {name: value for name, value in row.items() if name not in mapping.values()}
        for field, value in taken.items():
            if value is not None:
                _place(kept, field, value)
        yield kept


def _pick(row: Row, column: str) -> Any:
    value: Any = row
    if column in row:
        return row[column]
    for part in column.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _place(row: Row, field: str, value: Any) -> None:
    *parents, last = field.split(".")
    for parent in parents:
        below = row.setdefault(parent, {})
        row = below if isinstance(below, dict) else {}
    row[last] = value


def shape(row: Row, topic: Topic) -> Row:
    """A row of text cells as a value of the topic: numbers, booleans, lists (JSON, or parted by `|`), `a.b` nested.

    Cells that are not text are left as they are; columns that are no field of the topic are left out.
    """
    fields = {field.name for field in msgspec.structs.fields(TOPIC_TYPES[topic])}
    value: Row = {}
    for name, cell in row.items():
        if name in IDS and isinstance(cell, int):
            value[name] = str(cell)
        elif name.partition(".")[0] in fields:
            _place(value, name, _to_value(name, cell) if isinstance(cell, str) else cell)
    return value


def _to_value(name: str, cell: str) -> Any:
    cell = cell.strip()
    if name in LISTS or cell[:1] in ("{", "["):
        try:
            return msgspec.json.decode(cell)
        except msgspec.DecodeError:
            return [part.strip() for part in cell.split("|") if part.strip()] if name in LISTS else cell
    if name == "available":
        return cell.lower() not in ("false", "no", "0", "n")
    if name in NUMBERS or (name in ("timestamp", "published_at", "expires_at") and cell.replace(".", "", 1).isdigit()):
        try:
            return float(cell)
        except ValueError:
            return cell  # the worker says what is wrong with it
    return cell


def hash_file(path: str) -> str:
    """16 hex digits of the file's content: with a record's number an event_id that is the same whenever it is sent."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def hash_row(row: Row) -> str:
    """16 hex digits of a row's content, for what comes from a pipe."""
    return hashlib.sha256(msgspec.json.encode(row)).hexdigest()[:16]

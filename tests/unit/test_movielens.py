from __future__ import annotations

import io
import json
import zipfile

import pytest

from streams import movielens
from streams.errors import ColdstreamError, ConfigurationError

RATINGS = "2\t1\t4\t200\n1\t1\t5\t100\n1\t3\t3\t100\n"
FLAGS = "|".join("1" if genre in {"Animation", "Comedy"} else "0" for genre in movielens.GENRES)
NAMELESS = "|".join("1" if genre == "unknown" else "0" for genre in movielens.GENRES)
PUBLISHED = {
    "ml-100k/u.item": (
        f"1|Toy Story (1995)|01-Jan-1995||http://x|{FLAGS}\n"
        f"2|unknown||||{NAMELESS}\n"
        f"3|Misérables: Time, The (1995) (V)|01-Jan-1995||http://x|{FLAGS}\n"
    ).encode("iso-8859-1"),
    "ml-100k/u.user": b"1|24|M|technician|85711\n2|53|F|other|94043\n",
    "ml-100k/u.data": RATINGS.encode(),
}
STEM = "recbole/dataset_example/ml-100k/ml-100k"
COPIED = {
    f"{STEM}.item": (
        "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
        "1\tToy Story\t1995\tAnimation Comedy\n2\tunkonwn\tunkonwn\tunknown\n"
        "3\tMisérables: Time, The (1995)\tV\tAnimation Comedy\n"
    ).encode(),
    f"{STEM}.user": b"user_id:token\tage\tgender\tjob\tzip\n1\t24\tM\ttechnician\t85711\n2\t53\tF\tother\t94043\n",
    f"{STEM}.inter": f"user_id:token\titem_id:token\trating:float\ttimestamp:float\n{RATINGS}".encode(),
}


def make_zip(files) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(movielens, "COUNTS", {"items": 3, "events": 3, "users": 2})
    monkeypatch.setattr(movielens, "_ask_publisher", lambda: make_zip(PUBLISHED))


def read(folder, name):
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]


def test_both_sources_make_the_same_files(small, monkeypatch, tmp_path):
    assert movielens.write(tmp_path / "a", print)["source"] == "publisher"
    monkeypatch.setattr(movielens, "_ask_publisher", lambda: None)
    wheel = tmp_path / "recbole.whl"
    wheel.write_bytes(make_zip(COPIED))
    monkeypatch.setattr(movielens, "_download_wheel", lambda folder: wheel)
    assert movielens.write(tmp_path / "b", print)["source"] == "pypi"
    for name in ("items", "events", "users"):
        assert read(tmp_path / "a", name) == read(tmp_path / "b", name)


def test_lines_are_values_of_the_topics_in_time_order(small, tmp_path):
    movielens.write(tmp_path, print)
    items = read(tmp_path, "items")
    assert items[0] == {
        "item_id": "1",
        "title": "Toy Story (1995)",
        "categories": ["Animation", "Comedy"],
        "attributes": {"year": 1995},
    }
    assert items[1] == {"item_id": "2", "title": "unknown", "categories": []}
    assert items[2]["title"] == "Misérables: Time, The (1995)"
    assert [(event["user_id"], event["item_id"], event["timestamp"]) for event in read(tmp_path, "events")] == [
        ("1", "1", 100), ("1", "3", 100), ("2", "1", 200)
    ]  # fmt: skip
    assert read(tmp_path, "users")[0]["attributes"] == {"age": 24, "gender": "M", "occupation": "technician"}


def test_a_second_time_nothing_is_fetched(small, monkeypatch, tmp_path):
    movielens.write(tmp_path, print)
    monkeypatch.setattr(movielens, "_ask_publisher", lambda: pytest.fail("asked again"))
    assert movielens.write(tmp_path, print)["source"] == "present"


def test_a_half_written_folder_is_mended_and_a_foreign_one_left_alone(small, tmp_path):
    movielens.write(tmp_path / "a", print)
    (tmp_path / "a" / "events.jsonl").unlink()
    (tmp_path / "a" / "events.partial").write_text("{")
    assert movielens.write(tmp_path / "a", print)["source"] == "publisher"
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ConfigurationError, match="holds other files"):
        movielens.write(tmp_path, print)


def test_a_copy_that_is_not_whole_or_no_zip_is_refused(small, monkeypatch, tmp_path):
    monkeypatch.setattr(movielens, "COUNTS", {"items": 4, "events": 3, "users": 2})
    with pytest.raises(ColdstreamError, match="not whole"):
        movielens.write(tmp_path / "a", print)
    monkeypatch.setattr(movielens, "_ask_publisher", lambda: b"<html>log in to the proxy</html>")
    with pytest.raises(ColdstreamError, match="no zip file"):
        movielens.write(tmp_path / "b", print)

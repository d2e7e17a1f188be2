"""The demonstration as a stranger runs it: real broker, real worker, a small data set."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

GENRES = ("space opera", "romance", "cooking", "chess", "sailing")
EVENTS = 200


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """60 items in five genres and 12 users who each like one genre; one line is no valid event."""
    folder = tmp_path_factory.mktemp("dataset")
    chance = random.Random(7)
    items = [
        {"item_id": f"i{number}", "title": f"{GENRES[number % 5]} number {number}", "categories": [GENRES[number % 5]]}
        for number in range(60)
    ]
    events = []
    for number in range(EVENTS):
        user = number % 12
        # Later events reach later items, so that some have their first event in the second half.
        reach = 20 + 40 * number // EVENTS
        liked = [place for place in range(reach) if place % 5 == user % 5]
        events.append(
            {
                "user_id": f"u{user}",
                "item_id": f"i{chance.choice(liked[-6:])}",
                "type": "like",
                "timestamp": 1e9 + 60 * number,
            }
        )
    events[100]["type"] = "stare"
    for name, lines in (("items", items), ("events", events)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def start(dataset: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "streams.commands.main", "demo", str(dataset), "--rate", "40", *options],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def folder_of(program: subprocess.Popen[str]) -> Path:
    """The folder in which the helpers of this demonstration, and of no other, work."""
    deadline = time.monotonic() + 30
    while True:
        for entry in Path("/proc").iterdir():
            try:
                parent = (
                    int((entry / "stat").read_text().rpartition(")")[2].split()[1]) if entry.name.isdecimal() else 0
                )
                place = (entry / "cwd").readlink() if parent == program.pid else Path()
            except OSError:  # it has ended
                continue
            if place.name.startswith("demo-"):
                return place
        assert time.monotonic() < deadline
        time.sleep(0.1)


def helpers_of(folder: Path) -> list[int]:
    """Processes that work in a folder."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdecimal() and str(folder) in str((entry / "cwd").readlink()):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def test_the_demonstration_loses_nothing_and_leaves_nothing(dataset, tmp_path):
    picture = tmp_path / "demo.svg"
    program = start(dataset, "--picture", str(picture))
    folder = folder_of(program)
    out, err = program.communicate(timeout=120)
    assert program.returncode == 0, err
    summary = json.loads(out.splitlines()[-1])
    assert out.count("\n") == 1
    assert summary["items"] == 60
    assert summary["events"] == EVENTS
    assert summary["lost"] == 0
    assert summary["dead_letters"] == 1
    assert summary["recommendations"] > 0
    assert summary["event_to_recommendation_ms"]["p50"] <= summary["event_to_recommendation_ms"]["p99"]
    assert summary["hit_rate@10"] is not None
    assert "reached user" in err
    assert picture.read_text().startswith("<svg")
    assert not folder.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_cut_short_it_leaves_no_process_and_no_file(dataset, number):
    program = start(dataset)
    folder = folder_of(program)
    time.sleep(3.0)  # broker and worker are starting
    assert helpers_of(folder)
    program.send_signal(number)
    out, err = program.communicate(timeout=30)
    assert program.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143}.get(number, -number)
    assert out == ""
    assert "Traceback" not in err
    deadline = time.monotonic() + 15
    while (helpers_of(folder) or folder.exists()) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert helpers_of(folder) == []
    assert not folder.exists()

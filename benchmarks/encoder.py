"""The student beside its teacher: speed, size, agreement, and what the difference does to recommendations of cold items.

    python -m benchmarks.encoder --json                 one line
    python -m benchmarks.encoder --provider cuda        the student on CUDA (the teacher stays where torch puts it)

Speed: the teacher runs in PyTorch by sentence-transformers, the student by `encoder.open_bundle`, in this process, on the
same cores, in rounds: eight single texts by either, then 64 at once by either; a figure is the ratio of medians. Agreement:
on sources that the manifest's recipe names as held out. Cold: `new_item` of EVALUATION with 20 % of the items hidden; NDCG@10
of centred text, student ÷ teacher.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from encoder import item_text, open_bundle, read_bundle
from evaluation.baselines import Histories, Text, centred
from evaluation.measures import ndcg, top
from evaluation.protocol import Options, Past, Stream, choose, is_kept, read
from export.proof import agreement, mean_agreement
from export.teacher import load_teacher
from streams.movielens import write

DATA = Path(__file__).parents[2] / "shared" / "data"
_HELD_OUT = ("travel-questions", "x-wines-slim", "movielens-100k")
_MOST_TEXTS = 1000
_BATCH = 64
_SINGLE = 8
Vectors = NDArray[np.float32]
Encode = Callable[[Sequence[str]], Vectors]


def main() -> int:
    """Measure and print; 0 when done."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.encoder", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    parser.add_argument("--bundle", type=Path, help="a bundle's folder; else the shipped one")
    parser.add_argument("--provider", choices=("auto", "cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=2, help="cores for either")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of data sets")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--max-steps", type=int, default=4000, help="tested steps a data set")
    parser.add_argument("--no-cold", action="store_true", help="leave out the replays")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        found = measure(asked, data_sets(asked.data, Path(scratch)))
    if asked.json:
        print(json.dumps(found))
    else:
        for name, value in found.items():
            print(f"{name}: {value}")
    return 0


def measure(asked: argparse.Namespace, folders: dict[str, Path]) -> dict[str, Any]:
    """All figures, by the names of issue "Encoder"."""
    torch.set_num_threads(asked.threads)
    bundle = read_bundle(asked.bundle)
    student = open_bundle(asked.bundle, provider=asked.provider, threads=asked.threads)
    teacher = load_teacher(bundle.manifest.teacher)
    streams = {
        name: read(folder, Options(simulate_cold=0.2, max_steps=asked.max_steps)) for name, folder in folders.items()
    }
    texts = {name: _texts(stream, student.template) for name, stream in streams.items()}
    held_out = {name: _sample(texts[name]) for name in _HELD_OUT if name in texts}
    found: dict[str, Any] = {
        "bundle": student.name,
        "provider": student.provider,
        "threads": asked.threads,
        "bundle_bytes": sum(size for _, size in bundle.manifest.files.values()),
    }
    speed = _sample([text for sample in held_out.values() for text in sample], 3 * _MOST_TEXTS)
    student_fresh = open_bundle(asked.bundle, provider=asked.provider, threads=asked.threads)
    found |= _speed(student_fresh.encode, teacher.encode, speed, asked.rounds)
    agreements = {name: agreement(student.encode(sample), teacher.encode(sample)) for name, sample in held_out.items()}
    if agreements:
        found["held_out"] = mean_agreement(agreements).figures() | {
            "by_source": {name: one.figures() for name, one in agreements.items()}
        }
    if not asked.no_cold:
        options = Options(simulate_cold=0.2, max_steps=asked.max_steps)
        found["cold_ndcg_ratio_to_teacher"] = {
            name: _against_teacher(
                stream, options, embed(student.encode, texts[name]), embed(teacher.encode, texts[name])
            )
            for name, stream in streams.items()
        }
    return found


def _speed(student: Encode, teacher: Encode, texts: Sequence[str], rounds: int) -> dict[str, float]:
    """Interleaved rounds: eight texts one by one, then 64 at once; every text only once, so that nothing is remembered."""
    size = _SINGLE + _BATCH
    rounds = min(rounds, len(texts) // size)
    times: dict[str, list[float]] = {"s1": [], "t1": [], "s64": [], "t64": []}
    teacher(texts[:_BATCH])
    for number in range(rounds):
        block = texts[number * size : (number + 1) * size]
        single, many = [[text] for text in block[:_SINGLE]], [block[_SINGLE:]]
        for key, encode, calls in (
            ("s1", student, single),
            ("t1", teacher, single),
            ("s64", student, many),
            ("t64", teacher, many),
        ):
            for some in calls:
                began = time.perf_counter()
                encode(some)
                times[key].append(time.perf_counter() - began)
    middle = {key: statistics.median(values) for key, values in times.items()}
    return {
        "rounds": rounds,
        "b1_speedup_vs_teacher_pytorch": round(middle["t1"] / middle["s1"], 2),
        "b64_speedup_vs_teacher_pytorch": round(middle["t64"] / middle["s64"], 2),
        "b1_ms": round(1000 * middle["s1"], 3),
        "texts_per_second_b64": round(_BATCH / middle["s64"], 1),
        "teacher_b1_ms": round(1000 * middle["t1"], 3),
        "teacher_texts_per_second_b64": round(_BATCH / middle["t64"], 1),
    }


def cold(stream: Stream, options: Options, vectors: Mapping[str, Vectors]) -> tuple[int, dict[str, float]]:
    """Steps of the slice `new_item`, and NDCG@10 of centred text there by each of these vectors of the items."""
    histories = Histories()
    methods = {name: Text(centred(each), histories) for name, each in vectors.items()}
    gains: dict[str, list[float]] = {name: [] for name in methods}
    past, steps_in_all = Past(), choose(stream, options)
    last = max((place for place, group in enumerate(stream.groups) if group.tested), default=-1)
    for group in stream.groups[: last + 1]:
        for step in past.steps(group, stream, options):
            targets = [item for item in step.targets if stream.late[item]]
            if not (group.tested and step.known and targets and is_kept(step, steps_in_all, options)):
                continue
            allowed = (stream.opens <= step.at) & stream.late
            allowed[list(past.met.get(step.user_id, ()))] = False
            for name, method in methods.items():
                gains[name].append(ndcg(top(method.score(step), allowed), targets))
        for event in group.events:
            if event.positive and not event.hidden and event.item >= 0:
                histories.note(event.user_id, event.item)
        past.note(group)
    steps = len(next(iter(gains.values())))
    return steps, {name: float(np.mean(values)) if values else 0.0 for name, values in gains.items()}


def _against_teacher(stream: Stream, options: Options, student: Vectors, teacher: Vectors) -> dict[str, float]:
    steps, means = cold(stream, options, {"student": student, "teacher": teacher})
    return {
        "n": steps,
        "student": round(means["student"], 4),
        "teacher": round(means["teacher"], 4),
        "ratio": round(means["student"] / means["teacher"], 4) if means["teacher"] else 0.0,
    }


def embed(encode: Encode, texts: Sequence[str]) -> Vectors:
    """Vectors of texts, equal ones once, like lengths together."""
    distinct = sorted(set(texts), key=lambda text: (len(text), text))
    blocks = [encode(distinct[start : start + 512]) for start in range(0, len(distinct), 512)]
    place = {text: number for number, text in enumerate(distinct)}
    return np.concatenate(blocks)[[place[text] for text in texts]]


def _texts(stream: Stream, template: int) -> list[str]:
    return [
        item_text(
            title=one.title, description=one.description, categories=one.categories, attributes=one.attributes,
            price=one.price, template=template,
        )
        for one in stream.items
    ]  # fmt: skip


def _sample(texts: Sequence[str], most: int = _MOST_TEXTS) -> list[str]:
    distinct = sorted(set(texts))
    random.Random(3).shuffle(distinct)
    return distinct[:most]


def data_sets(folder: Path, scratch: Path) -> dict[str, Path]:
    """The data sets in `folder` by name, and MovieLens 100K, which is written to `scratch` where it isn't among them."""
    found = {path.name: path for path in sorted(folder.glob("*")) if list(path.glob("items.jsonl*"))}
    if "movielens-100k" not in found:
        try:
            write(scratch / "movielens-100k", lambda line: print(line, file=sys.stderr))
            found["movielens-100k"] = scratch / "movielens-100k"
        except Exception as error:  # noqa: BLE001 - without a network the other data sets are still measured
            print(f"without movielens-100k: {error}", file=sys.stderr)
    return found


if __name__ == "__main__":
    sys.exit(main())

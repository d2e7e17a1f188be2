"""Which student to ship: layers and width against speed, size and agreement, each shape made from the teacher without training.

python -m benchmarks.encoder_pareto --json                            one line
python -m benchmarks.encoder_pareto --plot docs/encoder-pareto.svg    and the plot
python -m benchmarks.encoder_pareto --trained DIR --trained DIR       and other bundles, that were trained

Every shape is copied and thinned from the teacher, calibrated on catalogues that are not held out, and written as a bundle by
the exporter that ships; beside them stands the bundle that ships, which was trained. Speed: rounds of eight single texts (and 64
at once) by the teacher in PyTorch and by each bundle in turn; a figure is the ratio of medians. Agreement: as
`benchmarks.encoder`. `dimensions`: the shipped student's shorter vectors.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.encoder import _HELD_OUT, DATA, _sample, _texts, data_sets
from encoder import LATEST_TEMPLATE, open_bundle, read_bundle
from evaluation.protocol import Options, read
from export.bundle import write_bundle
from export.proof import agreement, mean_agreement
from export.student import Shape, make_student
from export.teacher import Teacher, load_teacher, tokenizer_of

SHAPES = (
    Shape((0, 5), 1024),
    Shape((0, 4, 5), 1024),
    Shape((0, 2, 4, 5), 1024),
    Shape((0, 2, 4, 5), 1536),
    Shape((0, 1, 3, 4, 5), 1024),
    Shape((0, 1, 2, 3, 4, 5), 512),
    Shape((0, 1, 2, 3, 4, 5), 768),
    Shape((0, 1, 2, 3, 4, 5), 1024),
    Shape((0, 1, 2, 3, 4, 5), 1536),
)
_SINGLE, _BATCH = 8, 64
_WIDTH, _HEIGHT, _MARGIN = 420, 300, 46
_COLOUR, _OTHERS = ' fill="#c2410c"', ' fill="#1d4ed8"'


def main() -> int:
    """Measure, print, plot; 0 when done."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.encoder_pareto", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    parser.add_argument("--plot", type=Path, help="where to write the plot (SVG)")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of data sets")
    parser.add_argument("--trained", type=Path, action="append", default=[], help="another bundle; may be repeated")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--again", type=Path, help="plot this JSON of an earlier run, measure nothing")
    asked = parser.parse_args()
    if asked.again:
        found = json.loads(asked.again.read_text(encoding="utf-8"))
    else:
        with tempfile.TemporaryDirectory() as scratch:
            found = measure(asked.data, Path(scratch), asked.rounds, asked.trained)
    if asked.plot:
        asked.plot.write_text(plot(found["students"]), encoding="utf-8")
    if asked.json:
        print(json.dumps(found))
    else:
        for one in (*found["students"], *found["dimensions"]):
            print(one)
    return 0


def measure(data: Path, scratch: Path, rounds: int, trained: Sequence[Path]) -> dict[str, Any]:
    """A line for each student, and for each shorter dimension of the shipped one."""
    torch.set_num_threads(1)
    shipped = read_bundle()
    teacher = load_teacher(shipped.manifest.teacher, "cpu")
    everything = {
        name: _texts(read(folder, Options()), LATEST_TEMPLATE) for name, folder in data_sets(data, scratch).items()
    }
    texts = {name: _sample(everything[name]) for name in _HELD_OUT if name in everything}
    calibration = _sample([text for name in everything if name not in texts for text in everything[name]], 512)
    wanted = {name: teacher.encode(some) for name, some in texts.items()}

    def agreed(encoder: Any) -> dict[str, float]:
        return mean_agreement(
            {name: agreement(encoder.encode(some), wanted[name]) for name, some in texts.items()}
        ).figures()

    folders: list[tuple[dict[str, Any], Path | None]] = [
        (_named(shape) | {"trained_on_samples": 0}, _made(teacher, shape, calibration, scratch / str(number)))
        for number, shape in enumerate(SHAPES)
    ]
    folders += [(_trained(folder), folder) for folder in trained]
    folders.append((_trained(None) | {"shipped": True}, None))
    encoders = [open_bundle(folder, provider="cpu") for _, folder in folders]
    speeds = _speeds([teacher, *encoders], _sample([text for some in texts.values() for text in some], 3000), rounds)
    students = []
    for (line, folder), encoder, (one, many) in zip(folders, encoders, speeds[1:], strict=True):
        figures = agreed(encoder)
        del figures["texts"]
        size = sum(size for _, size in read_bundle(folder).manifest.files.values())
        students.append(
            line
            | {"megabytes": round(size / 1e6, 1), "b1_speedup": round(speeds[0][0] / one, 2)}
            | {"b64_speedup": round(speeds[0][1] / many, 2), "b1_ms": round(1000 * one, 3)}
            | figures
        )
    shorter = [{"dimension": size} | agreed(open_bundle(provider="cpu", dimension=size)) for size in (192, 128, 64)]
    whole = {"dimension": shipped.manifest.dimension} | agreed(open_bundle(provider="cpu"))
    for line in (whole, *shorter):
        del line["cosine"]  # there is none between vectors of unlike length
    return {"teacher_b1_ms": round(1000 * speeds[0][0], 2), "students": students, "dimensions": [whole, *shorter]}


def _named(shape: Shape) -> dict[str, Any]:
    return {"layers": list(shape.layers), "feed_forward": shape.feed_forward}


def _trained(folder: Path | None) -> dict[str, Any]:
    recipe = read_bundle(folder).manifest.recipe
    samples = recipe["samples"] if "samples" in recipe else recipe["steps"] * recipe["batch"]
    return _named(Shape(tuple(recipe["layers"]), recipe["feed_forward"])) | {"trained_on_samples": samples}


def _made(teacher: Teacher, shape: Shape, calibration: list[str], folder: Path) -> Path:
    print(f"making {shape}", file=sys.stderr)
    student = make_student(teacher, shape, calibration)
    return write_bundle(
        folder, student, tokenizer_of(teacher), name="pareto", teacher=teacher.name,
        rotation=np.eye(teacher.dimension, dtype=np.float32), recipe=_named(shape), figures={},
    )  # fmt: skip


def _speeds(encoders: list[Any], texts: list[str], rounds: int) -> list[tuple[float, float]]:
    """Medians of seconds for one text and for 64, each text once, every encoder on the same ones in turn."""
    times: list[tuple[list[float], list[float]]] = [([], []) for _ in encoders]
    step = _SINGLE + _BATCH
    for number in range(min(rounds, len(texts) // step)):
        block = texts[number * step : (number + 1) * step]
        for encoder, (single, many) in zip(encoders, times, strict=True):
            for kept, calls in ((single, [[text] for text in block[:_SINGLE]]), (many, [block[_SINGLE:]])):
                for some in calls:
                    began = time.perf_counter()
                    encoder.encode(some)
                    kept.append(time.perf_counter() - began)
    return [(statistics.median(single), statistics.median(many)) for single, many in times]


def plot(students: list[dict[str, Any]]) -> str:
    """SVG: speed with one text against cosine and against recall@10, the trained students and the shipped one marked."""
    students = sorted(students, key=lambda each: each["b1_speedup"])
    panels = "".join(
        f'<g transform="translate({number * _WIDTH} 24)">{_panel(students, measure)}</g>'
        for number, measure in enumerate(("cosine", "recall@10"))
    )
    legend = "".join(
        f'<text x="{2 * _WIDTH + 12}" y="{64 + 19 * place}"{_COLOUR if one.get("shipped") else ""}>{chr(97 + place)}   '
        f"{len(one['layers'])} layers × {one['feed_forward']}, {one['megabytes']:.1f} MB"
        f"{', shipped' if one.get('shipped') else ', trained' if one['trained_on_samples'] else ''}</text>"
        for place, one in enumerate(students)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{2 * _WIDTH + 230}" height="{_HEIGHT + 50}" font-size="11" '
        f'font-family="sans-serif" fill="#333"><rect width="100%" height="100%" fill="#fff"/>{panels}{legend}'
        f'<text x="{_MARGIN}" y="{_HEIGHT + 42}">● copied and thinned, not trained; '
        f"◆ trained; <tspan{_COLOUR}>◆ shipped</tspan>; "
        "dashed: the project's bars</text></svg>\n"
    )


def _panel(students: list[dict[str, Any]], measure: str) -> str:
    bar = {"cosine": 0.965, "recall@10": 0.76}[measure]
    fast = [12.0, *(one["b1_speedup"] for one in students)]
    good = [bar, *(one[measure] for one in students)]
    left, right = min(fast) - 2, max(fast) + 3
    low, high = min(good) - 0.05, 1.0

    def at(speed: float, value: float) -> tuple[float, float]:
        x = _MARGIN + (speed - left) / (right - left) * (_WIDTH - _MARGIN - 14)
        return round(x, 1), round(_HEIGHT - 40 - (value - low) / (high - low) * (_HEIGHT - 56), 1)

    x0, y0 = at(left, low)
    x1, y1 = at(right, high)
    parts = [f'<path d="M{x0} {y1}V{y0}H{x1}" fill="none" stroke="#999"/>']
    parts.append(
        f'<path d="M{at(12, low)[0]} {y0}V{y1}M{x0} {at(left, bar)[1]}H{x1}" stroke="#999" stroke-dasharray="4 4"/>'
    )
    parts += [
        f'<text x="{at(speed, low)[0]}" y="{y0 + 15}" text-anchor="middle">{speed} ×</text>'
        for speed in range(int(left) + 1, int(right) + 1, max(1, round((right - left) / 7)))
    ]
    for share in range(5):
        value = low + share * (high - low) / 4
        parts.append(f'<text x="{x0 - 5}" y="{at(left, value)[1] + 4}" text-anchor="end">{value:.2f}</text>')
    for place, one in enumerate(students):
        x, y = at(one["b1_speedup"], one[measure])
        shipped = one.get("shipped", False)
        diamond = shipped or one["trained_on_samples"]
        mark = f'<path d="M{x - 6} {y}l6 -6l6 6l-6 6z"/>' if diamond else f'<circle cx="{x}" cy="{y}" r="3.5"/>'
        parts.append(
            f'<g{_COLOUR if shipped else _OTHERS}>{mark}<text x="{x + 2}" y="{y - 7}">{chr(97 + place)}</text></g>'
        )
    middle = (_WIDTH + _MARGIN) / 2
    parts.append(
        f'<text x="{middle}" y="{_HEIGHT - 6}" text-anchor="middle">one text: times the teacher in PyTorch</text>'
    )
    parts.append(f'<text x="{middle}" y="0" text-anchor="middle" font-weight="bold">{measure} with the teacher</text>')
    return "".join(parts)


if __name__ == "__main__":
    sys.exit(main())

"""Which wording of an item: what a shared data set loses or gains by titles, categories, attributes, prices, descriptions.

python -m benchmarks.encoder_texts --json      one line

The shipped student embeds every item in each wording; NDCG@10 of centred text on the slice `new_item` of EVALUATION with 20 % of
the items hidden. `template` is what ships (`encoder.item_text`).
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from bisect import bisect_left
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.encoder import DATA, cold, data_sets, embed
from encoder import LATEST_TEMPLATE, item_text, open_bundle
from evaluation.protocol import Options, read
from streams.values import ItemRecord

_CHEAP, _DEAR = 1 / 3, 2 / 3


def main() -> int:
    """Measure and print; 0 when done."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.encoder_texts", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of data sets")
    parser.add_argument("--max-steps", type=int, default=4000, help="tested steps a data set")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        found = measure(data_sets(asked.data, Path(scratch)), asked.max_steps)
    if asked.json:
        print(json.dumps(found))
    else:
        for name, values in found.items():
            print(f"{name}: {values}")
    return 0


def measure(folders: dict[str, Path], max_steps: int) -> dict[str, dict[str, Any]]:
    """{data set: {n, and NDCG@10 by wording}}."""
    student = open_bundle(provider="cpu", threads=2)
    options = Options(simulate_cold=0.2, max_steps=max_steps)
    found: dict[str, dict[str, Any]] = {}
    for name, folder in folders.items():
        print(f"reading {name}", file=sys.stderr)
        stream = read(folder, options)
        wordings = {wording: [say(one) for one in stream.items] for wording, say in _wordings(stream.items).items()}
        vectors = {wording: embed(student.encode, texts) for wording, texts in wordings.items()}
        steps, means = cold(stream, options, vectors)
        found[name] = {"n": steps} | {wording: round(mean, 5) for wording, mean in means.items()}
    return found


def _wordings(items: list[ItemRecord]) -> dict[str, Callable[[ItemRecord], str]]:
    prices = sorted(one.price for one in items if one.price is not None)

    def said(one: ItemRecord, *parts: str) -> str:
        """The template with these parts alone."""
        return item_text(
            title=one.title,
            description=one.description if "description" in parts else None,
            categories=one.categories if "categories" in parts else (),
            attributes=one.attributes if "attributes" in parts else {},
            template=LATEST_TEMPLATE,
        )

    def price(one: ItemRecord) -> str:
        if one.price is None or not math.isfinite(one.price):
            return ""
        place = bisect_left(prices, one.price) / len(prices)
        return ", cheap" if place < _CHEAP else ", expensive" if place > _DEAR else ", medium price"

    every = ("categories", "attributes", "description")
    return {
        "template": lambda one: said(one, *every),
        "title": said,
        "title, categories": lambda one: said(one, "categories"),
        "without attributes": lambda one: said(one, "categories", "description"),
        "without description": lambda one: said(one, "categories", "attributes"),
        "with price words": lambda one: said(one, *every) + price(one),
        "joined by dots": lambda one: ". ".join(
            [one.title, *one.categories, *(str(value) for value in one.attributes.values()), one.description]
        ),
    }


if __name__ == "__main__":
    sys.exit(main())

"""Split a data set into two domains of the same users: `python -m evaluation.domains DIR OUT`.

First categories go in turn, by how many events they have, to OUT/elsewhere and OUT/here. Of the events, `elsewhere` gets the
first half of the stream and `here` the second, so that nothing is known of anybody before its time. Then
`coldstream evaluate OUT/here --profiles OUT/elsewhere --cut 0` shows what taste from there is worth here (slice cross_domain).
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import msgspec

from streams.dataset import EVENTS, ITEMS, Dataset, Line
from streams.errors import ConfigurationError


def split(source: Path, out: Path) -> dict[str, dict[str, int]]:
    """Write both domains; {domain: {items, events}}. Raises `ConfigurationError` where there are less than two categories."""
    dataset = Dataset(source)
    items, events = list(dataset.items()), list(dataset.events())
    category = {str(item["item_id"]): str((item.get("categories") or [""])[0]) for item in items}
    met = Counter(category.get(str(event.get("item_id")), "") for event in events)
    ordered = sorted(set(category.values()), key=lambda name: (-met[name], name))
    if len(ordered) < 2:
        raise ConfigurationError(f"{source} has one category; two domains need two")
    half = len(events) // 2
    written = {}
    for place, (name, part) in enumerate((("elsewhere", events[:half]), ("here", events[half:]))):
        own = set(ordered[place::2])
        kept = [item for item in items if category[str(item["item_id"])] in own]
        ids = {str(item["item_id"]) for item in kept}
        told = [event for event in part if str(event.get("item_id")) in ids]
        _write(out / name, {ITEMS: kept, EVENTS: told})
        written[name] = {"items": len(kept), "events": len(told)}
    return written


def _write(folder: Path, files: dict[str, list[Line]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, lines in files.items():
        (folder / f"{name}.jsonl").write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("python -m evaluation.domains DIR OUT")
    try:
        written = split(Path(sys.argv[1]), Path(sys.argv[2]))
    except ConfigurationError as error:
        sys.exit(str(error))
    sys.stdout.write(msgspec.json.encode(written).decode() + "\n")

"""`coldstream embed`: lines of text to vectors, as the worker would compute them."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import click

from streams.commands.output import write_json
from streams.errors import ColdstreamError

BATCH = 256
EXAMPLES = """\b
Examples:  echo "a quiet film about the sea" | coldstream embed
           cut -f2 titles.tsv | coldstream embed --npy titles.npy
"""


@click.command("embed", epilog=EXAMPLES)
@click.option("--npy", type=click.Path(path_type=Path, dir_okay=False), help="Write a NumPy file (float32) instead.")
def command(*, npy: Path | None) -> None:
    """Turn each line of stdin into its vector of unit norm: JSON lines {text, vector}, or one NumPy array.

    An empty line has a vector too, so that line N of the input is always row N of the output.
    """
    import numpy as np

    from encoder import open_bundle
    from streams.settings import load

    settings = load()
    bundle = open_bundle(
        Path(settings.bundle) if settings.bundle else None, provider=settings.provider, threads=settings.encoder_threads
    )
    lines = _read(sys.stdin.buffer)
    if npy is None:
        for texts in _batches(lines):
            for text, vector in zip(texts, bundle.encode(texts), strict=True):
                write_json({"text": text, "vector": [float(value) for value in vector]})
        return
    blocks = [bundle.encode(texts) for texts in _batches(lines)]
    vectors = np.concatenate(blocks) if blocks else np.zeros((0, bundle.dimension))
    with npy.open("wb") as file:
        np.save(file, np.ascontiguousarray(vectors, np.float32))
    click.echo(f"{len(vectors):,} vectors of {vectors.shape[1]} numbers by {bundle.name}: {npy}", err=True)


def _read(lines: Iterable[bytes]) -> Iterator[str]:
    for number, line in enumerate(lines, start=1):
        try:
            yield line.decode().rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise ColdstreamError(
                f"line {number} of the input is not UTF-8: convert it, for instance with iconv"
            ) from error


def _batches(lines: Iterator[str]) -> Iterator[list[str]]:
    while batch := list(islice(lines, BATCH)):
        yield batch

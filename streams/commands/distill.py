"""`coldstream distill`: an encoder of one's own, from one's own catalogue."""

from __future__ import annotations

from pathlib import Path

import click

from streams.commands.output import progress, write_json

EXAMPLES = """\b
Examples:  coldstream distill --items catalogue.jsonl --out var/my-encoder --minutes 30
           coldstream bundle check var/my-encoder
           COLDSTREAM_BUNDLE=var/my-encoder coldstream worker
"""


@click.command("distill", epilog=EXAMPLES)
@click.option(
    "--items", "files", required=True, multiple=True, metavar="FILE",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="A catalogue: items.jsonl or items.jsonl.gz; may be repeated.",
)  # fmt: skip
@click.option(
    "--out", required=True, metavar="DIR", type=click.Path(path_type=Path, file_okay=False), help="The bundle."
)
@click.option("--teacher", metavar="NAME|DIR", help="The encoder to learn from; else the shipped student's own.")
@click.option("--minutes", type=click.FloatRange(min=0.1), help="Train at most so long.")
@click.option("--from-teacher", is_flag=True, help="Begin with the teacher's layers instead of the shipped student.")
@click.option(
    "--shape", metavar="LAYER,…xNEURONS",
    help="Layers of the teacher to keep and neurons of each, such as 0,2,4,5x1024: faster, and less like the teacher.",
)  # fmt: skip
@click.option("--seed", default=7, show_default=True, type=int)
@click.option("--json", "as_json", is_flag=True, help="One line of JSON: agreement with the teacher before and after.")
def command(
    *, files: tuple[Path, ...], out: Path, teacher: str | None, minutes: float | None, from_teacher: bool,
    shape: str | None, seed: int, as_json: bool,
) -> None:  # fmt: skip
    """Make a student that knows the words of one's own catalogue, prove it, and write it as a bundle to DIR.

    Needs the extra `train` (torch). It begins with the shipped student unless told otherwise, and an interrupted run
    goes on where it was.
    """
    from export import distill_command
    from export.teacher import DEFAULT_TEACHER

    with progress() as report:
        made = distill_command(
            files, teacher or DEFAULT_TEACHER, out,
            minutes=minutes, from_teacher=from_teacher, shape=shape, seed=seed, report=report,
        )  # fmt: skip
    before, after = made.before.figures(), made.after.figures()
    if as_json:
        write_json({"folder": str(made.folder), "before": before, "after": after})
    else:
        click.echo(f"{made.folder}: agreement with the teacher on texts that were held out, before → after")
        for name, value in after.items():
            click.echo(f"  {name:<12}{before[name]:>10} → {value}")

"""`coldstream bundle`: prove an encoder bundle on this machine."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from streams.commands.output import clean, write_json

EXAMPLES = """\b
Examples:  coldstream bundle check
           coldstream bundle check var/my-encoder --json
"""


@click.group("bundle", epilog=EXAMPLES)
def command() -> None:
    """Prove an encoder bundle."""


@command.command("check", epilog=EXAMPLES)
@click.argument("folder", metavar="[DIR]", required=False, type=click.Path(path_type=Path, file_okay=False))
@click.option("--json", "as_json", is_flag=True, help="One line of JSON.")
def check(*, folder: Path | None, as_json: bool) -> None:
    """Verify every hash of the bundle in DIR (else the one in use), run its golden texts here, and time it.

    Exit status 1, and what is wrong, where it would not give the vectors that it was proved with.
    """
    from encoder import check_bundle
    from streams.settings import load

    settings = load()
    chosen = folder or (Path(settings.bundle) if settings.bundle else None)
    report = check_bundle(chosen, provider=settings.provider, threads=settings.encoder_threads)
    if as_json:
        write_json({"ok": True, **asdict(report)})
        return
    click.echo(f"{clean(report.name)}, distilled from {clean(report.teacher)}")
    click.echo(f"{report.dimension} numbers, {report.bytes / 1e6:.1f} MB, text template {report.template}")
    click.echo("hashes agree, golden vectors agree")
    click.echo(
        f"on {report.provider}: {report.milliseconds_for_one:.1f} ms for one text, "
        f"{report.texts_per_second:,.0f} texts a second in batches"
    )

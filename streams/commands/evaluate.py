"""`coldstream evaluate`: how good the lists are on a data set, beside what one could run instead."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import click

from streams.commands.output import progress, write_json
from streams.errors import ColdstreamError

if TYPE_CHECKING:
    from evaluation.evaluate import Result

EXAMPLES = """\b
Examples:  coldstream evaluate var/movielens-100k
           coldstream evaluate shop --repeats --json
           coldstream evaluate shop --simulate-cold 0.2 --report shop.html
           coldstream evaluate shop --floor-small 0.1 --floor-provider attributes.brand
"""
SLICES = ("all", "known_user", "cold_user", "new_item", "unseen_item", "cross_domain")


@click.command("evaluate", epilog=EXAMPLES)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path, file_okay=False, exists=True))
@click.option("--cut", type=click.FloatRange(0, 1), default=0.8, show_default=True, help="Learn only, up to here.")
@click.option("--until", type=click.FloatRange(0, 1), default=1.0, show_default=True, help="Test up to here.")
@click.option("--max-steps", type=click.IntRange(1), default=4000, show_default=True, help="Test a sample of steps.")
@click.option("--repeats", is_flag=True, help="What a user has met may come again.")
@click.option(
    "--simulate-cold",
    type=click.FloatRange(0, 1),
    default=0.0,
    help="Hide the events before the cut of this share of items.",
)
@click.option("--floor-new", type=click.FloatRange(0, 1), default=0.0, help="Least share of places for new items.")
@click.option("--floor-small", type=click.FloatRange(0, 1), default=0.0, help="… for items of small providers.")
@click.option("--floor-provider", default="", help="What names a provider: attributes.NAME, or categories.")
@click.option(
    "--floor-small-below",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.001,
    show_default=True,
    help="Small: of less than this share of the positive events of late.",
)
@click.option(
    "--profiles", type=click.Path(path_type=Path, exists=True),
    help="Lines {user_id, profile}, or the folder of another data set of the same users: adds the slice cross_domain.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON.")
@click.option("--lists", type=click.Path(path_type=Path, dir_okay=False), help="Write our lists as JSON lines.")
@click.option("--report", type=click.Path(path_type=Path, dir_okay=False), help="Write a report as HTML.")
def command(
    folder: Path, cut: float, until: float, max_steps: int, simulate_cold: float, profiles: Path | None,
    lists: Path | None, report: Path | None, *, repeats: bool, as_json: bool,
    floor_new: float, floor_small: float, floor_provider: str, floor_small_below: float,
) -> None:  # fmt: skip
    """Replay the data set in DIR in time order, test every method on a step before any learns from it.

    Ours is what a worker would do: the same functions, learning as it goes, one configuration for every data set.
    """
    from encoder import item_text, open_bundle
    from evaluation.evaluate import evaluate
    from evaluation.protocol import Options
    from streams.settings import load

    if cut >= until:
        raise click.UsageError("--cut must be below --until: nothing would be tested")
    settings = load()
    encoder = open_bundle(
        Path(settings.bundle) if settings.bundle else None, provider=settings.provider, threads=settings.encoder_threads
    )
    floors = floor_new, floor_small, floor_provider, floor_small_below
    options = Options(cut, until, max_steps, repeats, simulate_cold, *floors)
    with progress() as tell:
        result = evaluate(
            folder, options, encoder, item_text, encoder.template, profiles=profiles,
            progress=lambda what, done, every: tell(what, done / every if every else 1.0, math.nan),
        )  # fmt: skip
    if not result.outcome.tested:
        raise ColdstreamError(f"no step of {folder} between --cut and --until has a target: nothing was tested")
    if lists is not None:
        lists.write_bytes(b"".join(line + b"\n" for line in result.lists()))
    if report is not None:
        from evaluation.report import to_html

        report.write_text(to_html(result), encoding="utf-8")
    if as_json:
        write_json(result.summary())
    else:
        _print(result)


def _print(result: Result) -> None:
    summary = result.summary()
    click.echo(
        f"{summary['dataset']}: {summary['steps']:,} steps of {summary['events']:,} events, "
        f"{summary['items']:,} items, {summary['seconds']:.0f} s. NDCG@10 (HR@10):"
    )
    shown = [name for name in SLICES if name in summary["methods"]["coldstream"]]
    click.echo(" " * 16 + "".join(f"{name:>20}" for name in shown))
    for method, slices in summary["methods"].items():
        cells = "".join(f"{slices[name]['ndcg@10']:>11.4f} ({slices[name]['hr@10']:.4f})" for name in shown)
        click.echo(f"{method:16}{cells}")
    click.echo(f"{'steps':16}" + "".join(f"{summary['methods']['coldstream'][name]['n']:>20,}" for name in shown))
    for name in shown:
        best = result.best_baseline(name)
        if best is not None:
            ratio, error = result.outcome.tally.ratio("coldstream", best, name)
            click.echo(f"{name}: {ratio:.3f} × {best} (± {error:.3f})")
    for name, errors in summary.get("ratings", {}).items():
        click.echo(f"{name}: RMSE {errors['rmse']:.4f}, MAE {errors['mae']:.4f}")
    for name, value in summary["beyond"].items():
        if isinstance(value, float):
            click.echo(f"{name}: {value:.4f}")
    for group, values in summary["beyond"]["floors"].items():
        click.echo(f"places of {group}: " + ", ".join(f"{name} {value:.4f}" for name, value in values.items()))

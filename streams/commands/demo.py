"""`coldstream demo`: see the whole system at work, on real data, in two minutes."""

from __future__ import annotations

import asyncio
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from streams.commands.output import note, write_json

if TYPE_CHECKING:
    from streams.demo.helpers import Helpers
    from streams.demo.run import Demonstration
    from streams.demo.view import View

EXAMPLES = """\b
Examples:  coldstream demo
           coldstream demo var/my-shop --events 5000 --rate 300
           coldstream demo --json 2>/dev/null | jq '."hit_rate@10"'
"""
FRAMES_A_SECOND: Final = 4
LINE_SECONDS: Final = 5.0
PICTURE_SHARE: Final = 0.85
"""Of the replay: when the picture is taken."""
PICTURE_SIZE: Final = (100, 32)


@click.command("demo", epilog=EXAMPLES)
@click.argument("dataset", required=False, type=click.Path(path_type=Path, file_okay=False))
@click.option("--events", default=12_000, show_default=True, type=click.IntRange(min=1), help="Events to replay.")
@click.option("--rate", default=150.0, show_default=True, type=click.FloatRange(min=0.1), help="Events a second.")
@click.option("--json", "_as_json", is_flag=True, help="As without: the last line of stdout is the summary anyhow.")
@click.option(
    "--picture", type=click.Path(path_type=Path, dir_okay=False), help="Save the view as SVG, late in the replay."
)
def command(*, dataset: Path | None, events: int, rate: float, _as_json: bool, picture: Path | None) -> int:
    """Replay a data set through an embedded broker and a real worker, and watch the lists change.

    DATASET is a folder with items.jsonl and events.jsonl (else MovieLens 100K, fetched once). A tenth of the catalogue
    is published only in the middle of the replay. Everything runs in a folder of its own, which is removed at the end
    with every process, also after Ctrl-C. The last line of stdout is the summary.
    """
    from streams.dataset import Dataset
    from streams.demo.helpers import Helpers
    from streams.demo.plan import make_plan
    from streams.demo.run import Demonstration
    from streams.demo.tally import Tally, likes_from
    from streams.demo.view import Status, View

    home, lasting = find_home()
    home.mkdir(parents=True, exist_ok=True)
    with Helpers(Path(tempfile.mkdtemp(prefix="demo-", dir=home))) as helpers:
        data = Dataset(dataset or _fetch_movielens(home if lasting else helpers.folder))
        plan = make_plan(data, events)
        demonstration = Demonstration(plan, Tally(likes_from(plan.events)), Status(data.name, "starting"), rate)
        view = View(plan, demonstration.tally, demonstration.status)
        stopped_by = asyncio.run(_run(demonstration, helpers, view, picture))
    if stopped_by is not None:
        return 128 + stopped_by
    write_json(demonstration.tally.summary())
    return 0


def find_home() -> tuple[Path, bool]:
    """The folder under which a demonstration makes its own, and whether data may be kept there.

    In a checkout it is `var/`, which git ignores; an installed package has only the system's folder for what is
    temporary.
    """
    root = Path(__file__).parents[2]
    return (root / "var", True) if (root / "pyproject.toml").is_file() else (Path(tempfile.gettempdir()), False)


def _fetch_movielens(home: Path) -> Path:
    from streams import movielens

    folder = home / "movielens-100k"
    if movielens.write(folder, note)["source"] != "present":
        note(movielens.LICENCE)
    return folder


async def _run(demonstration: Demonstration, helpers: Helpers, view: View, picture: Path | None) -> int | None:
    """Perform and show; returns the number of the signal that cut it short, else None."""
    stopped_by: list[int] = []
    loop = asyncio.get_running_loop()
    performing = asyncio.create_task(demonstration.perform(helpers))

    def stop(number: int) -> None:
        stopped_by.append(number)
        performing.cancel()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop, number)
    showing = asyncio.create_task(_show(demonstration, view, picture))
    try:
        await performing
        demonstration.status.what, demonstration.status.done = "done", True
    except asyncio.CancelledError:
        if not stopped_by:
            raise
    finally:
        showing.cancel()
        await asyncio.gather(showing, return_exceptions=True)
    if not stopped_by:
        _show_last(view)
    return stopped_by[0] if stopped_by else None


async def _show(demonstration: Demonstration, view: View, picture: Path | None) -> None:
    """Frames on a terminal, a line now and then elsewhere, until cancelled."""
    from rich.console import Console
    from rich.live import Live

    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        await _show_lines(demonstration, view, picture)
        return
    with Live(view, console=console, screen=True, auto_refresh=False) as live:
        while True:
            view.tick(time.monotonic())
            live.refresh()
            picture = _take(picture, demonstration, view)
            await asyncio.sleep(1 / FRAMES_A_SECOND)


async def _show_lines(demonstration: Demonstration, view: View, picture: Path | None) -> None:
    start, told, what = time.monotonic(), 0.0, ""
    while True:
        now = time.monotonic()
        view.tick(now)
        if demonstration.tally.events:
            if now - told >= LINE_SECONDS:
                told = now
                click.echo(view.line(now - start), err=True)
            for line in view.news():
                click.echo(line, err=True)
        elif demonstration.status.what != what:
            what = demonstration.status.what
            click.echo(f"{now - start:5.0f} s  {what}", err=True)
        picture = _take(picture, demonstration, view)
        await asyncio.sleep(1 / FRAMES_A_SECOND)


def _take(picture: Path | None, demonstration: Demonstration, view: View) -> Path | None:
    """Save the picture when it is time; returns it while it is still to be taken."""
    if picture is None or demonstration.tally.events < PICTURE_SHARE * len(demonstration.plan.events):
        return picture
    from streams.demo.view import draw

    picture.write_text(draw(view, *PICTURE_SIZE), encoding="utf-8")
    return None


def _show_last(view: View) -> None:
    """What stays on the screen."""
    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    if console.is_terminal:
        console.print(view)
    else:
        click.echo(view.line(view.tally.seconds), err=True)
    sys.stderr.flush()

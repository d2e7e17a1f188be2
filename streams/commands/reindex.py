"""`coldstream reindex`: fill the index for another encoder while the workers of the present one go on."""

from __future__ import annotations

import asyncio
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from streams.flow.succession import Succession
    from streams.ports import Encoder
    from streams.settings import Settings

PROGRESS_SECONDS = 2.0


@click.command("reindex")
@click.option(
    "--bundle",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The encoder; else COLDSTREAM_BUNDLE.",
)
@click.option("--forget", is_flag=True, help="Delete what is kept for other encoders: none of their workers may run.")
@click.option("--json", "as_json", is_flag=True, help="The summary as one line of JSON.")
def command(*, bundle: Path | None, forget: bool, as_json: bool) -> None:
    r"""Encode all items for another encoder, beside those that are in use, and make them the ones that count.

    With a Qdrant server nothing stops: fill, then restart the workers one by one with the new COLDSTREAM_BUNDLE. Both
    kinds see what the other writes, for as long as both run. To go back, do the same with the old bundle: only what has
    changed since is encoded. Killed, it goes on where it was. An embedded index belongs to its worker: stop that, or
    just start it again with the new bundle, which does the same before it takes up its work.

    \b
    Examples:  coldstream reindex --bundle ./student-2
               coldstream reindex --bundle ./student-2 --forget
    """
    from streams.app import open_encoder
    from streams.commands.output import write_json
    from streams.settings import load

    settings = load(bundle=str(bundle) if bundle else None)
    encoder = open_encoder(settings)
    begun = time.monotonic()
    brought, forgotten = asyncio.run(_fill(settings, encoder, forget=forget))
    seconds = round(time.monotonic() - begun, 1)
    if as_json:
        write_json({"encoder": encoder.name, "items": brought, "seconds": seconds, "forgotten": forgotten})
        return
    click.echo(f"{brought} items encoded by {encoder.name} in {seconds} s; they are the ones that count now")
    if forgotten:
        click.echo(f"forgotten: {', '.join(forgotten)}")


async def _fill(settings: Settings, encoder: Encoder, *, forget: bool) -> tuple[int, list[str]]:
    from streams.app import SystemClock, SystemRandomness
    from streams.errors import ConfigurationError
    from streams.flow.succession import Succession
    from streams.flow.texts import TextVectors
    from streams.index.open import open_index
    from streams.index.qdrant import QdrantIndex

    index = open_index(settings)
    if forget and not isinstance(index, QdrantIndex):
        raise ConfigurationError("an embedded index keeps the items of one encoder only: there is nothing to forget")
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(1, "encoder") as executor:
        texts = TextVectors(encoder, lambda act: loop.run_in_executor(executor, act))
        succession = Succession(
            index, encoder, texts.encode, SystemClock(), SystemRandomness(), settings.reload_seconds
        )
        await index.open(encoder.dimension, encoder.name)
        try:
            telling = asyncio.create_task(_tell(succession))
            try:
                await succession.take_over()
            finally:
                telling.cancel()
            await index.succeed()
            gone = await index.forget_others() if forget and isinstance(index, QdrantIndex) else []
        finally:
            await index.close()
    return succession.brought, gone


async def _tell(succession: Succession) -> None:
    """Progress on stderr, where somebody looks."""
    while sys.stderr.isatty():
        await asyncio.sleep(PROGRESS_SECONDS)
        click.echo(f"\r{succession.brought} items", err=True, nl=False)

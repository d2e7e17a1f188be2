"""`coldstream topics`: make the topics, or say what differs from what is promised."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from streams.kafka.topics import Difference
    from streams.settings import Settings
    from streams.values import Topic

EXAMPLES = """\b
Examples:  coldstream topics create --partitions 8
           coldstream topics check --json
"""


@click.group("topics", epilog=EXAMPLES)
def command() -> None:
    """Create the topics on the cluster at COLDSTREAM_KAFKA, or check what differs."""


@command.command("create")
@click.option(
    "--partitions",
    default=4,
    show_default=True,
    type=click.IntRange(1, 1000),
    help="How many workers can share the work.",
)
@click.option(
    "--replication",
    default=-1,
    type=click.IntRange(-1, 10),
    help="Copies of each record; else the cluster's own default.",
)
@click.option("--json", "as_json", is_flag=True, help='{"created": […], "existing": […]} as one line.')
def create(*, partitions: int, replication: int, as_json: bool) -> None:
    """Create the topics that are missing, with their partitions, compaction and retention. The others stay."""
    from streams.commands.output import write_json
    from streams.settings import load

    created, existing = asyncio.run(_create(load(), partitions, replication))
    if as_json:
        write_json({"created": created, "existing": existing})
        return
    if created:
        click.echo(f"created {', '.join(created)}")
    if existing:
        click.echo(f"there already, left as they are: {', '.join(existing)}; `coldstream topics check` compares them")


@command.command("check")
@click.option("--json", "as_json", is_flag=True, help='{"topics", "differences": […]} as one line.')
def check(*, as_json: bool) -> int:
    """Say what differs from what the promises need. Exit status 1 where something does."""
    from streams.commands.output import clean, write_json
    from streams.settings import load

    found, differences = asyncio.run(_check(load()))
    if as_json:
        write_json({"topics": found, "differences": [asdict(difference) for difference in differences]})
    else:
        for difference in differences:
            click.echo(
                clean(
                    f"{difference.topic}: {difference.what} is {difference.found}, should be {difference.wanted}:"
                    f" {difference.remedy}"
                )
            )
        if not differences:
            click.echo(f"{len(found)} topics as they should be: {', '.join(f'{k} ({v})' for k, v in found.items())}")
    return 1 if differences else 0


async def _create(settings: Settings, partitions: int, replication: int) -> tuple[list[str], list[str]]:
    from streams.kafka.topics import TopicAdmin, wanted_topics

    async with TopicAdmin(settings) as admin:
        return await admin.create(wanted_topics(settings, partitions), replication)


async def _check(settings: Settings) -> tuple[dict[Topic, int], tuple[Difference, ...]]:
    from streams.kafka.topics import TopicAdmin, find_differences, wanted_topics

    async with TopicAdmin(settings) as admin:
        found = await admin.describe()
    return {topic: there.partitions for topic, there in found.items()}, find_differences(wanted_topics(settings), found)

"""`coldstream recommend`: the list of a user as it would be now, asked of the running worker."""

from __future__ import annotations

from typing import Any

import click

from streams.commands.output import clean, write_json

EXAMPLES = """\b
Examples:  coldstream recommend 405
           coldstream recommend nobody --profile "hiking in the Alps, cheap huts"
           coldstream recommend 405 --query "a film about a bank robbery" --json
"""


@click.command("recommend", epilog=EXAMPLES)
@click.argument("user")
@click.option("--limit", type=click.IntRange(1, 100), help="Items at most; else as many as the worker's lists have.")
@click.option("--exclude", multiple=True, metavar="ITEM", help="An item to leave out; may be repeated.")
@click.option("--category", help="Only items of this category.")
@click.option("--query", help="A wish of the moment, in words.")
@click.option("--profile", help="What the user says of themselves, instead of what is stored; for a user nobody knows.")
@click.option("--json", "as_json", is_flag=True, help="The value of the topic as one line.")
def command(
    *, user: str, limit: int | None, exclude: tuple[str, ...], category: str | None, query: str | None,
    profile: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Show the list of USER as it would be now, with the reason and the score's parts of each item.

    The worker at COLDSTREAM_HTTP is asked; nothing is written and nothing emitted. A stranger gets a list too.
    """
    from streams.commands.client import ask, titles_of
    from streams.settings import load

    settings = load()
    given = {"limit": limit, "category": category, "query": query, "profile": profile}
    asked = [(name, str(value)) for name, value in given.items() if value is not None]
    answer = ask(settings, ["recommendations", user], [*asked, *(("exclude", item) for item in exclude)])
    if as_json:
        write_json(answer)
    else:
        _show(answer, titles_of(settings, [item["item_id"] for item in answer["items"]]))


def _show(answer: dict[str, Any], titles: dict[str, str]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from streams.commands.output import describe_parts

    console = Console(highlight=False)
    console.print(
        Text(f"user {clean(answer['user_id'])}", "bold").append(
            f"  {answer['strategy']} · version {answer['version']} · {clean(answer['encoder'])}", "bright_black"
        )
    )
    if not answer["items"]:
        console.print("no item can be recommended: the catalogue is empty, or everything is excluded")
        return
    table = Table(box=None, pad_edge=False, header_style="bright_black")
    table.add_column("", justify="right")
    table.add_column("item", overflow="fold")
    table.add_column("score", justify="right")
    table.add_column("why", overflow="fold")
    table.add_column("parts", overflow="fold", style="bright_black")
    for item in answer["items"]:
        identity = item["item_id"]
        title = Text(clean(titles.get(identity, identity)))
        if identity in titles:
            title.append(f"  {clean(identity)}", "bright_black")
        why = Text(clean(item["reason"]["text"]))
        table.add_row(str(item["rank"]), title, f"{item['score']:.3f}", why, describe_parts(item["parts"]))
    console.print(table)

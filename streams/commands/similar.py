"""`coldstream similar`: the items nearest to one, asked of the running worker."""

from __future__ import annotations

from typing import Any

import click

from streams.commands.output import clean, write_json

EXAMPLES = """\b
Examples:  coldstream similar 50
           coldstream similar SKU-4711 --limit 5 --json
"""


@click.command("similar", epilog=EXAMPLES)
@click.argument("item")
@click.option("--limit", type=click.IntRange(1, 100), help="Items at most; else as many as the worker's lists have.")
@click.option("--json", "as_json", is_flag=True, help="One line of JSON.")
def command(*, item: str, limit: int | None, as_json: bool) -> None:
    """Show the items nearest to ITEM that can be recommended now, with why.

    The worker at COLDSTREAM_HTTP is asked.
    """
    from streams.commands.client import ask
    from streams.settings import load

    answer = ask(load(), ["items", item, "similar"], [("limit", str(limit))] if limit else [])
    if as_json:
        write_json(answer)
    else:
        _show(answer["items"])


def _show(items: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bright_black")
    table.add_column("", justify="right")
    table.add_column("item", overflow="fold")
    table.add_column("near", justify="right")
    table.add_column("why", overflow="fold", style="bright_black")
    for item in items:
        title = Text(clean(item["title"])).append(f"  {clean(item['item_id'])}", "bright_black")
        table.add_row(str(item["rank"]), title, f"{item['score']:.3f}", Text(clean(item["reason"]["text"])))
    Console(highlight=False).print(table)

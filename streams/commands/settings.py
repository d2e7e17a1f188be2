"""`coldstream settings`: every setting with its default and meaning."""

from __future__ import annotations

import click

from streams.commands.output import write_json

EXAMPLE = """\b
Example:  coldstream settings
          coldstream settings --json | jq '.[] | select(.value != .default)'
"""


@click.command("settings", epilog=EXAMPLE)
@click.option(
    "--json", "as_json", is_flag=True, help="One line of JSON: names, defaults, meanings and values in force."
)
def command(*, as_json: bool) -> None:
    """Print the table of all settings in Markdown.

    Settings are environment variables, or keys (without the prefix, in small letters) of the TOML file that
    COLDSTREAM_CONFIG names; the environment wins. Secrets are only ever read from files.
    """
    from streams import settings

    if as_json:
        now, defaults = settings.load(), settings.Settings()
        fields = zip(settings.Settings.__struct_fields__, settings.table(), strict=True)
        write_json(
            [
                {"name": name, "value": getattr(now, field), "default": getattr(defaults, field), "meaning": meaning}
                for field, (name, _, meaning) in fields
            ]
        )
    else:
        from streams.documents import settings_table

        click.echo(settings_table(), nl=False)

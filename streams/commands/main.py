"""The program `coldstream`: one group, a module a command, imported only when its command runs.

Exit status: 0 done, 1 not done, 2 wrong use (arguments, settings), 130 after Ctrl-C. Every error is one line on
stderr that says what to do; a traceback only with COLDSTREAM_LOG_LEVEL=DEBUG.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
from collections.abc import Sequence
from typing import Any, Final

import click

from streams.commands.output import clean
from streams.errors import ColdstreamError, ConfigurationError

COMMANDS: Final = {
    "demo": "See it work: broker, worker and a replay of real ratings, in two minutes.",
    "worker": "Run the service: items, users and events in, recommendations out.",
    "broker": "Run the embedded broker, for those who have no Kafka yet.",
    "topics": "Create the topics, or check what differs.",
    "publish": "Send JSON lines or CSV to a topic.",
    "watch": "Follow the recommendations as they are made.",
    "recommend": "Show the list of a user as it would be now, with reasons.",
    "similar": "Show the items nearest to one.",
    "dead-letters": "Look into refused records and send the mended ones back.",
    "doctor": "Check broker, topics, index, encoder, clock and disk.",
    "embed": "Turn lines of text into the vectors that the worker would compute.",
    "evaluate": "Measure quality on a data set, beside the baselines.",
    "dataset": "Fetch a public data set to play with.",
    "arms": "Compare the arms of a trial, with confidence intervals.",
    "reindex": "Change the encoder while the workers go on.",
    "ranker": "See what ranks, freeze it, or roll it back.",
    "bundle": "Prove an encoder bundle.",
    "distill": "Make an encoder of one's own from one's own catalogue.",
    "settings": "Print every setting with its default.",
}
"""Every command with its line of help, in the order of `--help`, so that help imports no command."""

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy reads it when it is first imported
"""Our matrices are small: where cores are shared, a second thread of OpenBLAS makes a product of 1.5 ms one of 200."""

INTERRUPTED: Final = 130
OWN_PACKAGES: Final = frozenset({"encoder", "export", "evaluation"})
"""Packages beside `streams` whose exceptions, too, say what to do; only their own commands import them."""


class LazyGroup(click.Group):
    """A group that knows its commands by name and imports `streams.commands.<name>` when one is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  (click's signature)
        """Names in the order of `COMMANDS`."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """The click object `command` of the command's module; None for a name that is no command."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"streams.commands.{cmd_name.replace('-', '_')}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """The list of commands, without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def _print_version(ctx: click.Context, _param: click.Parameter, value: object) -> None:
    if value and not ctx.resilient_parsing:
        from importlib.metadata import version

        click.echo(f"coldstream {version('coldstream')}")
        ctx.exit()


EXAMPLES: Final = """\b
Try it now:          coldstream demo
With your own data:  coldstream broker &
                     coldstream topics create && coldstream worker &
                     coldstream publish items catalogue.jsonl
                     coldstream watch

Settings are environment variables COLDSTREAM_…: see `coldstream settings`.
"""


@click.group(
    cls=LazyGroup, epilog=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.option(
    "--version", is_flag=True, expose_value=False, is_eager=True, callback=_print_version, help="Print the version."
)
def group() -> None:
    """Turn streams of items, users and events on Kafka into a stream of fresh recommendations."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program and exit."""
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns the exit status. What a command raises becomes one line on stderr."""
    logging.getLogger("aiokafka").addHandler(logging.NullHandler())  # its warnings come again as our errors
    try:
        result: Any = group.main(args=arguments, prog_name="coldstream", standalone_mode=False)
        sys.stdout.flush()
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has gone (`… | head`): nothing is left to be said, also not at the exit's flush.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        explained = _explain(error)
        if explained is None and os.environ.get("COLDSTREAM_LOG_LEVEL") == "DEBUG":
            raise
        defect = f"a defect, please report it ({type(error).__name__}: {error}); COLDSTREAM_LOG_LEVEL=DEBUG shows where"
        status, sentence = explained or (1, defect)
        where = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "coldstream"
        click.echo(f"{where}: {clean(sentence)}", err=True)
        return status
    return result if isinstance(result, int) else 0


def _explain(error: Exception) -> tuple[int, str] | None:
    """Exit status and sentence of an error that was meant to be read; None for a defect."""
    if isinstance(error, click.UsageError):
        path = error.ctx.command_path if error.ctx else "coldstream"
        return 2, f"{error.format_message().rstrip('.')}. See: {path} --help"
    if isinstance(error, click.ClickException):
        return error.exit_code, error.format_message()
    if isinstance(error, ConfigurationError):
        return 2, str(error)
    if isinstance(error, ColdstreamError) or type(error).__module__.partition(".")[0] in OWN_PACKAGES:
        return 1, str(error)
    if isinstance(error, OSError):
        return 1, f"{error.strerror or error}: {error.filename}" if error.filename else str(error)
    return None


if __name__ == "__main__":
    main()

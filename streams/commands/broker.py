"""`coldstream broker`: the embedded broker in the foreground."""

from __future__ import annotations

import signal
import sys
from types import FrameType

import click

EXAMPLES = """\b
Example:  coldstream broker &
          export COLDSTREAM_KAFKA=127.0.0.1:9092
          coldstream topics create && coldstream worker
"""


@click.command("broker", epilog=EXAMPLES)
@click.option("--port", default=9092, show_default=True, type=click.IntRange(0, 65535), help="0: any free one.")
@click.option("--json", "as_json", is_flag=True, help='Its address as one line: {"kafka": "127.0.0.1:9092"}.')
def command(*, port: int, as_json: bool) -> int:
    """Run a small Kafka-compatible broker on the loopback until Ctrl-C. It keeps NOTHING: for trying things out."""
    from streams.commands.output import write_json
    from streams.kafka.broker import EmbeddedBroker

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGHUP, stop)
    broker = EmbeddedBroker()
    try:
        address = broker.start(port)
        click.secho(
            "This broker keeps NOTHING: every record is gone when it ends. For what you care about use Apache Kafka.",
            err=True, bold=True, fg="yellow" if sys.stderr.isatty() else None,
        )  # fmt: skip
        if as_json:
            write_json({"kafka": address})
        else:
            click.echo(f"kafka {address}")
            sys.stdout.flush()
        status = broker.wait()
    except KeyboardInterrupt:
        return 0
    else:
        click.echo(f"coldstream broker: it ended by itself with status {status}", err=True)
        return 1
    finally:
        broker.stop()

"""`coldstream worker`: the service as one process."""

from __future__ import annotations

import asyncio
import logging
import signal

import click
import uvloop

from streams.errors import ColdstreamError
from streams.settings import load


@click.command("worker")
def command() -> None:
    r"""Run the service: consume items, users and events, emit recommendations.

    SIGTERM and Ctrl-C finish the batch in hand and end with status 0; a second one ends at once. Settings come from the
    environment: see `coldstream settings`.

    \b
    Example: COLDSTREAM_KAFKA=broker:9092 COLDSTREAM_INDEX=edge:/var/lib/coldstream coldstream worker
    """
    from streams.app import App  # the heavy imports, only when a worker runs
    from streams.kafka.watchdog import END_SECONDS, kill_after
    from streams.logs import set_up_logging

    settings = load()
    set_up_logging(settings)

    async def serve() -> None:
        app = App(settings)
        loop = asyncio.get_running_loop()

        def stop(number: int) -> None:
            loop.remove_signal_handler(number)  # a second one ends at once
            app.stop()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop, number)
        try:
            await app.run()
        finally:
            kill_after(END_SECONDS)  # Faust's threads are no daemons: one that did not stop would keep the process

    try:
        uvloop.run(serve())
    except ColdstreamError:
        raise
    except Exception:
        logging.getLogger("coldstream").exception("the worker ends on a defect")
        raise

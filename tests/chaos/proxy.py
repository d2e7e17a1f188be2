"""A proxy between workers and one broker, of the tests' own: it cuts connections, or swallows what goes through them.

A broker tells its clients where it listens; that answer is bent, so that nobody goes around the proxy.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Self


class Proxy:
    """A context manager; `address` is where workers look for the broker."""

    def __init__(self, server: str) -> None:
        self._host, _, port = server.partition(":")
        self._port = int(port)
        self._open = asyncio.Event()
        self._open.set()
        self._refusing = False
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.address = ""
        self.bent = 0
        """Answers that named the broker's own address."""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self._own_port = self._server.sockets[0].getsockname()[1]
        self.address = f"127.0.0.1:{self._own_port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """Drop all connections, and every new one, until `heal`."""
        self._refusing = True
        for writer in self._writers:
            writer.transport.abort()

    def swallow(self) -> None:
        """Connections stay; nothing comes through, in either direction, until `heal`."""
        self._open.clear()

    def heal(self) -> None:
        """As if nothing had been. What was swallowed arrives now, late."""
        self._refusing = False
        self._open.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            writer.transport.abort()
            return
        try:
            far_reader, far_writer = await asyncio.open_connection(self._host, self._port)
        except OSError:
            writer.transport.abort()
            return
        for each in (writer, far_writer):
            self._writers.add(each)
        for source, target, bend in ((reader, far_writer, False), (far_reader, writer, True)):
            task = asyncio.create_task(self._pass_on(source, target, bend=bend))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pass_on(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, *, bend: bool) -> None:
        theirs, ours = (b"127.0.0.1" + port.to_bytes(4, "big") for port in (self._port, self._own_port))
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = await source.readexactly(4)
                body = await source.readexactly(int.from_bytes(head, "big"))
                await self._open.wait()
                if bend and theirs in body:
                    self.bent += 1
                    body = body.replace(theirs, ours)
                target.write(head + body)
                await target.drain()
        target.transport.abort()
        self._writers.discard(target)

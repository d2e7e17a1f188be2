"""Whatever the document of /openapi.json allows and forbids is asked of a worker in memory, over HTTP: it never breaks."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import asynccontextmanager

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import positive_data_acceptance

from streams.decide.arms import Arms
from streams.decide.policy import Policy
from streams.flow.ask import Reader
from streams.http import openapi
from streams.http.server import HttpServer
from streams.http.worker_service import WorkerService
from streams.metrics import Metrics
from streams.settings import Settings
from tests.support.service import Service

EXAMPLES = 150
"""Of each route, half of them to be refused."""
schema = schemathesis.openapi.from_dict(openapi.document())


@asynccontextmanager
async def serving():
    """A worker with a catalogue and a user, behind its port."""
    service = await Service().open()
    log = service.log
    await service.feed(*(log.item(f"saw{number}", f"hand saw number {number}") for number in range(20)))
    await service.feed(log.user("ann", "builds boats"), log.event("e1", "ann", "click", "saw1"))
    reader = Reader(service.setting.world, service.parts, Arms(Policy()))
    worker = WorkerService(reader, service.publisher, list)
    server = HttpServer(worker, Metrics(), Settings(http="127.0.0.1:0"))
    await server.start()
    try:
        yield server.url
    finally:
        await server.stop()


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    found: list[str] = []
    started = threading.Event()
    loop = asyncio.new_event_loop()
    ended = asyncio.Event()

    async def serve() -> None:
        async with serving() as url:
            found.append(url)
            started.set()
            await ended.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), name="worker")
    thread.start()
    assert started.wait(20)
    yield found[0]
    loop.call_soon_threadsafe(ended.set)
    thread.join(20)
    loop.close()
    assert not thread.is_alive()


@schema.parametrize()
@settings(max_examples=EXAMPLES, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_request_breaks_a_promise_of_the_document(case: schemathesis.Case, address: str) -> None:
    unsayable = (
        [positive_data_acceptance] if case.operation.path == "/items" else []
    )  # it wants id or query, never both
    case.call_and_validate(base_url=address, excluded_checks=unsayable)

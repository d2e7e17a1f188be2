"""Consumers that do not spin: a pause after a fetch that found nothing and was answered at once.

Kafka holds an empty fetch for `fetch.max.wait.ms`. The embedded broker (noida-db 0.2.3) answers it at once, so that an
idle consumer asked 1,100 times a second and took .45 of a core, beside what the broker took (measured); a worker and a
demonstration have four consumers. Against a broker that holds fetches the pause never comes about.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from typing import Any, Final

from aiokafka.consumer.fetcher import Fetcher

PAUSE_SECONDS: Final = 0.01
"""What it adds to the latency of a lone record, at most."""


@functools.cache
def learn_patience() -> None:
    """Teach it to every consumer of this process. Idempotent."""
    fetch = Fetcher._proc_fetch_request  # noqa: SLF001  (aiokafka has no hook between two fetches)

    @functools.wraps(fetch)
    async def fetch_patiently(self: Any, *arguments: Any) -> bool:
        loop = asyncio.get_running_loop()
        asked_at = loop.time()
        found = bool(await fetch(self, *arguments))
        if not found and loop.time() - asked_at < self._fetch_max_wait_ms / 2000:
            with contextlib.suppress(asyncio.CancelledError):  # closing, or unassigned: as aiokafka does in its fetch
                await asyncio.sleep(PAUSE_SECONDS)
        return found

    Fetcher._proc_fetch_request = fetch_patiently  # noqa: SLF001

"""Ends a worker that has died silently, or is not let into its group: it looks whether what must move does, and tells a
stall from a hold.

Faust's own detectors only log, and its consumer can stop without an error. Orchestrators restart what exits.
"""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from streams.errors import BrokerUnavailableError, FatalError
from streams.kafka.connection import Group, describe_group, group_name, settle_seconds
from streams.settings import Settings

log = logging.getLogger(__name__)

LOOKS: Final = 24
"""Looks within the time of a stall."""
END_SECONDS: Final = 10.0
"""A worker that is being ended is killed after this, or a sixth of the time of a stall: what hung may hang its shutdown."""


class Watched(Protocol):
    """What the watchdog asks of the consumer (`KafkaConsumer`)."""

    @property
    def received(self) -> int:
        """Grows with each record that is handed to the flow."""

    @property
    def acknowledged(self) -> int:
        """Grows with each record that is acknowledged."""

    @property
    def pending(self) -> int:
        """Records handed in and not acknowledged yet."""

    @property
    def polls(self) -> int:
        """Grows at least once a second."""

    @property
    def turns(self) -> int:
        """Grows at least once a second while the thread that speaks to the broker lives, whatever the broker does."""

    def coordinator_alive(self) -> bool:
        """Whether the task that keeps us in the group runs."""

    def moving(self) -> bool:
        """Whether partitions move: between giving them away and getting new ones."""

    async def answers(self, seconds: float) -> bool:
        """Whether the group's coordinator answers a question within that time."""

    async def behind(self, seconds: float) -> int | None:
        """Records of the broker that were not fetched; None where it doesn't answer in that time."""


@dataclass(slots=True, eq=False)
class Sign:
    """Something that must move. `still_seconds` counts by looks, so that a process that was stopped has not stalled."""

    remedy: str
    value: object = None
    still_seconds: float = 0.0

    def look(self, value: object, *, excused: bool, seconds: float) -> float:
        """Seconds for which it has stood still without an excuse."""
        if excused or value != self.value:
            self.value, self.still_seconds = value, 0.0
        else:
            self.still_seconds += seconds
        return self.still_seconds


class Watchdog:
    """Raises `FatalError` out of `run` after a silent death; a hold with a known cause is none.

    Within `stall_seconds` of it the process has ended: a part that stands still is given three quarters of them, less or
    more by what it takes to look. `progress` grows with each batch that ends, `hold` is the cause why the flow waits at
    present; partitions may move for `group_seconds` in any case. Beyond that a thread of its own looks whether the event
    loop turns at all, and ends the process where not.
    """

    def __init__(
        self,
        stall_seconds: float,
        consumer: Watched,
        *,
        progress: Callable[[], int],
        waiting: Callable[[], int],
        hold: Callable[[], str | None],
        group_seconds: float = 0.0,
    ) -> None:
        self._stall_seconds = stall_seconds
        self._look_seconds = stall_seconds / LOOKS
        self._end_seconds = min(END_SECONDS, stall_seconds / 6)
        self._patience_seconds = stall_seconds - self._end_seconds - 3 * self._look_seconds
        self._group_seconds = max(group_seconds, self._patience_seconds)
        self._consumer = consumer
        self._progress = progress
        self._waiting = waiting
        self._hold = hold
        self._turns = 0
        self._thread = Sign("the thread that speaks to Kafka is dead, or hangs")
        self._fetcher = Sign("the Kafka consumer has stopped asking for records")
        self._delivery = Sign("the broker has records that the Kafka consumer does not deliver")
        self._pipeline = Sign("the batch in hand makes no progress, and no cause is known")
        self._group = Sign("a member of the group hangs or is dead, and this worker was given no partitions")
        self._coordinator = Sign("the task that keeps this worker in its group is dead")

    async def run(self) -> None:
        """Look until something is found. Raises `FatalError`; never returns."""
        ended = threading.Event()
        threading.Thread(target=self._guard_loop, args=(ended,), name="watchdog", daemon=True).start()
        try:
            last = time.monotonic()
            while True:
                await asyncio.sleep(self._look_seconds)
                self._turns += 1
                now = time.monotonic()
                found = await self._look(min(now - last, 3 * self._look_seconds))
                last = now
                if found is not None:
                    log.critical("%s: this worker ends", found)
                    kill_after(self._end_seconds)
                    raise FatalError(f"{found}: restart this worker")
        finally:
            ended.set()

    async def _look(self, seconds: float) -> str | None:
        """What stands still for too long, or None."""
        consumer = self._consumer
        held = self._hold() is not None
        busy = consumer.pending > 0 or self._waiting() > 0
        still = {self._thread: self._thread.look(consumer.turns, excused=False, seconds=seconds)}
        deaf = self._thread.still_seconds > 0.0
        behind = 0 if busy or held or deaf else await consumer.behind(2 * self._look_seconds)
        alive, moving = consumer.coordinator_alive(), consumer.moving()
        still |= {
            self._coordinator: self._coordinator.look(alive, excused=alive, seconds=seconds),
            self._group: self._group.look(moving, excused=held or not moving, seconds=seconds),
            self._fetcher: self._fetcher.look(consumer.polls, excused=held or moving, seconds=seconds),
            self._delivery: self._delivery.look(consumer.received, excused=not behind, seconds=seconds),
            self._pipeline: self._pipeline.look(
                (self._progress(), consumer.acknowledged), excused=held or not busy, seconds=seconds
            ),
        }
        patience = dict.fromkeys(still, self._patience_seconds) | {self._group: self._group_seconds}
        found = next((sign for sign, for_seconds in still.items() if for_seconds >= patience[sign]), None)
        if found is None:
            return None
        if found in (self._group, self._fetcher, self._delivery) and not await consumer.answers(2 * self._look_seconds):
            found.still_seconds = 0.0  # the broker is away: a cause that is known
            return None
        return f"{found.remedy} for {found.still_seconds:.0f} s"

    def _guard_loop(self, ended: threading.Event) -> None:
        sign = Sign("the event loop")
        patience = self._patience_seconds + self._end_seconds  # there is nothing that could end in order
        last = time.monotonic()
        while not ended.wait(self._look_seconds):
            now = time.monotonic()
            still = sign.look(self._turns, excused=False, seconds=min(now - last, 3 * self._look_seconds))
            last = now
            if still >= patience:
                log.critical("the event loop does not turn for %g s: this worker is killed", still)
                faulthandler.dump_traceback(sys.stderr, all_threads=True)
                os._exit(1)


async def await_group(
    joining: asyncio.Task[None], error: Callable[[], BaseException | None], settings: Settings
) -> BaseException | None:
    """Wait until the group has let us in; returns what kept us out for good, as `joining` or `error()` says, or None.

    Raises `FatalError` where that takes `stall_seconds`, and no less than the group may wait by its own rules: for a member
    that was killed its session, then for one that is busy a rebalance. A broker that is away is a cause that is known, and
    waited for. Does not cancel `joining`.
    """
    patience = max(settings.stall_seconds, settle_seconds(settings))
    look = min(1.0, patience / LOOKS)
    sign, told = Sign("the group lets nobody in"), False
    last = time.monotonic()
    while not (await asyncio.wait([joining], timeout=look))[0]:
        if (found := error()) is not None:
            return found
        now = time.monotonic()
        still = sign.look(None, excused=False, seconds=min(now - last, 3 * look))
        last = now
        if not told and still > settings.session_timeout_seconds:
            told = True
            log.warning("the group %s has not let this worker in for %.0f s, it waits on", group_name(settings), still)
        if still >= patience:
            try:
                group = await describe_group(settings)
            except BrokerUnavailableError as away:
                log.warning("%s; it is waited for", away)
                sign.still_seconds = 0.0
            else:
                raise FatalError(_shut_out(settings, group, still))
    return joining.exception()


def _shut_out(settings: Settings, group: Group, seconds: float) -> str:
    name = group_name(settings)
    remedy = (
        "a member was killed while this worker joined, and the embedded broker waits for it without end: start this"
        " worker again, which puts it out of the group"
        if settings.kafka_embedded
        else "the broker waits for a member that hangs, or whose session timeout is longer than ours: find it with"
        f" kafka-consumer-groups.sh --describe --members --group {name}, end it, and start this worker again"
    )
    return (
        f"the group {name} has not let this worker in for {seconds:.0f} s (its state is {group.state}, with"
        f" {len(group.members)} members): {remedy}"
    )


def kill_after(seconds: float) -> None:
    """Kill this process unless it has ended by then: threads that hang would hold up its exit."""

    def kill() -> None:
        time.sleep(seconds)
        log.critical("the worker did not end in %g s: killed", seconds)
        os._exit(1)

    threading.Thread(target=kill, name="watchdog-end", daemon=True).start()

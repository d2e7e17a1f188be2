"""The Faust application: one member of the consumer group, set up so that Faust is safe (DELIVERY section 2).

Nothing here knows what a record means. Every deviation from Faust's defaults is a line of `options` or a method of the
subclasses below, each with its reason.
"""

from __future__ import annotations

import asyncio
import hashlib
import sys
from collections.abc import Iterable
from typing import Any, Final

import aiokafka
import faust
from aiokafka.errors import ConsumerStoppedError
from faust.app.base import BootStrategy
from faust.transport.consumer import RecordMap
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread, Consumer, Transport
from faust.types import TP, EventT, Message
from mode import ServiceT
from mode.utils.queues import ThrowableQueue
from yarl import URL

from streams.errors import ConfigurationError
from streams.kafka.connection import SECRETS, group_name, member_name, password, servers, tls
from streams.settings import Settings
from streams.values import Topic

DAY_SECONDS: Final = 86_400.0
FETCH_WAIT_MILLISECONDS: Final = 50
"""How long a broker may hold a fetch that finds nothing. A partition whose data was just consumed joins the next fetch
only, so this bounds its latency; Faust fixes 1500."""
POLL_RECORDS: Final = 128
"""Records taken from the fetcher in one go: bounds what arrives for a topic after its partitions were paused."""
QUEUE_RECORDS: Final = 256
"""Records waiting between the fetcher and an agent before the partitions are paused."""
QUEUE_BYTES: Final = 4_194_304
"""… and their bytes."""
PAUSED_POLL_SECONDS: Final = 0.005
"""How soon a paused partition is looked at again; Faust would wait a whole second."""


class Queue(ThrowableQueue[EventT[Any]]):
    """Faust's queue before an agent: bounded by bytes too, and answering pressure by pausing partitions only.

    Blocking on a full queue would stop the one task that feeds all topics, so that a flood of items held up events.
    What can still come after the pause is what one poll brings.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._bytes = 0

    def full(self) -> bool:
        """Never: see above."""
        return False

    def qsize(self) -> int:
        """How full it is in records, or as many as its bytes are worth. (Whether it is empty is asked otherwise.)"""
        return max(super().qsize(), self._bytes * self.maxsize // QUEUE_BYTES)

    def clear(self) -> None:
        """Drop what waits."""
        super().clear()
        self._bytes = 0

    def _put(self, item: EventT[Any]) -> None:
        self._bytes += _size(item)
        super()._put(item)

    def _get(self) -> EventT[Any]:
        item: EventT[Any] = super()._get()
        self._bytes -= _size(item)
        return item


def _size(event: EventT[Any]) -> int:
    return len(event.message.key or b"") + len(event.message.value or b"")


class Thread(AIOKafkaConsumerThread):
    """The thread of the consumer, with a short fetch wait."""

    mundane_level = "debug"

    def _create_worker_consumer(self, transport: Any) -> aiokafka.AIOKafkaConsumer:
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = FETCH_WAIT_MILLISECONDS
        return consumer


class MemberConsumer(Consumer):
    """The consumer, which counts its polls and looks at paused partitions soon."""

    mundane_level = "debug"
    polls: int = 0
    """How often a poll has returned."""

    async def _drain_messages(self, fetcher: ServiceT) -> None:
        """Faust's loop from the fetcher to the agents, without its two tasks a record: our queue never blocks.

        A record is passed on only while the flow is active, so that none read before a rebalance stands before those
        that are read again after it.
        """
        while not (self.should_stop or fetcher.should_stop):
            try:
                async for tp, message in self.getmany(timeout=1.0):
                    if not self.flow_active:
                        break
                    await self._pass_on(tp, message)
            except ConsumerStoppedError:
                if self.app.should_stop:
                    return
                raise

    async def _pass_on(self, tp: TP, message: Message) -> None:
        read = self._read_offset[tp]
        if read is not None and message.offset < read:
            return
        if read and message.offset - read > 1 and self.app.topics.acks_enabled_for(message.topic):
            await self._add_gap(tp, read + 1, message.offset)  # compacted away: committed with what surrounds it
            if not self.flow_active:
                return
        await self.callback(message)
        self._read_offset[tp] = message.offset

    def _new_consumer_thread(self) -> Thread:
        return Thread(self, loop=self.loop, beacon=self.beacon)

    async def _wait_next_records(self, timeout: float) -> tuple[RecordMap | None, set[TP] | None]:
        if not self.flow_active:
            await self.wait(self.can_resume_flow)  # type: ignore[arg-type]
        active = self._get_active_partitions()
        if active:
            paused = bool(self._buffered_partitions)
            records = await self._getmany(active, PAUSED_POLL_SECONDS if paused else timeout)
        else:  # everything is paused, or nothing is assigned
            records = {}
            await self.sleep(PAUSED_POLL_SECONDS)
        self.polls += 1
        return records, active


class MemberTransport(Transport):
    """Transport that makes our consumer."""

    Consumer = MemberConsumer


class Boot(BootStrategy):
    """What the application starts: no producer (ours is idempotent), no web pages."""

    enable_kafka_producer = False
    enable_web = False


class Member(faust.App):
    """One member of the group. Started and stopped inside the running event loop; it never touches signals or logging."""

    BootStrategy = Boot
    mundane_level = "debug"

    def _create_directories(self) -> None:
        """Nothing: there are no tables, and Faust would make a folder in the working directory."""

    def _new_transport(self) -> MemberTransport:
        return MemberTransport(self.conf.broker_consumer, self)

    def FlowControlQueue(self, maxsize: int | None = None, *, clear_on_resume: bool = False) -> Queue:  # noqa: N802
        """The queue of a channel."""
        return Queue(maxsize=maxsize or QUEUE_RECORDS, flow_control=self.flow_control, clear_on_resume=clear_on_resume)


def make_member(settings: Settings, topics: Iterable[Topic], loop: asyncio.AbstractEventLoop) -> Member:
    """The application for these topics, not started. Raises `ConfigurationError` where Faust is not the fast one."""
    if getattr(sys.modules["faust.streams"], "_CStreamIterator", None) is None:
        # it acknowledges events that a rebalance skipped (read)
        raise ConfigurationError(
            "Faust's compiled stream iterator is missing and the pure-Python one loses events: install the wheel of"
            " faust-streaming, or a C compiler, and unset NO_CYTHON"
        )
    member = Member(group_name(settings), loop=loop, **_options(settings, tuple(topics)))
    if member.conf.table_standby_replicas != 1:
        raise ConfigurationError("table_standby_replicas must be 1: 0 turns co-partitioning off and splits users")
    return member


def _options(settings: Settings, topics: tuple[Topic, ...]) -> dict[str, Any]:
    identity = member_name(settings, topics)
    session = settings.session_timeout_seconds
    return {
        "broker": [URL(f"kafka://{server}") for server in servers(settings)],
        "broker_credentials": _credentials(settings),
        "broker_client_id": "coldstream",
        "broker_session_timeout": session,
        "broker_heartbeat_interval": session / 5,
        "broker_rebalance_timeout": max(2 * session, 20.0),
        "broker_request_timeout": max(90.0, session + 10.0),
        "broker_max_poll_interval": DAY_SECONDS,  # must not end a hold
        "broker_max_poll_records": POLL_RECORDS,
        "broker_commit_interval": 1.0,
        "consumer_group_instance_id": identity,
        # derived from the identity: a restart in another container with another host name kills the coordinator (tried)
        "canonical_url": URL(f"http://{_host(identity)}:6066") if identity else None,
        "consumer_max_fetch_size": max(1_048_576, settings.record_bytes + 65_536),
        "stream_buffer_maxsize": QUEUE_RECORDS,
        "stream_wait_empty": False,  # with the default a rebalance waits without limit for the batch in hand
        "stream_ack_exceptions": False,
        "stream_ack_cancelled_tasks": False,
        "table_standby_replicas": 1,  # 0 silently makes the assignor round-robin
        "topic_allow_declare": False,
        "topic_disable_leader": True,
        "web_enabled": False,
        "datadir": "/nonexistent",
        "key_serializer": "raw",
        "value_serializer": "raw",
    }


def _host(identity: str) -> str:
    return f"member-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"


def _credentials(settings: Settings) -> Any:
    context = tls(settings)
    if settings.kafka_security_protocol in SECRETS:
        return faust.SASLCredentials(
            username=settings.kafka_sasl_username,
            password=password(settings),
            mechanism=settings.kafka_sasl_mechanism,
            ssl_context=context,
        )
    return faust.SSLCredentials(context=context) if context else None

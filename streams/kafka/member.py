"""The Faust application: one member of the consumer group, set up so that Faust is safe (DELIVERY section 2).

Nothing here knows what a record means. Every deviation from Faust's defaults is a line of `options` or a method of the
class below, each with its reason. What has to be asked of the inside of Faust and aiokafka is asked here.
"""

# ruff: noqa: SLF001  (see above)

from __future__ import annotations

import asyncio
import hashlib
import logging
import sys
from collections.abc import Iterable
from typing import Any, Final, cast

import aiokafka
import faust
from aiokafka.errors import BrokerResponseError, KafkaError, kafka_errors
from faust.app.base import BootStrategy
from faust.tables import TableManager
from faust.types import TP
from yarl import URL

from streams.errors import ConfigurationError
from streams.kafka.connection import SECRETS, group_name, member_name, password, rebalance_seconds, servers, tls
from streams.kafka.reader import POLL_RECORDS
from streams.kafka.transport import QUEUE_RECORDS, MemberConsumer, MemberTransport, Queue
from streams.settings import Settings
from streams.values import Topic

METADATA_MILLISECONDS: Final = 30_000
"""Partitions that a topic has grown by are noticed within this time; by default it would be five minutes."""
DAY_SECONDS: Final = 86_400.0
STOP_SECONDS: Final = 5.0

log = logging.getLogger(__name__)


class FencedInstanceIdError(BrokerResponseError):  # type: ignore[misc]  # aiokafka.errors is untyped
    """Another process joined with our instance id (error 82, KIP-345), which aiokafka does not know by name."""

    errno = 82
    message = "FENCED_INSTANCE_ID"


kafka_errors[FencedInstanceIdError.errno] = FencedInstanceIdError


def fenced(error: BaseException | None) -> bool:
    """Whether another process with our instance id is behind this error, which aiokafka wraps as a text."""
    return FencedInstanceIdError.__name__ in repr(error)


class Boot(BootStrategy):
    """What the application starts: no producer (ours is idempotent), no web pages."""

    enable_kafka_producer = False
    enable_web = False


class Tables(TableManager):
    """The manager of no tables: it need not wait a second for them to be declared before the group is joined."""

    async def on_start(self) -> None:
        """Let the group be joined."""
        await self._update_channels()
        await self.recovery.start()


class Member(faust.App):
    """One member of the group. Started and stopped inside the running event loop; signals and logging are others'."""

    BootStrategy = Boot
    mundane_level = "debug"

    @property
    def polls(self) -> int:
        """How often the fetcher was asked; 0 before the start."""
        return self._member_consumer.polls if self._member_consumer is not None else 0

    @property
    def turns(self) -> int:
        """Grows once a second while the consumer's thread lives; 0 before the start."""
        return self._member_consumer.turns if self._member_consumer is not None else 0

    def positions(self) -> dict[TP, tuple[int | None, int]]:
        """For each owned partition where it ends, None while that is not known, and from where it is read."""
        consumer = self._member_consumer
        if consumer is None:
            return {}
        return {tp: (consumer.highwater(tp), consumer._read_offset.get(tp) or 0) for tp in consumer.assignment()}

    def coordinator_alive(self) -> bool:
        """Whether the task that keeps this member in its group runs."""
        task = self._coordination
        return task is not None and not task.done()

    def coordinator_error(self) -> BaseException | None:
        """What ended the task that keeps this member in its group, or will; None while it runs or nothing is known.

        Aiokafka holds an error back until records are asked for, and Faust asks for none before it has partitions.
        """
        task = self._coordination
        if task is not None and task.done() and not task.cancelled():
            return task.exception()
        waiting = getattr(self._coordinator, "_pending_exception", None)
        return waiting if fenced(waiting) else None

    async def give_up(self, starting: asyncio.Task[None]) -> None:
        """Stop while the group has not let us in: aiokafka's close would wait for the join that it waits for."""
        starting.cancel()
        consumer, task = self._member_consumer, self._coordination
        if consumer is not None and task is not None:
            consumer._thread.thread_loop.call_soon_threadsafe(task.cancel)
        await self.end()

    async def end(self) -> None:
        """Stop; a broker that is away would be waited for without end."""
        stopping = asyncio.create_task(self.stop(), name="kafka-member-stop")
        done, _ = await asyncio.wait([stopping], timeout=STOP_SECONDS)
        if stopping not in done:
            log.warning("the Kafka consumer did not stop in %g s: what was acknowledged last comes again", STOP_SECONDS)
            stopping.cancel()
        elif not stopping.cancelled() and (error := stopping.exception()) is not None:
            log.warning("the Kafka consumer stopped with an error: %r", error)

    async def behind(self, seconds: float) -> int | None:
        """Records that the broker has beyond what was fetched, asked of it anew; None where it doesn't answer in time."""
        consumer, inner = self._member_consumer, self._inner_consumer
        if consumer is None or inner is None:
            return None
        try:
            async with asyncio.timeout(seconds):
                ends = await consumer._thread.highwaters(*inner.assignment())
        except (KafkaError, TimeoutError):
            return None
        subscription = inner._subscription.subscription
        assignment = subscription.assignment if subscription is not None else None
        if assignment is None:
            return None
        states = ((end, assignment.state_value(tp)) for tp, end in ends.items())
        return sum(
            max(0, int(end - state.position)) for end, state in states if state is not None and state.has_valid_position
        )

    @property
    def _coordinator(self) -> Any:
        return getattr(self._inner_consumer, "_coordinator", None)

    @property
    def _coordination(self) -> asyncio.Task[None] | None:
        return getattr(self._coordinator, "_coordination_task", None)

    @property
    def _member_consumer(self) -> MemberConsumer | None:
        return cast("MemberConsumer | None", self._consumer)

    @property
    def _inner_consumer(self) -> aiokafka.AIOKafkaConsumer | None:
        return self._member_consumer._thread._consumer if self._member_consumer is not None else None

    def _create_directories(self) -> None:
        """Nothing: there are no tables, and Faust would make a folder in the working directory."""

    def _new_transport(self) -> MemberTransport:
        return MemberTransport(self.conf.broker_consumer, self)

    def FlowControlQueue(  # noqa: N802
        self, maxsize: int | None = None, *, clear_on_resume: bool = False
    ) -> Queue:
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
        "broker_rebalance_timeout": rebalance_seconds(settings),
        "broker_request_timeout": max(90.0, session + 10.0),
        "broker_max_poll_interval": DAY_SECONDS,  # must not end a hold
        "broker_max_poll_records": POLL_RECORDS,
        "broker_commit_interval": 1.0,
        "consumer_group_instance_id": identity,
        # derived from the identity: a restart in another container with another host name kills the coordinator (tried)
        "canonical_url": URL(f"http://{_host(identity)}:6066") if identity else None,
        "consumer_metadata_max_age_ms": METADATA_MILLISECONDS,
        "consumer_max_fetch_size": max(1_048_576, settings.record_bytes + 65_536),
        "stream_buffer_maxsize": QUEUE_RECORDS,
        "stream_wait_empty": False,  # with the default a rebalance waits without limit for the batch in hand
        "stream_ack_exceptions": False,
        "stream_ack_cancelled_tasks": False,
        "TableManager": Tables,
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

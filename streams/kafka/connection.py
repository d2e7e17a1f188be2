"""How to reach Kafka: bootstrap servers, security and topic names, the same for every client of this process; and who is
in our group.

Also consumers that do not spin: a pause after a fetch that found nothing and was answered at once. Kafka holds an empty
fetch for `fetch.max.wait.ms`. The embedded broker (noida-db 0.2.3) answers it at once, so that an idle consumer asked
1,100 times a second and took .45 of a core, beside what the broker took (measured); a worker and a demonstration have
four consumers. Against a broker that holds fetches the pause never comes about.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import logging
import ssl
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import Any, Final

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.consumer.fetcher import Fetcher
from aiokafka.errors import KafkaError, UnknownMemberIdError, for_code
from aiokafka.protocol.group import LeaveGroupRequest

from streams.errors import BrokerUnavailableError, ConfigurationError
from streams.settings import Settings, read_secret
from streams.values import Topic

SECRETS: Final = ("SASL_PLAINTEXT", "SASL_SSL")
TLS: Final = ("SSL", "SASL_SSL")
PACE: Final = "coldstream_pace"
"""Attribute of a fetcher: awaited before each of its requests."""
PAUSE_SECONDS: Final = 0.01
"""What patience adds to the latency of a lone record, at most."""
ANSWER_SECONDS: Final = 5.0
"""How long a broker may take to say who is in the group; one that takes longer counts as away."""
REJOINS: Final = 4
"""Joins without a new generation, within as many session timeouts, that show a second process with our instance id."""

log = logging.getLogger(__name__)


def servers(settings: Settings) -> list[str]:
    """The bootstrap servers, each host:port. Raises `ConfigurationError` for anything else."""
    found = [part.strip() for part in settings.kafka.split(",") if part.strip()]
    for server in found:
        host, _, port = server.rpartition(":")
        if not host or not port.isdigit():
            raise ConfigurationError(f"COLDSTREAM_KAFKA must be host:port, separated by commas; {server!r} is not")
    if not found:
        raise ConfigurationError("COLDSTREAM_KAFKA names no server")
    return found


def tls(settings: Settings) -> ssl.SSLContext | None:
    """The TLS context of the settings' protocol; None where it is in plain text."""
    if settings.kafka_security_protocol not in TLS:
        return None
    try:
        return ssl.create_default_context(cafile=settings.kafka_ssl_ca_file or None)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(
            f"COLDSTREAM_KAFKA_SSL_CA_FILE {settings.kafka_ssl_ca_file!r} holds no certificates in PEM: {error}"
        ) from error


def password(settings: Settings) -> str:
    """The SASL password from its file. Raises `ConfigurationError` where user name or password are missing."""
    secret = read_secret(settings.kafka_sasl_password_file)
    if not secret or not settings.kafka_sasl_username:
        raise ConfigurationError(
            f"{settings.kafka_security_protocol} needs COLDSTREAM_KAFKA_SASL_USERNAME and _SASL_PASSWORD_FILE"
        )
    return secret


def client_options(settings: Settings) -> dict[str, Any]:
    """Keyword arguments of every aiokafka client: where and how to connect."""
    learn_patience()
    options: dict[str, Any] = {
        "bootstrap_servers": servers(settings),
        "client_id": "coldstream",
        "security_protocol": settings.kafka_security_protocol,
        "ssl_context": tls(settings),
    }
    if settings.kafka_security_protocol in SECRETS:
        options |= {
            "sasl_mechanism": settings.kafka_sasl_mechanism,
            "sasl_plain_username": settings.kafka_sasl_username,
            "sasl_plain_password": password(settings),
        }
    return options


def full_name(settings: Settings, topic: str) -> str:
    """The name of a topic on the cluster."""
    return f"{settings.topic_prefix}{topic}"


def group_name(settings: Settings) -> str:
    """The name of the consumer group on the cluster."""
    return f"{settings.topic_prefix}{settings.group}"


def rebalance_seconds(settings: Settings) -> float:
    """How long the group waits in a rebalance for a member that lives: Kafka's rebalance timeout."""
    return max(2 * settings.session_timeout_seconds, 20.0)


def settle_seconds(settings: Settings) -> float:
    """How long a group takes at most by its own rules: a session until who was killed is out, then a whole rebalance."""
    return settings.session_timeout_seconds + rebalance_seconds(settings)


def member_name(settings: Settings, topics: Iterable[Topic]) -> str | None:
    """The instance id that Kafka sees; None for dynamic membership.

    It ends in a hash of the topic set: a static member that comes back keeps its old subscription, and a topic that
    was added since would never be consumed.
    """
    if not settings.instance_id:
        return None
    names = ",".join(sorted(full_name(settings, topic) for topic in topics))
    return f"{settings.instance_id}-{hashlib.sha256(names.encode()).hexdigest()[:8]}"


@functools.cache
def learn_patience() -> None:
    """Teach it to every consumer of this process. Idempotent."""
    fetch = Fetcher._proc_fetch_request  # noqa: SLF001  (aiokafka has no hook between two fetches)

    @functools.wraps(fetch)
    async def fetch_patiently(self: Any, *arguments: Any) -> bool:
        loop = asyncio.get_running_loop()
        try:
            if (pace := getattr(self, PACE, None)) is not None:
                await pace()
            asked_at = loop.time()
            found = bool(await fetch(self, *arguments))
            if not found and loop.time() - asked_at < self._fetch_max_wait_ms / 2000:
                await asyncio.sleep(PAUSE_SECONDS)
        except asyncio.CancelledError:
            return False  # closing, or unassigned: as in aiokafka's own fetch, but in its wait after a broker that is away too
        return found

    Fetcher._proc_fetch_request = fetch_patiently  # noqa: SLF001


class Joins:
    """Our joins of the group: two processes with one instance id throw each other out, and join again for ever."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._last: deque[tuple[float, int]] = deque(maxlen=REJOINS)
        self.count = 0
        """Joins since the start."""

    def add(self, generation: int) -> bool:
        """We have joined, at this generation of the group; whether that shows a second process with our instance id."""
        now = time.monotonic()
        self.count += 1
        self._last.append((now, generation))
        return (
            bool(self._settings.instance_id)
            and len(self._last) == REJOINS
            and now - self._last[0][0] < REJOINS * self._settings.session_timeout_seconds
            and all(joined == generation for _, joined in self._last)
        )


@dataclass(frozen=True, slots=True)
class Group:
    """The consumer group as its coordinator has it: Kafka's word for its state, and its members."""

    state: str
    members: tuple[str, ...]
    """Member ids. Who waits to be let in is among them."""


async def describe_group(settings: Settings) -> Group:
    """Who is in our group now. Raises `BrokerUnavailableError` where the broker does not say within five seconds."""
    async with _coordinator(settings) as (client, node):
        return await _describe(client, node, group_name(settings))


async def answers(settings: Settings, seconds: float) -> bool:
    """Whether the coordinator of our group says within that time who is in it."""
    try:
        async with asyncio.timeout(seconds):
            await describe_group(settings)
    except (BrokerUnavailableError, TimeoutError) as error:
        log.warning("the broker is waited for: %s", error)
        return False
    return True


async def evict_members(settings: Settings) -> None:
    """Put every member out of our group. One that lives joins again at its next heartbeat.

    For the embedded broker, which waits for a member that was killed without end (docs/adr/embedded-broker-group.md).
    Raises `BrokerUnavailableError` where it does not answer within five seconds, or refuses.
    """
    name = group_name(settings)
    async with _coordinator(settings) as (client, node):
        members = (await _describe(client, node, name)).members
        for member in members:
            answer = await client._send_request(LeaveGroupRequest(name, member), node)  # noqa: SLF001  (not offered)
            if (kind := for_code(answer.error_code)) not in (for_code(0), UnknownMemberIdError):
                raise BrokerUnavailableError(f"the broker keeps {member} in the group {name}: {kind.__name__}")
            log.warning("put out of the group, since the embedded broker would wait for it if it is dead: %s", member)


@contextlib.asynccontextmanager
async def _coordinator(settings: Settings) -> AsyncIterator[tuple[AIOKafkaAdminClient, int]]:
    """A client, and the node that keeps our group."""
    client = AIOKafkaAdminClient(**client_options(settings), request_timeout_ms=int(1000 * ANSWER_SECONDS))
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            await client.start()
            yield client, await client.find_coordinator(group_name(settings))
    except (KafkaError, OSError) as error:  # TimeoutError is an OSError
        raise BrokerUnavailableError(
            f"Kafka at {settings.kafka} does not say who is in the group: {error!r}"
        ) from error
    finally:
        await client.close()


async def _describe(client: AIOKafkaAdminClient, node: int, name: str) -> Group:
    (answer,) = await client.describe_consumer_groups([name], group_coordinator_id=node)
    ((code, _, state, _, _, members, *_),) = answer.groups
    if code:
        raise BrokerUnavailableError(f"Kafka does not describe the group {name}: {for_code(code).__name__}")
    return Group(state, tuple(member for member, *_ in members))

"""How to reach Kafka: bootstrap servers, security and topic names, the same for every client of this process.

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
import ssl
from collections.abc import Iterable
from typing import Any, Final

from aiokafka.consumer.fetcher import Fetcher

from streams.errors import ConfigurationError
from streams.settings import Settings, read_secret
from streams.values import Topic

SECRETS: Final = ("SASL_PLAINTEXT", "SASL_SSL")
TLS: Final = ("SSL", "SASL_SSL")
PAUSE_SECONDS: Final = 0.01
"""What patience adds to the latency of a lone record, at most."""


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
        asked_at = loop.time()
        found = bool(await fetch(self, *arguments))
        if not found and loop.time() - asked_at < self._fetch_max_wait_ms / 2000:
            with contextlib.suppress(asyncio.CancelledError):  # closing, or unassigned: as aiokafka does in its fetch
                await asyncio.sleep(PAUSE_SECONDS)
        return found

    Fetcher._proc_fetch_request = fetch_patiently  # noqa: SLF001

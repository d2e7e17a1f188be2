"""How to reach Kafka: bootstrap servers, security and topic names, the same for every client of this process."""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Iterable
from typing import Any, Final

from streams.errors import ConfigurationError
from streams.kafka.patience import learn_patience
from streams.settings import Settings, read_secret
from streams.values import Topic

SECRETS: Final = ("SASL_PLAINTEXT", "SASL_SSL")
TLS: Final = ("SSL", "SASL_SSL")


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

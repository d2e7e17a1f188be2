"""The index that the settings name."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from streams.errors import ConfigurationError
from streams.ports import Index
from streams.settings import Settings, read_secret

if TYPE_CHECKING:
    from qdrant_client import AsyncQdrantClient


def open_index(settings: Settings) -> Index:
    """The adapter for `settings.index`, not opened yet. Each is imported here, so that it costs only who uses it.

    Raises `ConfigurationError` for anything but `edge:DIR` and a URL, and for a secret that cannot be read.
    """
    scheme, _, rest = settings.index.partition(":")
    if scheme == "edge" and rest:
        from streams.index.edge import EdgeIndex  # noqa: PLC0415

        return EdgeIndex(Path(rest))
    if scheme in ("http", "https"):
        from streams.index.qdrant import QdrantIndex  # noqa: PLC0415

        make_client = partial(_connect, settings, read_secret(settings.qdrant_api_key_file), _authorities(settings))
        return QdrantIndex(make_client, prefix=settings.topic_prefix, quantization=settings.qdrant_quantization)
    raise ConfigurationError(
        f"COLDSTREAM_INDEX must be edge:DIR or the http(s) URL of a Qdrant server, not {settings.index!r}"
    )


async def look_at_server(settings: Settings) -> str:
    """What the Qdrant server of the settings has, in words; raises as `open_index` and, where it is away, as the port."""
    from streams.index.server import look  # noqa: PLC0415

    client = _connect(settings, read_secret(settings.qdrant_api_key_file), _authorities(settings))
    return await look(client, settings.topic_prefix)


def _connect(settings: Settings, api_key: str | None, authorities: bytes | None) -> AsyncQdrantClient:
    from streams.index.server import connect  # noqa: PLC0415

    return connect(settings.index, api_key, authorities)


def _authorities(settings: Settings) -> bytes | None:
    if not settings.qdrant_ca_file:
        return None
    try:
        return Path(settings.qdrant_ca_file).read_bytes()
    except OSError as error:
        raise ConfigurationError(f"cannot read the authorities trusted for Qdrant: {error}") from error

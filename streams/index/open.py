"""The index that the settings name."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from streams.errors import ConfigurationError
from streams.ports import Index
from streams.settings import Settings, read_secret


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
        from streams.index.server import connect  # noqa: PLC0415

        make_client = partial(
            connect, settings.index, read_secret(settings.qdrant_api_key_file), _read_authorities(settings)
        )
        return QdrantIndex(make_client, prefix=settings.topic_prefix, quantization=settings.qdrant_quantization)
    raise ConfigurationError(
        f"COLDSTREAM_INDEX must be edge:DIR or the http(s) URL of a Qdrant server, not {settings.index!r}"
    )


def _read_authorities(settings: Settings) -> bytes | None:
    if not settings.qdrant_ca_file:
        return None
    try:
        return Path(settings.qdrant_ca_file).read_bytes()
    except OSError as error:
        raise ConfigurationError(f"cannot read the authorities trusted for Qdrant: {error}") from error

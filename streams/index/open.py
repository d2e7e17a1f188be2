"""The index that the settings name."""

from __future__ import annotations

import fcntl
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


async def look(settings: Settings) -> str:
    """What there is at `settings.index`, in words; nothing is changed.

    Raises as `open_index`, `ConfigurationError` for what no worker could use, and as the port for a server that is away.
    """
    scheme, _, rest = settings.index.partition(":")
    if scheme == "edge" and rest:
        return _look_at_edge(Path(rest))
    from streams.index.server import look as look_at_server  # noqa: PLC0415

    client = _connect(settings, read_secret(settings.qdrant_api_key_file), _authorities(settings))
    return f"{await look_at_server(client, settings.topic_prefix)} at {settings.index}"


def _look_at_edge(folder: Path) -> str:
    if not folder.exists():
        return f"{folder} will be made by the worker"
    names = [entry.name for entry in folder.iterdir()]
    if not names:
        return f"{folder} is empty"
    if "lock" not in names:
        raise ConfigurationError(f"{folder} holds other files: name an empty folder in COLDSTREAM_INDEX")
    with (folder / "lock").open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return f"{folder} is in use by a worker"
    return f"{folder} is there, no worker uses it"


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

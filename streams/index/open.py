"""The index that the settings name."""

from __future__ import annotations

from pathlib import Path

from streams.errors import ConfigurationError
from streams.ports import Index
from streams.settings import Settings


def open_index(settings: Settings) -> Index:
    """The adapter for `settings.index`, not opened yet. Each is imported here, so that it costs only who uses it.

    Raises `ConfigurationError` for anything but `edge:DIR` and a URL.
    """
    scheme, _, rest = settings.index.partition(":")
    if scheme == "edge" and rest:
        from streams.index.edge import EdgeIndex  # noqa: PLC0415

        return EdgeIndex(Path(rest))
    raise ConfigurationError(
        f"COLDSTREAM_INDEX must be edge:DIR or the http(s) URL of a Qdrant server, not {settings.index!r}"
    )

"""Log lines on stderr: text for people, one JSON object a line for machines. Never a secret, never a user's text."""

from __future__ import annotations

import logging
import sys
from typing import Final

import msgspec

from streams.settings import Settings
from streams.wire import to_rfc3339

QUIET: Final = ("faust", "aiokafka", "mode", "asyncio", "aiohttp")
"""Libraries of which only warnings are of interest to an operator."""


class JsonFormatter(logging.Formatter):
    """One JSON object a line: at, level, logger, message, error; and what was given as `extra={"fields": {…}}`."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line: dict[str, object] = {
            "at": to_rfc3339(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        fields = getattr(record, "fields", None)
        if isinstance(fields, dict):
            line.update(fields)
        return msgspec.json.encode(line, enc_hook=str).decode()


def set_up_logging(settings: Settings) -> None:
    """One handler on the root, at the settings' level."""
    handler = logging.StreamHandler(sys.stderr)
    if settings.log_format == "json":
        handler.setFormatter(JsonFormatter())
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level)
    for name in QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))

"""Asks the running worker over its HTTP port: with an embedded index nobody else can."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from streams.errors import ColdstreamError
from streams.settings import Settings, read_secret

SECONDS: Final = 30.0


class MissingError(ColdstreamError):
    """The worker does not know what it was asked about."""


def ask(settings: Settings, path: Sequence[str], query: Sequence[tuple[str, str]] = ()) -> Any:
    """The JSON that the worker answers to GET of a path, given in its parts, unquoted.

    Raises `MissingError` for 404, else `ColdstreamError` with the worker's own sentence, or with what to do where no
    worker answers.
    """
    body = fetch(settings, path, query)
    try:
        return msgspec.json.decode(body)
    except msgspec.DecodeError as error:
        raise ColdstreamError(
            f"what answers at {settings.http} is no Coldstream worker: set COLDSTREAM_HTTP"
        ) from error


def fetch(settings: Settings, path: Sequence[str], query: Sequence[tuple[str, str]] = ()) -> bytes:
    """The body of the answer; raises as `ask`."""
    quoted = "/".join(urllib.parse.quote(part, safe="") for part in path)
    url = f"http://{settings.http}/{quoted}"
    if query:
        url += f"?{urllib.parse.urlencode(query)}"
    request = urllib.request.Request(url)  # noqa: S310  (the scheme is ours)
    token = read_secret(settings.http_token_file)
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    # A proxy of the environment is for the world outside, not for a worker.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=SECONDS) as answer:
            return bytes(answer.read())
    except urllib.error.HTTPError as error:
        sentence = _sentence(error)
        raise (MissingError if error.code == 404 else ColdstreamError)(sentence) from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise ColdstreamError(
            f"no worker answers at {settings.http} ({reason}): start `coldstream worker`, "
            "or set COLDSTREAM_HTTP to where one listens"
        ) from error


def read_counter(settings: Settings, name: str) -> float:
    """The sum of a metric's series as the worker tells it; raises as `ask`."""
    lines = fetch(settings, ["metrics"]).decode().splitlines()
    series = (line.rpartition(" ") for line in lines if not line.startswith("#"))
    return sum(float(value) for key, _, value in series if key.partition("{")[0] == name)


def titles_of(settings: Settings, item_ids: Sequence[str]) -> dict[str, str]:
    """The titles of those of these items that are in the catalogue."""
    if not item_ids:
        return {}
    answer = ask(settings, ["items"], [("id", identity) for identity in item_ids])
    return {item["item_id"]: item["title"] for item in answer["items"]}


def _sentence(error: urllib.error.HTTPError) -> str:
    try:
        body = msgspec.json.decode(error.read())
        return str(body["error"]) if "error" in body else "; ".join(map(str, body["reasons"]))
    except (msgspec.DecodeError, KeyError, TypeError, OSError):
        return f"the worker answered {error.code} {error.reason}"

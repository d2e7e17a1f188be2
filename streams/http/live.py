"""What streams through, for people to watch: a feed of lists as they are delivered, and the routes of the live page.

The feed never slows the worker down: without a watcher it does nothing, a watcher who is slow or a stream that is too
fast for eyes loses lists, and the loss is counted on the page.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from importlib.resources import files
from typing import Any, Final
from uuid import uuid4

import msgspec
from aiohttp import web

from streams.errors import PoisonError
from streams.http.routes import BadRequestError
from streams.http.service import Service
from streams.values import Record, Topic
from streams.wire import Event, Item, Recommendation, decode_event, decode_item, to_rfc3339

MOST_WATCHERS: Final = 32
SHOWN_AT_ONCE: Final = 8
TICK_SECONDS: Final = 0.25
QUIET_TICKS: Final = 20
"""After so many ticks without a list the page hears from us all the same: the connection is known to live."""
PAGE: Final = {
    "/": ("index.html", "text/html"),
    "/live/page.css": ("page.css", "text/css"),
    "/live/page.js": ("page.js", "text/javascript"),
}
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
WRITE_HEADER: Final = "X-Coldstream"
"""A header that a foreign page cannot send here without asking first, which is refused: writes need it."""


class Happening(msgspec.Struct, frozen=True):
    """A list that was delivered; `milliseconds`: since the record that it answers, None for a repeated one."""

    recommendation: Recommendation
    milliseconds: float | None


class Tick(msgspec.Struct, frozen=True):
    """What a watcher hears of a moment: at most a few lists, those of the followed user among them."""

    lists: tuple[Happening, ...]
    delivered: int
    """Lists delivered since the last tick, shown or not."""
    titles: dict[str, str]
    """Of the items in these lists."""
    reasons: tuple[str, ...]
    """Why the worker is not ready; empty: it is."""
    at: float


class Watcher:
    """One open page."""

    def __init__(self, user_id: str | None) -> None:
        self.user_id = user_id
        self.delivered = 0
        self._others: deque[Happening] = deque(maxlen=SHOWN_AT_ONCE)
        self._followed: deque[Happening] = deque(maxlen=SHOWN_AT_ONCE)

    def hear(self, happening: Happening) -> None:
        """Note a list; older ones make room."""
        self.delivered += 1
        followed = happening.recommendation.user_id == self.user_id
        (self._followed if followed else self._others).append(happening)

    def take(self) -> tuple[tuple[Happening, ...], int]:
        """The lists to show, and how many were delivered since the last call."""
        taken = (*self._others, *self._followed), self.delivered
        self._others.clear()
        self._followed.clear()
        self.delivered = 0
        return taken


class Feed:
    """Hands delivered lists to the watchers. All calls from one event loop."""

    def __init__(self) -> None:
        self._watchers: set[Watcher] = set()
        self.closed = asyncio.Event()

    def show(self, recommendation: Recommendation, seconds: float | None) -> None:
        """A list was delivered, so many seconds after the record that it answers."""
        if self._watchers:
            happening = Happening(recommendation, None if seconds is None else seconds * 1000)
            for watcher in self._watchers:
                watcher.hear(happening)

    @property
    def watched(self) -> bool:
        """Whether anybody looks."""
        return bool(self._watchers)

    def join(self, user_id: str | None) -> Watcher:
        """A new watcher. Raises `BadRequestError` where there are too many."""
        if len(self._watchers) >= MOST_WATCHERS:
            raise BadRequestError(f"{MOST_WATCHERS} pages are open already: close one")
        watcher = Watcher(user_id)
        self._watchers.add(watcher)
        return watcher

    def leave(self, watcher: Watcher) -> None:
        """A watcher has gone."""
        self._watchers.discard(watcher)

    def close(self) -> None:
        """End every open stream."""
        self.closed.set()


def add_live_routes(application: web.Application, service: Service, feed: Feed, *, writes: bool) -> None:
    """Page, stream and, where writes are enabled, publishing."""

    async def stream(request: web.Request) -> web.StreamResponse:
        return await _stream(request, service, feed)

    async def publish(request: web.Request) -> web.Response:
        if not writes:
            raise web.HTTPForbidden(reason="this worker is read-only: start it with COLDSTREAM_HTTP_WRITES=true")
        return await _publish(request, service)

    async def may(_request: web.Request) -> web.Response:
        return web.json_response({"writes": writes})

    for path, (name, kind) in PAGE.items():
        application.router.add_get(path, _page(name, kind))
    application.router.add_get("/live/stream", stream)
    application.router.add_get("/live/may", may)
    application.router.add_post("/live/publish/{topic:events|items}", publish)


def _page(name: str, kind: str) -> Any:
    body = (files("streams.http") / "page" / name).read_bytes()

    async def answer(_request: web.Request) -> web.Response:
        headers = {"Content-Security-Policy": POLICY}
        return web.Response(body=body, content_type=kind, charset="utf-8", headers=headers)

    return answer


async def _stream(request: web.Request, service: Service, feed: Feed) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
    watcher = feed.join(request.query.get("user") or None)
    try:
        await response.prepare(request)
        quiet = 0
        while not feed.closed.is_set():
            lists, delivered = watcher.take()
            quiet = 0 if lists else quiet + 1
            if lists or quiet % QUIET_TICKS == 1:
                tick = Tick(lists, delivered, await _titles(service, lists), tuple(service.readiness()), time.time())
                await response.write(b"data: " + msgspec.json.encode(tick) + b"\n\n")
            try:
                await asyncio.wait_for(feed.closed.wait(), TICK_SECONDS)
            except TimeoutError:
                continue
    except ConnectionResetError:
        pass  # the page was closed: that is how a stream ends
    finally:
        feed.leave(watcher)
    return response


async def _titles(service: Service, lists: tuple[Happening, ...]) -> dict[str, str]:
    ids = dict.fromkeys(item.item_id for happening in lists for item in happening.recommendation.items)
    return {item.item_id: item.title for item in await service.items(list(ids))} if ids else {}


async def _publish(request: web.Request, service: Service) -> web.Response:
    if request.headers.get(WRITE_HEADER) != "1" or request.content_type != "application/json":
        raise BadRequestError(f"send JSON with the header {WRITE_HEADER}: 1")
    topic = Topic(request.match_info["topic"])
    try:
        value = parse_value(topic, await request.read(), time.time())
    except PoisonError as error:
        raise BadRequestError(str(error)) from error
    await service.publish(value)
    return web.Response(status=202, body=msgspec.json.encode(value), content_type="application/json")


def parse_value(topic: Topic, body: bytes, now: float) -> Item | Event:
    """The body as the value of a topic, checked as if it had come by it; an event's id and time may be missing.

    Raises `PoisonError`.
    """
    try:
        fields = msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PoisonError("encoding", f"the body is no JSON object: {error}") from error
    if topic is Topic.EVENTS:
        fields = {"event_id": f"live-{uuid4().hex}", "timestamp": to_rfc3339(now), **fields}
    key = str(fields.get("user_id" if topic is Topic.EVENTS else "item_id", ""))
    record = Record(topic, 0, 0, now, key.encode(), msgspec.json.encode(fields))
    return decode_event(record) if topic is Topic.EVENTS else decode_item(record)

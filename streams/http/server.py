"""The worker's one HTTP port: metrics, health, read API and live page.

Loopback unless told otherwise; beyond loopback only with a token file. Without a token only requests that name a
loopback host are answered, so that a web page in somebody's browser cannot reach it by a name of its own (DNS
rebinding). Requests are bounded in size; an answer is never a traceback.
"""

from __future__ import annotations

import hmac
import ipaddress
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from streams.errors import ConfigurationError, RetryableError
from streams.http import openapi
from streams.http.live import Feed, add_live_routes
from streams.http.routes import ROUTES, BadRequestError, NotFoundError, Route, parse_path, parse_query
from streams.http.service import Failure, Health, Service
from streams.metrics import Metrics
from streams.settings import Settings, read_secret

LARGEST_BODY_BYTES: Final = 65_536
LARGEST_LINE_BYTES: Final = 65_536
"""Of a request: as many exclusions as are offered fit, with UUIDs for ids."""
STOP_SECONDS: Final = 1.0
EXPOSITION: Final = "text/plain; version=0.0.4; charset=utf-8"
LOCAL_NAMES: Final = frozenset({"localhost", "localhost.localdomain"})
SAFE_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}

Answering = Callable[[web.Request], Awaitable[web.StreamResponse]]
log = logging.getLogger(__name__)


class HttpServer:
    """Serves one `Service`. `start` binds, `stop` closes within a second; both are called once.

    Raises `ConfigurationError` for an address that cannot be bound, or must not be without a token.
    """

    def __init__(self, service: Service, metrics: Metrics, settings: Settings) -> None:
        self._service = service
        self._metrics = metrics
        self._list_size = settings.list_size
        self._host, self._port = parse_address(settings.http)
        self._token = read_secret(settings.http_token_file)
        if self._token is None and not is_loopback(self._host):
            raise ConfigurationError(
                f"COLDSTREAM_HTTP={settings.http} can be reached from other machines: "
                "set COLDSTREAM_HTTP_TOKEN_FILE, or listen on 127.0.0.1"
            )
        self.feed = Feed()
        self._runner = web.AppRunner(
            self._make(writes=settings.http_writes), access_log=None, max_line_size=LARGEST_LINE_BYTES,
            max_field_size=LARGEST_LINE_BYTES, handle_signals=False, shutdown_timeout=STOP_SECONDS,
        )  # fmt: skip

    @property
    def url(self) -> str:
        """Where it answers, after `start`; with port 0 the port that the system chose."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}"

    async def start(self) -> None:
        """Bind and serve."""
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._host, self._port).start()
        except OSError as error:
            await self._runner.cleanup()
            raise ConfigurationError(
                f"cannot listen on {self._host}:{self._port} ({error.strerror or error}): "
                "set COLDSTREAM_HTTP to another address, or port 0 for any free one"
            ) from error
        self._port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """End open streams and close."""
        self.feed.close()
        await self._runner.cleanup()

    def _make(self, *, writes: bool) -> web.Application:
        application = web.Application(
            middlewares=[self._observe, self._explain, self._guard], client_max_size=LARGEST_BODY_BYTES
        )
        for route in ROUTES:
            application.router.add_get(route.path, self._handler(route))
        application.router.add_get("/metrics", self._answer_metrics)
        application.router.add_get("/openapi.json", self._answer_openapi)
        add_live_routes(application, self._service, self.feed, writes=writes)
        return application

    def _handler(self, route: Route) -> Answering:
        async def handle(request: web.Request) -> web.Response:
            query = parse_query(route, list(request.query.items()))
            answer = await route.handle(self._service, parse_path(request), query, self._list_size)
            return as_json(answer, 503 if isinstance(answer, Health) and answer.reasons else 200)

        return handle

    async def _answer_metrics(self, _request: web.Request) -> web.Response:
        self._metrics.gauge("coldstream_ready").set(not self._service.readiness())
        return web.Response(body=self._metrics.render(), headers={"Content-Type": EXPOSITION})

    async def _answer_openapi(self, _request: web.Request) -> web.Response:
        return web.Response(body=msgspec.json.encode(openapi.document()), content_type="application/json")

    @web.middleware
    async def _observe(self, request: web.Request, handler: Answering) -> web.StreamResponse:
        resource = request.match_info.route.resource
        route = resource.canonical if resource is not None else "none"
        started = time.perf_counter()
        response = await handler(request)
        if not isinstance(response, web.Response):
            return response  # a stream lasts as long as its reader: no figure about our speed
        self._metrics.counter("coldstream_http_requests_total", route=route, status=f"{response.status // 100}xx").inc()
        self._metrics.histogram("coldstream_http_seconds", route=route).observe(time.perf_counter() - started)
        return response

    @web.middleware
    async def _explain(self, request: web.Request, handler: Answering) -> web.StreamResponse:
        try:
            response = await handler(request)
        except BadRequestError as error:
            response = fail(400, str(error))
        except NotFoundError as error:
            response = fail(404, str(error))
        except RetryableError as error:
            response = fail(503, str(error))
        except web.HTTPException as error:
            response = fail(error.status, _describe(error, request))
            response.headers.update({name: value for name, value in error.headers.items() if name == "Allow"})
        except Exception:
            log.exception("answering %s failed", request.path)
            response = fail(500, "a defect: the worker's log says more")
        if not response.prepared:
            for name, value in SAFE_HEADERS.items():
                response.headers.setdefault(name, value)
        return response

    @web.middleware
    async def _guard(self, request: web.Request, handler: Answering) -> web.StreamResponse:
        resource = request.match_info.route.resource
        if resource is not None and any(route.open and route.path == resource.canonical for route in ROUTES):
            return await handler(request)
        if self._token is not None:
            given = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
            if not hmac.compare_digest(given, f"Bearer {self._token}".encode()):
                refused = fail(401, "send the header `Authorization: Bearer <token>` with the worker's token")
                refused.headers["WWW-Authenticate"] = "Bearer"
                return refused
        elif not is_loopback(_host_of(request.headers.get("Host", ""))):
            return fail(403, "without a token only loopback names are answered: use 127.0.0.1 or localhost")
        return await handler(request)


def _spare_traceback(record: logging.LogRecord) -> bool:
    """Lets a request that was no HTTP be a line of the log: its traceback tells of nothing but its sender."""
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, HttpProcessingError):
        record.levelno, record.levelname = logging.WARNING, "WARNING"
        record.msg, record.args, record.exc_info = "a request could not be read: %s", (repr(error.message[:80]),), None
    return True


logging.getLogger("aiohttp.server").addFilter(_spare_traceback)


def as_json(value: msgspec.Struct, status: int = 200) -> web.Response:
    """An answer of ours as JSON."""
    return web.Response(body=msgspec.json.encode(value), status=status, content_type="application/json")


def fail(status: int, sentence: str) -> web.Response:
    """A failure as JSON with a sentence."""
    return as_json(Failure(sentence), status)


def parse_address(text: str) -> tuple[str, int]:
    """Host and port of `host:port`; an IPv6 host stands in brackets. Raises `ConfigurationError`."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65_535:
        raise ConfigurationError(f"COLDSTREAM_HTTP must be host:port, such as 127.0.0.1:9464, not {text!r}")
    return host.removeprefix("[").removesuffix("]"), int(port)


def is_loopback(host: str) -> bool:
    """Whether only this machine can be meant by that host."""
    if host.lower() in LOCAL_NAMES:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _host_of(header: str) -> str:
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.partition(":")[0]


def _describe(error: web.HTTPException, request: web.Request) -> str:
    if error.status == 404:
        return "there is no such route: /openapi.json lists them"
    if error.status == 405:
        return f"{request.method} is not offered here"
    if error.status == 413:
        return f"the body is larger than {LARGEST_BODY_BYTES} bytes"
    return error.reason

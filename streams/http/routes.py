"""The routes of the read API: one table from which the server dispatches and /openapi.json is written.

A route's `query` type says which parameters there are and what they may be; what does not fit is refused with the
sentence that msgspec finds for it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

import msgspec
from aiohttp import web

from streams.http.service import Failure, Health, Items, Service, SimilarItems, Story, Wish
from streams.wire import Id, Recommendation

MOST_ITEMS: Final = 100
MOST_EXCLUDED: Final = 1000


class BadRequestError(Exception):
    """The request asks for something that is not offered; the text is the sentence for its sender."""


class NotFoundError(Exception):
    """There is no such thing; the text names it."""


Limit = Annotated[int, msgspec.Meta(ge=1, le=MOST_ITEMS, description="Items at most")]
Text = Annotated[str, msgspec.Meta(min_length=1, max_length=2000)]
UNSAID: Final = 0
"""Like the empty text: what was not asked for. No parameter may be None, or the word `null` would be read as one."""


class RecommendationsQuery(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Parameters of /recommendations/{user}."""

    limit: Limit = UNSAID
    exclude: Annotated[
        tuple[Id, ...],
        msgspec.Meta(max_length=MOST_EXCLUDED, description="Item ids to leave out: repeated, or separated by commas"),
    ] = ()
    category: Annotated[Text, msgspec.Meta(description="Only items of this category")] = ""
    query: Annotated[Text, msgspec.Meta(description="A wish of the moment, in words")] = ""
    profile: Annotated[Text, msgspec.Meta(description="The user's own words, instead of those stored")] = ""


class LimitQuery(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Parameters of /items/{id}/similar."""

    limit: Limit = UNSAID


class ItemsQuery(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Parameters of /items: `id` or `query`."""

    id: Annotated[tuple[Id, ...], msgspec.Meta(max_length=MOST_ITEMS, description="Item ids, repeated")] = ()
    query: Annotated[Text, msgspec.Meta(description="Words to search the catalogue by")] = ""
    limit: Limit = UNSAID


class NoQuery(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """No parameters."""


Handler = Callable[[Service, Mapping[str, str], Any, int], Awaitable[msgspec.Struct]]
"""(service, path's variables, parsed query, default limit) → the answer."""


@dataclass(frozen=True, slots=True)
class Route:
    """One GET of the read API."""

    path: str
    summary: str
    handle: Handler
    answer: type[msgspec.Struct]
    query: type[msgspec.Struct] = NoQuery
    missing: str = ""
    """What a 404 means; empty: never 404."""
    open: bool = False
    """Whether it is answered without the token and to any host name: probes have neither."""


async def _recommend(service: Service, path: Mapping[str, str], query: Any, limit: int) -> Recommendation:
    excluded = {identity for value in query.exclude for identity in (value, *value.split(","))}
    wish = Wish(
        query.limit or limit, frozenset(excluded), query.category or None, query.query or None, query.profile or None
    )
    return await service.recommend(path["user"], wish)


async def _similar(service: Service, path: Mapping[str, str], query: Any, limit: int) -> SimilarItems:
    answer = await service.similar(path["id"], query.limit or limit)
    if answer is None:
        raise NotFoundError(f"there is no item {path['id'][:80]!r} in the catalogue")
    return answer


async def _items(service: Service, _path: Mapping[str, str], query: Any, limit: int) -> Items:
    if bool(query.id) == bool(query.query):
        raise BadRequestError("say either which items (id=…, repeated) or what to search for (query=…)")
    found = await (service.items(query.id) if query.id else service.search(query.query, query.limit or limit))
    return Items(tuple(found))


async def _story(service: Service, path: Mapping[str, str], _query: Any, _limit: int) -> Story:
    return await service.story(path["user"])


async def _alive(_service: Service, _path: Mapping[str, str], _query: Any, _limit: int) -> Health:
    return Health("alive")


async def _ready(service: Service, _path: Mapping[str, str], _query: Any, _limit: int) -> Health:
    reasons = tuple(service.readiness())
    return Health("not ready", reasons) if reasons else Health("ready")


ROUTES: Final = (
    Route("/recommendations/{user}", "The list of a user as it would be now; a stranger gets one too",
          _recommend, Recommendation, RecommendationsQuery),
    Route("/items/{id}/similar", "The items nearest to one", _similar, SimilarItems, LimitQuery,
          missing="The item is not in the catalogue"),
    Route("/items", "Items by id, or by words", _items, Items, ItemsQuery),
    Route("/users/{user}", "What is known of a user: history, and the taste that it makes", _story, Story),
    Route("/healthz", "Whether the process is alive", _alive, Health, open=True),
    Route("/readyz", "Whether the worker does its work: 200, or 503 with the reasons", _ready, Health, open=True),
)  # fmt: skip


def parse_query(route: Route, pairs: Sequence[tuple[str, str]]) -> msgspec.Struct:
    """The query string as the route's type. Raises `BadRequestError`."""
    known = {field.name: field for field in msgspec.structs.fields(route.query)}
    values: dict[str, Any] = {}
    for name, value in pairs:
        if name not in known:
            offered = ", ".join(known) or "none"
            raise BadRequestError(f"there is no parameter {name[:40]!r} here; there are: {offered}")
        if known[name].default == ():
            values.setdefault(name, []).append(value)
        elif name in values:
            raise BadRequestError(f"{name} is given twice")
        else:
            values[name] = value
    try:
        return msgspec.convert(values, route.query, strict=False)
    except msgspec.ValidationError as error:
        raise BadRequestError(f"bad parameter: {error}") from error


def parse_path(request: web.Request) -> dict[str, str]:
    """The path's variables; ids are as long as on the topics. Raises `BadRequestError`."""
    variables = dict(request.match_info)
    for name, value in variables.items():
        if not 0 < len(value) <= 512:
            raise BadRequestError(f"{name} must be an id of 1 to 512 characters")
    return variables


__all__ = ["ROUTES", "BadRequestError", "Failure", "NotFoundError", "Route", "parse_path", "parse_query"]

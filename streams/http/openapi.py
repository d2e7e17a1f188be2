"""The OpenAPI document of the worker's HTTP port, written from the table of routes and the types of their answers."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any, Final

import msgspec

from streams.http.routes import ROUTES, NoQuery, Route
from streams.http.service import Failure

REFERENCES: Final = "#/components/schemas/{name}"


def document() -> dict[str, Any]:
    """OpenAPI 3.1 of every route."""
    types = [*dict.fromkeys(route.answer for route in ROUTES), Failure]
    _, components = msgspec.json.schema_components(types, ref_template=REFERENCES)
    paths = {route.path: {"get": _operation(route)} for route in ROUTES}
    paths["/metrics"] = {"get": _text("The metrics, for Prometheus", "metrics", "text/plain")}
    paths["/openapi.json"] = {"get": _text("This document", "openapi", "application/json")}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Coldstream worker",
            "version": version("coldstream"),
            "description": "Read-only. With a token file set, all but the probes want `Authorization: Bearer`.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "security": [{"token": []}, {}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(route: Route) -> dict[str, Any]:
    responses = {"200": _answer("The answer", route.answer.__name__)}
    if route.query is not NoQuery or "{" in route.path:
        refused = _answer(
            "Bad input: a sentence says which; plain text for a line that is longer than 64 KiB", "Failure"
        )
        refused["content"]["text/plain"] = {"schema": {"type": "string"}}
        responses["400"] = refused
    if route.missing:
        responses["404"] = _answer(route.missing, "Failure")
    if not route.open:
        responses["401"] = _answer("The token is missing or wrong", "Failure")
        responses["503"] = _answer("A neighbour is away: ask again", "Failure")
    if route.path == "/readyz":
        responses["503"] = _answer("Not ready, and why", route.answer.__name__)
    operation: dict[str, Any] = {
        "summary": route.summary,
        "operationId": "_".join(part.strip("{}") for part in route.path.strip("/").split("/")),
        "parameters": [*_path_parameters(route), *_query_parameters(route)],
        "responses": dict(sorted(responses.items())),
    }
    return {**operation, "security": [{}]} if route.open else operation


def _answer(description: str, name: str) -> dict[str, Any]:
    schema = {"$ref": REFERENCES.format(name=name)}
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _text(summary: str, operation: str, kind: str) -> dict[str, Any]:
    schema = {"type": "string"} if kind == "text/plain" else {"type": "object"}
    return {
        "summary": summary,
        "operationId": operation,
        "responses": {"200": {"description": summary, "content": {kind: {"schema": schema}}},
                      "401": _answer("The token is missing or wrong", "Failure")},
    }  # fmt: skip


def _path_parameters(route: Route) -> list[dict[str, Any]]:
    names = [part.strip("{}") for part in route.path.split("/") if part.startswith("{")]
    schema = {"type": "string", "minLength": 1, "maxLength": 512}
    return [{"name": name, "in": "path", "required": True, "schema": schema} for name in names]


def _query_parameters(route: Route) -> list[dict[str, Any]]:
    schema = msgspec.json.schema(route.query)
    properties = schema["$defs"][route.query.__name__]["properties"]
    parameters = []
    for name, described in properties.items():
        shape = {key: value for key, value in described.items() if key != "default"}
        description = shape.pop("description", "")
        parameters.append({"name": name, "in": "query", "description": description, "schema": shape})
    return parameters

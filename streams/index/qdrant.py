"""The index on a Qdrant server, by gRPC, shared by any number of workers.

A collection is reached by its alias (prefix and name); what stands behind the alias is numbered. Items are kept once for
each encoder that workers run: see `streams.index.generations`. Nothing here depends on one worker being the only one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from qdrant_client import AsyncQdrantClient, models

from streams.errors import IndexUnavailableError
from streams.index.generations import Generation, find_generation, forget_others, other_generations, succeed
from streams.index.server import (
    REQUEST_SECONDS,
    check_version,
    mapped_errors,
    prepare,
    to_filter,
    to_operation,
    to_requests,
    to_sparse,
)
from streams.index.stored import DENSE, FIELDS, TERMS, check_fields, check_match, point_id, to_fields
from streams.ports import Collection, Hit, Match, Page, Point, Query, Terms, Write

READS: Final = 256
"""Points read in one request."""


class QdrantIndex:
    """The port Index over a server. `make_client` is called by each `open`."""

    name = "qdrant"
    shared = True

    def __init__(
        self, make_client: Callable[[], AsyncQdrantClient], *, prefix: str = "", quantization: str = "none"
    ) -> None:
        self._make_client = make_client
        self._prefix = prefix
        self._quantized = quantization == "scalar"
        self._opened: AsyncQdrantClient | None = None
        self._encoder = ""
        self._generation = Generation(self._alias(Collection.ITEMS), complete=True)

    @property
    def behind(self) -> bool:
        """See the port."""
        return not self._generation.complete

    async def open(self, dimension: int, encoder: str = "") -> None:
        """See the port. Safe while other workers do the same."""
        self._opened = self._make_client()
        self._encoder = encoder
        try:
            async with mapped_errors("open"):
                await check_version(self._client)
                items, users = self._alias(Collection.ITEMS), self._alias(Collection.USERS)
                self._generation = await find_generation(self._client, items, users, encoder, dimension)
                for collection in Collection:
                    dense = self._dense(collection)
                    await prepare(
                        self._client, collection, self._name(collection), dense, dimension, quantized=self._quantized
                    )
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """See the port."""
        client, self._opened = self._opened, None
        if client is not None:
            await client.close()

    async def read(self, collection: Collection, keys: Sequence[str], *, vectors: bool = False) -> list[Point | None]:
        """See the port. Asks most replicas, so that what another worker wrote is seen."""
        ids = [point_id(key) for key in keys]
        wanted = list(dict.fromkeys(ids))
        found: dict[str, Point] = {}
        async with mapped_errors("read"):
            for start in range(0, len(wanted), READS):
                records = await self._client.retrieve(
                    self._name(collection), wanted[start : start + READS], with_payload=True, with_vectors=vectors,
                    consistency=models.ReadConsistencyType.MAJORITY, timeout=REQUEST_SECONDS,
                )  # fmt: skip
                found.update(
                    (str(record.id), _point(collection, record, self._dense(collection))) for record in records
                )
        return [found.get(identity) for identity in ids]

    async def write(self, collection: Collection, writes: Sequence[Write]) -> None:
        """See the port. One operation for each write, its condition checked by the server when it applies it."""
        for write in writes:
            check_fields(collection, write.point.fields)
        operations = [to_operation(write, self._dense(collection)) for write in writes]
        async with mapped_errors("write"):
            for some in to_requests(writes, operations):
                results = await self._client.batch_update_points(
                    self._name(collection), some, wait=True,
                    ordering=models.WriteOrdering.STRONG, timeout=REQUEST_SECONDS,
                )  # fmt: skip
                late = [result.status for result in results if result.status != models.UpdateStatus.COMPLETED]
                if late:
                    raise IndexUnavailableError(f"Qdrant did not complete a write in time: {late[0]}")

    async def search(self, collection: Collection, queries: Sequence[Query]) -> list[list[Hit]]:
        """See the port. All queries in one request."""
        requests = {at: self._request(collection, query) for at, query in enumerate(queries) if not _is_empty(query)}
        results: list[list[Hit]] = [[] for _ in queries]
        if requests:
            async with mapped_errors("search"):
                responses = await self._client.query_batch_points(
                    self._name(collection), list(requests.values()), timeout=REQUEST_SECONDS
                )
            for at, response in zip(requests, responses, strict=True):
                results[at] = [_hit(collection, found.payload or {}, found.score) for found in response.points]
        return results

    async def find(self, collection: Collection, match: Match, limit: int) -> list[Hit]:
        """See the port."""
        check_match(collection, match)
        async with mapped_errors("find"):
            records, _ = await self._client.scroll(
                self._name(collection), scroll_filter=to_filter(match), limit=limit, with_payload=_shown(collection),
                timeout=REQUEST_SECONDS,
            )  # fmt: skip
        return [_hit(collection, record.payload or {}, 0.0) for record in records]

    async def scan(
        self, collection: Collection, *, cursor: str | None = None, limit: int = 1000, match: Match | None = None,
        vectors: bool = False,
    ) -> Page:  # fmt: skip
        """See the port. The order is that of the point ids."""
        check_match(collection, match or Match())
        async with mapped_errors("scan"):
            records, following = await self._client.scroll(
                self._name(collection), scroll_filter=to_filter(match), limit=limit, offset=cursor, with_payload=True,
                with_vectors=vectors, timeout=REQUEST_SECONDS,
            )  # fmt: skip
        points = tuple(_point(collection, record, self._dense(collection)) for record in records)
        return Page(points, None if following is None else str(following))

    async def foreign(self, *, cursor: str | None = None, limit: int = 1000, match: Match | None = None) -> Page:
        """See the port. One generation after the other."""
        async with mapped_errors("scan"):
            others = await other_generations(self._client, self._alias(Collection.ITEMS), self._generation.collection)
            now, _, offset = (cursor or "").partition(" ")
            others = [name for name in others if name >= now]
            if not others:
                return Page((), None)
            records, following = await self._client.scroll(
                others[0], scroll_filter=to_filter(match), limit=limit, offset=(offset or None) if others[0] == now else None,
                with_payload=True, timeout=REQUEST_SECONDS,
            )  # fmt: skip
        points = tuple(_point(Collection.ITEMS, record, DENSE) for record in records)
        if following is not None:
            return Page(points, f"{others[0]} {following}")
        return Page(points, f"{others[1]} " if len(others) > 1 else None)

    async def succeed(self) -> None:
        """See the port."""
        async with mapped_errors("change the aliases"):
            await succeed(self._client, self._alias(Collection.ITEMS), self._encoder, self._generation.collection)
        self._generation = dataclasses.replace(self._generation, complete=True)

    async def forget_others(self) -> list[str]:
        """Delete what is kept for other encoders; returns the names of what was deleted. Not while their workers live."""
        items, users = self._alias(Collection.ITEMS), self._alias(Collection.USERS)
        async with mapped_errors("delete"):
            return await forget_others(self._client, items, users, self._generation)

    async def count(self, collection: Collection) -> int:
        """See the port."""
        async with mapped_errors("count"):
            counted = await self._client.count(self._name(collection), exact=True, timeout=REQUEST_SECONDS)
        return counted.count

    async def purge(self) -> None:
        """See the port: the server's optimisers do it."""

    @property
    def _client(self) -> AsyncQdrantClient:
        if self._opened is None:
            raise IndexUnavailableError("the index is not open")
        return self._opened

    def _alias(self, collection: Collection) -> str:
        return f"{self._prefix}{collection}"

    def _name(self, collection: Collection) -> str:
        return self._generation.collection if collection is Collection.ITEMS else self._alias(collection)

    def _dense(self, collection: Collection) -> str:
        return self._generation.dense if collection is Collection.USERS else DENSE

    def _request(self, collection: Collection, query: Query) -> models.QueryRequest:
        check_match(collection, query.match)
        nearest: Any = to_sparse(query.terms) if query.terms is not None else None
        if query.vector is not None:
            nearest = query.vector.tolist()
        if nearest is None:
            raise ValueError("a query needs a vector or terms")
        rescored = models.QuantizationSearchParams(rescore=True, oversampling=2.0)
        return models.QueryRequest(
            query=models.NearestQuery(nearest=nearest),
            using=self._dense(collection) if query.vector is not None else TERMS,
            filter=to_filter(query.match),
            limit=query.limit,
            with_payload=_shown(collection),
            params=models.SearchParams(quantization=rescored) if self._quantized and query.vector is not None else None,
        )


def _is_empty(query: Query) -> bool:
    return query.limit < 1 or (query.terms is not None and not len(query.terms.ids))


def _shown(collection: Collection) -> list[str]:
    return ["key", *FIELDS[collection]]


def _hit(collection: Collection, payload: Mapping[str, Any], score: float) -> Hit:
    return Hit(payload["key"], score, to_fields(collection, payload))


def _point(collection: Collection, record: models.Record, dense: str) -> Point:
    payload = record.payload or {}
    stored: Any = record.vector if isinstance(record.vector, Mapping) else {}
    terms = stored.get(TERMS)
    return Point(
        key=payload["key"],
        version=payload["version"],
        write_id=payload["write_id"],
        body=payload["body"],
        fields=to_fields(collection, payload),
        vector=np.array(stored[dense], dtype=np.float32) if dense in stored else None,
        terms=Terms(np.array(terms.indices, np.uint32), np.array(terms.values, np.float32)) if terms else None,
    )

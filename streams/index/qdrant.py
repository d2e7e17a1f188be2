"""The index on a Qdrant server, by gRPC, shared by any number of workers.

A collection is reached by its alias (prefix and name); what stands behind the alias is numbered, so that another can be
filled beside it and take its place. Nothing here depends on one worker being the only one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from qdrant_client import AsyncQdrantClient, models

from streams.errors import IndexUnavailableError
from streams.index.server import REQUEST_SECONDS, check_version, mapped_errors, prepare
from streams.index.stored import DENSE, FIELDS, TERMS, check_fields, check_match, point_id, to_fields, to_payload
from streams.ports import Collection, Hit, Match, Page, Point, Query, Terms, Write

WRITES: Final = 64
"""Conditional writes in one request."""
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

    async def open(self, dimension: int) -> None:
        """See the port. Safe while other workers do the same."""
        self._opened = self._make_client()
        try:
            async with mapped_errors("open"):
                await check_version(self._client)
                for collection in Collection:
                    await prepare(
                        self._client, collection, self._alias(collection), dimension, quantized=self._quantized
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
                    self._alias(collection), wanted[start : start + READS], with_payload=True, with_vectors=vectors,
                    consistency=models.ReadConsistencyType.MAJORITY, timeout=REQUEST_SECONDS,
                )  # fmt: skip
                found.update((str(record.id), _point(collection, record)) for record in records)
        return [found.get(identity) for identity in ids]

    async def write(self, collection: Collection, writes: Sequence[Write]) -> None:
        """See the port. One operation for each write, its condition checked by the server when it applies it."""
        for write in writes:
            check_fields(collection, write.point.fields)
        operations = [_operation(write) for write in writes]
        async with mapped_errors("write"):
            for start in range(0, len(operations), WRITES):
                results = await self._client.batch_update_points(
                    self._alias(collection), operations[start : start + WRITES], wait=True,
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
                    self._alias(collection), list(requests.values()), timeout=REQUEST_SECONDS
                )
            for at, response in zip(requests, responses, strict=True):
                results[at] = [_hit(collection, found.payload or {}, found.score) for found in response.points]
        return results

    async def find(self, collection: Collection, match: Match, limit: int) -> list[Hit]:
        """See the port."""
        check_match(collection, match)
        async with mapped_errors("find"):
            records, _ = await self._client.scroll(
                self._alias(collection), scroll_filter=_filter(match), limit=limit, with_payload=_shown(collection),
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
                self._alias(collection), scroll_filter=_filter(match), limit=limit, offset=cursor, with_payload=True,
                with_vectors=vectors, timeout=REQUEST_SECONDS,
            )  # fmt: skip
        points = tuple(_point(collection, record) for record in records)
        return Page(points, None if following is None else str(following))

    async def count(self, collection: Collection) -> int:
        """See the port."""
        async with mapped_errors("count"):
            counted = await self._client.count(self._alias(collection), exact=True, timeout=REQUEST_SECONDS)
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

    def _request(self, collection: Collection, query: Query) -> models.QueryRequest:
        check_match(collection, query.match)
        nearest: Any = _sparse(query.terms) if query.terms is not None else None
        if query.vector is not None:
            nearest = query.vector.tolist()
        if nearest is None:
            raise ValueError("a query needs a vector or terms")
        rescored = models.QuantizationSearchParams(rescore=True, oversampling=2.0)
        return models.QueryRequest(
            query=models.NearestQuery(nearest=nearest),
            using=DENSE if query.vector is not None else TERMS,
            filter=_filter(query.match),
            limit=query.limit,
            with_payload=_shown(collection),
            params=models.SearchParams(quantization=rescored) if self._quantized and query.vector is not None else None,
        )


def _operation(write: Write) -> models.UpsertOperation:
    """`update_only` under its version, or `insert_only`: a condition alone would insert where it fails on nothing."""
    point = write.point
    vector: dict[str, Any] = {}
    if point.vector is not None:
        vector[DENSE] = point.vector.tolist()
    if point.terms is not None and len(point.terms.ids):
        vector[TERMS] = _sparse(point.terms)
    struct = models.PointStruct(id=point_id(point.key), vector=vector, payload=to_payload(point))
    if write.expected is None:
        upsert = models.PointsList(points=[struct], update_mode=models.UpdateMode.INSERT_ONLY)
    else:
        condition = models.FieldCondition(key="version", match=models.MatchValue(value=write.expected))
        upsert = models.PointsList(
            points=[struct], update_mode=models.UpdateMode.UPDATE_ONLY, update_filter=models.Filter(must=[condition])
        )
    return models.UpsertOperation(upsert=upsert)


def _filter(match: Match | None) -> models.Filter | None:
    if match is None:
        return None
    conditions: list[Any] = [
        models.FieldCondition(key=name, match=models.MatchValue(value=value)) for name, value in match.equals.items()
    ]
    conditions += [models.FieldCondition(key=name, range=models.Range(lt=bound)) for name, bound in match.below.items()]
    conditions += [
        models.FieldCondition(key=name, range=models.Range(gte=bound)) for name, bound in match.at_least.items()
    ]
    return models.Filter(must=conditions) if conditions else None


def _is_empty(query: Query) -> bool:
    return query.limit < 1 or (query.terms is not None and not len(query.terms.ids))


def _shown(collection: Collection) -> list[str]:
    return ["key", *FIELDS[collection]]


def _hit(collection: Collection, payload: Mapping[str, Any], score: float) -> Hit:
    return Hit(payload["key"], score, to_fields(collection, payload))


def _point(collection: Collection, record: models.Record) -> Point:
    payload = record.payload or {}
    stored: Any = record.vector if isinstance(record.vector, Mapping) else {}
    terms = stored.get(TERMS)
    return Point(
        key=payload["key"],
        version=payload["version"],
        write_id=payload["write_id"],
        body=payload["body"],
        fields=to_fields(collection, payload),
        vector=np.array(stored[DENSE], dtype=np.float32) if DENSE in stored else None,
        terms=Terms(np.array(terms.indices, np.uint32), np.array(terms.values, np.float32)) if terms else None,
    )


def _sparse(terms: Terms) -> models.SparseVector:
    return models.SparseVector(indices=terms.ids.tolist(), values=terms.weights.tolist())

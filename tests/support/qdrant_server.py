"""A front that speaks the part of Qdrant's gRPC which `QdrantIndex` uses, over the exact index: so that several worker
processes can share an index, by the adapter that ships, where no Qdrant server is at hand.

    python -m tests.support.qdrant_server [--port N]        prints the URL for COLDSTREAM_INDEX

Stricter than a server: a filter on a field without a payload index is refused, since it would read every payload.
"""

# ruff: noqa: N802, T201 gRPC names the methods, and the program prints
from __future__ import annotations

import argparse
import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import grpc
import numpy as np
from qdrant_client import grpc as wire
from qdrant_client.conversions.conversion import GrpcToRest, RestToGrpc, payload_to_grpc

from streams.index.exact import ExactIndex
from streams.index.stored import DENSE, TERMS, to_fields, to_payload
from streams.ports import Collection, Hit, Match, Point, Query, Terms, Write

Context = Any
END = "\x1f\x00\x1f"
"""Between a key and a body."""


@dataclass
class Held:
    """A collection of the front."""

    collection: Collection
    params: wire.CollectionConfig
    store: ExactIndex
    named: dict[str, ExactIndex] = field(default_factory=dict)
    """Beside the vector `dense`: the same points with a vector of another name, or without one."""
    schema: dict[str, wire.PayloadSchemaInfo] = field(default_factory=dict)


@dataclass
class Front:
    """What the server holds, and what it was told to be."""

    version: str = "1.18.3"
    api_key: str | None = None
    delay_seconds: float = 0.0
    failure: grpc.StatusCode | None = None
    """With this every call fails."""
    failing_each: int = 0
    """One call in so many fails; 0: none does."""
    held: dict[str, Held] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)

    async def admit(self, context: Context, call: str) -> None:
        """Refuse, fail or delay as told."""
        self.calls[call] = self.calls.get(call, 0) + 1
        if self.api_key and dict(context.invocation_metadata() or ()).get("api-key") != self.api_key:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "Invalid API key or JWT")
        await asyncio.sleep(self.delay_seconds)
        if self.failure is not None:
            await context.abort(self.failure, "as told")
        if self.failing_each and sum(self.calls.values()) % self.failing_each == 0:
            await context.abort(grpc.StatusCode.INTERNAL, "as told, now and then")

    async def named(self, name: str, context: Context) -> Held:
        """The collection of a name or alias."""
        held = self.held.get(self.aliases.get(name, name))
        if held is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"Not found: Collection `{name}` doesn't exist!")
        assert held is not None
        return held

    async def match(self, held: Held, message: wire.Filter, context: Context) -> Match:
        """A filter as the port's condition."""
        equals: dict[str, Any] = {}
        below: dict[str, float] = {}
        at_least: dict[str, float] = {}
        for condition in message.must:
            one = condition.field
            if one.key not in held.schema:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"no payload index on {one.key}")
            if one.HasField("match"):
                equals[one.key] = getattr(one.match, one.match.WhichOneof("match_value"))
            if one.range.HasField("lt"):
                below[one.key] = one.range.lt
            if one.range.HasField("gte"):
                at_least[one.key] = one.range.gte
        return Match(equals, below, at_least)


class Root(wire.QdrantServicer):
    """The service Qdrant."""

    def __init__(self, front: Front) -> None:
        self._front = front

    async def HealthCheck(self, request: Any, context: Context) -> wire.HealthCheckReply:
        await self._front.admit(context, "health")
        return wire.HealthCheckReply(title="a front for tests", version=self._front.version)


class Collections(wire.CollectionsServicer):
    """The service Collections."""

    def __init__(self, front: Front) -> None:
        self._front = front

    async def ListAliases(self, request: Any, context: Context) -> wire.ListAliasesResponse:
        await self._front.admit(context, "aliases")
        known = self._front.aliases.items()
        return wire.ListAliasesResponse(
            aliases=[wire.AliasDescription(alias_name=alias, collection_name=name) for alias, name in known]
        )

    async def List(self, request: Any, context: Context) -> wire.ListCollectionsResponse:
        await self._front.admit(context, "collections")
        return wire.ListCollectionsResponse(
            collections=[wire.CollectionDescription(name=name) for name in self._front.held]
        )

    async def UpdateAliases(self, request: Any, context: Context) -> wire.CollectionOperationResponse:
        await self._front.admit(context, "alias")
        for action in request.actions:
            if action.HasField("delete_alias"):
                self._front.aliases.pop(action.delete_alias.alias_name, None)
                continue
            made = action.create_alias
            await self._front.named(made.collection_name, context)
            self._front.aliases[made.alias_name] = made.collection_name
        return wire.CollectionOperationResponse(result=True)

    async def CollectionExists(self, request: Any, context: Context) -> wire.CollectionExistsResponse:
        exists = request.collection_name in self._front.held
        return wire.CollectionExistsResponse(result=wire.CollectionExists(exists=exists))

    async def Create(self, request: Any, context: Context) -> wire.CollectionOperationResponse:
        name = request.collection_name
        if name in self._front.held:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"Collection `{name}` already exists!")
        collection = next(each for each in Collection if name.rpartition("-")[0].endswith(each))
        store = ExactIndex()
        await store.open(request.vectors_config.params_map.map[DENSE].size)
        params = wire.CollectionConfig(
            params=wire.CollectionParams(
                vectors_config=request.vectors_config, sparse_vectors_config=request.sparse_vectors_config
            ),
            hnsw_config=wire.HnswConfigDiff(m=16, ef_construct=100, full_scan_threshold=10_000),
            optimizer_config=wire.OptimizersConfigDiff(
                deleted_threshold=0.2, vacuum_min_vector_number=1000, default_segment_number=0, flush_interval_sec=5
            ),
            wal_config=wire.WalConfigDiff(wal_capacity_mb=32, wal_segments_ahead=0),
        )
        self._front.held[name] = Held(collection, params, store)
        return wire.CollectionOperationResponse(result=True)

    async def Get(self, request: Any, context: Context) -> wire.GetCollectionInfoResponse:
        held = await self._front.named(request.collection_name, context)
        info = wire.CollectionInfo(
            status=wire.CollectionStatus.Green, optimizer_status=wire.OptimizerStatus(ok=True), segments_count=1,
            config=held.params, payload_schema=held.schema, points_count=await held.store.count(held.collection),
        )  # fmt: skip
        return wire.GetCollectionInfoResponse(result=info)

    async def Update(self, request: Any, context: Context) -> wire.CollectionOperationResponse:
        held = await self._front.named(request.collection_name, context)
        if request.quantization_config.HasField("scalar"):
            held.params.quantization_config.scalar.CopyFrom(request.quantization_config.scalar)
        else:
            held.params.ClearField("quantization_config")
        return wire.CollectionOperationResponse(result=True)

    async def Delete(self, request: Any, context: Context) -> wire.CollectionOperationResponse:
        return wire.CollectionOperationResponse(result=self._front.held.pop(request.collection_name, None) is not None)


def _config(held: Held) -> Any:
    return held.params.params.vectors_config.params_map.map


class Points(wire.PointsServicer):
    """The service Points."""

    def __init__(self, front: Front) -> None:
        self._front = front

    async def CreateFieldIndex(self, request: Any, context: Context) -> wire.PointsOperationResponse:
        held = await self._front.named(request.collection_name, context)
        types = ("Keyword", "Integer", "Float", "Geo", "Text", "Bool", "Datetime", "Uuid")
        data_type = wire.PayloadSchemaType.Value(types[request.field_type])
        held.schema[request.field_name] = wire.PayloadSchemaInfo(data_type=data_type)
        return wire.PointsOperationResponse(result=wire.UpdateResult(status=wire.UpdateStatus.Completed))

    async def CreateVectorName(self, request: Any, context: Context) -> wire.PointsOperationResponse:
        await self._front.admit(context, "vector")
        if tuple(map(int, self._front.version.split(".")[:2])) < (1, 18):
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "")
        held = await self._front.named(request.collection_name, context)
        config = request.dense_config
        _config(held)[request.vector_name].CopyFrom(wire.VectorParams(size=config.size, distance=config.distance))
        store = held.named[request.vector_name] = ExactIndex()
        await store.open(config.size)
        points = held.store.points[held.collection].items()
        store.points[held.collection] = {key: replace(point, vector=None) for key, point in points}
        return wire.PointsOperationResponse(result=wire.UpdateResult(status=wire.UpdateStatus.Completed))

    async def DeleteVectorName(self, request: Any, context: Context) -> wire.PointsOperationResponse:
        held = await self._front.named(request.collection_name, context)
        held.named.pop(request.vector_name, None)
        del _config(held)[request.vector_name]
        return wire.PointsOperationResponse(result=wire.UpdateResult(status=wire.UpdateStatus.Completed))

    async def UpdateBatch(self, request: Any, context: Context) -> wire.UpdateBatchResponse:
        await self._front.admit(context, "write")
        held = await self._front.named(request.collection_name, context)
        writes: dict[str, list[Write]] = {name: [] for name in (DENSE, *held.named)}
        for operation in request.operations:
            upsert = operation.upsert
            (struct,) = upsert.points
            points = {name: await self._stored(held, struct, context, name) for name in writes}
            if unknown := struct.vectors.vectors.vectors.keys() - {TERMS, *_config(held)}:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"Not existing vector name error: {unknown}")
            expected = (await self._front.match(held, upsert.update_filter, context)).equals.get("version")
            modes = {wire.UpdateMode.InsertOnly: expected is None, wire.UpdateMode.UpdateOnly: expected is not None}
            if not modes.get(upsert.update_mode):
                await context.abort(grpc.StatusCode.UNIMPLEMENTED, "only insert_only, and update_only with a version")
            for name, point in points.items():
                writes[name].append(Write(point, expected))
        for name, some in writes.items():
            await _store(held, name).write(held.collection, some)
        done = wire.UpdateResult(status=wire.UpdateStatus.Completed)
        return wire.UpdateBatchResponse(result=[done for _ in request.operations])

    async def Get(self, request: Any, context: Context) -> wire.GetResponse:
        await self._front.admit(context, "read")
        held = await self._front.named(request.collection_name, context)
        ids = [each.uuid for each in request.ids]
        found = await held.store.read(held.collection, ids, vectors=request.with_vectors.enable)
        return wire.GetResponse(result=[self._shown(point, request.with_vectors.enable) for point in found if point])

    async def QueryBatch(self, request: Any, context: Context) -> wire.QueryBatchResponse:
        await self._front.admit(context, "search")
        held = await self._front.named(request.collection_name, context)
        results = []
        for message in request.query_points:
            nearest = message.query.nearest
            terms = _terms(nearest.sparse) if message.using == TERMS else None
            vector = None if message.using == TERMS else np.array(nearest.dense.data, np.float32)
            query = Query(message.limit, vector, terms, await self._front.match(held, message.filter, context))
            (hits,) = await _store(held, DENSE if terms else message.using).search(held.collection, [query])
            results.append(wire.BatchResult(result=[self._hit(held, hit) for hit in hits]))
        return wire.QueryBatchResponse(result=results)

    async def Scroll(self, request: Any, context: Context) -> wire.ScrollResponse:
        await self._front.admit(context, "scan")
        held = await self._front.named(request.collection_name, context)
        match = await self._front.match(held, request.filter, context)
        cursor = request.offset.uuid if request.HasField("offset") else None
        enabled = request.with_vectors.enable
        page = await held.store.scan(held.collection, cursor=cursor, limit=request.limit, match=match, vectors=enabled)
        following = None if page.cursor is None else wire.PointId(uuid=page.cursor)
        shown = [self._shown(point, enabled) for point in page.points]
        return wire.ScrollResponse(result=shown, next_page_offset=following)

    async def Count(self, request: Any, context: Context) -> wire.CountResponse:
        held = await self._front.named(request.collection_name, context)
        return wire.CountResponse(result=wire.CountResult(count=await held.store.count(held.collection)))

    async def _stored(self, held: Held, struct: wire.PointStruct, context: Context, name: str) -> Point:
        if struct.vectors.WhichOneof("vectors_options") != "vectors":
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "Expected some vectors")
        payload: Mapping[str, Any] = GrpcToRest.convert_payload(struct.payload)
        vectors = struct.vectors.vectors.vectors
        vector = np.array(vectors[name].dense.data, np.float32) if name in vectors else None
        if vector is not None and len(vector) != _config(held)[name].size:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "Wrong input: Vector dimension error")
        return Point(
            struct.id.uuid, payload["version"], payload["write_id"], f"{payload['key']}{END}{payload['body']}",
            to_fields(held.collection, payload), vector, _terms(vectors[TERMS].sparse) if TERMS in vectors else None,
        )  # fmt: skip

    @staticmethod
    def _shown(point: Point, vectors: bool) -> wire.RetrievedPoint:
        named: dict[str, wire.VectorOutput] = {}
        if point.vector is not None:
            named[DENSE] = wire.VectorOutput(dense=wire.DenseVector(data=point.vector.tolist()))
        if point.terms is not None:
            named[TERMS] = wire.VectorOutput(
                sparse=wire.SparseVector(indices=point.terms.ids.tolist(), values=point.terms.weights.tolist())
            )
        return wire.RetrievedPoint(
            id=RestToGrpc.convert_extended_point_id(point.key),
            payload=payload_to_grpc(_payload(point)),
            vectors=wire.VectorsOutput(vectors=wire.NamedVectorsOutput(vectors=named)) if vectors else None,
        )

    @staticmethod
    def _hit(held: Held, hit: Hit) -> wire.ScoredPoint:
        payload = _payload(held.store.points[held.collection][hit.key])
        return wire.ScoredPoint(
            id=wire.PointId(uuid=hit.key), score=hit.score, version=1, payload=payload_to_grpc(payload)
        )


def _store(held: Held, name: str) -> ExactIndex:
    return held.named.get(name, held.store)


async def start(
    front: Front, *, port: int = 0, credentials: grpc.ServerCredentials | None = None
) -> tuple[grpc.aio.Server, int]:
    """A server on loopback, and its gRPC port."""
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1), ("grpc.so_reuseport", 0)])
    wire.add_QdrantServicer_to_server(Root(front), server)
    wire.add_CollectionsServicer_to_server(Collections(front), server)
    wire.add_PointsServicer_to_server(Points(front), server)
    address = f"127.0.0.1:{port}"
    bound = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
    await server.start()
    return server, bound


def url(port: int, scheme: str = "http", host: str = "127.0.0.1") -> str:
    """What to set as COLDSTREAM_INDEX."""
    return f"{scheme}://{host}?grpc_port={port}"


def _payload(point: Point) -> dict[str, Any]:
    """The payload as it was sent: the store's key is the point's id, the sent one stands before the body."""
    key, _, body = point.body.partition(END)
    return {**to_payload(point), "key": key, "body": body}


def _terms(message: wire.SparseVector) -> Terms:
    return Terms(np.array(message.indices, np.uint32), np.array(message.values, np.float32))


async def _serve(port: int) -> None:
    server, bound = await start(Front(), port=port)
    print(url(bound), flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    asyncio.run(_serve(parser.parse_args().port))

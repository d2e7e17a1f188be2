"""A Qdrant server: the connection, its errors as our own, the collections made ready on it, and what is sent to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar
from urllib.parse import parse_qs, urlsplit

import grpc
from qdrant_client import AsyncQdrantClient, models
from qdrant_client.common.client_exceptions import QdrantException
from qdrant_client.http.exceptions import ApiException

from streams.errors import ConfigurationError, IndexUnavailableError
from streams.index.stored import DENSE, FIELDS, TERMS, Kind, point_id, to_payload
from streams.ports import Collection, Match, Terms, Write

T = TypeVar("T")

REQUEST_SECONDS: Final = 10
"""A call that takes longer is given up: the index is unavailable."""
OLDEST_SERVER: Final = (1, 17)
"""The first that has `update_mode`."""

WRITES: Final = 64
"""Conditional writes in one request."""
WRITTEN_BYTES: Final = 8_388_608
"""Bytes of bodies in one request, unless one alone is larger: a server takes 32 MiB by default."""

_SCHEMAS: Final = {
    Kind.BOOL: models.PayloadSchemaType.BOOL,
    Kind.INTEGER: models.PayloadSchemaType.INTEGER,
    Kind.FLOAT: models.PayloadSchemaType.FLOAT,
    Kind.KEYWORD: models.PayloadSchemaType.KEYWORD,
    Kind.KEYWORDS: models.PayloadSchemaType.KEYWORD,
}
_REFUSED: Final = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)
_QUANTIZATION: Final = models.ScalarQuantization(
    scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8, quantile=0.99, always_ram=True)
)


def connect(url: str, api_key: str | None = None, ca_certificate: bytes | None = None) -> AsyncQdrantClient:
    """A client for `http(s)://host[:port][?grpc_port=N]`: port 6333 by default, gRPC on the port after it.

    Raises `ConfigurationError` for what is no such URL. Connects only when used.
    """
    parts = urlsplit(url)
    try:
        port = parts.port or 6333
        grpc_port = int(parse_qs(parts.query).get("grpc_port", [str(port + 1)])[0])
    except ValueError as error:
        raise ConfigurationError(f"{url} has no usable port") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigurationError(f"{url} is no http(s) URL of a Qdrant server")
    return AsyncQdrantClient(
        host=parts.hostname,
        port=port,
        grpc_port=grpc_port,
        prefer_grpc=True,
        https=parts.scheme == "https",
        api_key=api_key,
        timeout=REQUEST_SECONDS,
        grpc_options={"root_certificates": ca_certificate} if ca_certificate else None,
        check_compatibility=False,  # it would ask over REST, in a thread; `open` looks at the version itself
    )


@asynccontextmanager
async def mapped_errors(what: str) -> AsyncIterator[None]:
    """What the client and gRPC raise, as our own errors; `ValueError` (the caller's defect) passes."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        if error.code() in _REFUSED:
            raise ConfigurationError(f"Qdrant refuses us ({error.details()}): check the API key") from error
        if error.code() is grpc.StatusCode.INVALID_ARGUMENT:
            raise ValueError(f"Qdrant could not {what}: {error.details()}") from error
        raise IndexUnavailableError(f"Qdrant did not {what}: {error.code().name} {error.details()}") from error
    except (TimeoutError, ApiException, QdrantException, OSError) as error:
        raise IndexUnavailableError(f"Qdrant did not {what}: {error}") from error


async def check_version(client: AsyncQdrantClient) -> str:
    """The server's version. Raises `ConfigurationError` where it is too old for conditional writes."""
    version = (await client.info()).version
    numbers = tuple(int(part) for part in version.split("-")[0].split(".")[:2])
    if numbers < OLDEST_SERVER:
        wanted = ".".join(map(str, OLDEST_SERVER))
        raise ConfigurationError(f"Qdrant {version} is too old: conditional writes need {wanted} or newer")
    return version


async def look(client: AsyncQdrantClient, prefix: str) -> str:
    """What there is, in words: version, collections of ours and their points; the client is closed.

    Raises `ConfigurationError` and `IndexUnavailableError`.
    """
    try:
        async with mapped_errors("answer"):
            version = await check_version(client)
            known = {each.alias_name: each.collection_name for each in (await client.get_aliases()).aliases}
            for alias in (f"{prefix}{collection}" for collection in Collection if f"{prefix}{collection}" in known):
                if "version" not in (await client.get_collection(alias)).payload_schema:
                    raise ConfigurationError(f"{alias} has no payload index on version: start a worker, which makes it")
            counts = [
                f"{(await client.count(alias, exact=False)).count:,} {collection}"
                for collection in Collection
                if (alias := f"{prefix}{collection}") in known
            ]
    finally:
        await client.close()
    return f"Qdrant {version} with {', '.join(counts) or 'no collection of ours yet'}"


async def prepare(
    client: AsyncQdrantClient, collection: Collection, name: str, dense: str, dimension: int, *, quantized: bool
) -> None:
    """Make a collection, its alias, its vector `dense` and payload indexes where they are missing; check what is there.

    `name`: of the collection or its alias. Safe while others do it too. Raises `ConfigurationError` for a collection of
    another maker or dimension.
    """
    if name not in await known_aliases(client) and not await client.collection_exists(name):
        await create(client, f"{name}-1", dimension)
        await point_aliases(client, {name: f"{name}-1"})
    info = await client.get_collection(name)
    if collection is not Collection.STATISTICS:  # which have no vectors
        await _check_vectors(client, name, info, dense, dimension)
    if collection is Collection.ITEMS and quantized != (info.config.quantization_config is not None):
        await client.update_collection(
            name, quantization_config=_QUANTIZATION if quantized else models.Disabled.DISABLED
        )
    for field, kind in {"version": Kind.INTEGER, **FIELDS[collection]}.items():
        known = info.payload_schema.get(field)
        if known is None:
            await client.create_payload_index(name, field, field_schema=_SCHEMAS[kind], wait=True)
        elif known.data_type != _SCHEMAS[kind]:
            raise ConfigurationError(
                f"the payload index {field} of {name} is {known.data_type}, not {_SCHEMAS[kind]}: delete it"
            )


async def known_aliases(client: AsyncQdrantClient) -> dict[str, str]:
    """Collections by alias."""
    return {known.alias_name: known.collection_name for known in (await client.get_aliases()).aliases}


async def point_aliases(client: AsyncQdrantClient, targets: Mapping[str, str], without: Iterable[str] = ()) -> None:
    """Let aliases name these collections and others cease to be, all at once."""
    gone = [models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=alias)) for alias in without]
    made = [
        models.CreateAliasOperation(create_alias=models.CreateAlias(collection_name=name, alias_name=alias))
        for alias, name in targets.items()
    ]
    await client.update_collection_aliases([*gone, *made])


async def create(client: AsyncQdrantClient, name: str, dimension: int) -> None:
    """Make a collection, unless another worker was quicker."""
    try:
        await client.create_collection(
            name,
            vectors_config={DENSE: models.VectorParams(size=dimension, distance=models.Distance.DOT)},
            sparse_vectors_config={TERMS: models.SparseVectorParams()},
        )
    except (grpc.aio.AioRpcError, ValueError):
        if not await client.collection_exists(name):
            raise


async def _check_vectors(
    client: AsyncQdrantClient, name: str, info: models.CollectionInfo, dense: str, dimension: int
) -> None:
    """Raises `ConfigurationError`. A collection that was made for another encoder gets a vector for this one's."""
    vectors = info.config.params.vectors
    found = vectors if isinstance(vectors, Mapping) else {}
    if not any(known.partition("-")[0] == DENSE for known in found) or TERMS not in (
        info.config.params.sparse_vectors or {}
    ):
        raise ConfigurationError(f"the collection {name} was not made by Coldstream: set another prefix")
    if dense not in found:
        config = models.DenseVectorConfig(size=dimension, distance=models.Distance.DOT)
        try:
            await client.create_vector_name(name, dense, models.DenseVectorNameConfig(dense=config))
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                raise ConfigurationError("a second encoder beside the first needs Qdrant 1.18 or newer") from error
            if dense not in ((await client.get_collection(name)).config.params.vectors or {}):
                raise  # else another worker was quicker
    elif found[dense].size != dimension:
        raise ConfigurationError(
            f"the collection {name} holds vectors of dimension {found[dense].size}, the encoder makes {dimension}: "
            "set another prefix, or the encoder that filled this one"
        )


def to_operation(write: Write, dense: str) -> models.UpsertOperation:
    """`update_only` under its version, or `insert_only`: a condition alone would insert where it fails on nothing."""
    point = write.point
    vector: dict[str, Any] = {}
    if point.vector is not None:
        vector[dense] = point.vector.tolist()
    if point.terms is not None and len(point.terms.ids):
        vector[TERMS] = to_sparse(point.terms)
    struct = models.PointStruct(id=point_id(point.key), vector=vector, payload=to_payload(point))
    if write.expected is None:
        upsert = models.PointsList(points=[struct], update_mode=models.UpdateMode.INSERT_ONLY)
    else:
        condition = models.FieldCondition(key="version", match=models.MatchValue(value=write.expected))
        upsert = models.PointsList(
            points=[struct], update_mode=models.UpdateMode.UPDATE_ONLY, update_filter=models.Filter(must=[condition])
        )
    return models.UpsertOperation(upsert=upsert)


def to_filter(match: Match | None) -> models.Filter | None:
    """A condition as the server knows it."""
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


def to_sparse(terms: Terms) -> models.SparseVector:
    """Terms as the server knows them."""
    return models.SparseVector(indices=terms.ids.tolist(), values=terms.weights.tolist())


def to_requests(writes: Sequence[Write], operations: Sequence[T]) -> Iterator[list[T]]:
    """The operations of these writes, as many at a time as a request takes."""
    some: list[T] = []
    size = 0
    for write, operation in zip(writes, operations, strict=True):
        if some and (len(some) == WRITES or size + len(write.point.body) > WRITTEN_BYTES):
            yield some
            some, size = [], 0
        some.append(operation)
        size += len(write.point.body)
    if some:
        yield some

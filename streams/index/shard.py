"""One collection of the embedded index: a Qdrant Edge shard in a directory, and points to and from its own types.

Edge 0.9.0, as measured: every call holds the GIL, so there is nothing to win by a thread; `MatchValue(True)` is read as
the integer 1 and finds no boolean, so booleans are stored as integers; a list of ten strings costs as much as the rest
of a point, so lists are one string of quoted words under a text index; a failing condition on an absent point inserts
it, so conditions are decided by reading first, which is safe in the one process that owns the shard.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, unquote

import numpy as np
import qdrant_edge as edge

from streams.errors import IndexUnavailableError
from streams.index.stored import DENSE, FIELDS, TERMS, Kind, point_id, to_fields, to_payload
from streams.ports import Collection, FieldValue, Hit, Match, Point, Query, Terms, Write

_SCHEMAS: Final[Mapping[Kind, edge.PayloadSchemaType | edge.TextIndexParams]] = {
    Kind.BOOL: edge.PayloadSchemaType.Integer,
    Kind.INTEGER: edge.PayloadSchemaType.Integer,
    Kind.FLOAT: edge.PayloadSchemaType.Float,
    Kind.KEYWORD: edge.PayloadSchemaType.Keyword,
    Kind.KEYWORDS: edge.TextIndexParams(tokenizer=edge.TokenizerType.Whitespace, lowercase=False),
}

FLUSH_BYTES: Final = 64 * 1024 * 1024
"""The write-ahead log is cut after so much: it bounds the time to open it after a kill (1.3 s of CPU). Not sooner: a
flush holds the GIL for dozens of syncs, 30 ms on a quiet disk and 500 ms on a busy one."""
_POINT_BYTES: Final = 2048
"""What a point takes in the log beside its body, roughly."""


@contextmanager
def mapped_errors(what: str) -> Iterator[None]:
    """Edge raises bare `Exception` for whatever goes wrong inside; for the flow the index is then unavailable."""
    try:
        yield
    except (ValueError, TypeError):
        raise  # a value that cannot be stored: the caller's defect
    except Exception as error:
        raise IndexUnavailableError(f"the embedded index failed to {what}: {error}") from error


class Shard:
    """A collection's shard. Synchronous; used by one thread."""

    def __init__(self, collection: Collection, path: Path, dimension: int) -> None:
        """Load the shard at `path`, or make it there when the directory is absent."""
        self.collection = collection
        self.path = path
        self._lists = [name for name, kind in FIELDS[collection].items() if kind is Kind.KEYWORDS]
        self._unflushed_bytes = 0
        config = edge.EdgeConfig(
            vectors={DENSE: edge.EdgeVectorParams(size=dimension, distance=edge.Distance.Dot)},
            sparse_vectors={TERMS: edge.EdgeSparseVectorParams()},
        )
        with mapped_errors(f"open {path}"):
            if path.exists():
                self._edge = edge.EdgeShard.load(str(path), config)
            else:
                path.mkdir(parents=True)
                self._edge = edge.EdgeShard.create(str(path), config)
            present = self._edge.info().payload_schema
            for name, kind in FIELDS[collection].items():
                if name not in present:
                    self._edge.update(edge.UpdateOperation.create_field_index(name, _SCHEMAS[kind]))

    def read(self, ids: Sequence[str], *, vectors: bool) -> dict[str, Point]:
        """The points that there are, by id."""
        with mapped_errors("read"):
            records = self._edge.retrieve(list(ids), with_payload=True, with_vector=vectors)
            return {str(record.id): self._point(record, vectors=vectors) for record in records}

    def versions(self, ids: Sequence[str]) -> dict[str, int]:
        """The versions of the points that there are, by id."""
        with mapped_errors("read"):
            records = self._edge.retrieve(list(ids), with_payload=["version"], with_vector=False)
            return {str(record.id): (record.payload or {})["version"] for record in records}

    def apply(self, writes: Sequence[Write]) -> None:
        """Store each point whose condition holds. Reads and writes in one call of one thread, so atomic."""
        versions: dict[str, int] = self.versions(list({point_id(write.point.key) for write in writes}))
        winners: dict[str, Point] = {}
        for write in writes:
            identity = point_id(write.point.key)
            if versions.get(identity) == write.expected:
                versions[identity] = write.point.version
                winners[identity] = write.point
        self.store(winners)

    def store(self, points: Mapping[str, Point]) -> None:
        """Store points by id, whatever is there."""
        if points:
            with mapped_errors("write"):
                made = [self._edge_point(identity, point) for identity, point in points.items()]
                self._edge.update(edge.UpdateOperation.upsert_points(made))
            self._unflushed_bytes += sum(len(point.body) + _POINT_BYTES for point in points.values())
            if self._unflushed_bytes > FLUSH_BYTES:
                self.flush()

    def delete(self, ids: Iterable[str]) -> None:
        """Delete points by id."""
        with mapped_errors("delete"):
            self._edge.update(edge.UpdateOperation.delete_points(list(ids)))

    def search(self, query: Query) -> list[Hit]:
        """One search, best first."""
        if query.vector is not None:
            nearest = edge.Query.Nearest(query.vector.tolist(), DENSE)
        elif query.terms is not None:
            if not len(query.terms.ids):
                return []
            nearest = edge.Query.Nearest(_sparse(query.terms), TERMS)
        else:
            raise ValueError("a query needs a vector or terms")
        if query.limit < 1:
            return []
        request = edge.QueryRequest(
            limit=query.limit, query=nearest, filter=self._filter(query.match), with_payload=self._shown
        )
        with mapped_errors("search"):
            return [self._hit(found.payload or {}, found.score) for found in self._edge.query(request)]

    def find(self, match: Match, limit: int) -> list[Hit]:
        """Points that match."""
        request = edge.ScrollRequest(limit=limit, filter=self._filter(match), with_payload=self._shown)
        with mapped_errors("find"):
            return [self._hit(record.payload or {}, 0.0) for record in self._edge.scroll(request)[0]]

    def scan(
        self, cursor: str | None, limit: int, match: Match | None, *, vectors: bool
    ) -> tuple[dict[str, Point], str | None]:
        """A page of points by id, and the id that the next page starts with."""
        request = edge.ScrollRequest(
            offset=cursor, limit=limit, filter=self._filter(match), with_payload=True, with_vector=vectors
        )
        with mapped_errors("scan"):
            records, following = self._edge.scroll(request)
            points = {str(record.id): self._point(record, vectors=vectors) for record in records}
        return points, None if following is None else str(following)

    def count(self) -> int:
        """How many points there are; a count without a filter would look at each of them."""
        with mapped_errors("count"):
            return self._edge.info().points_count

    def unindexed(self) -> int:
        """About how many vectors no graph leads to: a search looks at each of them."""
        with mapped_errors("look"):
            have = edge.HasVectorCondition
            dense, terms = (
                self._edge.count(edge.CountRequest(filter=edge.Filter(must=[have(name)]))) for name in (DENSE, TERMS)
            )
            return dense + terms - self._edge.info().indexed_vectors_count  # every sparse vector counts as indexed

    def flush(self) -> None:
        """Bring everything to its files and cut the write-ahead log."""
        with mapped_errors("flush"):
            self._edge.flush()
        self._unflushed_bytes = 0

    def optimize(self) -> None:
        """Merge segments and build graphs. Holds the GIL for its whole run: for a process of its own."""
        with mapped_errors("optimize"):
            self._edge.optimize()

    def close(self) -> None:
        """Flush and release."""
        with mapped_errors("close"):
            self._edge.close()

    @property
    def _shown(self) -> list[str]:
        return ["key", *FIELDS[self.collection]]

    def _hit(self, payload: Mapping[str, Any], score: float) -> Hit:
        return Hit(payload["key"], score, self._fields(payload))

    def _fields(self, payload: Mapping[str, Any]) -> dict[str, FieldValue]:
        words = {name: _split(payload[name]) for name in self._lists if name in payload}
        return to_fields(self.collection, {**payload, **words} if words else payload)

    def _point(self, record: edge.Record, *, vectors: bool) -> Point:
        payload = record.payload or {}
        stored: Any = record.vector if vectors and record.vector else {}
        terms = stored.get(TERMS)
        return Point(
            key=payload["key"],
            version=payload["version"],
            write_id=payload["write_id"],
            body=payload["body"],
            fields=self._fields(payload),
            vector=np.array(stored[DENSE], dtype=np.float32) if DENSE in stored else None,
            terms=Terms(np.array(terms.indices, np.uint32), np.array(terms.values, np.float32)) if terms else None,
        )

    @staticmethod
    def _edge_point(identity: str, point: Point) -> edge.Point:
        vector: dict[str, Any] = {}
        if point.vector is not None:
            vector[DENSE] = point.vector.tolist()
        if point.terms is not None and len(point.terms.ids):
            vector[TERMS] = _sparse(point.terms)
        return edge.Point(identity, vector, {name: _stored(value) for name, value in to_payload(point).items()})

    def _filter(self, match: Match | None) -> edge.Filter | None:
        if match is None:
            return None
        conditions: list[Any] = [
            edge.FieldCondition(
                name, match=edge.MatchText(_quote(value)) if name in self._lists else edge.MatchValue(_stored(value))
            )
            for name, value in match.equals.items()
        ]
        conditions += [
            edge.FieldCondition(name, range=edge.RangeFloat(lt=bound)) for name, bound in match.below.items()
        ]
        conditions += [
            edge.FieldCondition(name, range=edge.RangeFloat(gte=bound)) for name, bound in match.at_least.items()
        ]
        return edge.Filter(must=conditions) if conditions else None


def _stored(value: Any) -> Any:
    """A payload value as Edge holds it."""
    if isinstance(value, bool):
        return int(value)
    return " ".join(map(_quote, value)) if isinstance(value, list) else value


@lru_cache(maxsize=65_536)
def _split(words: str) -> tuple[str, ...]:
    return tuple("" if word == "%" else unquote(word) for word in words.split())


@lru_cache(maxsize=65_536)
def _quote(word: Any) -> str:
    """As one word of ASCII; the empty one as a sign that no other has."""
    return quote(str(word), safe="") or "%"


def _sparse(terms: Terms) -> edge.SparseVector:
    return edge.SparseVector(terms.ids.tolist(), terms.weights.tolist())

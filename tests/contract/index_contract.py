"""What every adapter of the port Index must do. Inherit, and give the fixture `index`: opened, empty, dimension 8."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest

from streams.errors import ConfigurationError
from streams.index.exact import ExactIndex
from streams.ports import Collection, FieldValue, Index, Match, Point, Query, Terms, Write

DIMENSION = 8
ITEMS, USERS, STATISTICS = Collection.ITEMS, Collection.USERS, Collection.STATISTICS


def unit(seed: int) -> np.ndarray:
    """A random unit vector."""
    vector = np.random.default_rng(seed).normal(size=DIMENSION).astype(np.float32)
    return vector / np.linalg.norm(vector)


def terms(**weights: float) -> Terms:
    """Terms t1, t2, … with weights."""
    return Terms(np.array([int(name[1:]) for name in weights], np.uint32), np.array(list(weights.values()), np.float32))


def point(key: str, version: int = 1, write_id: str = "w", vector: np.ndarray | None = None,
          sparse: Terms | None = None, body: str = "{}", **fields: FieldValue) -> Point:  # fmt: skip
    """A point with fields by keyword."""
    return Point(key, version, write_id, body, fields, vector, sparse)


def new(*points: Point) -> list[Write]:
    """Writes that create."""
    return [Write(each, None) for each in points]


def keys(points: Sequence[object]) -> list[str]:
    """Keys of hits or points."""
    return [each.key for each in points]  # type: ignore[attr-defined]


class IndexContract:
    """One test for each promise."""

    async def test_a_point_comes_back_as_written(self, index: Index) -> None:
        written = point(
            "ключ/1 é\U0001f30a", 7, "id", unit(1), terms(t5=0.5, t4000000000=2.0), '{"é": "\\u0000 \U0001f30a"}',
            live=True, updated_ms=1_764_000_000_123, expires_at=12.5, partition=0,
        )  # fmt: skip
        await index.write(ITEMS, new(written))
        (read,) = await index.read(ITEMS, [written.key], vectors=True)
        assert read is not None
        assert (read.key, read.version, read.write_id, read.body) == (written.key, 7, "id", written.body)
        assert read.fields == written.fields
        assert {name: type(value) for name, value in read.fields.items()} == {
            "live": bool, "updated_ms": int, "expires_at": float, "partition": int,
        }  # fmt: skip
        np.testing.assert_allclose(read.vector, written.vector, rtol=1e-6)
        assert read.vector is not None
        assert read.vector.dtype == np.float32
        assert read.terms is not None
        assert dict(zip(read.terms.ids.tolist(), read.terms.weights.tolist(), strict=True)) == {5: 0.5, 4000000000: 2.0}

    async def test_reads_keep_order_repeat_and_leave_gaps(self, index: Index) -> None:
        await index.write(ITEMS, new(point("a"), point("b")))
        read = await index.read(ITEMS, ["b", "nobody", "a", "b"])
        assert [each and each.key for each in read] == ["b", None, "a", "b"]
        assert await index.read(ITEMS, []) == []
        assert await index.read(USERS, ["a"]) == [None]

    async def test_vectors_are_read_only_when_asked_for(self, index: Index) -> None:
        await index.write(ITEMS, new(point("a", vector=unit(1), sparse=terms(t1=1.0)), point("b")))
        plain = await index.read(ITEMS, ["a"])
        assert plain[0] is not None
        assert (plain[0].vector, plain[0].terms) == (None, None)
        bare = await index.read(ITEMS, ["b"], vectors=True)
        assert bare[0] is not None
        assert (bare[0].vector, bare[0].terms) == (None, None)

    async def test_empty_calls_do_nothing(self, index: Index) -> None:
        await index.write(ITEMS, [])
        assert await index.search(ITEMS, []) == []
        assert await index.search(ITEMS, [Query(5, unit(1)), Query(5, terms=terms())]) == [[], []]
        assert await index.find(ITEMS, Match(), 5) == []
        page = await index.scan(ITEMS)
        assert (page.points, page.cursor) == ((), None)
        assert await index.count(ITEMS) == 0

    async def test_empty_lists_and_texts_are_kept(self, index: Index) -> None:
        odd = ("", "%", "a b", "A%20b", "a\u2028b", "ünï/é", "日本", "\U0001f30a", "x,y;z", "x" * 512)
        await index.write(USERS, new(
            point("u", body="", write_id="", list_ids=(), marker=False), point("odd", list_ids=odd),
        ))  # fmt: skip
        for each in odd:
            assert keys(await index.find(USERS, Match(equals={"list_ids": each}), 5)) == ["odd"], each
        for stranger in ("a", "b", "a%20b", "x", "ÜNÏ/É", "20"):
            assert await index.find(USERS, Match(equals={"list_ids": stranger}), 5) == [], stranger
        (kept,) = await index.read(USERS, ["odd"])
        assert kept is not None
        assert kept.fields == {"list_ids": odd}
        (read,) = await index.read(USERS, ["u"])
        assert read is not None
        assert (read.body, read.write_id, read.fields) == ("", "", {"list_ids": (), "marker": False})
        assert keys(await index.find(USERS, Match(equals={"list_ids": "x"}), 5)) == []

    async def test_insert_never_replaces(self, index: Index) -> None:
        await index.write(USERS, new(point("u", 1, "first")))
        await index.write(USERS, new(point("u", 1, "second")))
        assert await self.winner(index, "u") == (1, "first")

    async def test_update_never_creates(self, index: Index) -> None:
        """Where a condition fails on an absent point, Qdrant inserts: an erased user would be back."""
        await index.write(USERS, [Write(point("ghost", 2, "late"), 1)])
        assert await index.read(USERS, ["ghost"]) == [None]
        assert await index.count(USERS) == 0

    async def test_update_needs_the_version_that_was_read(self, index: Index) -> None:
        await index.write(USERS, new(point("u", 1, "a")))
        await index.write(USERS, [Write(point("u", 2, "b"), 1)])
        await index.write(USERS, [Write(point("u", 2, "c"), 1), Write(point("u", 9, "d"), 8)])
        assert await self.winner(index, "u") == (2, "b")

    async def test_one_lost_condition_does_not_touch_the_others(self, index: Index) -> None:
        await index.write(USERS, new(*(point(f"u{n}", n, "old") for n in range(1, 65))))
        await index.write(USERS, [Write(point(f"u{n}", n + 1, "new"), n if n % 3 else n + 7) for n in range(1, 65)])
        read = await index.read(USERS, [f"u{n}" for n in range(1, 65)])
        assert [each and each.write_id for each in read] == ["new" if n % 3 else "old" for n in range(1, 65)]

    async def test_writes_of_one_call_apply_in_order(self, index: Index) -> None:
        await index.write(USERS, [
            Write(point("u", 1, "a"), None), Write(point("u", 2, "b"), 1), Write(point("u", 3, "x"), 1),
            Write(point("u", 1, "y"), None), Write(point("v", 1, "c"), None),
        ])  # fmt: skip
        assert await self.winner(index, "u") == (2, "b")
        assert await self.winner(index, "v") == (1, "c")

    async def test_a_write_replaces_the_whole_point(self, index: Index) -> None:
        await index.write(ITEMS, new(point("a", 1, "x", unit(1), terms(t1=1.0), "old", live=True, partition=3)))
        await index.write(ITEMS, [Write(point("a", 2, "y", body="new", live=False), 1)])
        (read,) = await index.read(ITEMS, ["a"], vectors=True)
        assert read is not None
        assert (read.body, read.fields, read.vector, read.terms) == ("new", {"live": False}, None, None)
        assert await index.search(ITEMS, [Query(5, unit(1)), Query(5, terms=terms(t1=1.0))]) == [[], []]

    async def test_the_same_write_twice_is_one(self, index: Index) -> None:
        await index.write(USERS, new(point("u", 1, "a")) * 2)
        await index.write(USERS, new(point("u", 1, "a")))
        assert await index.count(USERS) == 1

    async def test_no_racing_write_is_lost(self, index: Index) -> None:
        """Four writers count on three points by compare-and-set; each won write stands."""
        names = ["a", "b", "c"]
        await index.write(USERS, new(*(point(name, 0, "start", body="") for name in names)))

        async def count_up(writer: int) -> int:
            won = 0
            for attempt in range(8):
                read = [each for each in await index.read(USERS, names) if each is not None]
                mark = f"{writer}.{attempt} "
                made = [point(each.key, each.version + 1, mark, body=each.body + mark) for each in read]
                await index.write(USERS, [Write(ours, theirs.version) for ours, theirs in zip(made, read, strict=True)])
                won += sum(mark in each.body for each in await index.read(USERS, names) if each is not None)
            return won

        won = sum(await asyncio.gather(*(count_up(writer) for writer in range(4))))
        read = [each for each in await index.read(USERS, names) if each is not None]
        assert sum(each.version for each in read) == won == sum(len(each.body.split()) for each in read)
        assert won >= 3 * 8

    async def test_collections_are_apart(self, index: Index) -> None:
        for collection in Collection:
            await index.write(collection, new(point("same", body=collection)))
        for collection in Collection:
            (read,) = await index.read(collection, ["same"])
            assert read is not None
            assert read.body == collection

    async def test_search_orders_as_the_oracle_does(self, index: Index) -> None:
        oracle = ExactIndex()
        await oracle.open(DIMENSION)
        written = new(*(
            point(f"i{n}", vector=unit(n) if n % 5 else None, sparse=terms(t1=0.1 * n, t2=1.0), live=n % 2 == 0,
                  expires_at=float(n))
            for n in range(1, 121)
        ))  # fmt: skip
        for store in (index, oracle):
            await store.write(ITEMS, written)
        live = Match(equals={"live": True})
        queries = [
            Query(7, unit(1000)),
            Query(200, unit(1001)),
            Query(10, unit(1002), match=live),
            Query(10, unit(1003), match=Match(equals={"live": False}, below={"expires_at": 50.0})),
            Query(10, terms=terms(t1=1.0, t2=0.5, t3=9.0)),
            Query(1, terms=terms(t1=1.0), match=live),
        ]
        found, expected = await index.search(ITEMS, queries), await oracle.search(ITEMS, queries)
        assert [len(hits) for hits in expected] == [7, 96, 10, 10, 10, 1]
        for hits, right in zip(found, expected, strict=True):
            assert keys(hits) == keys(right)
            np.testing.assert_allclose([hit.score for hit in hits], [hit.score for hit in right], atol=1e-5)
            assert [hit.fields for hit in hits] == [hit.fields for hit in right]

    async def test_search_returns_negative_products_too(self, index: Index) -> None:
        await index.write(ITEMS, new(point("far", vector=-unit(1))))
        (hits,) = await index.search(ITEMS, [Query(5, unit(1))])
        assert hits[0].score == pytest.approx(-1.0, abs=1e-5)

    async def test_vectors_keep_their_length(self, index: Index) -> None:
        """A taste may be shorter than 1: the dot product says so, and it is read as written."""
        await index.write(USERS, new(point("u", vector=unit(1) * np.float32(0.5))))
        (hits,) = await index.search(USERS, [Query(5, unit(1))])
        assert hits[0].score == pytest.approx(0.5, abs=1e-5)

    async def test_terms_search_needs_a_common_term(self, index: Index) -> None:
        sparse = {"a": terms(t1=2.0, t2=1.0), "b": terms(t2=1.0), "c": None, "d": terms()}
        await index.write(ITEMS, new(*(point(key, sparse=each) for key, each in sparse.items())))
        both, none = await index.search(ITEMS, [Query(9, terms=terms(t1=0.5, t2=1.0)), Query(9, terms=terms(t9=1.0))])
        assert [(hit.key, pytest.approx(hit.score)) for hit in both] == [("a", 2.0), ("b", 1.0)]
        assert none == []

    async def test_find_by_membership_equality_and_range(self, index: Index) -> None:
        await index.write(USERS, new(
            point("a", 1, list_ids=("x", "y z"), marker=False, floor=0.5, home=0),
            point("b", 2, list_ids=("y z",), marker=False, floor=0.25, home=1),
            point("c", 3, marker=True, home=2),
        ))  # fmt: skip
        expected = [
            (Match(), "abc"), (Match(equals={"list_ids": "y z"}), "ab"), (Match(equals={"list_ids": "y"}), ""),
            (Match(equals={"marker": True}), "c"), (Match(equals={"marker": False}), "ab"),
            (Match(equals={"home": 0}), "a"), (Match(equals={"version": 3}), "c"), (Match(below={"floor": 0.5}), "b"),
            (Match(at_least={"floor": 0.5}), "a"), (Match(at_least={"home": 1}), "bc"),
            (Match(equals={"list_ids": "x"}, below={"floor": 0.5}), ""),
            (Match(at_least={"home": 1}, below={"home": 2}), "b"),
        ]  # fmt: skip
        for match, found in expected:
            hits = await index.find(USERS, match, 10)
            assert "".join(sorted(keys(hits))) == found, match
            assert all(hit.score == 0 for hit in hits)
        (hit,) = await index.find(USERS, Match(equals={"home": 0}), 10)
        assert hit.fields == {"list_ids": ("x", "y z"), "marker": False, "floor": 0.5, "home": 0}

    async def test_find_honours_its_limit(self, index: Index) -> None:
        await index.write(USERS, new(*(point(f"u{n}", list_ids=("x",)) for n in range(30))))
        assert len({hit.key for hit in await index.find(USERS, Match(equals={"list_ids": "x"}), 12)}) == 12

    async def test_scan_sees_each_point_once(self, index: Index) -> None:
        for start in range(0, 600, 100):
            made = (point(f"i{n}", vector=unit(n), updated_ms=n) for n in range(start, start + 100))
            await index.write(ITEMS, new(*made))
        recent = Match(at_least={"updated_ms": 550})
        for limit, match, expected in ((600, None, 600), (7, recent, 50), (271, None, 600)):
            seen: list[str] = []
            cursor = None
            while True:
                page = await index.scan(ITEMS, cursor=cursor, limit=limit, match=match)
                assert len(page.points) <= limit
                assert all(each.vector is None for each in page.points)
                seen += keys(page.points)
                cursor = page.cursor
                if cursor is None:
                    break
            assert len(seen) == len(set(seen)) == expected
        page = await index.scan(ITEMS, limit=3, vectors=True)
        assert all(each.vector is not None and each.vector.shape == (DIMENSION,) for each in page.points)

    async def test_count_has_markers(self, index: Index) -> None:
        await index.write(USERS, new(point("a", vector=unit(1)), point("b", marker=True)))
        assert await index.count(USERS) == 2

    async def test_of_a_point_without_a_name_only_its_id_is_left(self, index: Index) -> None:
        await index.write(USERS, new(point("somebody", vector=unit(1), marker=False), point("other", marker=True)))
        nameless = Point("somebody", 2, "x", "{}", {"marker": True, "erased_at": 5.0}, named=False)
        await index.write(USERS, [Write(nameless, 1)])
        (read,) = await index.read(USERS, ["somebody"])
        assert read is not None
        assert (read.key, read.version, read.fields["erased_at"]) == ("", 2, 5.0)
        assert keys(await index.find(USERS, Match(at_least={"erased_at": 0}), 5)) == [""]
        page = await index.scan(USERS)
        assert sorted(keys(page.points)) == ["", "other"]
        await index.purge()
        await index.write(USERS, [Write(point("somebody", 3, "back", unit(2), marker=False), 2)])
        assert await self.winner(index, "somebody") == (3, "back")
        assert keys((await index.search(USERS, [Query(5, unit(2))]))[0]) == ["somebody"]
        assert await index.count(USERS) == 2

    async def test_undeclared_fields_are_refused(self, index: Index) -> None:
        declared: list[dict[str, FieldValue]] = [
            {"colour": "red"},
            {"live": 1},
            {"updated_ms": True},
            {"partition": 1.5},
        ]
        for wrong in (point("a", **fields) for fields in declared):
            with pytest.raises(ValueError, match="field"):
                await index.write(ITEMS, new(wrong))
        with pytest.raises(ValueError, match="colour"):
            await index.find(ITEMS, Match(equals={"colour": "red"}), 1)
        assert await index.count(ITEMS) == 0

    async def test_long_bodies_and_batches_pass(self, index: Index) -> None:
        body = "x\U0001f30a" * 200_000
        await index.write(USERS, new(*(point(f"u{n}", body=body if n == 0 else "s") for n in range(300))))
        read = await index.read(USERS, [f"u{n}" for n in range(300)])
        assert [each and len(each.body) for each in read] == [400_000] + [1] * 299

    async def test_purge_keeps_what_is_there(self, index: Index) -> None:
        await index.write(ITEMS, new(*(point(f"i{n}", vector=unit(n), live=True) for n in range(20))))
        await index.write(ITEMS, [Write(point("i3", 2, live=False), 1)])
        await index.purge()
        assert await index.count(ITEMS) == 20
        (hits,) = await index.search(ITEMS, [Query(3, unit(4), match=Match(equals={"live": True}))])
        assert hits[0].key == "i4"
        await index.write(ITEMS, [Write(point("i3", 3, "after"), 2)])
        (read,) = await index.read(ITEMS, ["i3"])
        assert read is not None
        assert read.write_id == "after"

    async def test_what_was_written_is_there_after_reopening(self, index: Index) -> None:
        await index.write(USERS, new(point("u", 4, "w", unit(2), body="state", list_ids=("x",), marker=False)))
        await index.close()
        await index.close()
        await index.open(DIMENSION)
        (read,) = await index.read(USERS, ["u"], vectors=True)
        assert read is not None
        assert (read.version, read.body, read.fields) == (4, "state", {"list_ids": ("x",), "marker": False})
        assert keys(await index.find(USERS, Match(equals={"list_ids": "x"}), 5)) == ["u"]
        await index.write(USERS, [Write(point("u", 5, "v"), 4)])
        assert await self.winner(index, "u") == (5, "v")

    async def test_another_dimension_is_refused(self, index: Index) -> None:
        await index.write(USERS, new(point("u", vector=unit(2))))
        await index.close()
        with pytest.raises(ConfigurationError, match="dimension"):
            await index.open(DIMENSION * 2)

    @staticmethod
    async def winner(index: Index, key: str) -> tuple[int, str]:
        """Version and write id of a user."""
        (read,) = await index.read(USERS, [key])
        assert read is not None
        return read.version, read.write_id

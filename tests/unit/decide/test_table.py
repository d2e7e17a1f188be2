"""The table: bounded, incremental, and right about who is near, new and popular."""

from __future__ import annotations

import numpy as np
import pytest

from streams.decide.ragged import Ragged
from streams.decide.statistics import signals_of
from streams.decide.table import Table
from streams.values import EventType, Interaction, ItemRecord, UserState
from tests.unit.decide.catalogue import DAY, DIMENSION, NOW, filled, item_ids, live_through, record, vector_of


def test_an_item_is_found_again_as_it_was_put() -> None:
    table = filled()
    assert len(table) == 40
    assert "wine-3" in table
    assert table.item("wine-3") == record("wine-3")
    assert table.item("beer-1") is None
    found = table.vector("wine-3")
    assert found is not None
    assert np.allclose(found, vector_of("wine-3"), atol=1e-3)


def test_putting_an_item_again_replaces_it() -> None:
    table = filled()
    table.put([(record("wine-3", available=False), vector_of("wine-3"))])
    assert len(table) == 40
    row = np.array([table.rows["wine-3"]])
    assert not table.recommendable(row, NOW).any()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"deleted": True}, False), ({"expires_at": NOW}, False), ({"published_at": NOW + 1}, False),
        ({"published_at": NOW, "expires_at": NOW + 1}, True),
    ],
)  # fmt: skip
def test_what_may_stand_in_a_list_is_what_the_record_says(changes: dict[str, object], expected: bool) -> None:
    table = Table(DIMENSION)
    one = record("wine-3", **changes)
    table.put([(one, vector_of("wine-3"))])
    assert table.recommendable(np.array([0]), NOW).tolist() == [expected] == [one.recommendable(NOW)]


def test_the_nearest_are_of_the_same_kind_also_for_items_that_come_later() -> None:
    table = filled()
    row = table.rows["wine-0"]
    near, _ = table.nearness.of(np.array([row]), len(table.ids), table.short, table.wording)
    assert len(near[0]) == 32
    new = [f"wine-{number}" for number in range(100, 103)]
    table.put([(record(item_id), vector_of(item_id)) for item_id in new])
    near, scores = table.nearness.of(np.array([row]), len(table.ids), table.short, table.wording)
    best = [table.ids[place] for place in near[0][np.argsort(-scores[0])[:15]]]
    assert all(item_id.startswith("wine") for item_id in best)
    assert {table.ids[place] for place in near[0] if place >= 0} >= set(new)


def test_the_popular_are_those_that_were_met() -> None:
    table = filled()
    live_through(table, [["wine-1", "bread-2"]] * 5)
    assert {table.ids[row] for row in table.popular(NOW)} == {"wine-1", "bread-2"}
    recent = table.counts.recent(np.array([table.rows["wine-1"]]), NOW)[0]
    assert np.all(np.diff(recent) > 0)
    assert recent[-1] < 5


def test_counts_halve_in_their_horizon() -> None:
    table = filled()
    live_through(table, [["wine-1"]])
    row = np.array([table.rows["wine-1"]])
    now, later = table.counts.recent(row, NOW), table.counts.recent(row, NOW + 14 * DAY)
    assert later[0, 3] == pytest.approx(now[0, 3] / 2)


def test_arrivals_are_by_publication_and_without_it_by_first_event() -> None:
    table = Table(DIMENSION)
    table.put([(record(f"wine-{n}", published_at=NOW - n), vector_of(f"wine-{n}")) for n in (3, 1, 2)])
    table.put([(record("bread-1"), vector_of("bread-1"))])
    assert [table.ids[row] for row in table.arrivals.newest(NOW, 9)] == ["wine-1", "wine-2", "wine-3"]
    live_through(table, [["bread-1"]], at=NOW - 1.5)
    assert [table.ids[row] for row in table.arrivals.newest(NOW, 2)] == ["wine-1", "bread-1"]
    assert table.arrivals.newest(NOW - 2.5, 9).tolist() == [table.rows["wine-3"]]


def test_a_full_table_lets_the_longest_unmet_go_and_forgets_them_everywhere() -> None:
    table = Table(DIMENSION, capacity=20)
    table.put([(record(f"wine-{number}"), vector_of(f"wine-{number}")) for number in range(20)])
    live_through(table, [[f"wine-{number}" for number in range(1, 20)]])
    table.put([(record("bread-1", first_seen=NOW), vector_of("bread-1"))])
    assert len(table) == 20
    assert "wine-0" not in table
    table.put([(record(item_id, first_seen=NOW), vector_of(item_id)) for item_id in ("bread-2", "bread-3")])
    assert not {"wine-1", "wine-2"} & set(table.rows)
    assert table.counts.events[table.rows["bread-2"]] == 0
    pairs = table.companions.pairs
    held = [pairs.item[first : first + count] for first, count in zip(pairs.start, pairs.length, strict=True)]
    assert table.rows["bread-2"] not in np.concatenate(held)
    near, _ = table.nearness.of(np.array([table.rows["wine-5"]]), len(table.ids), table.short, table.wording)
    assert {table.ids[row] for row in near[0] if row >= 0} <= set(table.rows)


def test_a_given_mean_is_used() -> None:
    table = filled()
    table.set_mean(vector_of("wine-1"))
    assert np.allclose(table.mean, vector_of("wine-1"))
    assert np.allclose(np.linalg.norm(table.short[:40], axis=1), 1, atol=1e-2)


def test_signals_of_unknown_items_are_left_out() -> None:
    table = filled()
    live_through(table, [["beer-1", "wine-1"]])
    assert table.counts.total == 1


def test_ragged_rows_keep_their_entries_while_others_grow() -> None:
    ragged = Ragged(number=np.int64)
    ragged.reserve(50)
    expected: dict[int, list[int]] = {row: [] for row in range(50)}
    chance = np.random.default_rng(1)
    for step in range(600):
        rows = np.unique(chance.integers(0, 50, 4))
        for row in rows.tolist():
            ragged.extend(row, 1, number=step)
            expected[row].append(step)
        if step % 50 == 0:
            ragged.replace(step % 7, number=np.array([step, step + 1]))
            expected[step % 7] = [step, step + 1]
    for row, entries in expected.items():
        assert ragged["number"][ragged.span(row)].tolist() == entries
    owner, flat = ragged.gather(np.array([3, 3, 5]))
    assert ragged["number"][flat].tolist() == expected[3] + expected[3] + expected[5]
    assert np.bincount(owner).tolist() == [len(expected[3]), len(expected[3]), len(expected[5])]


def test_every_item_of_the_catalogue_has_a_row_of_its_own() -> None:
    table = filled()
    assert sorted(table.rows) == sorted(item_ids())
    assert len(set(table.rows.values())) == len(table)


def test_what_is_taken_off_the_shelf_and_put_back_counts_once_for_its_facets() -> None:
    table = Table(DIMENSION)
    item, vector = record("wine-3"), vector_of("wine-3")
    bare = ItemRecord("wine-3", deleted=True)
    table.put([(item, vector)])
    table.observe(signals_of(UserState("u"), Interaction(NOW, 0, 1, EventType.LIKE, "wine-3")))
    row = table.rows["wine-3"]
    counted = table.wording.facet_counts.copy()
    for one in (bare, bare, item, record("wine-3", title="!"), item):
        table.put([(one, vector)])
    assert np.allclose(table.wording.facet_counts, counted)
    assert counted.max() > 0
    assert table.wording.query("wine")[1].tolist() == [1.0]
    table.wording.clear([row])
    assert not table.wording.facet_counts.any()
    assert not table.wording.kinds.having.any()

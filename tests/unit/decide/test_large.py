"""What keeps a large catalogue cheap finds what a look at everything finds: postings, moments, cells, the popular."""

from __future__ import annotations

import numpy as np
import pytest

from streams.decide import nearness, ragged
from streams.decide.arrivals import Arrivals, came_by
from streams.decide.nearness import Cells
from streams.decide.ragged import Posted, Postings
from streams.decide.statistics import ItemStatistics, signals_of
from streams.decide.table import POPULAR, POPULAR_HORIZONS, Table, best_of
from streams.values import EventType, Interaction, UserState
from tests.unit.decide.catalogue import DAY, DIMENSION, NOW, live_through, record, vector_of

ROWS, SPACE = 60, 24


def entries(posted: Posted) -> list[tuple[int, int]]:
    """(term, row) of all that is posted."""
    terms = np.repeat(np.arange(len(posted.ends) - 1), np.diff(posted.ends))
    both = [*zip(terms.tolist(), posted.rows.tolist(), strict=True)]
    both += zip(posted.late_terms.tolist(), posted.late_rows.tolist(), strict=True)
    return [(term, row) for term, row in both if row >= 0]


@pytest.mark.parametrize("singly", [0, 4096])
def test_postings_hold_what_was_put_and_not_taken_out(monkeypatch: pytest.MonkeyPatch, singly: int) -> None:
    monkeypatch.setattr(ragged, "_SINGLY", singly)
    monkeypatch.setattr(ragged, "_TAIL_LEAST", 40)
    chance, postings, held = np.random.default_rng(3), Postings(SPACE), dict[int, set[int]]()
    for step in range(800):
        row = int(chance.integers(ROWS))
        if row in held:
            gone = np.array(sorted(held.pop(row)))
            postings.remove(np.full(len(gone), row), gone)
        else:
            held[row] = set(chance.choice(SPACE, int(chance.integers(1, 6)), replace=False).tolist())
            postings.add(row, np.array(sorted(held[row])))
        if step % 7 == 0:
            asked = chance.choice(SPACE, 5, replace=False)
            found = sorted(one for one in entries(postings.posted()) if one[0] in asked)
            assert found == sorted((term, row) for row, terms in held.items() for term in terms & set(asked.tolist()))
        assert postings.having.tolist() == [sum(term in terms for terms in held.values()) for term in range(SPACE)]


def test_moments_are_in_order_whatever_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.decide.arrivals._GONE_MOST", 9)
    monkeypatch.setattr("streams.decide.arrivals._LATE_LEAST", 13)
    chance, moments = np.random.default_rng(5), Arrivals()
    moments.reserve(ROWS)
    at = np.full(ROWS, -np.inf)
    for step in range(600):
        rows = chance.choice(ROWS, int(chance.integers(1, 4)), replace=False)
        if step % 5 == 4:
            moments.clear(rows.tolist())
            at[rows] = -np.inf
        else:
            at[rows] = np.where(chance.random(len(rows)) < 0.1, -np.inf, chance.random(len(rows)).round(2))
            moments.put(rows, at[rows].copy())
        now, count = chance.random(), int(chance.integers(1, 9))
        came = at[at <= now]
        expected = np.sort(came[np.isfinite(came)])[::-1][:count]
        assert at[moments.newest(now, count)].tolist() == expected.tolist()
        since = chance.random(3)
        for one in since.tolist():
            until, before = (came_by(moments.moments, moment) for moment in (now, one))
            assert max(until - before, 0) == ((at > one) & (at <= now)).sum()
        low, high = sorted(chance.random(2))
        assert sorted(moments.between(low, high)) == np.flatnonzero((at > low) & (at <= high)).tolist()


def test_the_popular_are_those_of_a_look_at_all() -> None:
    table, chance = Table(DIMENSION, 400), np.random.default_rng(2)
    ids = [f"{kind}-{number}" for kind in ("wine", "bread") for number in range(150)]
    table.put([(record(item_id), vector_of(item_id)) for item_id in ids])
    now = NOW
    for step in range(30):
        now += float(chance.random()) * DAY
        for _ in range(40):
            item_id = ids[int(len(ids) ** chance.random()) - 1]
            table.observe(signals_of(UserState("u"), Interaction(now, 0, 0, EventType.CLICK, item_id)))
        if step % 10 == 9:
            table.absorb([ItemStatistics(ids[0], applied={}), ItemStatistics(ids[200], applied={})])
        now += 7200.0
        every = np.arange(len(ids))
        columns = [*(table.counts.column(one, now)[every] for one in POPULAR_HORIZONS), table.counts.positives[every]]
        found = set(table.popular(now).tolist())
        for scores in columns:
            best = best_of(every, scores, POPULAR)
            if len(best) == POPULAR:
                assert scores[list(found)].max() == scores.max()
                assert set(every[scores > scores[best].min()].tolist()) <= found
            else:
                assert set(best.tolist()) <= found


def large(count: int) -> Table:
    table = Table(DIMENSION, 2 * count)
    ids = [f"{kind}-{number}" for kind in ("wine", "bread") for number in range(count // 2)]
    table.put([(record(item_id), vector_of(item_id)) for item_id in ids])
    return table


def recall(table: Table, rows: np.ndarray) -> float:
    """Share of the ten with the greatest scores that is found; of equal ones any counts."""
    near, scores = table.nearness.of(rows, len(table.ids), table.short, table.wording)
    shares = []
    for row, places, values in zip(rows.tolist(), near, scores, strict=True):
        exact = np.zeros(len(table.live), np.float32)
        table.wording.add_cosines(exact, *table.wording.of_row(row))
        exact = exact[: len(table.ids)] + table.short[: len(table.ids)] @ table.short[row]
        exact[row] = -np.inf
        best = places[np.argsort(-values)[:10]]
        assert np.allclose(exact[best], np.sort(values)[::-1][:10], atol=0.02)  # words have become rarer since
        shares.append(float((exact[best] >= np.sort(exact)[-10] - 1e-5).mean()))
    return float(np.mean(shares))


@pytest.fixture
def with_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearness, "LEAST", 500)
    monkeypatch.setattr(nearness, "AXES", DIMENSION)
    monkeypatch.setattr(nearness, "_PROBES", 8)
    monkeypatch.setattr(nearness, "_SHORTLIST", 100)


@pytest.mark.usefixtures("with_cells")
def test_by_cells_nearly_all_of_the_nearest_are_found_also_among_what_came_later() -> None:
    table = large(1200)
    assert table.nearness._cells.active
    rows = np.random.default_rng(4).choice(1200, 60, replace=False)
    assert recall(table, rows) >= 0.95
    table.put([(record(f"wine-{number}"), vector_of(f"wine-{number}")) for number in range(5000, 5060)])
    assert recall(table, rows) >= 0.9
    table.nearness.forget()
    assert recall(table, np.arange(1200, 1260)) >= 0.95


@pytest.mark.usefixtures("with_cells")
def test_what_is_evicted_is_in_no_cell_any_more() -> None:
    table = large(1200)
    table.capacity = 1200
    live_through(table, [[f"bread-{number}" for number in range(100)]])
    table.put([(record("wine-9000", first_seen=NOW), vector_of("wine-9000"))])
    assert "wine-9000" in table
    cells = table.nearness._cells
    held = [row for rows, count in zip(cells._rows, cells._count, strict=True) for row in rows[:count].tolist()]
    assert sorted(held) == sorted(table.rows.values())


def test_without_many_items_there_are_no_cells() -> None:
    cells = Cells()
    cells.reserve(10)
    cells.fit(np.arange(10), np.zeros((10, 4), np.float32))
    cells.put(np.arange(3), np.zeros((10, 4), np.float32))
    cells.clear(np.arange(3))
    assert not cells.active

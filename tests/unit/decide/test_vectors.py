"""Learned vectors: they begin as text, learn what goes together, and stay with their items."""

from __future__ import annotations

import numpy as np
import pytest

from streams.decide.features import PLACE
from streams.decide.policy import Policy
from streams.decide.recommend import batch_of, learn_vectors, lesson_of
from streams.decide.table import Table
from streams.decide.taste import Request
from streams.decide.vectors import SCALE
from streams.values import UserState
from tests.unit.decide.catalogue import DIMENSION, NOW, filled, live_through, record, user, vector_of

POLICY = Policy(exclude_seconds={})


def said(table: Table, item_id: str, state: UserState) -> float:
    batch = batch_of(table, [Request(state, NOW)], POLICY)
    place = batch.candidates(0).tolist().index(table.rows[item_id])
    return float(batch.cells.values[PLACE["learned_vectors"], 0, place])


@pytest.fixture
def table() -> Table:
    table = filled()
    live_through(table, [[f"wine-{number}", f"bread-{number}"] for number in range(20)])
    return table


def test_they_begin_as_text(table: Table) -> None:
    rows = table.rows
    cosine = float(table.short[rows["wine-3"]] @ table.short[rows["wine-5"]])
    assert said(table, "wine-5", user("wine-3")) == pytest.approx(float(SCALE) * cosine, abs=1e-4)


def test_what_is_chosen_after_what_is_learned_though_text_says_nothing_of_it(table: Table) -> None:
    before = said(table, "bread-7", user("wine-3")), said(table, "bread-9", user("wine-3"))
    for seed in range(60):
        lesson = lesson_of(table, Request(user("wine-3"), NOW, seed=seed), ["bread-7"], POLICY)
        assert lesson is not None
        learn_vectors(table, lesson)
    after = said(table, "bread-7", user("wine-3")), said(table, "bread-9", user("wine-3"))
    assert after[0] - before[0] > 1.0, "bread goes with this wine, …"
    assert after[0] - after[1] > before[0] - before[1] + 0.5, "… and this bread above all"
    assert table.learned.moved[table.rows["bread-7"]] > 0


def test_of_strangers_and_of_items_nobody_has_met_nothing_is_said(table: Table) -> None:
    table.put([(record("wine-77"), vector_of("wine-77"))])
    assert np.isnan(said(table, "wine-5", UserState("x")))
    assert np.isnan(said(table, "wine-77", user("wine-3")))


def test_a_step_goes_down_the_softmax_loss() -> None:
    table = filled()
    lesson = lesson_of(table, Request(user("wine-3", "bread-2"), NOW), ["wine-5"], POLICY)
    assert lesson is not None

    def loss() -> float:
        rows = np.array([table.rows[one] for one in lesson.items])
        history, vectors = [table.rows[one] for one in lesson.history], table.short + table.learned.residual
        mean = np.frombuffer(lesson.shares, np.float32) @ vectors[history]
        scores = SCALE * (vectors[rows] @ mean) + table.learned.bias[rows]
        return float(np.log(np.exp(scores - scores[0]).sum()))

    losses = [loss()]
    for _ in range(5):
        learn_vectors(table, lesson)
        losses.append(loss())
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0] - 0.1


def test_they_turn_with_the_axes_and_leave_with_their_items() -> None:
    table = Table(DIMENSION, capacity=100)
    table.put([(record(f"wine-{number}"), vector_of(f"wine-{number}")) for number in range(70)])
    table.learned.residual[table.rows["wine-5"]] = table.to_short(vector_of("bread-1"))
    table.learned.bias[table.rows["wine-5"]] = 0.5
    whole = table.full(table.learned.residual[[table.rows["wine-5"]]])[0]
    axes = table.full(np.eye(DIMENSION, dtype=np.float32))
    table.put([(record(f"bread-{number}"), vector_of(f"bread-{number}")) for number in range(30)])
    assert not np.allclose(axes, table.full(np.eye(DIMENSION, dtype=np.float32)), atol=1e-2)
    assert np.allclose(whole, table.full(table.learned.residual[[table.rows["wine-5"]]])[0], atol=1e-4)
    live_through(table, [[f"bread-{number}" for number in range(30)]])
    row = table.rows["wine-5"]
    table.put([(record(f"bread-{number}", first_seen=NOW), vector_of(f"bread-{number}")) for number in range(30, 110)])
    assert "wine-5" not in table
    assert not table.learned.residual[row].any()
    assert table.learned.bias[row] == 0.0

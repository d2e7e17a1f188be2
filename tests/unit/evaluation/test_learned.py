"""Learned vectors: they begin as text, learn what text can't tell, and are held against what really serves."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from encoder import HashingEncoder, item_text
from evaluation.evaluate import evaluate, vectors_of
from evaluation.measures import ndcg
from evaluation.protocol import Options, read
from evaluation.report import comparison
from streams.decide.features import PLACE, compute
from streams.decide.grids import Batch
from streams.decide.policy import Policy
from streams.decide.table import Table
from streams.decide.taste import Request, taste_of
from streams.values import EventType, Interaction, ItemRecord, UserState
from tests.unit.evaluation.test_protocol import event, write

torch = pytest.importorskip("torch")

from evaluation.learned import KINDS, Rivals, Vectors, compare  # noqa: E402

PAIRS = 16
DIMENSION = 32


class Encoder(HashingEncoder):
    name = "hashing"


@pytest.fixture
def table() -> Table:
    """Items in pairs whose texts have nothing in common."""
    table = Table(DIMENSION)
    vectors = np.random.default_rng(3).standard_normal((2 * PAIRS, DIMENSION)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    table.put([(ItemRecord(item_id=f"{n}", title=f"word{n}"), vector) for n, vector in enumerate(vectors)])
    return table


def batch_of(table: Table, histories: list[list[int]], candidates: list[list[int]]) -> Batch:
    """Users who met these rows, newest first."""
    tastes = []
    for rows in histories:
        met = [Interaction(1.0 + n, 0, n, EventType.CLICK, f"{row}") for n, row in enumerate(reversed(rows))]
        tastes.append(taste_of(table, Request(UserState("u", history=tuple(met)), 100.0), Policy()))
    found = [np.array(rows, np.int64) for rows in candidates]
    return compute(table, tastes, found)


@pytest.mark.parametrize("kind", KINDS)
def test_before_they_learn_they_rank_as_text_does(table: Table, kind: str) -> None:
    batch = batch_of(table, [[1, 5, 9], [2], []], [[3, 4, 7, 8], [1, 5, 6], [1, 2]])
    text = batch.cells.values[PLACE["dense_mean"]]
    scores = Vectors(kind, 2 * PAIRS, DIMENSION).score(table, batch)
    for user, size in enumerate([4, 3]):
        assert scores[user, :size] == pytest.approx(5.0 * text[user, :size], abs=1e-5)
    assert scores[2, :2] == pytest.approx(0.0), "of a user without a past text says nothing"


@pytest.mark.parametrize("kind", KINDS)
def test_what_goes_together_is_learned_where_text_cannot_tell(table: Table, kind: str) -> None:
    chance = np.random.default_rng(5)
    model, everything = Vectors(kind, 2 * PAIRS, DIMENSION), set(range(2 * PAIRS))
    for _ in range(60):
        histories = chance.integers(0, 2 * PAIRS, (16, 1)).tolist()
        lessons = [[own ^ 1, *chance.choice(sorted(everything - {own, own ^ 1}), 12, False)] for (own,) in histories]
        model.learn(table, batch_of(table, histories, lessons), [1] * 16, np.zeros((16, 13), np.float32))
    batch = batch_of(table, [[row] for row in everything], [sorted(everything - {row}) for row in sorted(everything)])
    gains = {}
    for name, scores in (("text", batch.cells.values[PLACE["dense_mean"]]), ("learned", model.score(table, batch))):
        best = np.take_along_axis(batch.cells.rows, np.argsort(-scores, axis=1), axis=1)
        gains[name] = np.mean([ndcg(rows.tolist(), [row ^ 1]) for row, rows in enumerate(best)])
    assert gains["text"] < 0.3
    assert gains["learned"] > 0.9


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_learned_outlives_new_axes_of_the_table(table: Table, kind: str) -> None:
    model, batch = Vectors(kind, 2 * PAIRS, DIMENSION), batch_of(table, [[1, 5], [2]], [[3, 4, 7], [1, 5, 6]])
    for _ in range(20):
        model.learn(table, batch, [1, 2], np.zeros((2, 3), np.float32))
    before = model.score(table, batch)
    turn, _ = np.linalg.qr(np.random.default_rng(1).standard_normal((DIMENSION, DIMENSION)))
    table.short = (table.short @ turn).astype(np.float32)
    assert model.score(table, batch) == pytest.approx(before, abs=1e-3)


def test_the_comparison_is_with_what_evaluate_finds(tmp_path: Path) -> None:
    items = [{"item_id": f"{n}", "title": f"<kind {n % 4}> number {n}"} for n in range(60)]
    chance = np.random.default_rng(2)
    users = chance.integers(0, 16, 260)
    events = [
        event(f"u{user}", f"{4 * chance.integers(0, 15) + user % 4}", 1_700_000_000 + 600 * n)
        for n, user in enumerate(users.tolist())
    ]
    folder, options = write(tmp_path / "shop", items, events), Options(cut=0.0, until=0.4)
    stream = read(folder, options)
    vectors, words = vectors_of(stream, Encoder(32), item_text, 1)
    found = compare(stream, options, Rivals(stream, vectors, options, words))
    served = evaluate(folder, options, Encoder(32), item_text, 1).summary()
    assert found["methods"]["coldstream"] == served["methods"]["coldstream"]
    assert set(found["methods"]) == {"coldstream", "text", *KINDS, *(f"coldstream + {kind}" for kind in KINDS)}
    for slices in found["methods"].values():
        assert slices["all"]["n"] == found["steps"] > 20
    cold = {name: slices["cold_user"] for name, slices in found["methods"].items() if name.startswith("coldstream")}
    assert len(cold) == 1 + len(KINDS)
    assert all(one == cold["coldstream"] for one in cold.values()), "of users without a past the ranker is told nothing"
    assert found["lessons"] > 30
    assert found["cpu_ms"]["transformer"]["learn"] > 0
    ratio = found["against_coldstream"]["text"]["all"]["ratio"]
    assert f"({ratio:.3f} ± " in comparison(json.loads(json.dumps(found)))

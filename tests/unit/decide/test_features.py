"""Features by hand: each of these numbers is computed a second time, the slow way."""

from __future__ import annotations

import math

import numpy as np
import pytest

from streams.decide.features import NAMES, PLACE
from streams.decide.policy import Policy
from streams.decide.ratings import predict_rating
from streams.decide.recommend import batch_of
from streams.decide.statistics import signals_of
from streams.decide.table import Table
from streams.decide.taste import Request
from streams.values import EventType, UserState
from tests.unit.decide.catalogue import DAY, DIMENSION, NOW, filled, interaction, live_through, record, user, vector_of

STATE = user("wine-1", "wine-2", "bread-3")


@pytest.fixture
def table() -> Table:
    found = filled()
    live_through(found, [["wine-1", "wine-2", "wine-5"], ["wine-2", "wine-5"], ["bread-3", "wine-5", "wine-2"]])
    return found


def seen(table: Table, state: UserState, item_id: str, now: float = NOW) -> dict[str, float]:
    """The features of one candidate."""
    batch = batch_of(table, [Request(state, now)], Policy())
    place = batch.candidates(0).tolist().index(table.rows[item_id])
    return {name: float(batch.cells.values[PLACE[name], 0, place]) for name in NAMES}


def test_dense_cosines_are_of_short_vectors_weighted_by_position(table: Table) -> None:
    features = seen(table, STATE, "wine-5")
    cosines = [
        float(table.short[table.rows[one]] @ table.short[table.rows["wine-5"]])
        for one in ("bread-3", "wine-2", "wine-1")
    ]
    weights = np.exp2(-np.arange(3) / 20)
    assert features["dense_last"] == pytest.approx(cosines[0], abs=1e-5)
    assert features["dense_max"] == pytest.approx(max(cosines), abs=1e-5)
    assert features["dense_mean"] == pytest.approx(float(weights @ cosines / weights.sum()), abs=1e-4)


def test_mixtures_are_smoothed_by_popularity(table: Table) -> None:
    features = seen(table, STATE, "wine-5")
    rows = np.arange(len(table))
    recent = table.counts.recent(rows, NOW)[:, 4]
    chance = (recent[table.rows["wine-5"]] + 0.1) / (recent.sum() + 0.1 * len(table))
    # bread-3 was followed by wine-5 at distance 1 once; wine-2 twice at distance 1; wine-1 once at distance 2
    pairs, met = (1.0, 2.0, 0.5), (1, 3, 1)
    mixture = [(pair + 5 * chance) / (count + 5) for pair, count in zip(pairs, met, strict=True)]
    assert features["mixture_1"] == pytest.approx(math.log(mixture[0]), abs=1e-3)
    assert features["mixture_2"] == pytest.approx(math.log(mixture[1]), abs=1e-3)
    weights = np.exp2(-np.arange(3) / 20)
    assert features["mixture"] == pytest.approx(math.log(float(weights @ mixture / weights.sum())), abs=1e-3)


def test_pairs_count_in_either_order_by_distance_and_by_number(table: Table) -> None:
    features = seen(table, STATE, "wine-5")
    weights = np.exp2(-np.arange(3) / 20) / np.exp2(-np.arange(3) / 20).sum()
    met = np.array([1, 3, 1])
    # as above, and wine-2 once right after wine-5
    for name, pairs in (("either", np.array([1.0, 3.0, 0.5])), ("together", np.array([1.0, 3.0, 1.0]))):
        root = float(weights @ (pairs / np.sqrt(met + 1))) / math.sqrt(3 + 1)
        assert features[f"{name}_root"] == pytest.approx(root, abs=1e-3)
        assert features[f"{name}_log"] == pytest.approx(math.log(float(weights @ (pairs / (met + 5))) + 1e-4), abs=1e-3)


def test_what_only_came_before_the_history_goes_with_it_too() -> None:
    table = filled()
    live_through(table, [["bread-1", "wine-1"]])
    batch = batch_of(table, [Request(user("wine-1"), NOW)], Policy())
    place = batch.candidates(0).tolist().index(table.rows["bread-1"])
    assert batch.cells.values[PLACE["either_root"], 0, place] == pytest.approx(0.5)  # 1/√(2·2)


def test_popularity_is_the_logarithm_of_faded_counts(table: Table) -> None:
    features = seen(table, STATE, "wine-5")
    days = [10.0 - (100.0 * life + place) / DAY for life, place in ((0, 2), (1, 1), (2, 1))]
    for name, half_life in (("popular_4d", 4), ("popular_14d", 14), ("popular_60d", 60)):
        expected = math.log(sum(2 ** (-age / half_life) for age in days) + 0.3)
        assert features[name] == pytest.approx(expected, abs=1e-3), name
    assert features["popular_ever"] == pytest.approx(math.log(3.3), abs=1e-5)
    assert features["quiet"] == pytest.approx(math.log1p(24 * min(days)), abs=1e-2)


def test_what_there_is_nothing_to_say_about_is_no_number(table: Table) -> None:
    stranger = seen(table, UserState("x"), "wine-5")
    for name in ("dense_mean", "mixture", "lift", "facet_title", "price", "profile_dense", "wish_dense", "repeat_age"):
        assert math.isnan(stranger[name]), name
    assert not math.isnan(stranger["popular_14d"])
    unpriced = Table(DIMENSION)
    unpriced.put([(record(f"wine-{n}", price=None), vector_of(f"wine-{n}")) for n in range(12)])
    assert math.isnan(seen(unpriced, user("wine-1"), "wine-5")["price"])
    assert math.isnan(seen(unpriced, user("wine-1"), "wine-5")["age"])


def test_an_item_published_an_hour_ago_is_an_hour_old(table: Table) -> None:
    table.put([(record("wine-30", published_at=NOW - 3600.0), vector_of("wine-30"))])
    features = seen(table, STATE, "wine-30")
    assert features["age"] == pytest.approx(math.log(2.0), abs=1e-5)
    assert features["age_2d"] == pytest.approx(math.exp(-1 / 48), abs=1e-5)
    assert features["since"] == 0.0
    assert features["unmet"] == 1.0


def test_a_repeat_is_told_with_its_count_and_age(table: Table) -> None:
    state = user("wine-1", "wine-2", "wine-1")
    again = seen(table, state, "wine-1")
    assert (again["repeat"], again["repeat_count"]) == (1.0, pytest.approx(math.log(2)))
    assert again["repeat_age"] == pytest.approx(math.log1p((DAY - 2) / 3600), abs=1e-4)
    other = seen(table, state, "wine-5")
    assert other["repeat"] == 0.0
    assert math.isnan(other["repeat_age"])


def test_refused_items_warn(table: Table) -> None:
    state = UserState("u", history=(interaction("wine-1", NOW - 9, EventType.DISLIKE),))
    features = seen(table, state, "wine-2")
    assert features["dense_low"] == pytest.approx(features["dense_mean"], abs=1e-5)
    assert features["dense_liked"] == 0.0


def test_predicted_ratings_follow_item_user_and_likeness() -> None:
    table = filled()
    for number, (item_id, value) in enumerate(
        [("wine-1", 5.0), ("wine-2", 5.0), ("bread-1", 1.0), ("bread-2", 1.0)] * 10
    ):
        event = interaction(item_id, NOW - 1000 + number, EventType.RATING, number, value=value)
        table.observe(signals_of(UserState(f"u{number}"), event))
    stranger = UserState("x")
    high, low = predict_rating(table, stranger, "wine-1"), predict_rating(table, stranger, "bread-1")
    assert high is not None
    assert low is not None
    assert 4.0 < high <= 5.0
    assert 1.0 <= low < 2.0
    unrated, dull = predict_rating(table, stranger, "wine-9"), predict_rating(table, stranger, "bread-9")
    assert unrated is not None
    assert dull is not None
    assert unrated > dull
    harsh = UserState(
        "h", history=tuple(interaction("wine-2", NOW + n, EventType.RATING, n, value=2.0) for n in range(4))
    )
    harshly = predict_rating(table, harsh, "wine-1")
    assert harshly is not None
    assert harshly < high
    risen, fallen = (
        UserState("m", history=tuple(interaction("bread-2", NOW + n, EventType.RATING, n, value=value)
                                     for n, value in enumerate(values)))
        for values in ([1.0] * 4 + [4.0] * 4, [4.0] * 4 + [1.0] * 4)
    )  # fmt: skip
    up, down = predict_rating(table, risen, "wine-1"), predict_rating(table, fallen, "wine-1")
    assert up is not None
    assert down is not None
    assert up > down + 0.5, "of equal ratings the latest count most"
    assert predict_rating(table, stranger, "beer-1") is None
    assert predict_rating(Table(DIMENSION), stranger, "wine-1") is None

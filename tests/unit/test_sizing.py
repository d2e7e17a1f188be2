"""The queues of the sizing guide behave as queues do."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.sizing import MOST, Costs, Load, _served, carries, changed, plan, simulate

COSTS = Costs(
    batch_ms=4.0, event_ms=1.0, lesson_ms=0.1, reload_ms=0.1, user_write_ms=0.1, user_read_ms=0.05, hop_ms=2.0
)
NEVER = (float("inf"), 0.0)


def test_a_lone_event_waits_for_nothing() -> None:
    done, busy = _served(np.array([1.0, 2.0, 3.0]), COSTS, NEVER)
    assert done.tolist() == pytest.approx([1.005, 2.005, 3.005])
    assert busy == pytest.approx(0.015)


def test_what_comes_while_a_batch_is_made_is_the_next_batch() -> None:
    done, _ = _served(np.array([0.0, 0.001, 0.002, 0.0049, 0.0051]), COSTS, NEVER)
    assert done.tolist() == pytest.approx([0.005, 0.012, 0.012, 0.012, 0.017])
    many, _ = _served(np.zeros(MOST + 1), COSTS, NEVER)
    assert many[0] == pytest.approx((4 + MOST) / 1000)
    assert many[-1] == pytest.approx(many[0] + 0.005)


def test_what_is_read_beside_is_read_in_slices_and_while_nothing_waits() -> None:
    done, busy = _served(np.array([0.0, 1.5, 1.51, 1.6]), COSTS, (1.0, 0.1))
    assert done.tolist() == pytest.approx([0.005, 1.505, 1.53, 1.605])
    assert busy == pytest.approx(0.02 + 2 * 0.02 + (0.1 - 0.02 - 0.02 - (1.6 - 1.55)))


def test_latency_grows_with_the_load_and_without_bound_beyond_what_a_worker_carries() -> None:
    p99 = [simulate(Load(rate, 100, 1000), COSTS, 1, 4)["p99_ms"] for rate in (50, 400, 800, 1200)]
    assert p99 == sorted(p99)
    assert p99[-1] > 1000.0
    rate, fares = carries(COSTS)
    assert 400 < rate < 1000
    assert fares["p99_ms"] <= 50.0


def test_items_that_change_are_few_at_first_and_never_more_than_there_are() -> None:
    load = Load(1000.0, 500, 1000)
    assert changed(load, 1e-5) == pytest.approx(0.01, rel=0.01)
    assert changed(load, 1.0) < changed(load, 10.0) < changed(load, 1e6) <= 500.0


def test_a_plan_keeps_what_it_promises() -> None:
    for rate in (100.0, 20_000.0):
        found = plan(Load(rate, 50_000, 100_000), COSTS, 0.3)
        assert found["workers"] * 600 >= rate
        assert found["partitions"] == 4 * found["workers"]
        assert found["p99_ms"] <= 50.0
        assert found["reading_share"] <= 0.1
        assert found["workers"] * found["COLDSTREAM_LESSONS_PER_SECOND"] * COSTS.lesson_ms <= 301

"""Rows of unequal length keep their entries, whatever moves beneath them."""

from __future__ import annotations

import numpy as np

from streams.decide.ragged import Ragged


def entries(ragged: Ragged, row: int) -> list[int]:
    return ragged["value"][ragged.span(row)].tolist()


def test_rows_keep_their_entries_while_others_grow_and_are_replaced():
    rng = np.random.default_rng(5)
    ragged, expected = Ragged(value=np.int64), [[] for _ in range(900)]
    ragged.reserve(len(expected))
    for step in range(400):
        rows = rng.choice(len(expected), rng.integers(1, 60), replace=False)
        for row in rows.tolist():
            ragged.extend(row, 1, value=step)
            expected[row].append(step)
        row = int(rng.integers(len(expected)))
        expected[row] = [-step] * int(rng.integers(0, 9))
        ragged.replace(row, value=np.array(expected[row], np.int64))
    assert [entries(ragged, row) for row in range(len(expected))] == expected
    owner, flat = ragged.gather(np.array([3, 5, 3]))
    assert ragged["value"][flat].tolist() == expected[3] + expected[5] + expected[3]
    assert np.bincount(owner, minlength=3).tolist() == [len(expected[row]) for row in (3, 5, 3)]


def test_rows_new_to_a_full_pool_do_not_write_over_each_other():
    ragged = Ragged(value=np.int64)
    ragged.reserve(1000)
    for row in [*range(1000), *range(1000)]:  # closes gaps several times in the midst of it
        ragged.extend(row, 1, value=row)
    assert [entries(ragged, row) for row in range(1000)] == [[row, row] for row in range(1000)]

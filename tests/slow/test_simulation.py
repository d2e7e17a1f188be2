"""2,000 more schedules, and the simulator itself under test: each planted bug is found within 1,000 seeds."""

import pytest

from tests.simulation.__main__ import search, tell
from tests.simulation.planted import BUGS
from tests.simulation.schedule import run

PART = 200


@pytest.mark.parametrize("first", range(500, 2500, PART))
def test_the_same_log_leads_to_the_same_state(first):
    for seed in range(first, first + PART):
        result = run(seed)
        assert not result.failures, tell(result, small=True)


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_planted_bug_is_found(bug):
    assert search(bug) is not None

"""500 schedules in five parts, and that the simulator tells the same story twice and makes a failing one small."""

import pytest

from tests.simulation.__main__ import tell
from tests.simulation.planted import BUGS
from tests.simulation.schedule import run, run_remade
from tests.simulation.shrink import shrink

PART = 50
FOUND = (3097, 3114, 5033, 10768, 54453, 55820)
"""Seeds beyond those that each run has, in which something was found once."""


@pytest.mark.parametrize("first", range(0, 500, PART))
def test_the_same_log_leads_to_the_same_state(first):
    for seed in range(first, first + PART):
        result = run(seed)
        assert not result.failures, tell(result, small=True)


@pytest.mark.parametrize("seed", FOUND)
def test_what_was_found_once_stays_mended(seed):
    result = run(seed)
    assert not result.failures, tell(result, small=True)


def test_a_topic_made_anew_is_noticed_where_more_was_applied_than_there_is():
    noticed = 0
    for seed in range(40):
        found, failures = run_remade(seed)
        assert not failures, f"seed {seed}: {failures}"
        noticed += found
    assert noticed > 20


@pytest.mark.parametrize("seed", [3, 41, 97])
def test_a_seed_tells_the_same_story_twice(seed):
    assert run(seed, verbose=True) == run(seed, verbose=True)


def test_a_failing_schedule_shrinks_to_a_smaller_one_that_fails():
    bug = next(bug for bug in BUGS if bug.name == "marker forgotten")
    failing = next(result for result in (run(seed, bug) for seed in range(100)) if result.failures)
    smallest = shrink(failing, bug, tries=80)
    assert smallest.failures
    assert 0 < len(smallest.story) < len(run(failing.seed, bug, verbose=True).story)

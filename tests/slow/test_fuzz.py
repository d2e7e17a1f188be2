"""10,000 fuzzed records on each topic that others write, 2,000 on those between workers."""

import pytest

from streams.values import Topic
from tests.simulation import fuzz
from tests.simulation.test_fuzz import assert_applied_or_buried, assert_taken_or_buried


@pytest.mark.timeout(900)
@pytest.mark.parametrize("topic", fuzz.GOOD)
async def test_ten_thousand_bad_records(topic):
    await assert_applied_or_buried(topic, seed=100, records=10_000)


@pytest.mark.parametrize("topic", [Topic.SIGNALS, Topic.LESSONS])
async def test_two_thousand_spoilt_messages_of_workers(topic):
    await assert_taken_or_buried(topic, seed=100, records=2_000)

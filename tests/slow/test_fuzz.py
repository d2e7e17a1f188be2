"""10,000 fuzzed records on each topic."""

import pytest

from tests.simulation import fuzz
from tests.simulation.test_fuzz import assert_applied_or_buried


@pytest.mark.timeout(900)
@pytest.mark.parametrize("topic", fuzz.GOOD)
async def test_ten_thousand_bad_records(topic):
    await assert_applied_or_buried(topic, seed=100, records=10_000)

"""A short chaos on Apache Kafka: each scenario struck once or twice. `make chaos` does it at length."""

import pytest

from tests.chaos.__main__ import ALL
from tests.chaos.scenario import Context
from tests.support.kafka import FOLDER, ApacheKafka

SHORT = {
    "kill": 3, "terminate": 2, "sleep": 1, "brokers": 2, "index": 1, "again": 1, "twins": 1, "upgrade": 1, "silence": 6,
    "rebalance": 1, "flood": 1,
}  # fmt: skip
EVENTS = {"flood": 20_000}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A broker of this module's own: it is killed now and then."""
    if not (FOLDER / "run").is_file():
        pytest.skip("there is no Apache Kafka here: set COLDSTREAM_TEST_KAFKA")
    with ApacheKafka(tmp_path_factory.mktemp("chaos") / "cluster") as running:
        yield running


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", SHORT)
async def test_nothing_is_lost_and_nothing_is_double(name, cluster, tmp_path):
    context = Context(
        cluster.servers,
        cluster,
        1,
        tmp_path,
        seed=7,
        events=EVENTS.get(name, 600),
        times=SHORT[name],
        stall_seconds=30.0,
    )
    assert not await ALL[name](context)

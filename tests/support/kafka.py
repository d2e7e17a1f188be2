"""A real broker for tests, and a client of the tests' own.

`kafka` is Apache Kafka where the folder named by COLDSTREAM_TEST_KAFKA (default: ../shared/kafka beside the checkout)
has its program `run`, else the embedded broker. It is started once a session, on free ports, when the first test asks.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from streams.settings import Settings
from streams.values import Record, Topic

ROOT = Path(__file__).parents[2]
FOLDER = Path(os.environ.get("COLDSTREAM_TEST_KAFKA") or ROOT.parent / "shared" / "kafka")
MEMBER = Path(__file__).with_name("kafka_member.py")
SECONDS = 20.0
"""How long anything may take on a busy machine."""


@dataclass(frozen=True)
class Cluster:
    """A running broker: where it is, and whether it is Apache Kafka."""

    servers: str
    program: "ApacheKafka | None" = None

    @property
    def apache(self):
        return self.program is not None


def _interrupt(*_):
    """Unwind, once: by default SIGTERM ends Python where it stands, and what it had started goes on."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # `timeout` sends it twice, to the process and to its group
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell's background job
        raise KeyboardInterrupt
    signal.raise_signal(signal.SIGINT)


class ApacheKafka:
    """Brokers of the folder's program in a folder of their own; a context manager. SIGTERM ends it as Ctrl-C does."""

    def __init__(self, folder, *arguments):
        self.folder, self.arguments = folder, arguments

    def run(self, command, *arguments):
        done = subprocess.run(
            [str(FOLDER / "run"), command, "--dir", str(self.folder), *arguments],
            check=True, text=True, capture_output=True, timeout=90,
        )  # fmt: skip
        return done.stdout.strip()

    def __enter__(self):
        self._before = signal.signal(signal.SIGTERM, _interrupt)
        try:
            self.servers = self.run("start", *self.arguments)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.run("stop", "--kill")
        signal.signal(signal.SIGTERM, self._before or signal.SIG_DFL)


@pytest.fixture(scope="session")
def kafka(tmp_path_factory):
    """The broker of this session."""
    if (FOLDER / "run").is_file():
        with ApacheKafka(tmp_path_factory.mktemp("kafka") / "cluster") as program:
            yield Cluster(program.servers, program)
    else:
        from streams.kafka.broker import EmbeddedBroker

        broker = EmbeddedBroker()
        try:
            yield Cluster(broker.start())
        finally:
            broker.stop()


@pytest.fixture
def apache_kafka(kafka):
    """The broker, for what is claimed of Apache Kafka alone."""
    if not kafka.apache:
        pytest.skip("there is no Apache Kafka here: set COLDSTREAM_TEST_KAFKA")
    return kafka


@pytest.fixture
async def settings(kafka):
    """Settings of an installation of its own on the broker, its topics created."""
    made = Settings(
        kafka=kafka.servers, kafka_embedded=not kafka.apache, topic_prefix=f"t{uuid.uuid4().hex[:10]}-",
        session_timeout_seconds=6,
    )  # fmt: skip
    await create_topics(made)
    return made


async def create_topics(settings, partitions=4):
    from streams.kafka.topics import TopicAdmin, wanted_topics

    async with TopicAdmin(settings) as admin:
        await admin.create(wanted_topics(settings, partitions))


@asynccontextmanager
async def producing(settings):
    """A plain producer: `await send(topic, value, key=…, partition=…, headers=…)`; what is no bytes becomes JSON."""
    from aiokafka import AIOKafkaProducer

    producer = AIOKafkaProducer(bootstrap_servers=settings.kafka, max_request_size=4_000_000, max_batch_size=500_000)
    await producer.start()

    async def send(topic, value, *, key=None, partition=None, headers=()):
        body = value if value is None or isinstance(value, bytes) else json.dumps(value).encode()
        return await producer.send_and_wait(
            f"{settings.topic_prefix}{topic}", body, key=key.encode() if isinstance(key, str) else key,
            partition=partition, headers=list(headers),
        )  # fmt: skip

    try:
        yield send
    finally:
        await producer.stop()


async def consume(settings, topic, until, seconds=SECONDS):
    """Records of a topic from its start, until `until(records)` holds; fails after `seconds`."""
    from streams.kafka.follower import Follower

    records: list[Record] = []
    deadline = time.monotonic() + seconds
    async with Follower(settings, (Topic(topic),), from_start=True) as follower:
        while not until(records):
            assert time.monotonic() < deadline, f"{topic} after {seconds} s: {records}"
            records += await follower.read(0.2)
    return records


async def eventually(condition, seconds=SECONDS):
    """Wait until `condition()` is true; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        await asyncio.sleep(0.02)


@dataclass
class Member:
    """A member of the group in a process of its own (tests/support/kafka_member.py)."""

    settings: Settings
    acknowledge: str = "all"
    said: list = field(default_factory=list)

    async def __aenter__(self):
        described = {
            name: getattr(self.settings, name)
            for name in ("kafka", "kafka_embedded", "topic_prefix", "group", "instance_id", "session_timeout_seconds")
        }
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, str(MEMBER), json.dumps(described), self.acknowledge,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        self.reading = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_):
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()
        await self.reading

    async def _read(self):
        while line := await self.process.stdout.readline():
            self.said.append(json.loads(line))

    def of(self, word):
        """What was said with this word."""
        return [line for line in self.said if word in line]

"""The composition root: settings in, a running worker out. The only place that knows every part.

Order of start: encoder, index, publisher, catalogue, HTTP, model reader, consumer. Order of stop: the consumer hands in
nothing more, the batch in hand is finished and acknowledged, then everything is closed.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import math
import random
import secrets
import sys
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final, TypeVar

from encoder import EncoderError, OnnxEncoder, open_bundle
from streams.decide import warmup
from streams.decide.arms import Arms
from streams.decide.compiled import FOLDER, is_kept
from streams.decide.history import Bounds
from streams.decide.table import Table
from streams.errors import ConfigurationError, FatalError, RetryableError
from streams.flow.ask import Reader
from streams.flow.buffer import Buffer
from streams.flow.catalogue import Catalogue
from streams.flow.fanout import Budget, FanOut
from streams.flow.flight import Hold
from streams.flow.learning import Learning
from streams.flow.parts import Hooks, Limits, Parts, Setting, World
from streams.flow.quality import Quality
from streams.flow.report import BatchReport
from streams.flow.signals import StatisticsOwner
from streams.flow.texts import TextVectors
from streams.flow.users import Users
from streams.flow.vectors import VectorFeed
from streams.flow.worker import Worker
from streams.http.server import HttpServer
from streams.http.worker_service import WorkerService
from streams.index.open import open_index
from streams.kafka.agents import KafkaConsumer
from streams.kafka.connection import group_name, settle_seconds
from streams.kafka.follower import ModelReader
from streams.kafka.publisher import KafkaPublisher
from streams.kafka.watchdog import Watchdog
from streams.logs import log_list, open_tracer
from streams.metrics import CONSUMED, Metrics
from streams.ports import Clock, Encoder, Index, Randomness
from streams.settings import Settings
from streams.values import Topic
from streams.wire import Recommendation

T = TypeVar("T")

GAUGE_SECONDS: Final = 1.0
CENSUS_SECONDS: Final = 10.0
PROOF_SECONDS: Final = 3600.0
"""The golden texts are encoded again this often."""
DAY_SECONDS: Final = 86_400.0
"""Exclusions up to this long are read from the history; longer ones are kept beside it, for it forgets."""
LEAST_ASIDE: Final = 500
"""Items; a catalogue of fewer is not worth a look at its growth."""
GARBAGE: Final = (10_000, 20, 20)
"""Thresholds of the garbage collector: a batch of sixteen makes some thousands of objects, nearly none of them in cycles."""
MALLOC: Final = ((-3, 16 << 20), (-1, 128 << 20))
"""What glibc's `mallopt` is told: from how many bytes on an array has pages of its own (M_MMAP_THRESHOLD), and how much that
is free it keeps (M_TRIM_THRESHOLD). By default it gives a batch's arrays back, and each page of the next one is a fault."""
GPU_DEVICE: Final = Path("/dev/nvidia0")
"""Where Linux shows the first NVIDIA GPU, also inside a container."""

log = logging.getLogger(__name__)


class SystemClock:
    """The port Clock over the system's clocks."""

    def now(self) -> float:
        """Wall clock, seconds since the epoch."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds; goes on during SIGSTOP."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)


class SystemRandomness:
    """The port Randomness: a generator seeded once by the system (ids must differ, they are no secrets)."""

    def __init__(self) -> None:
        self._bits = random.Random(secrets.randbits(256)).getrandbits

    def token(self) -> str:
        """32 hex digits."""
        return f"{self._bits(128):032x}"

    def integer(self) -> int:
        """Uniform in [0, 2**63)."""
        return self._bits(63)


class App:
    """One worker process. `run` returns when `stop` was called, and raises what must end the process."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.metrics = Metrics(settings.arms or ("",))
        self._tracer = open_tracer(settings)
        self._stop = asyncio.Event()
        self.http_url = ""

    def stop(self) -> None:
        """End gracefully: `run` returns soon. Safe to call from a signal handler of the loop, and twice."""
        self._stop.set()

    async def run(self) -> None:
        """Start, serve until `stop`, close. Raises `FatalError`."""
        keep_memory()
        async with AsyncExitStack() as stack:
            await self._run(stack)

    async def _run(self, stack: AsyncExitStack) -> None:
        settings = self.settings
        clock, randomness = SystemClock(), SystemRandomness()
        arms = Arms.of(settings)  # settings that contradict each other are said before anybody is asked for anything
        executor = ThreadPoolExecutor(1, "encoder")
        stack.callback(executor.shutdown, wait=False, cancel_futures=True)
        loop = asyncio.get_running_loop()

        def offload(act: Callable[[], T]) -> asyncio.Future[T]:
            return loop.run_in_executor(executor, act)

        self._offload = offload
        encoder = self._encoder = await offload(lambda: open_encoder(settings))
        compiling = asyncio.create_task(self._compile(), name="compile")
        stack.callback(compiling.cancel)
        index = open_index(settings)
        await index.open(encoder.dimension, encoder.name)
        stack.push_async_callback(index.close)
        publisher = KafkaPublisher(settings, idempotent=not settings.kafka_embedded)
        await publisher.start()
        stack.push_async_callback(publisher.stop)
        await publisher.load_partitions([topic.value for topic in Topic])

        parts = _parts(settings, index, TextVectors(encoder, offload), arms, clock, randomness)
        buffer = Buffer(records=settings.buffer_records, bytes_=settings.buffer_bytes)
        consumer = KafkaConsumer(settings)
        world = World(index, publisher, consumer, clock, randomness)
        reader = Reader(world, parts, arms)
        http = HttpServer(WorkerService(reader, publisher, self._reasons), self.metrics, settings)
        self._feed = http.feed
        setting = Setting(
            world,
            parts,
            arms,
            _limits(settings),
            Hooks(lambda: _waiting_items(consumer), self._on_list, self._tracer.begin, self._on_abandoned),
        )
        worker = self._worker = Worker(setting, buffer, self._observe, self._on_hold)
        self._consumer = consumer
        self._started, self._starting = False, "the catalogue is being loaded"
        await http.start()
        stack.push_async_callback(http.stop)
        self.http_url = http.url
        log.info("listening on %s", http.url)
        self._describe(encoder, index)
        if not await self._take_over(worker, index):
            return
        await parts.catalogue.load()
        await worker.upkeep.recover()
        log.info("%d items known", len(parts.catalogue.columns))
        set_aside()
        model_reader = ModelReader(settings, parts.learning.adopt)
        following = await model_reader.start()
        stack.push_async_callback(model_reader.stop)
        self._starting = "ranking is being compiled, once on this machine"
        if not await self._unless_stopped(compiling):
            return
        self._starting = f"waiting for the group {group_name(settings)} to let this worker in"
        if not await self._unless_stopped(consumer.start(worker)):
            return
        stack.push_async_callback(consumer.stop)
        self._started = True
        await self._serve(worker, buffer, consumer, index, parts, following)

    async def _compile(self) -> None:
        """Have ranking's loops ready. What nobody has compiled here before is compiled by a process that a stop can end."""
        if FOLDER is not None and not is_kept():
            log.info("ranking is being compiled, once on this machine: some twenty seconds of a core")
            beside = await asyncio.create_subprocess_exec(sys.executable, "-m", warmup.__name__)
            try:
                await beside.wait()
            finally:
                if beside.returncode is None:
                    beside.kill()
        await self._offload(warmup.warm_up)

    async def _take_over(self, worker: Worker, index: Index) -> bool:
        """Bring over the items of other encoders. False where we are to stop: whoever comes next goes on from there."""
        succession = worker.upkeep.succession
        if index.behind:
            log.warning("the items in the index are encoded anew by %s before anything else", self._encoder.name)
        if not await self._unless_stopped(succession.take_over()):
            return False
        if succession.brought:
            log.info("%d items of other encoders brought over", succession.brought)
        return True

    async def _unless_stopped(self, step: Coroutine[Any, Any, None] | asyncio.Task[None]) -> bool:
        """Take a step of the start; False where it was cancelled, since we are to stop. Raises what the step raises."""
        taking = step if isinstance(step, asyncio.Task) else asyncio.create_task(step, name="start")
        stopping = asyncio.create_task(self._stop.wait(), name="stop")
        await asyncio.wait([taking, stopping], return_when=asyncio.FIRST_COMPLETED)
        for task in (taking, stopping):
            task.cancel()
        await asyncio.wait([taking, stopping])
        if taking.cancelled():
            return False
        taking.result()
        return True

    async def _serve(
        self, worker: Worker, buffer: Buffer, consumer: KafkaConsumer, index: Index, parts: Parts,
        following: asyncio.Task[None],
    ) -> None:  # fmt: skip
        """Until stopped or failed; the loop of the worker ends first, so that its last batch is acknowledged."""
        watchdog = Watchdog(
            self.settings.stall_seconds, consumer, progress=lambda: worker.batches, waiting=lambda: worker.waiting,
            hold=lambda: worker.hold.reason if worker.hold else None,
            group_seconds=settle_seconds(self.settings),
        )  # fmt: skip
        running = asyncio.create_task(worker.run(), name="worker")
        tasks: list[asyncio.Future[Any]] = [
            running,
            consumer.failed,
            following,
            asyncio.create_task(watchdog.run(), name="watchdog"),
            asyncio.create_task(self._purge(worker, index), name="purge"),
            asyncio.create_task(self._prove(), name="proof"),
            asyncio.create_task(self._gauge(worker, buffer, consumer, parts), name="gauges"),
        ]
        stopping: asyncio.Future[Any] = asyncio.create_task(self._stop.wait(), name="stop")
        try:
            done, _ = await asyncio.wait([*tasks, stopping], return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stopping}:
                if not task.cancelled():
                    task.result()  # raises what ended it
            if stopping not in done:
                raise FatalError("a task of the worker ended by itself: see the log")
            worker.stop()
            await running
        finally:
            for task in (*tasks, stopping):
                task.cancel()

    async def _purge(self, worker: Worker, index: Index) -> None:
        """Rebuild an embedded index within the configured time after an erasure."""
        while True:
            await asyncio.sleep(min(1.0, self.settings.erase_within_seconds / 4 + 0.05))
            erased_at = worker.upkeep.erased_at
            if erased_at is not None and time.time() - erased_at >= self.settings.erase_within_seconds / 2:
                worker.upkeep.erased_at = None
                try:
                    await index.purge()
                except RetryableError as error:
                    log.warning("the index could not be purged, it is tried again: %s", error)
                    worker.upkeep.erased_at = erased_at

    async def _gauge(self, worker: Worker, buffer: Buffer, consumer: KafkaConsumer, parts: Parts) -> None:
        batches, progressed = worker.batches, time.monotonic()
        counted, aside = -math.inf, len(parts.catalogue.columns)
        while True:
            await asyncio.sleep(GAUGE_SECONDS)
            if (items := len(parts.catalogue.columns)) > 2 * max(aside, LEAST_ASIDE):
                set_aside()
                aside = items
            if worker.batches != batches or not worker.waiting:
                batches, progressed = worker.batches, time.monotonic()
            self.metrics.gauge("coldstream_seconds_since_progress").set(time.monotonic() - progressed)
            for topic in CONSUMED:
                self.metrics.gauge("coldstream_buffered_records", topic=topic.value).set(buffer.depth(topic))
            self.metrics.show_lag(
                {(topic.value, number): lag for (topic, number), lag in (consumer.lag() or {}).items()}
            )
            self.metrics.gauge("coldstream_known_items").set(len(parts.catalogue.columns))
            self.metrics.show_ranker(parts.learning.insight())
            if time.monotonic() - counted >= CENSUS_SECONDS:
                counted = time.monotonic()
                self.metrics.show_census(parts.quality.exposure.census(time.time(), parts.texts.encoder.name))

    async def _prove(self) -> None:
        """Compare the encoder with its golden texts, now and every hour: what drifts is not the catalogue."""
        while True:
            agreement = await self._offload(self._encoder.agreement)
            self.metrics.gauge("coldstream_encoder_agreement").set(agreement)
            await asyncio.sleep(PROOF_SECONDS)

    def _on_list(self, value: Recommendation, seconds: float | None) -> None:
        self._feed.show(value, seconds)
        log_list(value, seconds)

    def _observe(self, report: BatchReport) -> None:
        self.metrics.observe(report)
        self._tracer.finish(report)

    def _on_abandoned(self, why: str) -> None:
        self.metrics.counter("coldstream_abandoned_batches_total", why=why).inc()
        self._tracer.abandon(why)

    def _on_hold(self, hold: Hold | None) -> None:
        self.metrics.hold(hold.cause if hold else None)

    def _describe(self, encoder: Encoder, index: Index) -> None:
        self.metrics.gauge(
            "coldstream_encoder_info", encoder=encoder.name, provider=encoder.provider, dimension=str(encoder.dimension)
        ).set(1)
        fallback = self.settings.provider == "auto" and encoder.provider == "cpu" and GPU_DEVICE.exists()
        self.metrics.gauge("coldstream_encoder_fallback").set(fallback)
        self.metrics.gauge("coldstream_index_info", index=index.name).set(1)

    def _reasons(self) -> list[str]:
        """What is missing for being ready, a sentence each."""
        if not self._started:
            brought = self._worker.upkeep.succession.brought
            anew = f", {brought} items of it were encoded anew" if brought else ""
            return [f"starting: {self._starting}{anew}"]
        reasons = []
        if self._worker.hold is not None:
            reasons.append(f"holding: {self._worker.hold.reason}")
        if not self._worker.assigned_once:
            reasons.append("no partitions are assigned yet")
        elif self._consumer.interrupted() == "rebalance":
            reasons.append("partitions are moving")
        elif not self._consumer.coordinator_alive():
            reasons.append("the task that keeps this worker in its group is dead")
        elif self._consumer.lag() is None:
            reasons.append("the lag is not known yet")
        return reasons


def keep_memory() -> None:
    """Let the C library keep what batches free, for the next one. Another library than glibc goes on as it does."""
    if (tell := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:
        for what, value in MALLOC:
            tell(what, value)


def set_aside() -> None:
    """Keep the garbage collector from looking through what lives now, and let it look seldom: most of that stays.

    What of it ends up in a cycle later is never freed, so this is done at the start and whenever the catalogue doubled.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GARBAGE)


def open_encoder(settings: Settings) -> OnnxEncoder:
    """The encoder that the settings name. Raises `ConfigurationError`, also for a bundle whose hashes don't hold."""
    try:
        return open_bundle(
            Path(settings.bundle) if settings.bundle else None,
            provider=settings.provider,
            threads=settings.encoder_threads,
        )
    except EncoderError as error:
        raise ConfigurationError(str(error)) from error


def _parts(
    settings: Settings, index: Index, texts: TextVectors, arms: Arms, clock: Clock, randomness: Randomness
) -> Parts:
    columns = Table(texts.encoder.dimension, settings.columns_items)
    catalogue = Catalogue(index, columns, clock, settings.reload_seconds)
    return Parts(
        texts,
        catalogue,
        Users(index, settings.users_cache),
        StatisticsOwner(index, clock, randomness),
        Learning(
            clock,
            settings.lessons_per_second if settings.learn else 0.0,
            VectorFeed(columns, texts.encoder.name, randomness.token()),
        ),
        FanOut(index, catalogue, Budget(settings.fan_out_per_second, clock), settings.fan_out_users),
        Quality(columns, arms, clock.now()),
    )


def _limits(settings: Settings) -> Limits:
    return Limits(
        bounds=Bounds(settings.history_size, settings.event_ids_size, settings.exclusions_size),
        excluding=frozenset(
            name for name, seconds in settings.exclude_seconds.items() if not 0 <= seconds <= DAY_SECONDS
        ),
        record_bytes=settings.record_bytes,
        event_bytes=settings.event_bytes,
        batch_age_seconds=settings.session_timeout_seconds / 2,
        quiet_lag=settings.fan_out_quiet_lag,
        batch_size=settings.batch_size,
        items_share=settings.items_share,
        flush_seconds=settings.flush_seconds,
        debezium={
            topic: {str(field): column for field, column in columns.items()}
            for topic, shape, columns in (
                (Topic.ITEMS, settings.items_format, settings.items_columns),
                (Topic.USERS, settings.users_format, settings.users_columns),
            )
            if shape == "debezium"
        },
    )


def _waiting_items(consumer: KafkaConsumer) -> float:
    """Item records not acknowledged yet; infinite while unknown, so that a first import is quiet."""
    lags = consumer.lag()
    if lags is None:
        return float("inf")
    return float(sum(lag for (topic, _), lag in lags.items() if topic is Topic.ITEMS))

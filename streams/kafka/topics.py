"""The topics as they should be: made by `create`, compared by `find_differences`.

Retention and markers (DELIVERY section 5): what erased somebody must outlive what could bring them back, so the
tombstones of a compacted topic are kept longer than any record of events, dead letters and lessons.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Self

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from streams.errors import BrokerUnavailableError, ConfigurationError
from streams.kafka.connection import client_options, full_name
from streams.kafka.publisher import largest_message_bytes
from streams.settings import Settings
from streams.values import CO_PARTITIONED, Topic

PARTITIONS: Final = 4
CLUSTER_REPLICATION: Final = -1
"""Lets the cluster's own `default.replication.factor` decide."""
DAY_MILLISECONDS: Final = 86_400_000
KEPT_DAYS: Final = 30
"""How long events and dead letters are kept: also how complete a rebuild of an empty index is."""
TOMBSTONE_DAYS: Final = KEPT_DAYS + 7
FOREVER: Final = -1

COMPACTED: Final = (Topic.ITEMS, Topic.USERS, Topic.RECOMMENDATIONS, Topic.MODEL)
ERASABLE: Final = (Topic.EVENTS, Topic.DEAD_LETTERS, Topic.LESSONS)
"""Topics that may bring an erased user back, were their records kept longer than markers and tombstones."""
SINGLE: Final = (Topic.LESSONS, Topic.MODEL)
"""Topics of one partition: one worker learns from all lessons, and one log of weights is in order."""


MODEL_SEGMENT_BYTES: Final = 8 << 20
THRIFTY: Final = ("segment.bytes", "min.cleanable.dirty.ratio")
"""What only makes a start quicker."""


@dataclass(frozen=True, slots=True)
class WantedTopic:
    """One topic as it should be; `name` without the prefix."""

    name: Topic
    partitions: int
    configuration: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class FoundTopic:
    """One topic as the cluster has it; configuration includes the cluster's defaults."""

    partitions: int
    configuration: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Difference:
    """What differs on one topic, and what to do. `serious`: promises are broken, not merely other values chosen."""

    topic: str
    what: str
    wanted: str
    found: str
    remedy: str
    serious: bool = True


def wanted_topics(settings: Settings, partitions: int = PARTITIONS) -> tuple[WantedTopic, ...]:
    """All topics for so many partitions of what is partitioned."""
    days = {
        Topic.EVENTS: KEPT_DAYS, Topic.DEAD_LETTERS: KEPT_DAYS, Topic.SIGNALS: 7, Topic.LESSONS: 7, Topic.REFRESHES: 1
    }  # fmt: skip
    wanted = []
    for topic in Topic:
        if topic in COMPACTED:
            configuration = {
                "cleanup.policy": "compact",
                "delete.retention.ms": str(TOMBSTONE_DAYS * DAY_MILLISECONDS),
            }
        else:
            configuration = {"cleanup.policy": "delete", "retention.ms": str(days[topic] * DAY_MILLISECONDS)}
        if topic in (Topic.EVENTS, Topic.USERS):
            configuration["message.timestamp.type"] = "LogAppendTime"
        if topic is Topic.MODEL:  # every start reads it whole: what compaction doesn't look at must stay short
            configuration |= {"segment.bytes": str(MODEL_SEGMENT_BYTES), "min.cleanable.dirty.ratio": "0.1"}
        if topic is Topic.DEAD_LETTERS:
            configuration["max.message.bytes"] = str(largest_message_bytes(settings))
        wanted.append(WantedTopic(topic, 1 if topic in SINGLE else partitions, configuration))
    return tuple(wanted)


def find_differences(wanted: Sequence[WantedTopic], found: Mapping[Topic, FoundTopic]) -> tuple[Difference, ...]:
    """What differs. Partition counts and retentions are the operator's choice as long as the promises hold."""
    differences: list[Difference] = []
    for topic in wanted:
        there = found.get(topic.name)
        if there is None:
            differences.append(Difference(topic.name, "exists", "yes", "no", "run `coldstream topics create`"))
            continue
        if topic.name in SINGLE and there.partitions != 1:
            differences.append(
                Difference(topic.name, "partitions", "1", str(there.partitions), "delete the topic and create it anew")
            )
        differences += _compare(topic, there)
    return (*differences, *_compare_partitions(found), *_compare_retention(found))


def _compare(topic: WantedTopic, there: FoundTopic) -> list[Difference]:
    differences = []
    for key, value in topic.configuration.items():
        is_value = there.configuration.get(key)
        if is_value is None or is_value == value or key in ("retention.ms", "delete.retention.ms"):
            continue  # retentions are compared with one another
        if key == "max.message.bytes" and int(is_value) >= int(value):
            continue
        if key == "cleanup.policy" and topic.name is Topic.RECOMMENDATIONS and "compact" in is_value.split(","):
            continue
        remedy, serious = f"kafka-configs --alter --entity-type topics --add-config {key}={value}", key not in THRIFTY
        differences.append(Difference(topic.name, key, value, is_value, remedy, serious=serious))
    return differences


def _compare_partitions(found: Mapping[Topic, FoundTopic]) -> list[Difference]:
    counts = {topic: found[topic].partitions for topic in CO_PARTITIONED if topic in found}
    if len(set(counts.values())) <= 1:
        return []
    largest = max(counts.values())
    return [
        Difference(
            topic, "partitions", str(largest), str(count),
            "events, users and refreshes must have the same number: grow them together, with the workers stopped",
        )
        for topic, count in counts.items()
        if count != largest
    ]  # fmt: skip


def _compare_retention(found: Mapping[Topic, FoundTopic]) -> list[Difference]:
    kept = {topic: _milliseconds(found[topic], "retention.ms") for topic in ERASABLE if topic in found}
    longest = max(
        (float("inf") if value == FOREVER else value for value in kept.values() if value is not None), default=0
    )
    differences = []
    for topic in (Topic.USERS, Topic.RECOMMENDATIONS):
        tombstones = _milliseconds(found[topic], "delete.retention.ms") if topic in found else None
        if tombstones is not None and tombstones < longest:
            longest_text = "for ever" if longest == float("inf") else f"{longest / DAY_MILLISECONDS:g} days"
            differences.append(
                Difference(
                    topic, "delete.retention.ms", f"at least {longest_text}", f"{tombstones / DAY_MILLISECONDS:g} days",
                    "tombstones must outlive events, dead-letters and lessons: raise it, or shorten their retention.ms",
                )
            )  # fmt: skip
    return differences


def _milliseconds(topic: FoundTopic, key: str) -> int | None:
    value = topic.configuration.get(key)
    return int(value) if value is not None else None


class TopicAdmin:
    """The cluster's topics. Use as an async context manager. Raises `BrokerUnavailableError` when Kafka is away."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client = AIOKafkaAdminClient(**client_options(settings), request_timeout_ms=15_000)

    async def __aenter__(self) -> Self:
        try:
            await self._client.start()
        except (KafkaError, OSError) as error:
            await self._client.close()
            raise BrokerUnavailableError(f"cannot reach Kafka at {self._settings.kafka}: {error}") from error
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    async def create(
        self, wanted: Sequence[WantedTopic], replication: int = CLUSTER_REPLICATION
    ) -> tuple[list[str], list[str]]:
        """Make what is missing. Returns the logical names (made, there already).

        Raises `ConfigurationError` where the cluster refuses one.
        """
        names = {full_name(self._settings, topic.name): topic.name.value for topic in wanted}
        request = [
            NewTopic(full_name(self._settings, topic.name), topic.partitions, replication,
                     replica_assignments={} if replication == CLUSTER_REPLICATION else None,
                     topic_configs=dict(topic.configuration))
            for topic in wanted
        ]  # fmt: skip
        try:
            response = await self._client.create_topics(request)
        except (KafkaError, OSError, TimeoutError) as error:
            raise BrokerUnavailableError(f"Kafka did not answer: {error!r}") from error
        made, there = [], []
        for name, code, *message in response.topic_errors:
            kind = for_code(code)
            if code == 0:
                made.append(names[name])
            elif kind is TopicAlreadyExistsError:
                there.append(names[name])
            else:
                raise ConfigurationError(
                    f"Kafka refuses to create {name}: {kind.__name__} {' '.join(map(str, message))}"
                )
        return made, there

    async def describe(self) -> dict[Topic, FoundTopic]:
        """The topics of ours that exist, with all of their configuration."""
        names = {full_name(self._settings, topic): topic for topic in Topic}
        try:
            existing = {
                names[described["topic"]]: len(described["partitions"])
                for described in await self._client.describe_topics()
                if described["topic"] in names
            }
            resources = [
                ConfigResource(ConfigResourceType.TOPIC, full_name(self._settings, topic)) for topic in existing
            ]
            responses = await self._client.describe_configs(resources) if resources else []
        except (KafkaError, OSError, TimeoutError) as error:
            raise BrokerUnavailableError(f"Kafka did not answer: {error!r}") from error
        configurations = {
            names[name]: {entry[0]: entry[1] for entry in entries if entry[1] is not None}
            for response in responses
            for code, _message, _kind, name, entries in response.resources
            if code == 0
        }
        return {topic: FoundTopic(count, configurations.get(topic, {})) for topic, count in existing.items()}

    async def lost(self, counts: Mapping[Topic, int]) -> list[str]:
        """Full names of the topics that are gone, or have fewer partitions than these, as after a restart without data."""
        found = await self.describe()
        return [
            full_name(self._settings, topic)
            for topic, count in counts.items()
            if topic not in found or found[topic].partitions < count
        ]

"""Every setting: one table, read from the environment (`COLDSTREAM_…`) over an optional TOML file over the defaults.

A field's name in capitals with the prefix is its environment variable, in small letters its TOML key. The table in the
README is generated from these fields (`coldstream settings`). Secrets are never values here: only the files that hold them.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_type_hints

import msgspec

from streams.errors import ConfigurationError

PREFIX: Final = "COLDSTREAM_"
ItemField = Literal[
    "item_id", "title", "description", "categories", "price", "attributes", "available", "published_at", "expires_at"
]
UserField = Literal["user_id", "profile", "interests", "attributes", "blocked_items", "blocked_categories"]


def _doc(text: str, **limits: Any) -> msgspec.Meta:
    return msgspec.Meta(description=text, **limits)


class ArmSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One arm of a trial: its share of the users, and what it does otherwise than the settings of the same names say."""

    share: Annotated[float, msgspec.Meta(gt=0, le=1)]
    event_weights: dict[str, float] | None = None
    half_life_seconds: Annotated[float, msgspec.Meta(gt=0)] | None = None
    half_life_events: Annotated[float, msgspec.Meta(gt=0)] | None = None
    diversity: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    category_cap: Annotated[int, msgspec.Meta(ge=1)] | None = None
    explore: bool | None = None
    floor_new: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    floor_small: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    weights: dict[str, float] = {}
    """Factors of the ranker's weights by part of the score: history, similar_users, popular, new, profile, wish."""
    frozen_prior: bool = False
    """Whether the shipped prior ranks, whatever was learned."""


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All settings of a process; see the module's text for where they come from."""

    kafka: Annotated[str, _doc("Kafka bootstrap servers, host:port, separated by commas")] = "127.0.0.1:9092"
    kafka_security_protocol: Annotated[
        Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"], _doc("How to speak to Kafka")
    ] = "PLAINTEXT"
    kafka_sasl_mechanism: Annotated[Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"], _doc("SASL mechanism")] = (
        "SCRAM-SHA-512"
    )
    kafka_sasl_username: Annotated[str, _doc("SASL user name")] = ""
    kafka_sasl_password_file: Annotated[str, _doc("File that holds the SASL password")] = ""
    kafka_ssl_ca_file: Annotated[str, _doc("PEM file of the authorities trusted for Kafka")] = ""
    kafka_embedded: Annotated[
        bool, _doc("The broker is the embedded one of `coldstream broker`: nothing is asked of it that it can't do")
    ] = False
    topic_prefix: Annotated[str, _doc("Put before topic, collection and group names alike")] = ""
    group: Annotated[str, _doc("Consumer group")] = "coldstream"
    instance_id: Annotated[
        str, _doc("Stable name of this process in its group (static membership); empty: dynamic membership")
    ] = ""
    session_timeout_seconds: Annotated[float, _doc("Group session timeout", ge=6, le=300)] = 10.0

    index: Annotated[
        str,
        _doc(
            "edge:DIR (embedded, one process; DIR absent or empty at first) or the URL of a Qdrant server "
            "(http(s)://host:port; gRPC on the port after it, else ?grpc_port=N)"
        ),
    ] = "edge:var/index"
    qdrant_api_key_file: Annotated[str, _doc("File that holds the Qdrant API key")] = ""
    qdrant_ca_file: Annotated[str, _doc("PEM file of the authorities trusted for Qdrant")] = ""
    qdrant_quantization: Annotated[
        Literal["none", "scalar"], _doc("Scalar quantisation of item vectors on the server")
    ] = "none"

    http: Annotated[str, _doc("host:port of metrics, health, read API and live page; port 0: any free one")] = (
        "127.0.0.1:9464"
    )
    http_token_file: Annotated[
        str, _doc("File that holds the bearer token asked of every HTTP request but health; needed beyond loopback")
    ] = ""
    http_writes: Annotated[bool, _doc("Whether the live page may publish events and items")] = False

    bundle: Annotated[str, _doc("Folder of the student to run; empty: the shipped one")] = ""
    provider: Annotated[Literal["auto", "cpu", "cuda"], _doc("Where the student runs; cuda never falls back")] = "auto"
    encoder_threads: Annotated[int, _doc("CPU threads of the student", ge=1, le=64)] = 1

    list_size: Annotated[int, _doc("Items in a list", ge=1, le=100)] = 10
    history_size: Annotated[int, _doc("Interactions kept for each user", ge=1, le=500)] = 50
    event_ids_size: Annotated[int, _doc("Recent event ids kept for each user: the horizon of duplicates", ge=1)] = 64
    exclusions_size: Annotated[int, _doc("Exclusions kept for each user", ge=1)] = 10_000
    event_weights: Annotated[
        dict[str, float],
        _doc("Signed weight of each event type in a taste; a rating's is scaled by its distance from the user's mean"),
    ] = msgspec.field(default_factory=lambda: {
        "view": 0.3, "click": 0.5, "like": 1.0, "dislike": -1.0, "cart": 0.8, "purchase": 1.0,
        "rating": 1.0, "skip": -0.2, "search": 0.7,
    })  # fmt: skip
    exclude_seconds: Annotated[
        dict[str, float],
        _doc(
            "For how long an event of a type keeps its item out of its user's lists; -1: for good, absent: not at all"
        ),
    ] = msgspec.field(
        default_factory=lambda: {"purchase": -1.0, "dislike": -1.0, "rating": -1.0, "view": 3600.0, "click": 3600.0}
    )
    half_life_seconds: Annotated[float, _doc("An interaction's weight halves in this time", gt=0)] = 3650 * 86_400.0
    half_life_events: Annotated[float, _doc("… and with each so many newer interactions", gt=0)] = 20.0
    diversity: Annotated[float, _doc("λ of MMR: 1 is none; below .9 short relevant lists suffer", ge=0, le=1)] = 0.95
    category_cap: Annotated[int, _doc("At most so many items of one first category in ten places", ge=1)] = 5
    explore: Annotated[bool, _doc("Whether the last two places may go to new items")] = True
    floor_new: Annotated[
        float,
        _doc(
            "Least share of all places for new items: came within a week, met fewer than three times; 0: none",
            ge=0,
            le=1,
        ),
    ] = 0.0
    floor_small: Annotated[
        float, _doc("Least share of all places for items of small providers; 0: none", ge=0, le=1)
    ] = 0.0
    floor_provider: Annotated[
        str,
        _doc(
            "What names an item's provider: attributes.NAME (attributes.brand, attributes.seller, …), or categories for "
            "the first category; empty: nothing does"
        ),
    ] = ""
    floor_small_below: Annotated[
        float,
        _doc(
            "A provider is small while its items have less than this share of the positive events (half-life 60 days)",
            gt=0,
            le=1,
        ),
    ] = 0.001
    learn: Annotated[bool, _doc("Whether the ranker learns from the stream")] = True
    arms: Annotated[
        dict[str, ArmSettings],
        _doc(
            'Arms of a trial, by name: {"plain": {"share": 0.5}, "bold": {"share": 0.5, "diversity": 0.8}}; each may '
            "change event_weights, half_life_seconds, half_life_events, diversity, category_cap, explore, floor_new, "
            "floor_small, and the ranker: weights (factors by part of the score), frozen_prior. Users are split by a hash "
            "of their id"
        ),
    ] = {}

    batch_size: Annotated[int, _doc("Most records in a batch", ge=1)] = 256
    buffer_records: Annotated[int, _doc("Records buffered for each topic", ge=1)] = 512
    buffer_bytes: Annotated[int, _doc("Bytes buffered for each topic", ge=1_048_576)] = 16_777_216
    record_bytes: Annotated[int, _doc("Largest record that is applied; larger ones are dead letters", ge=1024)] = (
        1_048_576
    )
    event_bytes: Annotated[
        int, _doc("Largest event that is applied: history keeps its words and context as often as it is long", ge=1024)
    ] = 65_536
    items_share: Annotated[float, _doc("Share of a batch that items may take while events wait", gt=0, le=1)] = 0.25
    fan_out_users: Annotated[int, _doc("Users refreshed for one new item at most", ge=0)] = 50
    fan_out_per_second: Annotated[float, _doc("Refreshes sent each second at most", ge=0)] = 200.0
    fan_out_quiet_lag: Annotated[int, _doc("No fan-out while more item records than this are waiting", ge=0)] = 200
    flush_seconds: Annotated[float, _doc("Statistics are written this often", gt=0)] = 2.0
    reload_seconds: Annotated[float, _doc("Items and statistics of other workers are looked up this often", gt=0)] = 2.0
    columns_items: Annotated[int, _doc("Items held in memory for ranking", ge=1)] = 200_000
    users_cache: Annotated[int, _doc("Users held in memory", ge=0)] = 20_000
    lessons_per_second: Annotated[float, _doc("Lessons sent each second at most", ge=0)] = 20.0
    erase_within_seconds: Annotated[float, _doc("Edge is rebuilt within this time after an erasure", ge=0)] = 3600.0
    stall_seconds: Annotated[
        float, _doc("A worker that makes no progress, and has no known cause, has ended after this", ge=5)
    ] = 60.0

    items_format: Annotated[Literal["json", "debezium"], _doc("Shape of the records on `items`")] = "json"
    users_format: Annotated[Literal["json", "debezium"], _doc("Shape of the records on `users`")] = "json"
    items_columns: Annotated[
        dict[ItemField, str],
        _doc('Columns of a change stream by field, where the names differ: {"item_id": "id", "title": "name"}'),
    ] = {}
    users_columns: Annotated[dict[UserField, str], _doc("The same for `users`")] = {}
    log_format: Annotated[Literal["text", "json"], _doc("Shape of log lines")] = "text"
    traces: Annotated[
        bool,
        _doc("Whether spans go to OpenTelemetry (extra otel); its own OTEL_… variables say where to and how many"),
    ] = False
    log_level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], _doc("Least severe log line written")] = "INFO"


def load(environment: Mapping[str, str] = os.environ, file: Path | None = None, **overrides: Any) -> Settings:
    """Settings from defaults, then the TOML file (`COLDSTREAM_CONFIG` or `file`), then the environment, then overrides.

    Raises `ConfigurationError` naming the setting and what it may be.
    """
    values: dict[str, Any] = {}
    path = file or (Path(environment[f"{PREFIX}CONFIG"]) if environment.get(f"{PREFIX}CONFIG") else None)
    if path is not None:
        try:
            values.update(tomllib.loads(path.read_text(encoding="utf-8")))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ConfigurationError(f"cannot read the settings file {path}: {error}") from error
    hints = get_type_hints(Settings)
    for name in hints:
        raw = environment.get(f"{PREFIX}{name.upper()}")
        if raw is not None and raw != "":
            values[name] = _parse(name, raw, hints[name])
    values.update({name: value for name, value in overrides.items() if value is not None})
    try:
        return msgspec.convert(values, Settings, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"setting out of range or unknown: {error}") from error


def _parse(name: str, raw: str, hint: Any) -> Any:
    if hint is not dict and "dict" not in str(hint):
        return raw
    try:
        return msgspec.json.decode(raw.encode())
    except msgspec.DecodeError as error:
        raise ConfigurationError(f"{PREFIX}{name.upper()} must be a JSON object: {error}") from error


def table() -> list[tuple[str, str, str]]:
    """(environment variable, default as text, meaning) of every setting, in order of declaration."""
    hints = get_type_hints(Settings, include_extras=True)
    defaults = Settings()
    rows = []
    for name, hint in hints.items():
        meta = next(extra for extra in hint.__metadata__ if isinstance(extra, msgspec.Meta))
        value = getattr(defaults, name)
        text = msgspec.json.encode(value).decode() if not isinstance(value, str) else value
        rows.append((f"{PREFIX}{name.upper()}", text, meta.description or ""))
    return rows


def read_secret(path: str) -> str | None:
    """The first line of a secret's file, without the line's end; None for an empty path.

    Raises `ConfigurationError` naming the file, never its content.
    """
    if not path:
        return None
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()[0].strip()
    except (OSError, UnicodeDecodeError, IndexError) as error:
        raise ConfigurationError(f"cannot read a secret from {path}") from error

"""Dashboard Service: are recommendations fresh, what comes in and goes out, where does the time go, who is ill."""

from __future__ import annotations

from typing import Final

from grafana.measures import Measure, Query, Row, View, gauge, heat, quantiles, rate, ratio, total

OBJECTIVE: Final = 0.99
"""Share of events whose list is to come within `FRESH_SECONDS`, over `OBJECTIVE_WINDOW`."""
FRESH_SECONDS: Final = 0.1
OBJECTIVE_WINDOW: Final = "30d"
_EVENT: Final = "coldstream_event_to_recommendation_seconds"
_ON_TIME: Final = (
    f'sum(rate({_EVENT}_bucket{{le="{FRESH_SECONDS}", <where>}}[<window>]))'
    f" / sum(rate({_EVENT}_count{{<where>}}[<window>]))"
)
_LATE: Final = f"1 - {_ON_TIME}"

LATE_SHARE: Final = Measure(
    "late_share", "Late events", View.LINES, "percentunit", (Query(_LATE, "late"),),
    f"Share of events whose list came later than {FRESH_SECONDS * 1000:.0f} ms after the event's record.",
    f"Below {1 - OBJECTIVE:.0%}.",
    "See which stage grew under “Where the time goes”; if none did, look at lag: events wait in Kafka.",
    warn=1 - OBJECTIVE, bad=5 * (1 - OBJECTIVE),
)  # fmt: skip
ON_TIME: Final = Measure(
    "on_time", "Events answered within 100 ms", View.NUMBER, "percentunit",
    (Query(_ON_TIME.replace("<window>", "$__range"), "on time"),),
    (f"Share of events in the chosen time whose new list was delivered within {FRESH_SECONDS * 1000:.0f} ms: "
     f"the objective."),
    f"At least {OBJECTIVE:.0%}.",
    "The budget beside it says how much longer this may last. Then: latency, lag, stages, in this order.",
    warn=OBJECTIVE, bad=OBJECTIVE - 0.02, rising=False,
)  # fmt: skip
BUDGET: Final = Measure(
    "error_budget", "Error budget left", View.NUMBER, "percentunit",
    (Query(f"1 - ({_LATE}) / {1 - OBJECTIVE:g}".replace("<window>", OBJECTIVE_WINDOW), "left"),),
    (f"What is left of the {1 - OBJECTIVE:.0%} of events that may be late in {OBJECTIVE_WINDOW} (or since "
     f"Prometheus began)."),
    "Above zero, and falling no faster than the days pass.",
    "Nothing risky is rolled out on an empty budget; find out what spent it in the burn rate's history.",
    warn=0.25, bad=0.0, rising=False,
)  # fmt: skip
BURN: Final = Measure(
    "burn_rate", "Burn rate of the error budget", View.LINES, "none",
    tuple(Query(f"({_LATE}) / {1 - OBJECTIVE:g}".replace("<window>", window), window) for window in ("5m", "1h", "6h")),
    f"How many times faster than allowed the budget is spent: at 1 it lasts exactly {OBJECTIVE_WINDOW}.",
    "At most 1; alerts fire at 14.4 and 6 (a page) and at 3 and 1 (a ticket), each in two windows.",
    "The runbook's section ColdstreamFreshnessBurnsFast.",
    warn=1, bad=6,
)  # fmt: skip
EVENT_LATENCY: Final = Measure(
    "event_latency", "Event → list", View.LINES, "s", quantiles(_EVENT),
    "From an event record's own time to the delivery of the list that answers it.",
    "p50 some 10 ms, p99 below 100 ms, flat.",
    ("If p50 rose with p99, a stage or the encoder is slow; if only p99 did, look at batch sizes, imports and "
     "the machine."),
    warn=FRESH_SECONDS, bad=1,
)  # fmt: skip
EVENT_HEAT: Final = Measure(
    "event_heat", "Event → list, all of them", View.HEATMAP, "s", heat(_EVENT),
    "How many events were answered in which time.",
    "One dark band low down.",
    "A second band is a second way: cache misses, cold users, a slow partition. A rising cloud is lag.",
)  # fmt: skip
RECORDS: Final = Measure(
    "records", "Records in", View.STACK, "ops", (rate("coldstream_records_total", "topic"),),
    "Records taken into batches each second, by topic.",
    "It follows your traffic.",
    "A topic that fell to nothing: its producer, or its partitions have no owner (lag grows then).",
)  # fmt: skip
LISTS: Final = Measure(
    "lists", "Lists out", View.STACK, "ops", (rate("coldstream_recommendations_total", "trigger"),),
    "Lists delivered each second, by what caused them.",
    "About as many as events, less what was conflated, plus refreshes for new items.",
    "Far fewer than events: conflation under load, or dead letters; none at all: see Holding and Ready.",
)  # fmt: skip
LAG: Final = Measure(
    "lag", "Lag by partition", View.LINES, "short",
    (gauge("coldstream_lag_records", "topic, partition", how="sum"),),
    "Records of owned partitions that are not acknowledged yet.",
    "A few, returning to 0.",
    "One partition alone: a hot key, or its worker is slow. All: overload or a hold. See ColdstreamLagGrows.",
    warn=1000, bad=10000,
)  # fmt: skip
DEAD_LETTERS: Final = Measure(
    "dead_letters", "Dead letters", View.STACK, "ops", (rate("coldstream_dead_letters_total", "reason"),),
    "Records that were refused and buried, by reason.",
    "None.",
    "coldstream dead-letters list names them and why; mend the producer, then coldstream dead-letters replay.",
    warn=0.01, bad=1,
)  # fmt: skip
DEAD_SHARE: Final = Measure(
    "dead_share", "Share of dead letters", View.NUMBER, "percentunit",
    (Query("sum(rate(coldstream_dead_letters_total{<where>}[<window>]))"
           " / sum(rate(coldstream_records_total{<where>}[<window>]))", "refused"),),
    "Refused records of all records.",
    "0 %.",
    "The runbook's section ColdstreamDeadLetters.",
    warn=0.0001, bad=0.01,
)  # fmt: skip
STAGE_HEAT: Final = Measure(
    "stage_heat", "Stages of a batch, all of them", View.HEATMAP, "s", heat("coldstream_stage_seconds"),
    "How many stages took which time, over all stages.",
    "Everything below 25 ms.",
    "Find the stage beside it.",
)  # fmt: skip
STAGES: Final = Measure(
    "stages", "Where the time goes: p99 by stage", View.STACK, "s",
    quantiles("coldstream_stage_seconds", by="stage", which=(0.99,)),
    "The slowest hundredth of each stage, stacked in the order of an event's way.",
    "embed, rank and persist lead; the sum stays below 100 ms.",
    ("embed: the encoder (batch sizes, provider, CPU). load, items, persist: the index. signals, emit: the broker. "
     "rank, apply: CPU."),
)  # fmt: skip
BATCH: Final = Measure(
    "batch_records", "Records in a batch", View.LINES, "short", quantiles("coldstream_batch_records"),
    "The batcher takes what waits; its size is the load's honest measure.",
    "Small at rest, larger under load.",
    "At the maximum all the time: the worker is saturated; add workers, up to the number of partitions.",
)  # fmt: skip
INDEX: Final = Measure(
    "index_latency", "Index: p99 by what it does", View.LINES, "s",
    quantiles("coldstream_stage_seconds", by="stage", matchers='stage=~"load|persist|items"', which=(0.99,)),
    "Seconds of a batch spent on reading users and writing users and items.",
    "Milliseconds.",
    "The index's own load, disk and memory; with Edge, whether it is being rebuilt. See ColdstreamHolding.",
    warn=0.05, bad=0.5,
)  # fmt: skip
EMBED: Final = Measure(
    "embed", "Embedding: seconds a batch", View.LINES, "s",
    quantiles("coldstream_stage_seconds", matchers='stage="embed"'),
    "Seconds of a batch spent on turning texts into vectors.",
    "Single milliseconds for single texts, some 50 ms for a batch of 64 on one core.",
    "Long texts, an import, or a CPU that is shared: COLDSTREAM_ENCODER_THREADS, or a GPU.",
    warn=0.05, bad=0.5,
)  # fmt: skip
ENCODER: Final = Measure(
    "encoder", "Encoder", View.STATES, "none",
    (Query("max by (encoder, provider, dimension) (coldstream_encoder_info{<where>})",
           "{{encoder}} on {{provider}}, {{dimension}}"),),
    "Which student runs where: an upgrade shows as a second line that begins while the first ends.",
    "One line; cuda where you pay for a GPU.",
    "cpu instead of cuda: see ColdstreamEncoderOnCpu. Two lines for long: a roll-out stands still.",
)  # fmt: skip
ENCODER_BATCH: Final = Measure(
    "encoder_batch", "Texts in a call of the encoder", View.LINES, "short", quantiles("coldstream_encoder_batch_texts"),
    "How many texts are embedded at once.",
    "One or few at rest, dozens during an import.",
    "Always one while texts are many: they come one by one; batches are what makes an import cheap.",
)  # fmt: skip
CONFLATION: Final = Measure(
    "conflation", "Conflated triggers", View.LINES, "percentunit",
    (Query("sum(rate(coldstream_conflated_total{<where>}[<window>]))"
           ' / sum(rate(coldstream_records_total{topic=~"events|users|refreshes", <where>}[<window>]))',
           "conflated"),),
    "Share of triggers that shared another trigger's list.",
    "A few per cent; more is what protects you under load.",
    "High for hours: users are active faster than lists are made. Add workers.",
)  # fmt: skip
READY: Final = Measure(
    "ready", "Ready", View.STATES, "bool_yes_no", (Query("coldstream_ready{<where>}", "{{instance}}"),),
    "1 where /readyz answers 200: partitions assigned, coordinator alive, index and encoder ready, lag known.",
    "1 everywhere.",
    "curl /readyz says why not. See ColdstreamNotReady.",
    warn=0.99, bad=0.5, rising=False,
)  # fmt: skip
HOLDING: Final = Measure(
    "holding", "Holding", View.STATES, "bool_yes_no",
    (gauge("coldstream_holding", "instance, cause"),),
    "1 while the batch in hand waits for a neighbour; nothing is acknowledged and nothing is lost meanwhile.",
    "0.",
    "The cause is the one to mend: index or broker. See ColdstreamHolding.",
    warn=0.5, bad=1,
)  # fmt: skip
PROGRESS: Final = Measure(
    "progress", "Since the last finished batch", View.LINES, "s",
    (gauge("coldstream_seconds_since_progress"),),
    "Seconds since a batch was finished while records were waiting.",
    "Below a second.",
    "The watchdog ends the process after COLDSTREAM_STALL_SECONDS without a known cause. See ColdstreamWorkerStuck.",
    warn=5, bad=30,
)  # fmt: skip
MEMORY: Final = Measure(
    "memory", "Memory", View.LINES, "bytes", (Query("process_resident_memory_bytes{<where>}", "{{instance}}"),),
    "Resident memory of each worker.",
    "It rises with items and users held in memory, then stays.",
    ("COLDSTREAM_COLUMNS_ITEMS, COLDSTREAM_USERS_CACHE and COLDSTREAM_BUFFER_BYTES bound it; a steady climb is "
     "a defect."),
)  # fmt: skip
CPU: Final = Measure(
    "cpu", "CPU", View.LINES, "none", (Query("rate(process_cpu_seconds_total{<where>}[<window>])", "{{instance}}"),),
    "Cores used by each worker.",
    "Below the cores it has.",
    ("A worker is one process: at one core and more it is saturated. Add workers, or encoder threads where "
     "cores are idle."),
    warn=1, bad=2,
)  # fmt: skip
CACHE: Final = Measure(
    "user_cache", "Users found in memory", View.LINES, "percentunit",
    (ratio('coldstream_user_lookups_total{cache="hit"', "coldstream_user_lookups_total", legend="hits"),),
    "Share of the users needed by batches that were in memory.",
    "High for the traffic of sessions; a rebalance empties it.",
    "Raise COLDSTREAM_USERS_CACHE where memory allows.",
)  # fmt: skip
BUFFERED: Final = Measure(
    "buffered", "Waiting in the buffer", View.LINES, "short",
    (gauge("coldstream_buffered_records", "topic", how="sum"),),
    "Records read from Kafka that wait for the pipeline.",
    "Near 0, at most COLDSTREAM_BUFFER_RECORDS.",
    "Full for minutes: the pipeline is slower than what comes in.",
)  # fmt: skip
HANDOVERS: Final = Measure(
    "handovers", "Batches given up", View.LINES, "ops", (rate("coldstream_abandoned_batches_total", "why"),),
    "Batches abandoned unacknowledged: at a rebalance, at a stop, or since they were too old to be still ours.",
    "0, but for deployments.",
    "age: the process stood still for longer than half the session timeout (paused, swapping, starved of CPU).",
)  # fmt: skip
CONFLICTS: Final = Measure(
    "conflicts", "Writes lost to another writer", View.LINES, "ops",
    (total("coldstream_lost_writes_total", "lost and applied again"),),
    "Conditional writes that another process had won; each was applied again, nothing is lost.",
    "0, but for rebalances.",
    ("Steady: two processes own one user, so producers partition events and users differently. See "
     "ColdstreamTwoWriters."),
)  # fmt: skip
MISROUTED: Final = Measure(
    "misrouted", "Misrouted records", View.LINES, "ops",
    (total("coldstream_misrouted_total", "misrouted"),),
    "Records of a user on another partition than the user's home.",
    "0.",
    "Set partitioner=murmur2_random in producers built on librdkafka. See ColdstreamMisrouted.",
)  # fmt: skip
HTTP: Final = Measure(
    "http", "HTTP answers", View.LINES, "ops", (rate("coldstream_http_requests_total", "route, status"),),
    "Requests to the worker's port, by route and class of status.",
    "No 5xx.",
    "The worker's log has the reason of each 5xx.",
)  # fmt: skip
HTTP_LATENCY: Final = Measure(
    "http_latency", "HTTP: p95 by route", View.LINES, "s",
    quantiles("coldstream_http_seconds", by="route", which=(0.95,)),
    "Seconds to answer, by route.",
    "Tens of milliseconds for a list.",
    "A list asked for takes the same way as an event's: see the stages.",
    warn=0.25, bad=1,
)  # fmt: skip
INDEX_KIND: Final = Measure(
    "index_kind", "Index", View.STATES, "none",
    (gauge("coldstream_index_info", "index", how="count"),),
    "Workers by the index that they use.",
    "One kind: edge for a single worker, qdrant for several.",
    "Two kinds never share state: set COLDSTREAM_INDEX alike on all workers.",
)  # fmt: skip
SIGNALS: Final = Measure(
    "signals", "Signals", View.LINES, "ops",
    (total("coldstream_signals_total", "sent"),),
    "What events say of items, sent to the owners of the items' statistics.",
    "It follows events.",
    "None while events come: statistics and popularity stand still. See lag on `signals`.",
)  # fmt: skip

TITLE: Final = "Coldstream / Service"
ROWS: Final = (
    Row("Are recommendations fresh?", (ON_TIME, BUDGET, DEAD_SHARE, BURN)),
    Row("Event to list", (EVENT_LATENCY, EVENT_HEAT)),
    Row("What comes in, what goes out", (RECORDS, LISTS, LAG)),
    Row("What is refused, conflated, waiting", (DEAD_LETTERS, CONFLATION, BUFFERED)),
    Row("Where the time goes", (STAGES, STAGE_HEAT)),
    Row("Batches and index", (BATCH, INDEX, INDEX_KIND)),
    Row("Encoder", (ENCODER, EMBED, ENCODER_BATCH)),
    Row("Who is ill", (READY, HOLDING, PROGRESS)),
    Row("What a worker needs", (MEMORY, CPU, CACHE)),
    Row("Ownership", (HANDOVERS, CONFLICTS, MISROUTED)),
    Row("Read API, statistics", (HTTP, HTTP_LATENCY, SIGNALS)),
)

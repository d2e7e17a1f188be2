"""Dashboard Catalogue and encoder: what arrives, how soon it is recommended, and what turns it into vectors."""

from __future__ import annotations

from typing import Final

from grafana.measures import Measure, Row, View, gauge, heat, quantiles, rate, total
from grafana.recommendations import COVERAGE, NEW_ITEMS
from grafana.service import EMBED, ENCODER, ENCODER_BATCH

AGREED: Final = 0.97
"""Smallest cosine with the golden set that a bundle promises."""

ITEMS_KNOWN: Final = Measure(
    "known_items", "Items held for ranking", View.LINES, "short",
    (gauge("coldstream_known_items"),),
    "Items that a worker holds as columns.",
    "The size of the catalogue, on every worker.",
    "At COLDSTREAM_COLUMNS_ITEMS the rest is asked of the index: slower, not wrong.",
)  # fmt: skip
ARRIVALS: Final = Measure(
    "arrivals", "What item records came to", View.STACK, "ops",
    (rate("coldstream_outcomes_total", "outcome", 'topic="items"'),),
    "New, changed, unchanged (no embedding, no fan-out), deleted.",
    "It follows your catalogue.",
    "An import of unchanged items is cheap; one of changed items is embedded and takes time.",
)  # fmt: skip
ITEM_LATENCY: Final = Measure(
    "item_latency", "New item → first list that it enters", View.LINES, "s",
    quantiles("coldstream_item_to_recommendation_seconds"),
    "From a new item's record to the delivery of a list that it entered without the user's doing.",
    "p95 below 2 s.",
    "Items wait behind events by a share, and the fan-out has a budget: see Refreshes.",
    warn=2, bad=30,
)  # fmt: skip
FIRST_SHOWN: Final = Measure(
    "first_shown", "Publish → first recommended", View.LINES, "s",
    quantiles("coldstream_item_first_recommended_seconds"),
    ("From an item's record (or its published_at, where that is later) to the first list that it stood in, whoever's and "
     "why ever. Of each worker's own lists: with several, the first of all is sooner."),
    "p50 within seconds while users are active.",
    ("Minutes and more: new items are shown to nobody. Fan-out over budget (Refreshes), COLDSTREAM_EXPLORE off, items "
     "without texts, or no traffic."),
    warn=60, bad=3600,
)  # fmt: skip
FIRST_SHOWN_HEAT: Final = Measure(
    "first_shown_heat", "Publish → first recommended, all of them", View.HEATMAP, "s",
    heat("coldstream_item_first_recommended_seconds"),
    "How many new items were first recommended after which time. What is in no list yet is not counted.",
    "One band low down.",
    "A second band far up: items that only come up when somebody happens to be near them.",
)  # fmt: skip
REFRESHES: Final = Measure(
    "refreshes", "Refreshes", View.LINES, "ops", (rate("coldstream_refreshes_total", "outcome"),),
    "Users to be refreshed since an item arrived or left: sent, or dropped over budget.",
    "dropped near 0, imports excepted.",
    "Raise COLDSTREAM_FAN_OUT_PER_SECOND where workers have room; what was dropped comes with the user's next event.",
)  # fmt: skip
TEXTS: Final = Measure(
    "texts", "Texts embedded", View.LINES, "ops",
    (total("coldstream_encoder_batch_texts_sum", "texts"), total("coldstream_encoder_batch_texts_count", "calls")),
    "Texts a second and calls a second: their ratio is the batch size.",
    "Texts far above calls during imports.",
    "Many texts without new items: profiles or searches that change all the time.",
)  # fmt: skip

COLD_ITEMS: Final = Measure(
    "cold_items", "Items that nobody has met", View.LINES, "percentunit",
    (gauge("coldstream_catalogue_cold"),),
    "Share of the recommendable items without any interaction.",
    "High after an import, then falling.",
    "It stays: those items are not shown, or nothing is done with them. See the hit rate of cold items.",
)  # fmt: skip
AGREEMENT: Final = Measure(
    "agreement", "Drift: agreement with the golden set", View.LINES, "none",
    (gauge("coldstream_encoder_agreement", how="min"),),
    "Smallest cosine of the golden texts' vectors with those of the bundle's maker; measured at the start and every hour.",
    f"Above {AGREED}, and as at the start.",
    "The runbook's section ColdstreamEncoderDrifts.",
    warn=0.98, bad=AGREED, rising=False,
)  # fmt: skip
FOREIGN: Final = Measure(
    "foreign", "Items of another encoder", View.LINES, "percentunit",
    (gauge("coldstream_catalogue_foreign"),),
    "Share of items whose vectors another encoder made than the one that runs.",
    "0; during an upgrade it falls from 100 % to 0.",
    "Above 0 and not falling: an upgrade stands still. Vectors of two encoders can't be compared: finish it.",
    warn=0.001, bad=0.5,
)  # fmt: skip

TITLE: Final = "Coldstream / Catalogue and encoder"
ROWS: Final = (
    Row("From publish to first recommended", (FIRST_SHOWN, FIRST_SHOWN_HEAT, ITEM_LATENCY)),
    Row("What arrives", (ARRIVALS, ITEMS_KNOWN, REFRESHES)),
    Row("What of it is shown", (COVERAGE, NEW_ITEMS, COLD_ITEMS)),
    Row("Encoder", (ENCODER, EMBED, ENCODER_BATCH, TEXTS)),
    Row("Drift and upgrades", (AGREEMENT, FOREIGN)),
)

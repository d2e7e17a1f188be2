"""Dashboard Recommendations: what lists are made of, and for whom."""

from __future__ import annotations

from typing import Final

from grafana.measures import Measure, Query, Row, View, quantiles, rate

STRATEGIES: Final = Measure(
    "strategies", "Lists by strategy", View.STACK, "ops", (rate("coldstream_recommendations_total", "strategy"),),
    "What lists were made of: personal (behaviour), profile (words only), session, popular, newest.",
    "personal leads once users have a history.",
    ("Growing popular or newest: users without any taste arrive (send profiles or searches), or their history "
     "has unknown items."),
)  # fmt: skip
FALLBACK: Final = Measure(
    "fallback", "Lists without a taste", View.NUMBER, "percentunit",
    (Query('(sum(rate(coldstream_recommendations_total{strategy=~"popular|newest", <where>}[<window>])) or vector(0))'
           " / sum(rate(coldstream_recommendations_total{<where>}[<window>]))", "popular or newest"),),
    "Share of lists that fell back on what is popular or new.",
    "Low: one sentence, one search or one click is enough for a personal list.",
    "Check that users' profiles arrive, and that events name items that are in the catalogue.",
    warn=0.3, bad=0.7,
)  # fmt: skip
EVENT_OUTCOMES: Final = Measure(
    "event_outcomes", "What events came to", View.STACK, "ops",
    (rate("coldstream_outcomes_total", "outcome", 'topic="events"'),),
    ("New, redelivered (after a restart or rebalance), duplicate (an event_id seen before), or dropped after "
     "an erasure."),
    "new, nearly all.",
    "Many duplicates: a producer retries with the same id (harmless) or reuses ids (its events are lost).",
)  # fmt: skip
USER_LATENCY: Final = Measure(
    "user_latency", "Profile → list", View.LINES, "s", quantiles("coldstream_user_to_recommendation_seconds"),
    "From a user record's own time to the list that answers it.",
    "Below a second.",
    "As for events.",
    warn=1, bad=5,
)  # fmt: skip
ERASURES: Final = Measure(
    "erasures", "Erased users", View.LINES, "ops",
    (Query("sum(rate(coldstream_tombstones_total{<where>}[<window>]))", "tombstones sent"),
     Query("sum(rate(coldstream_after_erasure_total{<where>}[<window>]))", "records dropped after an erasure")),
    "Tombstones sent for erased users, and their late records that were dropped.",
    "It follows the requests of your users.",
    "Records that keep coming for erased users: a producer doesn't know of the erasure.",
)  # fmt: skip

TITLE: Final = "Coldstream / Recommendations"
ROWS: Final = (
    Row("What lists are made of", (FALLBACK, STRATEGIES)),
    Row("Who is answered, and how soon", (EVENT_OUTCOMES, USER_LATENCY, ERASURES)),
)

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
_HITS: Final = 'coldstream_choices_total{list="LIST", place!="none", <where>}'
_CHOICES: Final = 'coldstream_choices_total{list="LIST", <where>}'


def _hit_rate(which: str) -> str:
    ratio = f"(sum(rate({_HITS}[<window>])) or vector(0)) / sum(rate({_CHOICES}[<window>]))"
    return ratio.replace("LIST", which)


HIT_RATE: Final = Measure(
    "hit_rate", "Hit rate: our lists and what is popular", View.LINES, "percentunit",
    (Query(_hit_rate("coldstream"), "our lists"), Query(_hit_rate("popular"), "what is popular")),
    ("Share of first choices that stood in the first ten of the list that the user had, and of a list of what was "
     "popular in the last fortnight, over the same choices."),
    "Our lists well above what is popular.",
    "Below it for long: see ColdstreamWorseThanPopular.",
)  # fmt: skip
LEAD: Final = Measure(
    "lead", "Lead over popularity", View.NUMBER, "percentunit",
    (Query(f"({_hit_rate('coldstream')}) - ({_hit_rate('popular')})", "lead"),),
    "Hit rate of our lists less that of what is popular, over the same choices.",
    "Above zero.",
    "The runbook's section ColdstreamWorseThanPopular.",
    warn=0.01, bad=0.0, rising=False,
)  # fmt: skip
HITS_BY_USER: Final = Measure(
    "hits_by_user", "Hit rate by known and cold users", View.LINES, "percentunit",
    (Query('sum by (user) (rate(coldstream_choices_total{list="coldstream", place!="none", <where>}[<window>]))'
           ' / sum by (user) (rate(coldstream_choices_total{list="coldstream", <where>}[<window>]))', "{{user}}"),),
    "Share of first choices that stood in the list, for users with a history and for those without one.",
    "Known users well above cold ones.",
    "Cold users at nothing: do profiles and searches come? Known ones falling: did catalogue or encoder change?",
)  # fmt: skip
PLACES: Final = Measure(
    "places", "Where in the list choices stood", View.STACK, "ops",
    (Query('sum by (place) (rate(coldstream_choices_total{list="coldstream", place!="none", <where>}[<window>]))',
           "{{place}}"),),
    "Choices a second by the place (1 is the first) that the item had in the user's last list.",
    "Most on the first places.",
    "Even over all places: the order says little; look at what the ranker learns.",
)  # fmt: skip
ATTRIBUTED: Final = Measure(
    "attributed", "Events that came from a list", View.STACK, "ops",
    (rate("coldstream_attributed_events_total", "type"),),
    "Events that carry a recommendation_id, by type.",
    "A steady share of all events.",
    "None: does the shop pass recommendation_id on? Without it nobody can tell a click on a list from any other.",
)  # fmt: skip
CLICK_RATE: Final = Measure(
    "click_rate", "Clicks a list", View.NUMBER, "percentunit",
    (Query('sum(rate(coldstream_attributed_events_total{type="click", <where>}[<window>]))'
           " / sum(rate(coldstream_recommendations_total{<where>}[<window>]))", "clicks a list"),),
    "Clicks that carry a recommendation_id for each list delivered (many lists are never looked at).",
    "Steady, or rising.",
    "Compare before and after a change of the page, of the encoder or of the settings.",
)  # fmt: skip

TITLE: Final = "Coldstream / Recommendations"
ROWS: Final = (
    Row("Are they good?", (LEAD, HIT_RATE, HITS_BY_USER)),
    Row("Are they used?", (CLICK_RATE, ATTRIBUTED, PLACES)),
    Row("What lists are made of", (FALLBACK, STRATEGIES)),
    Row("Who is answered, and how soon", (EVENT_OUTCOMES, USER_LATENCY, ERASURES)),
)

"""Dashboard Recommendations: what lists are made of, and for whom."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from grafana.measures import Measure, Query, Row, View, gauge, quantiles, rate, ratio, spread, total

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
    (total("coldstream_tombstones_total", "tombstones sent"),
     total("coldstream_after_erasure_total", "records dropped after an erasure")),
    "Tombstones sent for erased users, and their late records that were dropped.",
    "It follows the requests of your users.",
    "Records that keep coming for erased users: a producer doesn't know of the erasure.",
)  # fmt: skip
_OURS: Final = 'coldstream_choices_total{list="coldstream"'
_OURS_HIT: Final = f'{_OURS}, place!="none"'


def _hit_rate(which: str) -> str:
    choices = f'coldstream_choices_total{{list="{which}"'
    hits = f'{choices}, place!="none", <where>}}'
    return f"(sum(rate({hits}[<window>])) or vector(0)) / sum(rate({choices}, <where>}}[<window>]))"


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
    (ratio(_OURS_HIT, _OURS, "user"),),
    "Share of first choices that stood in the list, for users with a history and for those without one.",
    "Known users well above cold ones.",
    "Cold users at nothing: do profiles and searches come? Known ones falling: did catalogue or encoder change?",
)  # fmt: skip
PLACES: Final = Measure(
    "places", "Hit rate by place", View.STACK, "percentunit",
    (spread(_OURS_HIT, _OURS, "place"),),
    "Share of first choices by the place (1 is the first) that the item had in the user's last list; all of it is the hit rate.",
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
_PLACED: Final = "coldstream_list_places_total"
_SENT: Final = 'coldstream_list_outcomes_total{outcome="sent"'
_CLICKED: Final = 'coldstream_list_outcomes_total{outcome="clicked"'
_CONVERTED: Final = 'coldstream_list_outcomes_total{outcome="converted"'
_HIT: Final = 'coldstream_hits_total{list="coldstream", hit="yes"'
_CHOSEN: Final = 'coldstream_hits_total{list="coldstream"'
_CLICK: Final = 'coldstream_list_events_total{action="click"'


def _mean_rank(name: str, by: str, what: str, told: str, good: str, otherwise: str) -> Measure:
    ranks = f'sum by ({by}) (rate(coldstream_list_ranks_total{{outcome="clicked", <where>}}[<window>]))'
    clicked = f"sum by ({by}) (rate({_CLICKED}, <where>}}[<window>]))"
    return Measure(
        name, f"Mean rank of the first click{what}", View.LINES, "none",
        (Query(f"{ranks} / {clicked}", f"{{{{{by}}}}}"),),
        f"The place, on average, of the item that was first taken from a list{told}.", good, otherwise,
    )  # fmt: skip


def _by_place(action: str) -> Query:
    """Events a list of each place: every list has one item on it, as long as it is that long."""
    return spread(f'coldstream_list_events_total{{action="{action}", place!="none"', _SENT, "place")


CLICK_RATE: Final = Measure(
    "click_rate", "Clicked lists", View.NUMBER, "percentunit", (ratio(_CLICKED, _SENT),),
    ("Share of lists that an event named which took an item from it (view, click, like, cart, purchase, rating); each "
     "list counts once, and many are never looked at."),
    "Steady, or rising.",
    "Compare before and after a change of the page, of the encoder or of the settings; at 0, see “Joined events”.",
)  # fmt: skip
CONVERSION_RATE: Final = Measure(
    "conversion_rate", "Converted lists", View.NUMBER, "percentunit", (ratio(_CONVERTED, _SENT),),
    "Share of lists that a purchase, a like or a good rating named; each list counts once.",
    "Steady, or rising, with the clicks.",
    "Clicks without conversions: lists lead to what is looked at and not wanted; look at prices, and at the reasons.",
)  # fmt: skip
CLICKS_BY_STRATEGY: Final = Measure(
    "clicks_by_strategy", "Clicked lists by strategy", View.LINES, "percentunit", (ratio(_CLICKED, _SENT, "strategy"),),
    "Share of clicked lists by what lists rest on.",
    "personal above popular and newest.",
    "personal below popular: see the hit rates by strategy; if they agree, what the ranker learns is not what users want.",
)  # fmt: skip
CONVERSIONS: Final = Measure(
    "conversions", "Converted lists by strategy", View.LINES, "percentunit", (ratio(_CONVERTED, _SENT, "strategy"),),
    "Share of converted lists by what lists rest on.",
    "In the order of the clicks.",
    "One that converts less than its clicks say: it draws looks and not wishes.",
)  # fmt: skip
JOINED: Final = Measure(
    "joined", "Joined events", View.STACK, "ops", (rate("coldstream_attributed_events_total", "found"),),
    ("Events that name a list: listed (it holds the item), elsewhere (it does not), forgotten (the list is older than "
     "what a worker remembers, or another worker made it)."),
    "listed, nearly all.",
    "elsewhere: the shop sends the id of another list. forgotten: events come late, or a worker was restarted just now.",
)  # fmt: skip
CLICKS_BY_PLACE: Final = Measure(
    "clicks_by_place", "Clicks of a place", View.STACK, "percentunit", (_by_place("click"),),
    "Clicks (again and again ones included) for each list sent, by the place that the item had in it.",
    "Falling from place to place.",
    "Even over all places: the order says little, or the page shows it in another one.",
)  # fmt: skip
CONVERSIONS_BY_PLACE: Final = Measure(
    "conversions_by_place", "Conversions of a place", View.STACK, "percentunit", (_by_place("conversion"),),
    "Conversions for each list sent, by the place that the item had in it.",
    "Falling from place to place, as clicks do.",
    "First places that are clicked and not wanted: what the ranker learns draws looks only.",
)  # fmt: skip
RANK: Final = _mean_rank(
    "rank", "strategy", "", "; 1 is the first",
    "Low, and lower for personal than for popular.",
    "Rising: the best items slip down; look at diversity, exploration, and the weights.",
)  # fmt: skip
HITS_BY_STRATEGY: Final = Measure(
    "hits_by_strategy", "Hit rate by strategy", View.LINES, "percentunit", (ratio(_HIT, _CHOSEN, "strategy"),),
    ("Share of first choices that stood in the first ten of the user's last list, by what that list rested on (unknown: "
     "a list that a worker has forgotten)."),
    "personal first, then session and profile, popular and newest last.",
    "One that falls alone: its input is missing (histories, searches, profiles).",
)  # fmt: skip
CLICKS_BY_ITEM: Final = Measure(
    "clicks_by_item", "Clicks of cold and warm items", View.LINES, "percentunit",
    (ratio(f'{_CLICK}, item="cold"', f'{_PLACED}{{item="cold"', legend="cold"),
     ratio(f'{_CLICK}, item="warm"', f'{_PLACED}{{item!="cold"', legend="warm")),
    "Clicks for each place in lists, by whether anybody had met its item when the list was made (warm) or nobody (cold).",
    "cold not far below warm.",
    "cold at nothing: new items are shown to users whom they don't fit; do they have texts? Lower COLDSTREAM_EXPLORE's arm.",
)  # fmt: skip
CLICKS_BY_USER: Final = Measure(
    "clicks_by_user", "Clicked lists of known and cold users", View.LINES, "percentunit",
    (ratio('coldstream_user_lists_total{outcome="clicked"', 'coldstream_user_lists_total{outcome="sent"', "user"),),
    "Share of clicked lists, of users with a history and of those without one when the list was made.",
    "known above cold.",
    "cold at nothing: do profiles and searches come? Both alike: history says nothing; does it name items of the catalogue?",
)  # fmt: skip
HITS_BY_ITEM: Final = Measure(
    "hits_by_item", "Hit rate by cold and warm items", View.LINES, "percentunit", (ratio(_HIT, _CHOSEN, "item"),),
    "Hit rate by whether anybody had met the item before (warm) or nobody had (cold).",
    "cold above zero: new items find their users.",
    "cold at zero for long: is COLDSTREAM_EXPLORE on, and do items have texts?",
)  # fmt: skip
RANKERS: Final = Measure(
    "rankers", "Clicked lists by ranker", View.LINES, "percentunit", (ratio(_CLICKED, _SENT, "ranker"),),
    "Clicked lists that the shipped prior ranked, and those that learned weights ranked.",
    "learned above prior.",
    "Below it for long, with equal strategies: coldstream ranker rollback prior, and find out what it learned from.",
)  # fmt: skip
RANKER_CONVERSIONS: Final = Measure(
    "ranker_conversions", "Converted lists by ranker", View.LINES, "percentunit", (ratio(_CONVERTED, _SENT, "ranker"),),
    "Converted lists that the shipped prior ranked, and those that learned weights ranked.",
    "learned above prior.",
    "As for clicks. A list's exact version stands in the list itself, and in the worker's log with COLDSTREAM_LOG_LEVEL=DEBUG.",
)  # fmt: skip
RANKER_RANK: Final = _mean_rank(
    "ranker_rank", "ranker", " by ranker", ", by what ranked it",
    "learned below prior.",
    "As for clicks.",
)  # fmt: skip
ARM_LISTS: Final = Measure(
    "arm_lists", "Lists by arm", View.STACK, "ops", (rate("coldstream_recommendations_total", "arm"),),
    "Lists delivered each second by the arm of their user (COLDSTREAM_ARMS); one without a name while there is no trial.",
    "As the shares say.",
    "Other shares: a few users make most of the lists, or workers run with different settings.",
)  # fmt: skip
ARM_CLICKS: Final = Measure(
    "arm_clicks", "Clicked lists by arm", View.LINES, "percentunit", (ratio(_CLICKED, _SENT, "arm"),),
    "Share of clicked lists of each arm.",
    "Whatever wins: coldstream arms says whether the difference is more than chance.",
    "An arm that loses beyond chance is ended: take it out of COLDSTREAM_ARMS.",
)  # fmt: skip
ARM_CONVERSIONS: Final = Measure(
    "arm_conversions", "Converted lists by arm", View.LINES, "percentunit", (ratio(_CONVERTED, _SENT, "arm"),),
    "Share of converted lists of each arm.",
    "In the order of the clicks.",
    "An arm that is clicked more and converts less draws looks only.",
)  # fmt: skip
ARM_RANK: Final = _mean_rank(
    "arm_rank", "arm", " by arm", ", by arm",
    "Low.",
    "An arm of more diversity or exploration has a higher one: weigh it against coverage and new items.",
)  # fmt: skip
ARM_HITS: Final = Measure(
    "arm_hits", "Hit rate by arm", View.LINES, "percentunit", (ratio(_HIT, _CHOSEN, "arm"),),
    "Share of first choices that stood in the user's last list, by arm; it needs no recommendation_id.",
    "As above.",
    "Clicks and hits that disagree: lists change what users look at, or the page shows more than the first ten.",
)  # fmt: skip
ARM_LATENCY: Final = Measure(
    "arm_latency", "Event → list: p95 by arm", View.LINES, "s",
    quantiles("coldstream_event_to_recommendation_seconds", by="arm", which=(0.95,)),
    "From an event record's own time to the delivery of the list that answers it, by arm.",
    "Alike: arms share batches, so what one costs the others wait for too.",
    "One above the others: its users are the busier ones, or its lists cost more; look at the stage rank.",
    warn=0.1, bad=1,
)  # fmt: skip
COVERAGE: Final = Measure(
    "coverage", "Catalogue coverage", View.LINES, "percentunit",
    (gauge("coldstream_catalogue_coverage", "arm"),),
    "Share of the recommendable items that stood in a list of one worker within the last hour, by arm.",
    "Steady for your traffic: many lists and a small catalogue cover it all.",
    "Falling while lists are as many: everybody gets the same. Look at diversity and at lists by strategy.",
)  # fmt: skip
GINI: Final = Measure(
    "gini", "Gini of exposure", View.LINES, "none",
    (Query("avg by (arm) (coldstream_catalogue_gini{<where>} >= 0)", "{{arm}}"),),
    ("How unevenly lists of the last hours show the recommendable items, by arm: 0, each as often as any other; 1, a "
     "single one always."),
    "Steady; below that of the choices themselves, popular items are not favoured beyond what users want.",
    "Rising: the rich get richer. COLDSTREAM_EXPLORE, COLDSTREAM_DIVERSITY, or an arm with less weight on popular.",
)  # fmt: skip
NOVELTY: Final = Measure(
    "novelty", "Novelty of what is shown", View.LINES, "none",
    (Query("avg by (arm) (coldstream_catalogue_novelty_bits{<where>} >= 0)", "{{arm}}"),),
    "Bits: the mean −log2 of a shown item's share of all events, by arm; one bit more is half as well known.",
    "Steady, some bits below the logarithm of the catalogue's size.",
    "Falling: lists turn to what everybody knows. Near the logarithm of the size: to what nobody has met.",
)  # fmt: skip
DIVERSITY: Final = Measure(
    "diversity", "Diversity of lists", View.LINES, "none",
    quantiles("coldstream_list_diversity", by="arm", which=(0.1, 0.5, 0.9)),
    "1 − the mean cosine of two items of a list, of one list of each batch, by arm.",
    "Steady, between .3 and .9.",
    "Near 0, lists are all of one kind: lower COLDSTREAM_DIVERSITY or COLDSTREAM_CATEGORY_CAP.",
)  # fmt: skip
NEW_ITEMS: Final = Measure(
    "new_items", "Places of new items", View.STACK, "percentunit",
    (spread(_PLACED, _PLACED, "item"),),
    "Share of the places in lists that go to items that nobody has met (cold), that came within seven days (new), others.",
    "cold and new together near the catalogue's own share of them, at most.",
    "Nothing new for long: COLDSTREAM_EXPLORE. Nothing but new: do events come, and name items of the catalogue?",
)  # fmt: skip
ARM_NEW_ITEMS: Final = Measure(
    "arm_new_items", "Share of new items by arm", View.LINES, "percentunit",
    (ratio(f'{_PLACED}{{item=~"cold|new"', _PLACED, "arm"),),
    "Share of the places that go to cold and new items, by arm.",
    "An arm that explores has more of them.",
    "More of them and fewer clicks: the trial's price; coldstream arms says whether it is more than chance.",
)  # fmt: skip
_FLOOR: Final = "coldstream_floor_places_total{places="


def _of_floor(places: str, by: str, legend: str) -> Query:
    """Share of the places of lists, by group of items that may have an exposure floor."""
    return replace(ratio(f'{_FLOOR}"{places}"', f'{_FLOOR}"all"', by), legend=legend)


FLOORS: Final = Measure(
    "floors", "Exposure floors: promised and held", View.LINES, "percentunit",
    (_of_floor("held", "group", "{{group}}"), _of_floor("promised", "group", "{{group}}: floor")),
    ("Share of all places that items of a group hold, and the share that COLDSTREAM_FLOOR_NEW and COLDSTREAM_FLOOR_SMALL "
     "promise them. small is counted without a floor, too, once COLDSTREAM_FLOOR_PROVIDER names the providers."),
    "Each group at its floor or above it.",
    "Below its floor: see what is owed in vain. Above it by itself: the floor costs nothing, and changes nothing.",
)  # fmt: skip
FLOORS_SHORT: Final = Measure(
    "floors_short", "Places owed in vain", View.LINES, "percentunit", (_of_floor("short", "group", "{{group}}"),),
    "Share of all places that a floor owed to a group and that no candidate of it could take.",
    "0.",
    ("Users have too few candidates of the group: new items don't come, or small providers have nothing near what is "
     "liked. Lower the floor, or raise COLDSTREAM_FLOOR_SMALL_BELOW."),
)  # fmt: skip
ARM_FLOORS: Final = Measure(
    "arm_floors", "Held by groups with a floor, by arm", View.LINES, "percentunit",
    (_of_floor("held", "group, arm", "{{group}} {{arm}}"),),
    "Share of all places that items of a group hold, by arm.",
    "An arm with a floor above one without.",
    "What it costs in clicks is beside, among the arms of the trial; coldstream arms says whether it is more than chance.",
)  # fmt: skip
WEIGHTS_KNOWN: Final = Measure(
    "weights_known", "What ranks: users with history", View.STACK, "percentunit",
    (gauge("coldstream_ranker_weight", "part", how="avg", matchers='user="known"'),),
    "Share of the ranker's weights, on scaled features, that each part of the score has.",
    "It moves slowly; history and similar_users lead.",
    "A jump: a rollback, a new release, or a flood of strange events. coldstream ranker show has every weight.",
)  # fmt: skip
WEIGHTS_COLD: Final = Measure(
    "weights_cold", "What ranks: users without", View.STACK, "percentunit",
    (gauge("coldstream_ranker_weight", "part", how="avg", matchers='user="cold"'),),
    "The same for users without a history that is known.",
    "popular and new lead, profile and wish beside them.",
    "As beside.",
)  # fmt: skip
EXPERTS: Final = Measure(
    "experts", "Experts in what ranks", View.LINES, "percentunit",
    (Query("avg by (expert, user) (coldstream_ranker_share{<where>})", "{{expert}}, {{user}}"),),
    "What the weights are mixed from by how well each has done: those learned here, the shipped prior, single features.",
    "learned rises over days.",
    ("single leads for long: the learned weights are worse than one feature alone; freeze, and compare an arm with "
     "frozen_prior."),
)  # fmt: skip
LESSONS: Final = Measure(
    "lessons", "Lessons learned", View.NUMBER, "short", (Query("max(coldstream_ranker_lessons{<where>})", "lessons"),),
    "Choices that the weights in use were learned from.",
    "It grows while users choose.",
    "Standing still: frozen (beside), COLDSTREAM_LEARN, or lag on the topic lessons.",
)  # fmt: skip
FROZEN: Final = Measure(
    "frozen", "Frozen", View.NUMBER, "bool_yes_no", (Query("max(coldstream_ranker_frozen{<where>})", "frozen"),),
    "Whether an operator has frozen the ranker.",
    "No, or as you ordered.",
    "coldstream ranker unfreeze.",
    warn=0.5, bad=2,
)  # fmt: skip

TITLE: Final = "Coldstream / Recommendations"
ROWS: Final = (
    Row("Are they good?", (LEAD, CLICK_RATE, CONVERSION_RATE, FALLBACK, HIT_RATE)),
    Row("By what they rest on", (CLICKS_BY_STRATEGY, CONVERSIONS, RANK, HITS_BY_STRATEGY)),
    Row("By place in the list", (CLICKS_BY_PLACE, CONVERSIONS_BY_PLACE, PLACES)),
    Row("Cold and warm, items and users", (CLICKS_BY_ITEM, HITS_BY_ITEM, CLICKS_BY_USER, HITS_BY_USER)),
    Row("Beyond accuracy", (COVERAGE, GINI, NOVELTY, DIVERSITY)),
    Row("Exposure floors", (FLOORS, FLOORS_SHORT, ARM_FLOORS)),
    Row("Arms of a trial", (ARM_CLICKS, ARM_CONVERSIONS, ARM_RANK, ARM_HITS)),
    Row("What arms make", (ARM_LISTS, ARM_NEW_ITEMS, ARM_LATENCY)),
    Row("What lists are made of", (STRATEGIES, NEW_ITEMS)),
    Row("Learned weights and the shipped prior", (RANKERS, RANKER_CONVERSIONS, RANKER_RANK, EXPERTS)),
    Row("What the ranker has learned", (LESSONS, FROZEN, WEIGHTS_KNOWN, WEIGHTS_COLD)),
    Row("Do events name their list?", (ATTRIBUTED, JOINED, EVENT_OUTCOMES)),
    Row("Profiles and erasures", (USER_LATENCY, ERASURES)),
)

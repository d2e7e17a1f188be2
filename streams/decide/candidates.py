"""Retrieval: which few hundred items are worth ranking for a user. Every source brings its best; ranking decides.

Sources: what goes with the last interactions, the nearest by text of the last eight, profile and wishes by dense and
lexical cosine, popular at several horizons, just met by anybody, newest, and (where policy lets items return) what the
user has met before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from streams.decide.policy import Policy
from streams.decide.ragged import Rows
from streams.decide.table import POPULAR, POPULAR_HORIZONS, Table, best_of
from streams.decide.taste import Request, Taste
from streams.values import Exclusion, Interaction, ItemRecord

COMPANIONS: Final = 150
NEWEST: Final = 100
JUST_MET: Final = 60
WORDED: Final = 80
_NEAR_HISTORY: Final = 8
_RARE_FACET: Final = 200
_FACETS: Final = 8


@dataclass(frozen=True, slots=True)
class Company:
    """What goes with a batch's histories: `companion[e]` with interaction `place[e]` of `user[e]`, in order of users."""

    user: Rows
    place: Rows
    companion: Rows
    entry: Rows
    """For `Companions.weights`."""
    either: NDArray[np.float32]
    """Weight of the pairs in either order."""


def company_of(table: Table, tastes: Sequence[Taste]) -> Company:
    """What goes with all interactions of a batch of users."""
    sizes = np.array([len(taste.rows) for taste in tastes])
    rows = np.concatenate([taste.rows for taste in tastes]) if len(tastes) else np.zeros(0, np.int64)
    users = np.repeat(np.arange(len(tastes)), sizes)
    places = np.arange(len(rows)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    owner, entries, companions, either = table.companions.gather(rows)
    return Company(users[owner], places[owner], companions, entries, either)


def find(table: Table, tastes: Sequence[Taste], company: Company, policy: Policy) -> list[Rows]:
    """Candidate rows of each user: distinct, recommendable, neither excluded nor blocked; perhaps none."""
    ends = np.searchsorted(company.user, np.arange(len(tastes) + 1))
    found = []
    for user, taste in enumerate(tastes):
        sources = _sources(table, taste, company, slice(ends[user], ends[user + 1]))
        found.append(_allowed(table, table.distinct(np.concatenate(sources)), taste.request, policy))
    return found


def _sources(table: Table, taste: Taste, company: Company, mine: slice) -> list[Rows]:
    request = taste.request
    found = [_shared(table, request), _companions(table, taste, company, mine)]
    if request.came:
        found.append(np.array([table.rows[one] for one in request.came if one in table.rows], np.int64))
    if not taste.is_cold:
        near, _ = table.nearness.of(taste.rows[:_NEAR_HISTORY], len(table.ids), table.short, table.wording)
        found.append(near[near >= 0].astype(np.int64))
        if request.among is not None:
            found.append(_worded(table, taste, request.among))
        found.append(_in_facets(table, taste))
        found.append(_met(table, request))
    found.extend(_asked(table, text, request) for text in (*taste.wishes, taste.profile) if text)
    return found


def _shared(table: Table, request: Request) -> Rows:
    """Popular, just met, newest: the same for everybody. Any items at all where nothing is known of any."""
    if request.among is None:
        newest = table.arrivals.newest(request.now, NEWEST)
        found = np.concatenate([table.popular(request.now), np.array(table.latest[-JUST_MET:], np.int64), newest])
        return found if len(found) >= request.limit else np.arange(min(len(table.ids), NEWEST))
    among = np.flatnonzero(request.among)
    best = [best_of(among, table.counts.column(horizon, request.now)[among], POPULAR) for horizon in POPULAR_HORIZONS]
    came = table.arrivals.newest(request.now, len(table.ids))
    return np.concatenate([*best, came[request.among[came]][:NEWEST]])


def _companions(table: Table, taste: Taste, company: Company, mine: slice) -> Rows:
    """What goes with the history most, in either order: Σ w C/(n + 5)."""
    companions, among = company.companion[mine], taste.request.among
    if not len(companions):
        return companions
    share = taste.weight / (table.counts.events[taste.rows] + 5.0)
    distinct, scores = table.sums(companions, company.either[mine] * share[company.place[mine]])
    if among is not None:
        distinct, scores = distinct[among[distinct]], scores[among[distinct]]
    return best_of(distinct, scores, COMPANIONS)


def _in_facets(table: Table, taste: Taste) -> Rows:
    """The popular among what shares rare facets with the history: Σ of the facets' shares, times ln popularity."""
    owner, flat = table.wording.facets.gather(taste.rows)
    facets, places = np.unique(table.wording.facets["facet"][flat], return_inverse=True)
    shares = np.bincount(places, taste.weight[owner])
    having = table.wording.having_facet[facets]
    rare = np.flatnonzero((having <= _RARE_FACET) & (having > 1))
    if len(rare) > _FACETS:
        rare = rare[np.argpartition(-shares[rare], _FACETS)[:_FACETS]]
    which, rows = table.wording.find_facets(facets[rare].astype(np.int64))
    if not len(rows):
        return rows
    distinct, scores = table.sums(rows, shares[rare][which])
    popular = np.log(table.counts.sixty(distinct, taste.request.now) + 1.5)
    if taste.request.among is not None:
        popular = popular * taste.request.among[distinct]
    return best_of(distinct, scores * popular, WORDED)


def _worded(table: Table, taste: Taste, among: NDArray[np.bool_]) -> Rows:
    """The nearest to the history's mean among the rows asked for, by dense plus lexical cosine."""
    scores = np.zeros(len(table.live), np.float32)
    for row, weight in zip(taste.rows.tolist(), taste.weight.tolist(), strict=True):
        terms, weights = table.wording.of_row(row)
        table.wording.add_cosines(scores, terms, weights * np.float32(weight))
    rows = np.flatnonzero(among)
    mean = taste.weight @ table.short[taste.rows]
    return best_of(rows, scores[rows] + table.short[rows] @ mean, 2 * WORDED)


def _asked(table: Table, text: str, request: Request) -> Rows:
    """The best for a text of the user, by dense and by lexical cosine."""
    found = [_best_asked(*table.wording.cosines(*table.wording.query(text)), request)]
    vector = request.texts.get(text)
    if vector is not None:
        found.append(_best_asked(*table.nearest(table.project(vector[None, :])[0]), request))
    return np.concatenate(found)


def _best_asked(rows: Rows, scores: NDArray[np.float32], request: Request) -> Rows:
    if request.among is not None:
        rows, scores = rows[request.among[rows]], scores[request.among[rows]]
    return best_of(rows, scores, WORDED)


def _met(table: Table, request: Request) -> Rows:
    """What the user has met: it may come again; policy decides when."""
    rows, state = table.rows, request.state
    ids = [one.item_id for one in state.history] + [one.item_id for one in state.exclusions[-2 * WORDED :]]
    return np.array([rows[one] for one in ids if one is not None and one in rows], np.int64)


def _allowed(table: Table, rows: Rows, request: Request, policy: Policy) -> Rows:
    rows = rows[table.recommendable(rows, request.now if request.clock is None else request.clock)]
    if request.among is not None:
        rows = rows[request.among[rows]]
    refused = refused_ids(request, policy)
    known = table.rows
    gone = {known[one] for ids in (refused, request.exclude) for one in ids if one in known}
    keeps = [row for row in rows.tolist() if row not in gone]
    blocked = set() if request.state.profile is None else set(request.state.profile.blocked_categories)
    if blocked or request.category is not None:
        keeps = [row for row in keeps if _in_category(table.records[row], request.category, blocked)]
    return np.array(keeps, np.int64)


def _in_category(record: ItemRecord | None, wanted: str | None, blocked: set[str]) -> bool:
    categories = () if record is None else record.categories
    return blocked.isdisjoint(categories) and (wanted is None or wanted in categories)


def refused_ids(request: Request, policy: Policy) -> set[str]:
    """Items that policy keeps from this user now, and those that they block themselves."""
    state = request.state
    refused = set() if state.profile is None else set(state.profile.blocked_items)
    entries: tuple[Exclusion | Interaction, ...] = (*state.exclusions, *state.history)
    for entry in entries:
        seconds = policy.exclude_seconds.get(entry.type.value)
        if seconds is not None and entry.item_id is not None and (seconds < 0 or request.now - entry.at < seconds):
            refused.add(entry.item_id)
    return refused

"""Retrieval: which few hundred items are worth ranking for a user. Every source brings its best; ranking decides.

Sources: what goes with the last interactions, the nearest by text of the last eight, profile and wishes by dense and
lexical cosine, popular at several horizons, just met by anybody, newest, and (where policy lets items return) what the
user has met before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from streams.decide.policy import Policy
from streams.decide.ragged import Mask, Rows
from streams.decide.sources import heaviest_companions, keep_allowed, popular_in_facets
from streams.decide.table import POPULAR, POPULAR_HORIZONS, Table, best_of
from streams.decide.taste import Request, Taste
from streams.values import Exclusion, Interaction, ItemRecord

COMPANIONS: Final = 150
NEWEST: Final = 100
JUST_MET: Final = 60
WORDED: Final = 80
_NEAR_HISTORY: Final = 8
_ALL: Final = np.zeros(0, np.bool_)


def find(table: Table, tastes: Sequence[Taste], policy: Policy) -> list[Rows]:
    """Candidate rows of each user: distinct, recommendable, neither excluded nor blocked; perhaps none."""
    shared: dict[tuple[float, int], Rows] = {}
    return [_allowed(table, np.concatenate(_sources(table, taste, shared)), taste.request, policy) for taste in tastes]


def _sources(table: Table, taste: Taste, shared: dict[tuple[float, int], Rows]) -> list[Rows]:
    """`shared`: what is the same for all who ask at one time, remembered for a batch."""
    request = taste.request
    asked = (request.now, request.limit)
    if request.among is not None:
        found = [_shared(table, request)]
    else:
        if asked not in shared:
            shared[asked] = _shared(table, request)
        found = [shared[asked]]
    if request.came:
        found.append(np.array([table.rows[one] for one in request.came if one in table.rows], np.int64))
    if not taste.is_cold:
        found.append(_companions(table, taste))
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


def _companions(table: Table, taste: Taste) -> Rows:
    """What goes with the history most, in either order: Σ w C/(n + 5)."""
    share, found = taste.weight / (table.counts.events[taste.rows] + 5.0), np.empty(COMPANIONS, np.int64)
    return found[
        : heaviest_companions(taste.rows, share, table.companions.pairs, _among(taste.request), table.sums, found)
    ]


def _in_facets(table: Table, taste: Taste) -> Rows:
    """The popular among what shares rare facets with the history: Σ of the facets' shares, times ln popularity."""
    wording, counts, found = table.wording, table.counts, np.empty(WORDED, np.int64)
    count = popular_in_facets(
        taste.rows, taste.weight, wording.kinds, wording.with_facets(), counts.scaled,
        float(counts.sixty_day_decay(taste.request.now)), _among(taste.request), wording.shares, table.sums, found,
    )  # fmt: skip
    return found[:count]


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
    """Each of `rows` once, of those that may stand in this list."""
    known = table.rows
    refused = [known[one] for ids in (refused_ids(request, policy), request.exclude) for one in ids if one in known]
    count = keep_allowed(
        rows, np.array(refused, np.int64), request.now if request.clock is None else request.clock, table.live,
        table.opens, table.closes, _among(request), table.local,
    )  # fmt: skip
    rows = rows[:count]
    blocked = set() if request.state.profile is None else set(request.state.profile.blocked_categories)
    if blocked or request.category is not None:
        records, wanted = table.records, request.category
        return rows[[_in_category(records[row], wanted, blocked) for row in rows.tolist()]]
    return rows


def _among(request: Request) -> Mask:
    """The rows that are asked for, as compiled loops read them: empty for all."""
    return _ALL if request.among is None else request.among


def _in_category(record: ItemRecord | None, wanted: str | None, blocked: set[str]) -> bool:
    categories = () if record is None else record.categories
    return blocked.isdisjoint(categories) and (wanted is None or wanted in categories)


def refused_ids(request: Request, policy: Policy) -> set[str]:
    """Items that policy keeps from this user now, and those that they block themselves."""
    state = request.state
    refused = set() if state.profile is None else set(state.profile.blocked_items)
    entries: tuple[Exclusion | Interaction, ...] = (*state.exclusions, *state.history)
    for entry in entries:
        seconds = policy.exclude_seconds.get(entry.type)
        if seconds is not None and entry.item_id is not None and (seconds < 0 or request.now - entry.at < seconds):
            refused.add(entry.item_id)
    return refused

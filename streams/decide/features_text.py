"""Features of text: likeness to the history and to what goes with it; facets and price."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import numpy as np

from streams.decide.companions import Pairs
from streams.decide.compiled import compiled, heaviest
from streams.decide.counts import SIXTY_DAYS
from streams.decide.grids import Batch, Cells, Past
from streams.decide.ragged import Doubles, Floats, Rows
from streams.decide.table import Table
from streams.decide.wording import Kinds, Said
from streams.decide.words import MOST_FACETS

_SMOOTHING: Final = 5.0
_EXPECTED: Final = 64
"""Companions that make the text that is expected next."""
_NAN: Final = np.float32(np.nan)
_ONE: Final = np.float32(1)
_FILTER: Final = 0xFFFF
"""Words are first looked up by their last sixteen bits, in a table that stays in the nearest cache."""

DENSE: Final = (
    "dense_mean", "dense_brief", "dense_max", "dense_last", "dense_liked", "dense_low", "dense_if_rare",
    "dense_if_new_user", "together_text",
)  # fmt: skip
LEXICAL: Final = ("lexical_mean", "lexical_brief", "lexical_if_rare")
FACETS: Final = (
    "facet_title", "facet_category", "facet_categories", "facet_attributes", "facet_popular", "category_popular", "price",
)  # fmt: skip


def text(table: Table, batch: Batch, places: Mapping[str, Rows]) -> None:
    """Dense and lexical likeness to the history, and to what usually goes with it. `places`: of features, by group."""
    cells, past, events = batch.cells, batch.past, table.counts.events
    expected = np.zeros((len(past.rows), table.short.shape[1]), np.float32)
    _expect(past, events, table.companions.pairs, table.short, expected)
    expects = np.zeros(cells.rows.shape, np.float32)
    for user, taste in enumerate(batch.tastes):  # one by one: what is gathered for one user stays in the cache
        count = len(taste.rows)
        if count:
            vectors = table.short.take(cells.rows[user], axis=0)
            np.matmul(table.short[taste.rows], vectors.T, out=batch.similarity[user, :count])
            np.matmul(vectors, expected[user], out=expects[user])
    positives, wording = table.counts.positives, table.wording
    _dense(cells, past, batch.similarity, expects, positives, places["dense"])
    _lexical(cells, past, wording.said, wording.sums, positives, places["lexical"])


@compiled
def _dense(
    cells: Cells, past: Past, similarity: Floats, expects: Floats, positives: Doubles, places: Rows
) -> None:  # fmt: skip
    """Sums of the cosines with the history, [users, interactions, candidates], and their greatest (at least 0)."""
    for user in range(len(cells.sizes)):
        size, count = cells.sizes[user], past.length[user]
        for feature in range(len(places)):
            cells.values[places[feature], user, :size] = 0 if count else _NAN
        if not count:
            continue
        mean, short = cells.values[places[0], user], cells.values[places[1], user]
        greatest, last = cells.values[places[2], user], cells.values[places[3], user]
        liked, low = cells.values[places[4], user], cells.values[places[5], user]
        rare, new, together = (
            cells.values[places[6], user],
            cells.values[places[7], user],
            cells.values[places[8], user],
        )
        for one in range(count):
            cosines, share, soon = similarity[user, one], past.weight[user, one], past.brief[user, one]
            liking = past.liking[user, one]
            good, bad = share * max(liking, np.float32(0)), share * max(-liking, np.float32(0))
            for place in range(size):
                cosine = cosines[place]
                mean[place] += share * cosine
                short[place] += soon * cosine
                liked[place] += good * cosine
                low[place] += bad * cosine
                greatest[place] = max(greatest[place], cosine)
        known = _ONE / (_ONE + np.float32(count))
        for place in range(size):
            last[place] = similarity[user, 0, place]
            rare[place] = mean[place] / (_ONE + np.float32(positives[cells.rows[user, place]]))
            new[place] = mean[place] * known
            together[place] = expects[user, place]


@compiled
def _lexical(cells: Cells, past: Past, said: Said, sums: Floats, positives: Doubles, places: Rows) -> None:
    """Σ over terms of the history's weight × the candidate's. `sums` [terms, 2]: zero before and after."""
    heard = np.zeros(_FILTER + 1, np.uint8)
    for user in range(len(cells.sizes)):
        size, count = cells.sizes[user], past.length[user]
        mean, brief = cells.values[places[0], user], cells.values[places[1], user]
        rare = cells.values[places[2], user]
        if not count:
            mean[:size], brief[:size], rare[:size] = _NAN, _NAN, _NAN
            continue
        for one in range(count):
            row = past.rows[user, one]
            for entry in range(said.start[row], said.start[row] + said.length[row]):
                term = said.term[entry]
                heard[term & _FILTER] = 1
                sums[term, 0] += said.weight[entry] * past.weight[user, one]
                sums[term, 1] += said.weight[entry] * past.brief[user, one]
        for place in range(size):
            row = cells.rows[user, place]
            lately = whole = np.float32(0)
            for entry in range(said.start[row], said.start[row] + said.length[row]):
                term = said.term[entry]
                if heard[term & _FILTER]:
                    whole += said.weight[entry] * sums[term, 0]
                    lately += said.weight[entry] * sums[term, 1]
            mean[place], brief[place] = whole, lately
            rare[place] = whole / (_ONE + np.float32(positives[row]))
        for one in range(count):
            row = past.rows[user, one]
            for entry in range(said.start[row], said.start[row] + said.length[row]):
                term = said.term[entry]
                heard[term & _FILTER] = 0
                sums[term, 0], sums[term, 1] = 0, 0


@compiled
def _expect(past: Past, events: Doubles, pairs: Pairs, short: Floats, expected: Floats) -> None:
    """The mean text of what usually goes with each user's history, unit rows. Shape [users, dimensions]; 0 before."""
    chosen = np.empty(_EXPECTED, np.int64)
    for user in range(len(expected)):
        size = 0
        for one in range(past.length[user]):
            size += pairs.length[past.rows[user, one]]
        weights, others = np.empty(size), np.empty(size, np.int64)
        size = 0
        for one in range(past.length[user]):
            row = past.rows[user, one]
            share = past.weight[user, one] / (events[row] + _SMOOTHING)
            for entry in range(pairs.start[row], pairs.start[row] + pairs.length[row]):
                weights[size], others[size] = pairs.either[entry] * share, pairs.item[entry]
                size += 1
        mean, norm = expected[user], np.float32(0)
        for one in range(heaviest(weights, _EXPECTED, chosen)):
            loud, vector = np.float32(weights[chosen[one]]), short[others[chosen[one]]]
            for axis in range(len(mean)):
                mean[axis] += loud * vector[axis]
        for axis in range(len(mean)):
            norm += mean[axis] * mean[axis]
        mean /= max(np.float32(math.sqrt(norm)), np.float32(1e-6))


def facets(table: Table, batch: Batch, places: Mapping[str, Rows]) -> None:
    """Σ over the candidate's facets, by kind: ln((n u + 2 p) / 2 p), u the facet's share in the history, p in general.

    Also how popular the items of its facets are on average, and how far its price is from what the user looked at.
    """
    counts, now = table.counts, batch.past.now
    totals = counts.totals(now)[:, SIXTY_DAYS] + 10.0
    _facets(
        batch.cells, batch.past, table.wording.kinds, counts.sixty_day_decay(now), totals, table.log_price,
        table.wording.facet_memo, places["facets"],
    )  # fmt: skip


@compiled
def _facets(
    cells: Cells, past: Past, kinds: Kinds, decay: Doubles, totals: Doubles, log_price: Floats, memo: Floats, places: Rows
) -> None:  # fmt: skip
    """`decay`, `totals` [users]: of the scaled units. `memo` [facets, 2]: 0 and NaN before and after."""
    asked, known, sums = np.empty(cells.rows.size * MOST_FACETS, np.int32), 0, np.empty(4, np.float32)
    for user in range(len(cells.sizes)):
        count = past.length[user]
        if user and decay[user] != decay[user - 1]:
            memo[asked[:known], 1] = _NAN
            known = 0
        _gain(user, past, kinds, decay[user], totals[user], memo)
        price = _price(user, past, log_price)
        for place in range(cells.sizes[user]):
            row = cells.rows[user, place]
            sums[:], popular, in_category, categories = 0, np.float32(0), np.float32(0), 0
            for entry in range(kinds.start[row], kinds.start[row] + kinds.length[row]):
                facet, kind = kinds.facet[entry], kinds.kind[entry]
                if math.isnan(memo[facet, 1]):
                    met = np.float32(kinds.met[facet] * decay[user])
                    memo[facet, 1] = math.log((met + np.float32(0.3)) / (np.float32(kinds.having[facet]) + _ONE))
                    asked[known] = facet
                    known += 1
                sums[kind] += memo[facet, 0]
                popular += memo[facet, 1]
                if 0 < kind < 3:
                    in_category += memo[facet, 1]
                    categories += 1
            for kind in range(4):
                cells.values[places[kind], user, place] = sums[kind] if count else _NAN
            length = kinds.length[row]
            cells.values[places[4], user, place] = popular / np.float32(length) if length else _NAN
            cells.values[places[5], user, place] = in_category / np.float32(categories) if categories else _NAN
            cells.values[places[6], user, place] = -abs(log_price[row] - price)
        for row in past.rows[user, :count]:
            memo[kinds.facet[kinds.start[row] : kinds.start[row] + kinds.length[row]], 0] = 0
    memo[asked[:known], 1] = _NAN


@compiled
def _gain(user: int, past: Past, kinds: Kinds, decay: float, total: float, memo: Floats) -> None:
    """What each facet of the history brings to an item that has it, into `memo`: shares first, below zero, then gains."""
    count = np.float32(past.length[user])
    for one in range(past.length[user]):
        row = past.rows[user, one]
        for entry in range(kinds.start[row], kinds.start[row] + kinds.length[row]):
            memo[kinds.facet[entry], 0] -= past.weight[user, one] * count
    for one in range(past.length[user]):
        row = past.rows[user, one]
        for entry in range(kinds.start[row], kinds.start[row] + kinds.length[row]):
            facet = kinds.facet[entry]
            if memo[facet, 0] < 0:
                chance = np.float32((kinds.met[facet] * decay + 0.5) / total)
                memo[facet, 0] = math.log(_ONE - memo[facet, 0] / (np.float32(2) * chance))


@compiled
def _price(user: int, past: Past, log_price: Floats) -> float:
    """Mean logarithm of what the history costs; NaN where nothing in it has a price."""
    price, priced = 0.0, 0
    for one in range(past.length[user]):
        if not math.isnan(log_price[past.rows[user, one]]):
            price += log_price[past.rows[user, one]]
            priced += 1
    return price / priced if priced else math.nan

"""Features of text: likeness to the history, to what goes with it, to the user's own words; facets and price."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from streams.decide.compiled import compiled, heaviest
from streams.decide.counts import SIXTY_DAYS
from streams.decide.grids import Batch, Grid, Past
from streams.decide.ragged import Rows
from streams.decide.table import Table

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
OWN: Final = ("profile_dense", "profile_lexical", "wish_dense", "wish_lexical")


def text(table: Table, batch: Batch, past: Past, places: Mapping[str, Rows]) -> None:
    """Dense and lexical likeness to the history, and to what usually goes with it. `places`: of features, by group."""
    expected = _expected_texts(table, past)
    expects = np.zeros(batch.rows.shape, np.float32)
    for user, taste in enumerate(batch.tastes):  # one by one: what is gathered for one user stays in the cache
        vectors = table.short.take(batch.rows[user], axis=0)
        count = len(taste.rows)
        if count:
            np.matmul(table.short[taste.rows], vectors.T, out=batch.similarity[user, :count])
            np.matmul(vectors, expected[user], out=expects[user])
    rows, sizes, positives = batch.rows, batch.sizes, table.counts.positives
    _dense(batch.similarity, expects, past.weight, past.brief, past.liking, past.count, rows, sizes, positives,
           places["dense"], batch.values)  # fmt: skip
    terms = table.wording.terms
    _lexical(rows, sizes, terms.start, terms.length, terms["term"], terms["weight"], past.rows, past.count, past.weight,
             past.brief, table.wording.said, positives, places["lexical"], batch.values)  # fmt: skip


@compiled
def _dense(
    similarity: Grid, expects: Grid, weight: Grid, brief: Grid, liking: Grid, counts: Rows, rows: Rows, sizes: Rows,
    positives: NDArray[np.float64], places: Rows, values: Grid,
) -> None:  # fmt: skip
    """Sums of the cosines with the history, [users, interactions, candidates], and their greatest (at least 0)."""
    for user in range(len(sizes)):
        size, count = sizes[user], counts[user]
        for feature in range(len(places)):
            values[places[feature], user, :size] = 0 if count else _NAN
        if not count:
            continue
        mean, short = values[places[0], user], values[places[1], user]
        greatest, last = values[places[2], user], values[places[3], user]
        liked, low = values[places[4], user], values[places[5], user]
        rare, new, together = values[places[6], user], values[places[7], user], values[places[8], user]
        for one in range(count):
            cosines, share, soon = similarity[user, one], weight[user, one], brief[user, one]
            good, bad = share * max(liking[user, one], np.float32(0)), share * max(-liking[user, one], np.float32(0))
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
            rare[place] = mean[place] / (_ONE + np.float32(positives[rows[user, place]]))
            new[place] = mean[place] * known
            together[place] = expects[user, place]


@compiled
def _lexical(
    rows: Rows, sizes: Rows, start: Rows, length: Rows, terms: NDArray[np.int32], weights: Grid, past: Rows, counts: Rows,
    shares: Grid, briefs: Grid, said: Grid, positives: NDArray[np.float64], places: Rows, values: Grid,
) -> None:  # fmt: skip
    """Σ over terms of the history's weight × the candidate's. `said` [terms, 2]: zero before and after."""
    heard = np.zeros(_FILTER + 1, np.uint8)
    for user in range(len(sizes)):
        size, count = sizes[user], counts[user]
        mean, brief, rare = values[places[0], user], values[places[1], user], values[places[2], user]
        if not count:
            mean[:size], brief[:size], rare[:size] = _NAN, _NAN, _NAN
            continue
        for one in range(count):
            row = past[user, one]
            for entry in range(start[row], start[row] + length[row]):
                term = terms[entry]
                heard[term & _FILTER] = 1
                said[term, 0] += weights[entry] * shares[user, one]
                said[term, 1] += weights[entry] * briefs[user, one]
        for place in range(size):
            row = rows[user, place]
            lately = whole = np.float32(0)
            for entry in range(start[row], start[row] + length[row]):
                term = terms[entry]
                if heard[term & _FILTER]:
                    whole += weights[entry] * said[term, 0]
                    lately += weights[entry] * said[term, 1]
            mean[place], brief[place] = whole, lately
            rare[place] = whole / (_ONE + np.float32(positives[row]))
        for one in range(count):
            row = past[user, one]
            for entry in range(start[row], start[row] + length[row]):
                heard[terms[entry] & _FILTER] = 0
                said[terms[entry], 0] = 0
                said[terms[entry], 1] = 0


def _expected_texts(table: Table, past: Past) -> NDArray[np.float32]:
    """The mean text of what usually goes with each user's history, unit rows. Shape [users, dimensions]."""
    expected = np.zeros((len(past.rows), table.short.shape[1]), np.float32)
    start, length, columns = table.companions.arrays
    _expect(past.rows, past.count, past.weight, table.counts.events, start, length, columns["row"], columns["either"],
            table.short, expected)  # fmt: skip
    return expected


@compiled
def _expect(
    past: Rows, counts: Rows, weight: Grid, events: NDArray[np.float64], start: Rows, length: Rows,
    companions: NDArray[np.int32], either: NDArray[np.int32], short: Grid, expected: Grid,
) -> None:  # fmt: skip
    for user in range(len(counts)):
        size = 0
        for one in range(counts[user]):
            size += length[past[user, one]]
        weights, others = np.empty(size), np.empty(size, np.int64)
        size = 0
        for one in range(counts[user]):
            row = past[user, one]
            share = weight[user, one] / (events[row] + _SMOOTHING)
            for entry in range(start[row], start[row] + length[row]):
                weights[size], others[size] = either[entry] * share, companions[entry]
                size += 1
        chosen = np.empty(_EXPECTED, np.int64)
        mean = expected[user]
        for one in range(heaviest(weights, _EXPECTED, chosen)):
            share, vector = np.float32(weights[chosen[one]]), short[others[chosen[one]]]
            for axis in range(len(mean)):
                mean[axis] += share * vector[axis]
        norm = np.float32(0)
        for axis in range(len(mean)):
            norm += mean[axis] * mean[axis]
        mean /= max(np.float32(math.sqrt(norm)), np.float32(1e-6))


def facets(table: Table, batch: Batch, past: Past, places: Mapping[str, Rows]) -> None:
    """Σ over the candidate's facets, by kind: ln((n u + 2 p) / 2 p), u the facet's share in the history, p in general.

    Also how popular the items of its facets are on average, and how far its price is from what the user looked at.
    """
    wording, pool, counts = table.wording, table.wording.facets, table.counts
    _facets(
        batch.rows, batch.sizes, pool.start, pool.length, pool["facet"], pool["kind"], past.rows, past.count,
        past.weight, counts.sixty_day_decay(past.now), counts.totals(past.now)[:, SIXTY_DAYS], wording.facet_counts,
        wording.having_facet, table.log_price, wording.facet_memo, places["facets"], batch.values,
    )  # fmt: skip


@compiled
def _facets(
    rows: Rows, sizes: Rows, start: Rows, length: Rows, facets: NDArray[np.int32], kinds: NDArray[np.int8], past: Rows,
    counts: Rows, weight: Grid, decay: NDArray[np.float64], totals: NDArray[np.float64], met: NDArray[np.float64],
    having: Rows, log_price: Grid, memo: Grid, places: Rows, values: Grid,
) -> None:  # fmt: skip
    """`met` (scaled positive events) and `having` (items) by facet. `memo` [facets, 2]: 0 and NaN before and after."""
    most = 0
    for user in range(len(sizes)):
        for place in range(sizes[user]):
            most += length[rows[user, place]]
    asked, known = np.empty(most, np.int32), 0
    for user in range(len(sizes)):
        size, count = sizes[user], counts[user]
        if user and decay[user] != decay[user - 1]:
            for one in range(known):
                memo[asked[one], 1] = _NAN
            known = 0
        price, priced = np.float32(0), 0
        for one in range(count):
            row = past[user, one]
            if not math.isnan(log_price[row]):
                price += log_price[row]
                priced += 1
            for entry in range(start[row], start[row] + length[row]):
                memo[facets[entry], 0] += weight[user, one] * np.float32(count)
        for one in range(count):  # each once: what is done already is below zero
            row = past[user, one]
            for entry in range(start[row], start[row] + length[row]):
                facet = facets[entry]
                if memo[facet, 0] > 0:
                    chance = np.float32((met[facet] * decay[user] + 0.5) / (totals[user] + 10.0))
                    memo[facet, 0] = -math.log(_ONE + memo[facet, 0] / (np.float32(2) * chance))
        price = price / np.float32(priced) if priced else _NAN
        for place in range(size):
            row = rows[user, place]
            first = second = third = fourth = popular = in_category = np.float32(0)
            categories = 0
            for entry in range(start[row], start[row] + length[row]):
                facet, kind = facets[entry], kinds[entry]
                gained, usual = memo[facet, 0], memo[facet, 1]
                if math.isnan(usual):
                    events = np.float32(met[facet] * decay[user])
                    usual = math.log((events + np.float32(0.3)) / (np.float32(having[facet]) + _ONE))
                    memo[facet, 1] = usual
                    asked[known] = facet
                    known += 1
                popular += usual
                if kind == 0:
                    first -= gained
                elif kind == 3:
                    fourth -= gained
                else:
                    in_category += usual
                    categories += 1
                    if kind == 1:
                        second -= gained
                    else:
                        third -= gained
            values[places[0], user, place] = first if count else _NAN
            values[places[1], user, place] = second if count else _NAN
            values[places[2], user, place] = third if count else _NAN
            values[places[3], user, place] = fourth if count else _NAN
            values[places[4], user, place] = popular / np.float32(length[row]) if length[row] else _NAN
            values[places[5], user, place] = in_category / np.float32(categories) if categories else _NAN
            values[places[6], user, place] = -abs(log_price[row] - price)
        for one in range(count):
            row = past[user, one]
            for entry in range(start[row], start[row] + length[row]):
                memo[facets[entry], 0] = 0
    for one in range(known):
        memo[asked[one], 1] = _NAN


def own_words(table: Table, batch: Batch, places: Mapping[str, Rows]) -> None:
    """Cosines with the user's own words; NaN for those who say none."""
    grids: dict[str, Any] = {name: batch.values[place] for name, place in zip(OWN, places["own"].tolist(), strict=True)}
    for grid in grids.values():
        grid[:] = np.nan
    for user, taste in enumerate(batch.tastes):
        size = int(batch.sizes[user])
        rows = batch.rows[user, :size]
        said = [("profile", taste.profile, 1.0)] if taste.profile else []
        said += [("wish", *wish) for wish in zip(taste.wishes, taste.wish_shares, strict=True)]
        for kind, words, part in said:
            share = np.float32(part)
            lexical = np.zeros(len(table.live), np.float32)
            table.wording.add_cosines(lexical, *table.wording.query(words))
            _raise_to(grids[f"{kind}_lexical"][user, :size], share * lexical[rows])
            vector = taste.request.texts.get(words)
            if vector is not None:
                _raise_to(
                    grids[f"{kind}_dense"][user, :size], share * (table.short[rows] @ table.project(vector[None])[0])
                )


def _raise_to(into: NDArray[np.float32], values: NDArray[np.float32]) -> None:
    np.fmax(into, values, out=into)

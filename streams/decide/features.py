"""What the ranker sees of a user and a candidate: one number a feature, for all users of a batch at once.

Definitions and what each group brings: docs/quality.md. Whatever is particular to a data set is learned by the weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from streams.decide import features_behaviour as behaviour
from streams.decide import features_pairs as pairs
from streams.decide import features_text as wording
from streams.decide.grids import Batch, Cells, past_of
from streams.decide.ragged import Floats, Rows
from streams.decide.table import Table
from streams.decide.taste import HISTORY, Taste
from streams.decide.vectors import score_learned

HISTORY_PART: Final = "history"
SIMILAR_USERS_PART: Final = "similar_users"
POPULAR_PART: Final = "popular"
NEW_PART: Final = "new"
PROFILE_PART: Final = "profile"
WISH_PART: Final = "wish"

FEATURES: Final[dict[str, str]] = {
    **dict.fromkeys(
        ("dense_mean", "dense_brief", "dense_max", "dense_last", "dense_liked", "dense_low", "lexical_mean",
         "lexical_brief", "dense_if_rare", "lexical_if_rare", "dense_if_new_user", "facet_title", "facet_category",
         "facet_categories", "facet_attributes", "price", "usual_popularity", "repeat",
         "repeat_count", "repeat_age", "repeat_share", "repeat_gap"), HISTORY_PART),
    **dict.fromkeys(
        ("together_text", "mixture", "mixture_brief", "mixture_1", "mixture_2",
         "mixture_3", "lift", "information", "information_max", "recent_mixture", "recent_lift",
         "mixture_if_new_user", "learned_vectors", "either_root", "either_log", "either_information", "together_root",
         "together_log"),
        SIMILAR_USERS_PART),
    **dict.fromkeys(
        ("popular_6h", "popular_1d", "popular_4d", "popular_14d", "popular_60d", "popular_ever", "met_ever",
         "positive_share", "unmet", "quiet", "facet_popular", "category_popular", "popular_if_new_user"), POPULAR_PART),
    **dict.fromkeys(
        ("age", "age_6h", "age_2d", "age_14d", "age_90d", "age_1y", "since", "since_10", "since_50", "since_200",
         "velocity", "velocity_24h", "fresh_dense", "fresh_popular", "usual_age"), NEW_PART),
    **dict.fromkeys(("profile_dense", "profile_lexical"), PROFILE_PART),
    **dict.fromkeys(("wish_dense", "wish_lexical"), WISH_PART),
}  # fmt: skip
"""Every feature, in order, with the part of the score that it belongs to."""
NAMES: Final = tuple(FEATURES)
PLACE: Final = {name: place for place, name in enumerate(NAMES)}
OWN: Final = ("profile_dense", "profile_lexical", "wish_dense", "wish_lexical")
_GROUPS: Final = {
    "dense": wording.DENSE, "lexical": wording.LEXICAL, "facets": wording.FACETS,
    "popular": behaviour.POPULAR, "together": pairs.TOGETHER, "arrival": behaviour.ARRIVAL,
    "repeats": behaviour.REPEATS, "fresh": ("dense_mean", "popular_4d"),
}  # fmt: skip
_PLACES: Final = {group: np.array([PLACE[name] for name in names]) for group, names in _GROUPS.items()}


def compute(table: Table, tastes: Sequence[Taste], candidates: Sequence[Rows]) -> Batch:
    """The features of each user's candidates."""
    users, width = len(tastes), max((len(rows) for rows in candidates), default=0)
    rows = np.zeros((users, width), np.int64)
    for user, found in enumerate(candidates):
        rows[user, : len(found)] = found
    sizes = np.array([len(found) for found in candidates], np.int64)
    cells = Cells(rows, sizes, np.empty((len(NAMES), users, width), np.float32))
    batch = Batch(tastes, cells, past_of(tastes), np.zeros((users, HISTORY, width), np.float32))
    if width:
        vectors, past = table.learned, batch.past
        score_learned(
            vectors.residual, vectors.bias, table.short, table.counts.events, rows, sizes, past.rows, past.length,
            past.weight, cells.values[PLACE["learned_vectors"]],
        )  # fmt: skip
        wording.text(table, batch, _PLACES)
        behaviour.popularity(table, batch, _PLACES)
        pairs.together(table, batch, _PLACES)
        wording.facets(table, batch, _PLACES)
        behaviour.arrival(table, batch, _PLACES)
        behaviour.repeats(table, batch, _PLACES)
        _own_words(table, batch)
    return batch


def _own_words(table: Table, batch: Batch) -> None:
    """Cosines with the user's own words; NaN for those who say none."""
    grids = {name: batch.cells.values[PLACE[name]] for name in OWN}
    for grid in grids.values():
        grid[:] = np.nan
    for user, taste in enumerate(batch.tastes):
        rows = batch.candidates(user)
        said = [("profile", taste.profile, 1.0)] if taste.profile else []
        said += [("wish", *wish) for wish in zip(taste.wishes, taste.wish_shares, strict=True)]
        for kind, words, part in said:
            share = np.float32(part)
            lexical = np.zeros(len(table.live), np.float32)
            table.wording.add_cosines(lexical, *table.wording.query(words))
            _raise_to(grids[f"{kind}_lexical"][user, : len(rows)], share * lexical[rows])
            vector = taste.request.texts.get(words)
            if vector is not None:
                cosines = table.short[rows] @ table.project(vector[None])[0]
                _raise_to(grids[f"{kind}_dense"][user, : len(rows)], share * cosines)


def _raise_to(into: Floats, values: Floats) -> None:
    np.fmax(into, values, out=into)

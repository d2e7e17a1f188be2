"""What a user's state says to ranking: weighted rows of history, wishes, profile; and one vector for the index."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from streams.decide.policy import Policy
from streams.decide.ragged import Rows
from streams.decide.table import Table
from streams.values import EventType, Interaction, UserState, Vector

HISTORY: int = 20
"""Interactions that features look at."""
WISHES: int = 3
"""Searches that may still count."""
_WISH_HALF_LIFE_EVENTS = 2.0
_WISH_HALF_LIFE_SECONDS = 86_400.0
_FAINT = 0.02
"""A wish with a smaller share counts no more."""
_SHORT_HALF_LIFE = 3.0
_LOUDEST = 1.0
_PLACES = np.arange(float(HISTORY))


@dataclass(frozen=True, slots=True)
class Request:
    """One list to make. `texts`: vectors of what `texts_of` names (missing ones are done without)."""

    state: UserState
    now: float
    """The stream's time, which ages and decays are reckoned by: see `stream_time`."""
    limit: int = 10
    texts: Mapping[str, Vector] = field(default_factory=dict)
    query: str | None = None
    exclude: frozenset[str] | set[str] = frozenset()
    category: str | None = None
    seed: int = 0
    came: frozenset[str] = frozenset()
    """Items that came and fit this user: the list is made because of them, and has places for them."""
    among: NDArray[np.bool_] | None = None
    """Where given, only these rows of the table are ranked."""
    clock: float | None = None
    """The wall clock's time, by which items are published and expire; None: the stream's."""


@dataclass(frozen=True, slots=True)
class Taste:
    """A request as ranking reads it. Arrays have one entry for each of the last interactions whose item is held."""

    request: Request
    interactions: tuple[Interaction, ...]
    """Newest first."""
    rows: Rows
    weight: NDArray[np.float32]
    """Forgotten by position and time, as loud as the event's type: sums to 1."""
    brief: NDArray[np.float32]
    """Forgotten within three events; sums to 1."""
    liking: NDArray[np.float32]
    """From −1 (refused) to 1."""
    profile: str
    wishes: tuple[str, ...]
    """Newest first; the request's own query before the searches of the history."""
    wish_shares: tuple[float, ...]
    """How much each wish counts: 1 for what is asked for now, half of it with every further wish, two interactions or
    day since."""

    @property
    def is_cold(self) -> bool:
        """Whether no interaction with a known item says anything."""
        return len(self.rows) == 0


def stream_time(table: Table, state: UserState, clock: float) -> float:
    """Time by the newest event of anybody, never ahead of the clock; by the clock where there was none.

    So a replay or a back-fill of last year's events is ranked as it would have been last year, and a quiet night makes
    nothing unpopular.
    """
    newest = max(table.counts.newest_at, state.history[-1].at if state.history else -math.inf)
    return min(newest, clock) if math.isfinite(newest) else clock


def texts_of(state: UserState, query: str | None = None) -> list[str]:
    """The texts of a user that need vectors: the profile's, and the searches that still count."""
    texts = [state.profile.text] if state.profile is not None and state.profile.text else []
    return list(dict.fromkeys([*texts, *_wishes(state, query, None)]))


def taste_of(table: Table, request: Request, policy: Policy) -> Taste:
    """The taste of a request."""
    state, now, held, weights = request.state, request.now, table.rows, policy.event_weights
    rows: list[int] = []
    interactions: list[Interaction] = []
    for interaction in reversed(state.history):
        row = held.get(interaction.item_id) if interaction.item_id is not None else None
        if row is not None:
            rows.append(row)
            interactions.append(interaction)
            if len(rows) == HISTORY:
                break
    wishes = _wishes(state, request.query, now)
    loud = np.array([max(abs(weights.get(one.type, 0.0)), 0.01) for one in interactions])
    places = _PLACES[: len(rows)]
    weight = loud * np.exp2(places / -policy.half_life_events)
    if rows:
        age = np.array([max(now - one.at, 0.0) for one in interactions])
        weight *= np.exp2(np.minimum((age - age.min()) / policy.half_life_seconds, 10.0) * -0.5)
    brief = loud * np.exp2(places / -_SHORT_HALF_LIFE)
    return Taste(
        request=request,
        interactions=tuple(interactions),
        rows=np.array(rows, np.int64),
        weight=_share(weight),
        brief=_share(brief),
        liking=likings(state.history, interactions, policy),
        profile=state.profile.text if state.profile is not None else "",
        wishes=tuple(wishes),
        wish_shares=tuple(wishes.values()),
    )


def likings(history: Sequence[Interaction], interactions: Sequence[Interaction], policy: Policy) -> NDArray[np.float32]:
    """How much each interaction speaks for its item, −1 … 1: the type's weight; a rating's relative to the user's mean.

    The mean is drawn towards `liked_from` by two ratings, so that one rating alone says something.
    """
    ratings = [one.value for one in history if one.type is EventType.RATING and one.value is not None]
    mean = (sum(ratings) + 2 * policy.liked_from) / (len(ratings) + 2)
    signed = []
    for one in interactions:
        weight = policy.event_weights.get(one.type, 0.0)
        if one.type is EventType.RATING and one.value is not None:
            weight *= min(max(0.5 + (one.value - mean) / 2.0, -1.0), 1.0)
        signed.append(min(max(weight, -_LOUDEST), _LOUDEST))
    return np.array(signed, np.float32)


def taste_vector(
    columns: Table, state: UserState, texts: Mapping[str, Vector], policy: Policy, now: float
) -> Vector | None:
    """`vector_of` of a user's taste at `now`."""
    return vector_of(columns, taste_of(columns, Request(state, now, texts=texts), policy))


def vector_of(columns: Table, taste: Taste) -> Vector | None:
    """The user as one unit vector of the encoder's space, for finding the users whom a new item fits.

    The liking-weighted mean of what they met, with profile and wishes; None where nothing is known of them.
    """
    texts = taste.request.texts
    vector = np.zeros(columns.dimension, np.float32)
    if not taste.is_cold:
        loud = taste.weight * taste.liking
        vector += loud @ columns.vectors[taste.rows].astype(np.float32) - loud.sum() * columns.mean
    for text, share in ((taste.profile, 0.5), *zip(taste.wishes[:1], taste.wish_shares, strict=False)):
        if text in texts:
            vector += share * (texts[text] - columns.mean)
    norm = math.sqrt(float(vector @ vector))
    return vector / norm if norm > 1e-6 else None


def _wishes(state: UserState, query: str | None, now: float | None) -> dict[str, float]:
    """The share of each wish that counts at `now`, newest first; at None no time has passed since any."""
    found = {query: 1.0} if query else {}
    for newer, one in enumerate(reversed(state.history)):
        if len(found) == WISHES:
            break
        if one.type is not EventType.SEARCH or not one.query or one.query in found:
            continue
        passed = 0.0 if now is None else max(now - one.at, 0.0) / _WISH_HALF_LIFE_SECONDS
        share = 0.5 ** (len(found) + newer / _WISH_HALF_LIFE_EVENTS + passed)
        if share < _FAINT:
            break
        found[one.query] = share
    return found


def _share(weights: NDArray[np.float64]) -> NDArray[np.float32]:
    return (weights / max(float(weights.sum()), 1e-9)).astype(np.float32)

"""The whole of `coldstream evaluate`: read, embed, replay, sum up."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from evaluation.baselines import all_of
from evaluation.beyond import beyond_accuracy
from evaluation.ours import Ours
from evaluation.protocol import Options, Stream, foreign_profiles, read
from evaluation.replay import OURS, Outcome, Replay
from streams.decide.prior import prior_for
from streams.decide.ranker import Learner
from streams.values import Vector

Progress = Callable[[str, int, int], None]
_ENCODED_AT_ONCE = 512


class ItemEncoder(Protocol):
    """What is needed of an encoder."""

    name: str

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Shape [len(texts), dimension]."""


@dataclass(frozen=True, slots=True)
class Result:
    """What was measured."""

    stream: Stream
    options: Options
    outcome: Outcome
    beyond: dict[str, Any]

    def summary(self) -> dict[str, Any]:
        """The line of `--json`."""
        found: dict[str, Any] = {
            "dataset": self.stream.name,
            "items": len(self.stream.items),
            "events": self.stream.events,
            "steps": len(self.outcome.tested),
            "seconds": round(self.outcome.seconds, 3),
            "methods": self.outcome.tally.summary(),
        }
        ratings = self.outcome.ratings.summary()
        found |= {"best_baseline": self.against_best()} | ({"ratings": ratings} if ratings else {})
        return found | {"beyond": self.beyond}

    def against_best(self) -> dict[str, dict[str, Any]]:
        """By slice: the strongest baseline, ours ÷ it (NDCG@10) and the paired standard error of that ratio."""
        against: dict[str, dict[str, Any]] = {}
        for name in self.outcome.tally.ndcgs.get(OURS, {}):
            best = self.best_baseline(name)
            ratio, error = self.outcome.tally.ratio(OURS, best or "", name)
            if best and not np.isnan(ratio):
                against[name] = {"method": best, "ratio": round(ratio, 4), "standard_error": round(error, 4)}
        return against

    def best_baseline(self, slice_name: str) -> str | None:
        """The strongest other method in a slice."""
        methods = self.outcome.tally.ndcgs
        means = {
            name: float(np.mean(slices[slice_name]))
            for name, slices in methods.items() if name != OURS and slice_name in slices
        }  # fmt: skip
        return max(means, key=lambda name: means[name]) if means else None

    def lists(self) -> Iterable[bytes]:
        """The lines of `--lists`."""
        ids = [record.item_id for record in self.stream.items]

        def shown(pair: tuple[list[int], list[int]] | None) -> dict[str, list[str]] | None:
            return None if pair is None else {"targets": [ids[i] for i in pair[0]], "list": [ids[i] for i in pair[1]]}

        for one in self.outcome.tested:
            yield msgspec.json.encode(
                {
                    "user_id": one.step.user_id,
                    "timestamp": one.step.written,
                    "targets": [ids[item] for item in one.step.targets],
                    "list": [ids[item] for item in one.items],
                    "new_item": shown(one.new_item),
                    "unseen_item": shown(one.unseen_item),
                }
            )


def evaluate(
    folder: Path, options: Options, encoder: ItemEncoder, item_text: Callable[..., str], template: int,
    *, profiles: Path | None = None, progress: Progress = lambda _what, _done, _all: None,
) -> Result:  # fmt: skip
    """Replay a data set. Raises `ConfigurationError` for one that can't be read."""
    stream = read(folder, options, None if profiles is None else foreign_profiles(profiles))
    vectors, words = vectors_of(stream, encoder, item_text, template, progress)
    return replay(stream, options, vectors, words, progress)


def vectors_of(
    stream: Stream,
    encoder: ItemEncoder,
    item_text: Callable[..., str],
    template: int,
    progress: Progress = lambda _what, _done, _all: None,
) -> tuple[NDArray[np.float32], Mapping[str, Vector]]:
    """(vectors of the items, by position; vectors of what users say of themselves and search for, by text)."""
    texts = [
        item_text(
            title=one.title,
            description=one.description,
            categories=one.categories,
            attributes=one.attributes,
            price=one.price,
            template=template,
        )
        for one in stream.items
    ]
    said = [profile.text for profile in stream.profiles.values()]
    said += [event.interaction.query for group in stream.groups for event in group.events if event.interaction.query]
    vectors = _encode(encoder, [*texts, *said], progress)
    return vectors[: len(texts)], dict(zip(said, vectors[len(texts) :], strict=True))


def replay(
    stream: Stream, options: Options, vectors: NDArray[np.float32], words: Mapping[str, Vector], progress: Progress
) -> Result:
    """Replay a stream whose items have these vectors; `words`: vectors of what users say."""
    learner = Learner(prior=prior_for(record.item_id for record in stream.items))
    ours = Ours(stream, vectors, options, learner, words)
    outcome = Replay(stream, options, ours, all_of(stream, vectors)).run(
        lambda done, every: progress("replaying", done, every)
    )
    events = np.zeros(len(stream.items))
    for group in stream.groups:
        for event in group.events:
            if event.item >= 0:
                events[event.item] += 1
    return Result(stream, options, outcome, beyond_accuracy(stream, outcome.tested, vectors, events, ours.policy))


def _encode(encoder: ItemEncoder, texts: Sequence[str], progress: Progress) -> NDArray[np.float32]:
    """Vectors of texts; equal ones once, in order of length so that a batch wastes nothing on padding."""
    distinct = sorted(set(texts), key=lambda text: (len(text), text))
    blocks = []
    for start in range(0, len(distinct), _ENCODED_AT_ONCE):
        progress("embedding", start, len(distinct))
        blocks.append(encoder.encode(distinct[start : start + _ENCODED_AT_ONCE]))
    place = {text: number for number, text in enumerate(distinct)}
    return np.concatenate(blocks)[[place[text] for text in texts]]

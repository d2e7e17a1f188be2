"""Make the shipped prior: `python -m evaluation.prior OUT DIR…` learns on each data set alone, and averages.

For each set the prior also holds the average of the others: `evaluate` takes that one where it recognises the set.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np

from encoder import item_text, open_bundle
from evaluation.evaluate import vectors_of
from evaluation.ours import Ours
from evaluation.protocol import Options, Past, Stream, read
from streams.decide.features import FEATURES
from streams.decide.prior import LearnerState, Prior, hash_of
from streams.decide.ranker import Learner
from streams.values import Vector

OWN_WORDS = {"profile_dense": 0.5, "profile_lexical": 0.3, "wish_dense": 1.5, "wish_lexical": 1.0}
"""Set by hand, since no data set holds searches or profiles: a wish outweighs any history, a profile any popularity."""
UNLEARNED = {"learned_vectors": 0.0}
"""Vectors that have learned nothing yet say no more than the text."""
START = {"popular_14d": 0.3, "mixture": 0.3, "dense_mean": 0.3, "lexical_mean": 0.3}


def start() -> LearnerState:
    """Where learning starts on each set."""
    names = tuple(FEATURES)
    warm = dict.fromkeys(names, 0.0) | START | OWN_WORDS
    cold = dict.fromkeys(names, 0.0) | {"popular_14d": 0.3} | OWN_WORDS
    return LearnerState(mean=dict.fromkeys(names, 0.0), spread=dict.fromkeys(names, 1.0), weights=[warm, cold])


def learn(stream: Stream, vectors: np.ndarray[tuple[int, int], np.dtype[np.float32]]) -> LearnerState:
    """What one pass over a data set teaches."""
    options = Options(cut=1.0)
    words: Mapping[str, Vector] = {}
    ours, past = Ours(stream, vectors, options, Learner(prior=start()), words), Past()
    for group in stream.groups:
        ours.arrive(group.at)
        ours.learn(group, past.steps(group, stream, options))
        past.note(group)
    ours.flush()
    return ours.learner.state()


def average(states: Sequence[LearnerState]) -> LearnerState:
    """Median weights (one odd set must not lead the others), on features scaled by the spread of all sets together."""
    mean = {name: float(np.mean([one.mean[name] for one in states])) for name in FEATURES}
    square = {
        name: np.mean([one.spread[name] ** 2 + (one.mean[name] - mean[name]) ** 2 for one in states])
        for name in FEATURES
    }
    weights = [
        {name: float(np.median([one.weights[kind][name] for one in states])) for name in FEATURES}
        | OWN_WORDS
        | UNLEARNED
        for kind in range(2)
    ]
    return LearnerState(mean=mean, spread={name: float(np.sqrt(one)) for name, one in square.items()}, weights=weights)


def build(learned: Mapping[str, tuple[str, LearnerState]]) -> Prior:
    """The prior of {hash of a set: (its name, what it taught)}."""
    return Prior(
        sets={digest: name for digest, (name, _) in learned.items()},
        everything=average([state for _, state in learned.values()]),
        without={
            digest: average([state for other, (_, state) in learned.items() if other != digest])
            for digest in learned
            if len(learned) > 1
        },
    )


def main(arguments: Sequence[str]) -> None:
    """Write OUT from the data sets in DIR…"""
    encoder = open_bundle()
    learned = {}
    for folder in map(Path, arguments[1:]):
        stream = read(folder, Options(cut=1.0))
        vectors, _ = vectors_of(stream, encoder, item_text, encoder.template)
        learned[hash_of(record.item_id for record in stream.items)] = (stream.name, learn(stream, vectors))
        print(f"learned on {stream.name}", file=sys.stderr)  # noqa: T201 (progress of a program run by hand)
    Path(arguments[0]).write_bytes(msgspec.json.encode(build(learned)))


if __name__ == "__main__":
    main(sys.argv[1:])

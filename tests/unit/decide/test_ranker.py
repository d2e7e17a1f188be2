"""The ranker learns what is chosen, is guarded, and survives its own bytes."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from streams.decide.features import NAMES, PLACE
from streams.decide.lessons import Lesson, decode_lesson, encode_lesson
from streams.decide.prior import hash_of, prior_for, shipped
from streams.decide.ranker import WORDS, Learner, Model, decode_learner, encode_learner


def lesson(feature: str, seed: int, *, strength: float = 2.0, cold: bool = False) -> Lesson:
    """What was chosen has more of a feature than the 20 others."""
    values = np.random.default_rng(seed).normal(0, 1, (21, len(NAMES))).astype(np.float16)
    values[:, [PLACE[name] for name in WORDS]] = np.nan
    values[0, PLACE[feature]] += strength
    items = tuple(f"wine-{number}" for number in range(len(values)))
    return Lesson(1, cold, 100, values.tobytes(), items=items)


def test_what_is_chosen_gains_weight_for_that_kind_of_user_alone() -> None:
    learner = Learner()
    before = learner.model()
    for seed in range(300):
        learner.learn(lesson("price", seed))
    after = learner.model()
    place = PLACE["price"]
    assert after.weights[0, place] > before.weights[0, place] + 0.2
    assert after.weights[0, place] > np.abs(np.delete(after.weights[0] - before.weights[0], place)).max()
    assert after.lessons == 300
    assert after.version != before.version


def test_the_guard_lets_the_best_expert_lead_until_the_learned_weights_are_better() -> None:
    learner = Learner()
    for seed in range(40):
        learner.learn(lesson("dense_last", seed, strength=4.0))
    shares = dict(zip(learner.experts, learner.shares()[0], strict=True))
    assert shares["dense_last"] + shares["learned"] > 0.9
    assert sum(shares.values()) == pytest.approx(1.0, abs=1e-5)


def test_the_prior_leads_before_any_lesson_and_a_feature_that_is_a_little_better_after_a_few() -> None:
    learner = Learner()
    before = dict(zip(learner.experts, learner.shares()[0].tolist(), strict=True))
    assert max(before, key=before.__getitem__) == "prior"
    for seed in range(20):
        learner.learn(lesson("popular_60d", seed, strength=1.5))
    after = dict(zip(learner.experts, learner.shares()[0].tolist(), strict=True))
    assert max(after, key=after.__getitem__) == "popular_60d"


def test_a_lesson_is_learned_once_and_a_frozen_learner_learns_nothing() -> None:
    learner = Learner()
    learner.learn(lesson("price", 1), offset=5)
    version = learner.model().version
    learner.learn(lesson("price", 2), offset=5)
    learner.learn(lesson("price", 2), offset=3)
    assert learner.model().version == version
    learner.frozen = True
    learner.learn(lesson("price", 2), offset=6)
    assert (learner.model().version, learner.offset) == (version, 6)


def test_a_learner_goes_on_from_its_bytes() -> None:
    one = Learner()
    for seed in range(30):
        one.learn(lesson("mixture", seed, cold=seed % 2 == 0), offset=seed)
    other = decode_learner(encode_learner(one))
    assert other.offset == one.offset == 29
    for learner in (one, other):
        learner.learn(lesson("mixture", 99), offset=30)
    assert np.allclose(one.model().weights, other.model().weights, atol=1e-5)
    with pytest.raises(msgspec.DecodeError):
        decode_learner(b"{}")


def test_a_lesson_survives_its_bytes_one_of_other_features_is_none_and_a_broken_one_is_refused() -> None:
    one = lesson("price", 1)
    assert decode_lesson(encode_lesson(one)) == one
    assert decode_lesson(encode_lesson(msgspec.structs.replace(one, features="other", values=b"12"))) is None
    wrong: list[dict[str, object]] = [
        {"values": one.values[:-2]}, {"targets": 0}, {"targets": 21}, {"pool": -1}, {"items": one.items[1:]},
        {"history": ("a",)},
        *({"history": ("a",), "shares": np.full(1, share, np.float32).tobytes()} for share in (np.nan, np.inf, -0.1, 1e30)),
    ]  # fmt: skip
    for changed in wrong:
        with pytest.raises(msgspec.DecodeError):
            decode_lesson(encode_lesson(msgspec.structs.replace(one, **changed)))
    with pytest.raises(msgspec.DecodeError):
        decode_lesson(b"nonsense")


def test_scores_are_finite_whatever_comes() -> None:
    values = np.array([np.nan, 1e30, -1e30] + [0.0] * (len(NAMES) - 3), np.float32)
    model = Model.prior()
    scaled = np.nan_to_num(np.clip((values - model.mean) / model.scale, -10, 10))
    grid = np.repeat(values[:, None, None], 2, axis=1)
    scores = model.scores(grid, np.array([1, 1]), np.array([False, True]))
    assert scores[:, 0] == pytest.approx(model.weights @ scaled, rel=1e-4)


def test_the_shipped_prior_knows_every_feature_and_leaves_out_a_set_it_was_learned_on() -> None:
    prior = shipped()
    for state in (prior.everything, *prior.without.values()):
        for named in (state.mean, state.spread, *state.weights):
            assert set(named) == set(NAMES)
    assert set(prior.without) <= set(prior.sets)
    assert prior_for(["an", "unknown", "catalogue"]) is prior.everything
    assert hash_of(["b", "a"]) == hash_of(["a", "b"]) != hash_of(["ab"])

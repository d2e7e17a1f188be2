from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from streams.decide.arms import Arms
from streams.decide.features import PLACE
from streams.decide.policy import Policy
from streams.decide.ranker import Model
from streams.errors import ConfigurationError
from streams.settings import load

TRIAL = '{"plain": {"share": 0.7}, "bold": {"share": 0.3, "explore": false, "weights": {"popular": 0.5}}}'


def trial(text: str = TRIAL) -> Arms:
    return Arms.of(load({"COLDSTREAM_ARMS": text}))


def test_without_a_trial_everybody_is_in_the_one_arm_without_a_name():
    arms = Arms.of(load({}))
    learned = Model.prior()
    assert arms.of_user("anybody").name == ""
    assert arms.of_user("anybody").policy == Policy.of(load({}))
    assert arms.model(arms.of_user("anybody"), learned) is learned


def test_users_are_split_by_shares_and_stay_where_they_are():
    arms, again = trial(), trial()
    users = [f"u{number}" for number in range(10_000)]
    counted = Counter(arms.of_user(user).name for user in users)
    assert abs(counted["bold"] / len(users) - 0.3) < 0.02
    assert all(arms.of_user(user).name == again.of_user(user).name for user in users)
    grown = trial(TRIAL.replace("0.7", "0.6").replace("0.3", "0.4"))
    moved = [user for user in users if arms.of_user(user).name != grown.of_user(user).name]
    assert {arms.of_user(user).name for user in moved} == {"plain"}, "only those move that the larger share needs"


def test_an_arm_changes_what_it_names_and_nothing_else():
    plain, bold = trial().all
    assert plain.policy.explore
    assert not bold.policy.explore
    assert bold.policy.diversity == plain.policy.diversity
    weighed = trial('{"a": {"share": 1, "event_weights": {"view": 0.9}}}').all[0].policy.event_weights
    assert weighed["view"] == 0.9
    assert weighed["purchase"] == plain.policy.event_weights["purchase"]


def test_an_arm_weighs_parts_of_what_was_learned():
    arms = trial()
    plain, bold = arms.all
    learned = Model.prior()
    served = arms.model(bold, learned)
    assert arms.model(plain, learned) is learned
    assert arms.model(bold, learned) is served, "made once for each model"
    np.testing.assert_allclose(served.weights[:, PLACE["popular_1d"]], learned.weights[:, PLACE["popular_1d"]] * 0.5)
    np.testing.assert_array_equal(served.weights[:, PLACE["mixture"]], learned.weights[:, PLACE["mixture"]])
    assert served.version == f"{learned.version}+bold"


def test_a_frozen_prior_takes_no_notice_of_what_was_learned():
    arms = trial('{"learning": {"share": 0.5}, "still": {"share": 0.5, "frozen_prior": true}}')
    prior = Model.prior()
    learned = Model(prior.weights + 1, prior.mean, prior.scale, "linear-9-x", 9)
    assert arms.model(arms.all[0], learned) is learned
    assert arms.model(arms.all[1], learned).version == prior.version


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"a": {"share": 0.5}}', "add up to 1"),
        ('{"a": {"share": 0}}', "arms"),
        ('{"a b": {"share": 1}}', "name"),
        ('{"a": {"share": 1, "weights": {"luck": 2}}}', "luck"),
        ('{"a": {"share": 1, "encoder": "b"}}', "encoder"),
        ("[1]", "arms"),
        ('{"a": {"share": 0.2}, "b": {"share": 0.2}, "c": {"share": 0.2}, "d": {"share": 0.2}, "e": {"share": 0.2}}',
         "at most 4"),
    ],
)  # fmt: skip
def test_what_is_no_trial_is_refused(text: str, sentence: str):
    with pytest.raises(ConfigurationError, match=sentence):
        trial(text)

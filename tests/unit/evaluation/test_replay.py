"""The measures, the baselines, and one whole replay through the functions that serve."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from encoder import HashingEncoder, item_text
from evaluation.baselines import ItemKnn, all_of
from evaluation.evaluate import Result, evaluate
from evaluation.measures import Tally, hit, ndcg, top
from evaluation.protocol import Options, Step, read
from evaluation.report import to_html
from tests.unit.evaluation.test_protocol import ITEMS, event, write

NAMES = ["coldstream", "random", "popular", "recent_popular", "newest", "tfidf", "text_centred", "item_knn"]


class Encoder(HashingEncoder):
    name = "hashing"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty users who each like one of four kinds of item, one kind's words in the titles."""
    kinds = ["red wine", "rye bread", "green tea", "goat cheese"]
    items = [
        {"item_id": f"{place}", "title": f"<{kinds[place % 4]}> number {place}", "categories": [kinds[place % 4]]}
        for place in range(80)
    ]
    chance = np.random.default_rng(5)
    events = []
    for step in range(900):
        user = int(chance.integers(0, 40))
        kind = user % 4
        item = int(chance.integers(0, 20 if step > 600 else 14)) * 4 + kind
        events.append(
            event(f"u{user}", f"{item}", 1_700_000_000 + 600 * step, "rating", value=int(chance.integers(3, 6)))
        )
    folder = write(tmp_path_factory.mktemp("data") / "shop", items, events)
    users = [{"user_id": f"u{user}", "attributes": {"age": 20 + user % 2 * 20}} for user in range(40)]
    (folder / "users.jsonl").write_text("".join(json.dumps(line) + "\n" for line in users))
    return folder


@pytest.fixture(scope="module")
def result(folder: Path) -> Result:
    return evaluate(folder, Options(cut=0.6), Encoder(32), item_text, 1)


def test_measures_by_hand() -> None:
    assert ndcg([3, 1, 2], [1]) == pytest.approx(1 / math.log2(3))
    assert ndcg([1, 9, 2], [1, 2]) == pytest.approx((1 + 0.5) / (1 + 1 / math.log2(3)))
    assert ndcg(list(range(10)), list(range(20))) == pytest.approx(1.0)
    assert ndcg([], [1]) == 0.0
    assert (hit([1, 2], [2]), hit([1, 2], [3])) == (1.0, 0.0)
    scores = np.array([0.0, 3.0, 1.0, 3.0])
    assert top(scores, np.array([True, True, False, True])) == [1, 3, 0]


def test_a_ratio_is_of_means_with_its_paired_error() -> None:
    tally = Tally()
    for first, second in (([1], [1]), ([1], [2]), ([2], [2])):
        tally.add("a", ["all"], first, [1])
        tally.add("b", ["all"], second, [1])
    ratio, error = tally.ratio("a", "b", "all")
    assert ratio == pytest.approx(2.0)
    assert error > 0
    assert math.isnan(tally.ratio("a", "c", "all")[0])


def test_every_method_is_tested_on_the_same_steps(result: Result) -> None:
    summary = result.summary()
    assert list(summary["methods"]) == NAMES
    for slices in summary["methods"].values():
        assert {name: values["n"] for name, values in slices.items()} == {
            name: values["n"] for name, values in summary["methods"]["coldstream"].items()
        }
    assert summary["steps"] == summary["methods"]["random"]["all"]["n"] > 80
    assert (summary["items"], summary["events"], summary["dataset"]) == (80, 900, "shop")


def test_the_summary_says_how_ours_stands_against_the_best_baseline_and_how_sure_that_is(result: Result) -> None:
    methods, against = result.summary()["methods"], result.summary()["best_baseline"]
    means = {name: slices["all"]["ndcg@10"] for name, slices in methods.items() if name != "coldstream"}
    best = max(means, key=means.__getitem__)
    assert against["all"]["method"] == best
    assert against["all"]["ratio"] == pytest.approx(methods["coldstream"]["all"]["ndcg@10"] / means[best], abs=2e-4)
    assert 0 < against["all"]["standard_error"] < 1


def test_ours_beats_chance_and_popularity_where_users_like_kinds(result: Result) -> None:
    methods = result.summary()["methods"]
    ours = methods["coldstream"]["all"]["ndcg@10"]
    assert ours > 1.5 * methods["popular"]["all"]["ndcg@10"]
    assert ours > 2 * methods["random"]["all"]["ndcg@10"]


def test_new_items_are_ranked_among_new_ones_only(result: Result) -> None:
    late = result.stream.late
    assert result.summary()["methods"]["coldstream"]["new_item"]["n"] > 10
    for one in result.outcome.tested:
        for pair in (one.new_item, one.unseen_item):
            if pair is not None:
                assert all(late[item] for item in [*pair[0], *pair[1]])


def test_lists_hold_ten_items_that_the_user_has_not_met(result: Result) -> None:
    met: dict[str, set[int]] = {}
    tested = {(one.step.user_id, one.step.at): one for one in result.outcome.tested}
    for group in result.stream.groups:
        for happening in group.events:
            one = tested.get((happening.user_id, group.at))
            if one is not None:
                assert len(set(one.items)) == 10
                assert not met.get(happening.user_id, set()) & {*one.items, *one.step.targets}
            met.setdefault(happening.user_id, set()).add(happening.item)


def test_ratings_and_what_lies_beyond_are_told(result: Result) -> None:
    summary = result.summary()
    assert summary["ratings"]["coldstream"]["n"] == summary["ratings"]["bias"]["n"] > 80
    assert 0 < summary["ratings"]["coldstream"]["rmse"] < 1.5
    beyond = summary["beyond"]
    for name in ("coverage", "gini", "diversity", "new_items", "candidate_recall"):
        assert 0 <= beyond[name] <= 1, name
    assert beyond["candidate_recall"] > 0.8
    assert set(beyond["fairness"]["users"]) == {"age=20-29", "age=40-49"}
    assert sum(group["wanted"] for group in beyond["fairness"]["items"].values()) == pytest.approx(1, abs=1e-4)
    json.dumps(summary)


def test_a_floor_for_small_providers_is_held_and_told_beside_what_it_costs(folder: Path, result: Result) -> None:
    provided = {"floor_provider": "categories", "floor_small_below": 0.25}
    plain = evaluate(folder, Options(cut=0.6, **provided), Encoder(32), item_text, 1).summary()
    assert plain["methods"]["coldstream"] == result.summary()["methods"]["coldstream"], "no floor, no change"
    share = plain["beyond"]["floors"]["small"]["share"]
    floor = round(share + 0.2, 3)
    held = evaluate(folder, Options(cut=0.6, floor_small=floor, **provided), Encoder(32), item_text, 1)
    told = held.summary()["beyond"]["floors"]
    assert told["small"]["floor"] == floor
    assert told["small"]["share"] + told["small"]["short"] >= floor - 0.02
    assert told["new"]["floor"] == 0.0
    assert told["small"]["wanted"] == plain["beyond"]["floors"]["small"]["wanted"] > 0.0
    assert "Exposure floors" in to_html(held)


def test_lists_are_written_as_others_can_score_them(result: Result) -> None:
    lines = [json.loads(line) for line in result.lists()]
    gains = [ndcg(line["list"], line["targets"]) for line in lines]
    assert np.mean(gains) == pytest.approx(result.summary()["methods"]["coldstream"]["all"]["ndcg@10"], abs=1e-5)
    assert set(lines[0]) == {"user_id", "timestamp", "targets", "list", "new_item", "unseen_item"}
    assert isinstance(lines[0]["timestamp"], int)


def test_the_report_is_one_page_and_escapes_what_it_is_told(result: Result) -> None:
    page = to_html(result)
    assert page.count("<svg") == len(result.summary()["methods"]["coldstream"])
    assert "<red wine>" not in page
    assert "item_knn" in page


def test_a_replay_is_the_same_each_time(folder: Path) -> None:
    options = Options(cut=0.9, max_steps=20)
    first, second = (evaluate(folder, options, Encoder(32), item_text, 1).summary() for _ in range(2))
    assert first | {"seconds": 0} == second | {"seconds": 0}


def test_a_profile_from_elsewhere_makes_the_slice_cross_domain(folder: Path, tmp_path: Path) -> None:
    profiles = tmp_path / "profiles.jsonl"
    profiles.write_text("".join(json.dumps({"user_id": f"u{n}", "profile": "green tea"}) + "\n" for n in range(40)))
    result = evaluate(folder, Options(cut=0.0, until=0.1), Encoder(32), item_text, 1, profiles=profiles)
    cross = result.summary()["methods"]["coldstream"]["cross_domain"]
    assert 0 < cross["n"] <= 40
    texts = [result.stream.items[one.items[0]].title for one in result.outcome.tested if not one.step.known]
    assert any("green tea" in text for text in texts)


def test_baselines_score_by_what_has_happened(tmp_path: Path) -> None:
    events = [event("u", "a", 1), event("u", "b", 2), event("v", "a", 20 * 86_400), event("w", "c", 20 * 86_400 + 1)]
    stream = read(write(tmp_path / "d", ITEMS, events), Options(cut=0.0))
    methods = all_of(stream, np.eye(5, 8, dtype=np.float32))
    for group in stream.groups:
        for method in methods.values():
            method.learn(group)
    step = Step("v", 20 * 86_400 + 2, 0, [1], known=True)
    best = {name: int(np.argmax(method.score(step))) for name, method in methods.items()}
    assert methods["popular"].score(step).tolist() == [2, 1, 1, 0, 0]
    assert methods["recent_popular"].score(step).tolist() == [1, 0, 1, 0, 0]
    assert best["newest"] == 2
    assert best["tfidf"] == best["text_centred"] == 0
    knn = methods["item_knn"]
    assert isinstance(knn, ItemKnn)
    assert best["item_knn"] == 1

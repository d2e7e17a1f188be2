"""A tiny distillation end to end: seconds of training, so that only direction is asked for, not height."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

torch = pytest.importorskip("torch")

from encoder import BundleError, open_bundle, read_bundle  # noqa: E402
from encoder.bundle import unpack  # noqa: E402
from encoder.sessions import half_session, open_session  # noqa: E402
from export import ExportError, TeacherError, TextsError, distill, distill_command, prove, renew  # noqa: E402
from export.bundle import write_bundle  # noqa: E402
from export.graph import export_graphs  # noqa: E402
from export.lean import pack  # noqa: E402
from export.student import Shape, make_student  # noqa: E402
from export.teacher import Targets, load_teacher, tokenizer_of  # noqa: E402
from export.texts import Source  # noqa: E402
from export.training import Schedule, Trainer, tokens_of  # noqa: E402

TEACHER = "all-MiniLM-L6-v2"
COLOURS = ("red", "blue", "green", "white", "black", "golden")
THINGS = ("lamp", "wine", "shoes", "novel", "train", "soup", "guitar", "tent", "clock", "scarf")
STYLES = ("for children", "from Italy", "made of wood", "under 20 euros", "with handles")
TEXTS = tuple(f"{colour} {thing} {style}" for colour in COLOURS for thing in THINGS for style in STYLES)


@pytest.fixture(scope="module")
def teacher():
    return load_teacher(TEACHER)


@pytest.fixture(scope="module")
def source() -> Source:
    return Source("tiny", "made for this test", TEXTS)


@pytest.fixture(scope="module")
def made(tmp_path_factory, source):
    folder = tmp_path_factory.mktemp("made")
    plan = Schedule(samples=64 * 16, batch=64, rate=3e-4, warm_up=3)
    said: list[str] = []
    result = distill(
        [source], folder / "bundle", teacher=TEACHER, adapt=False, schedule=plan, shape=Shape.parse("0,4,5x768"),
        report=lambda what, _share, _seconds: said.append(what),
    )  # fmt: skip
    assert set(said) == {"asking the teacher", "training"}
    return result


def test_training_brings_the_student_nearer_to_its_teacher(made):
    assert made.after.cosine > made.before.cosine + 0.02
    assert made.after.texts >= 20


def test_the_bundle_runs_and_says_where_it_comes_from(made):
    manifest = read_bundle(made.folder).manifest
    assert manifest.recipe["sources"] == [{"name": "tiny", "licence": "made for this test", "texts": len(TEXTS)}]
    assert manifest.teacher == TEACHER
    encoder = open_bundle(made.folder, provider="cpu")
    assert np.linalg.norm(encoder.encode(["red wine"])) == pytest.approx(1, abs=1e-4)


def test_training_that_spoils_the_student_is_left_out(made, source, tmp_path):
    plan = Schedule(samples=64 * 4, batch=64, rate=5.0, warm_up=1)
    spoilt = distill([source], tmp_path / "spoilt", teacher=TEACHER, start=made.folder, schedule=plan)
    assert spoilt.recipe["steps"] == 4
    assert spoilt.after.cosine > spoilt.before.cosine - 0.005


def test_a_bundle_can_be_adapted_and_begins_where_it_ended(made, source, tmp_path):
    plan = Schedule(samples=64, batch=64, rate=1e-6, warm_up=1)
    again = distill([source], tmp_path / "adapted", teacher=TEACHER, start=made.folder, schedule=plan)
    assert again.recipe["begun_with"] == read_bundle(made.folder).name
    assert again.before.cosine == pytest.approx(made.after.cosine, abs=0.02)


@pytest.mark.parametrize("number", [1, 2])
def test_a_bundle_of_an_older_format_opens_and_renewed_gives_its_vectors_on_either_device(
    number, teacher, tmp_path, monkeypatch
):
    with monkeypatch.context() as patch:
        patch.setattr("export.bundle._LARGE", 1 << 40)  # packs nothing
        if number == 1:
            patch.setattr("export.graph._is_plain_bert", lambda *_: False)
        student = make_student(teacher, Shape((0, 3), 512), TEXTS[:64])
        old = write_bundle(
            tmp_path / "old", student, tokenizer_of(teacher), name="old", teacher=TEACHER,
            rotation=np.eye(384, dtype=np.float32), recipe={"layers": [0, 3], "feed_forward": 512}, figures={},
        )  # fmt: skip
    line = json.loads((old / "manifest.json").read_text(encoding="utf-8")) | {"format": number}
    (old / "manifest.json").write_text(json.dumps(line), encoding="utf-8")
    new = renew(old, tmp_path / "new")
    before, after = read_bundle(old), read_bundle(new)
    assert before.manifest.masked == (number == 1)
    assert before.manifest.packed == ()
    assert len(after.manifest.packed) == 1
    assert [after.manifest.recipe[key] for key in ("layers", "feed_forward")] == [[0, 3], 512]
    assert len(after.files["weights.bin"]) < len(before.files["weights.bin"]) - 4_500_000
    if number == 2:  # nothing but the table changed
        for name in set(before.manifest.tensors) & set(after.manifest.tensors):
            np.testing.assert_array_equal(before.tensor(name), after.tensor(name))
    vectors, again = (open_bundle(folder, provider="cpu").encode(TEXTS[:64]) for folder in (old, new))
    assert (vectors * again).sum(axis=1).min() > 0.99
    tokens = [[101, 2417, 4511, 102], [101, 2317, 102]]
    half = half_session(read_bundle(new), ["CPUExecutionProvider"]).run(tokens)
    assert (half * open_session(read_bundle(new), "cpu", 1).run(tokens)).sum(axis=1).min() > 0.98
    with pytest.raises(ExportError, match="nothing to renew"):
        renew(new, tmp_path / "again")


def test_a_packed_table_is_near_and_small_numbers_of_frequent_rows_come_back_exactly(monkeypatch):
    monkeypatch.setattr("export.lean._FINE_ROWS", 300)
    rng = np.random.default_rng(4)
    table = np.clip(rng.normal(100, 20, (600, 64)), 0, 255).astype(np.uint8)
    table[:9] = rng.integers(100 - 16, 100 + 16, (9, 64))
    table[9], table[300], table[301, ::7] = 100, 0, 255
    parts = pack(table, 100)
    assert parts["low_bits"].shape == (300, 8)
    again = unpack(parts["codes"], parts["low_bits"], parts["steps"], 100)
    np.testing.assert_array_equal(again[:10], table[:10])
    error = np.square(again.astype(float) - table)
    assert np.sqrt(error[10:300].mean()) < 0.055 * 20 < np.sqrt(error[302:].mean()) < 0.1 * 20
    assert error[300].max() <= 16
    assert again[301, 0] > 240


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_the_graph_without_a_mask_computes_what_the_student_does(teacher, pooling):
    student = make_student(teacher, Shape((0, 3), 512), TEXTS[:64]).eval()
    student.pooling = pooling
    tokens = [[101, 2417, 4511, 3835, 102], [101, *range(2000, 2060), 102]]
    graphs = export_graphs(student, tokens)
    assert not graphs.masked
    session = onnxruntime.InferenceSession(graphs.cpu.SerializeToString(), providers=["CPUExecutionProvider"])
    for ids in tokens:
        row = torch.tensor([ids])
        with torch.no_grad():
            exact = student(row, torch.ones_like(row)).numpy()
        assert (session.run(None, {"input_ids": row.numpy()})[0] * exact).sum() > 0.985


def test_prove_measures_and_records(made):
    figures = prove(made.folder, {"tiny": TEXTS[:50]}, record=True)
    assert figures["held_out"]["cosine"] == pytest.approx(made.after.cosine, abs=0.1)
    assert read_bundle(made.folder).manifest.figures == figures


def test_a_tampered_bundle_of_ones_own_is_refused(made, tmp_path):
    (tmp_path / "b").mkdir()
    for file in made.folder.iterdir():
        (tmp_path / "b" / file.name).write_bytes(file.read_bytes())
    (tmp_path / "b" / "cpu.onnx").write_bytes(b"\x80\x04.")  # what a pickle begins with
    with pytest.raises(BundleError, match=r"cpu\.onnx"):
        open_bundle(tmp_path / "b", provider="cpu")


def test_the_same_seed_gives_the_same_student(teacher, tmp_path):
    assert train(teacher, tmp_path / "a", 7) == train(teacher, tmp_path / "b", 7) != train(teacher, tmp_path / "c", 8)


def test_a_run_goes_on_where_it_was_stopped(teacher, tmp_path):
    trainer = trainer_of(teacher, tmp_path, 7)
    trainer.run(lambda step, _loss: step < 3)
    trainer.save(tmp_path)
    again = trainer_of(teacher, tmp_path, 7)
    assert again.resume(tmp_path)
    assert again.step == trainer.step == 3
    for mine, saved in zip(again.weights, trainer.weights, strict=True):
        np.testing.assert_array_equal(mine.detach().numpy(), saved.detach().numpy())
    again.run(lambda _step, _loss: True)
    assert again.step == again.schedule.steps


def test_targets_of_other_texts_are_refused(tmp_path):
    Targets(tmp_path, 10, 4)
    with pytest.raises(TeacherError, match="remove the folder"):
        Targets(tmp_path, 11, 4)


def test_an_unknown_teacher_is_refused_with_a_remedy():
    with pytest.raises(TeacherError, match="safetensors"):
        load_teacher("no/such-teacher")


def test_too_few_texts_are_refused(tmp_path):
    file = tmp_path / "items.jsonl"
    file.write_text(json.dumps({"item_id": "1", "title": "Heat"}) + "\n", encoding="utf-8")
    with pytest.raises(TextsError, match="too few"):
        distill_command([file], TEACHER, tmp_path / "out")


@pytest.mark.parametrize("line", ["{", "[]", '{"item_id": "1"}', '{"title": "x", "categories": 5}'])
def test_a_file_that_holds_no_items_is_refused_by_line(tmp_path, line):
    file = tmp_path / "items.jsonl"
    file.write_text(line + "\n", encoding="utf-8")
    with pytest.raises(TextsError, match="line 1"):
        distill_command([file], TEACHER, tmp_path / "out")


def test_a_folder_that_holds_something_else_is_not_overwritten(source, tmp_path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "letter.txt").write_text("dear", encoding="utf-8")
    with pytest.raises(Exception, match="no bundle"):
        distill(
            [source], tmp_path / "precious", teacher=TEACHER, adapt=False, schedule=Schedule(64, batch=64, warm_up=1)
        )
    assert (tmp_path / "precious" / "letter.txt").exists()


def trainer_of(teacher, folder: Path, seed: int) -> Trainer:
    texts = TEXTS[:128]
    folder.mkdir(exist_ok=True)
    targets = Targets(folder.parent / "shared-targets", len(texts), teacher.dimension)
    while targets.ready < len(texts):
        targets.extend(teacher, texts)
    tokens = tokens_of([found.ids for found in tokenizer_of(teacher).encode_batch(list(texts))])
    student = make_student(teacher, Shape((0, 5), 512), texts[:16])
    return Trainer(student, tokens, targets, Schedule(samples=32 * 6, batch=32, warm_up=2, seed=seed))


def train(teacher, folder: Path, seed: int) -> bytes:
    trainer = trainer_of(teacher, folder, seed)
    trainer.run(lambda _step, _loss: True)
    return b"".join(weight.numpy().tobytes() for weight in trainer.mean)

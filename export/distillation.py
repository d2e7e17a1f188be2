"""Make a student: gather texts, ask the teacher, train, export, prove. The body of `coldstream distill`."""

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from encoder import LATEST_TEMPLATE, open_bundle, read_bundle
from export import ExportError, TextsError
from export.bundle import rewrite_figures, write_bundle
from export.compose import variants
from export.graph import restore
from export.proof import Agreement, agreement
from export.student import Shape, Student, make_student
from export.teacher import DEFAULT_TEACHER, Targets, Teacher, load_teacher, tokenizer_of
from export.texts import Source, catalogue
from export.training import Schedule, Tokens, Trainer, encoded, tokens_of

Report = Callable[[str, float, float], None]
"""What is being done, the share done (0 to 1), and the seconds that it will take yet."""

_CALIBRATION = 512
_LAYERS = "the teacher's layers"
_HELD_OUT_SHARE = 10
_MOST_HELD_OUT = 1000
_LOOKS = 8
_PATIENCE = 3
_VARIANTS = 0.5
_SAVE_EVERY = 500
_TEACHER_SHARE = 0.4


@dataclass(frozen=True, slots=True)
class Distilled:
    """What came of it: the bundle, its agreement with the teacher on held-out texts before and after, the recipe."""

    folder: Path
    before: Agreement
    after: Agreement
    recipe: Mapping[str, Any] = field(default_factory=dict)


def distill(
    sources: Sequence[Source],
    out: Path,
    *,
    teacher: str = DEFAULT_TEACHER,
    start: Path | None = None,
    adapt: bool = True,
    minutes: float | None = None,
    schedule: Schedule | None = None,
    shape: Shape | None = None,
    work: Path | None = None,
    report: Report = lambda _what, _share, _seconds: None,
) -> Distilled:
    """Distils `teacher` into a bundle in `out`, on the texts of `sources` (a tenth of each is held out, by hash).

    `adapt` begins with the bundle `start` (None: the shipped one) if it has this teacher; else with the teacher's layers.
    `minutes` bounds the time of teacher and training together; `schedule` else says how much is trained. `work` keeps
    teacher vectors and checkpoints: the same call goes on after a break (None: beside `out`). The same texts, seed,
    schedule and machine give the same student. Raises ExportError.
    """
    began = time.monotonic()
    master = load_teacher(teacher, "cuda" if torch.cuda.is_available() else "cpu")
    learned, held_out = _split(sources)
    learned += list(variants(learned, int(len(learned) * _VARIANTS), 7))
    chance = np.random.default_rng(7)
    learned = [learned[index] for index in chance.permutation(len(learned))]
    folder = work or out.with_name(f".{out.name}.work")
    targets = Targets(folder, len(learned), master.dimension)
    limit = None if minutes is None else minutes * 60
    student, begun_with, form = _begin(master, learned[:_CALIBRATION], start, shape, adapt=adapt)
    wanted = master.encode(held_out)
    _ask(master, targets, learned, began, None if limit is None else limit * _TEACHER_SHARE, report)
    tokenizer = tokenizer_of(master)
    tokens = tokens_of([found.ids for found in tokenizer.encode_batch(learned)])
    held_tokens = tokens_of([found.ids for found in tokenizer.encode_batch(held_out)])
    plan = schedule or Schedule(samples=max(64, 12 * targets.ready), batch=64, rate=3e-4, warm_up=100)
    trainer = Trainer(student, tokens, targets, plan, "cuda" if torch.cuda.is_available() else "cpu")
    at_first = agreement(encoded(trainer.settled(), held_tokens, trainer.device), wanted)
    before = agreement(_encoded(start, held_out), wanted) if begun_with != _LAYERS else at_first
    as_begun = at_first.cosine, trainer.settled()
    trainer.resume(folder)
    left = None if limit is None else max(1.0, limit - (time.monotonic() - began))
    trained = _train(trainer, held_tokens, wanted, left, folder, report)
    _, student = max(as_begun, trained, key=lambda one: one[0])  # never worse than it began
    recipe = {
        "teacher": master.name,
        "begun_with": begun_with,
        "layers": list(form.layers),
        "feed_forward": form.feed_forward,
        "sources": [{"name": each.name, "licence": each.licence, "texts": len(each.texts)} for each in sources],
        "texts": len(learned),
        "steps": trainer.step,
        "batch": plan.batch,
        "rate": plan.rate,
        "relational": plan.relational,
        "seed": plan.seed,
        "torch": torch.__version__,
    }
    rotation = components(targets[np.arange(min(targets.ready, 20_000), dtype=np.int64)])
    write_bundle(
        out,
        student,
        tokenizer,
        name=f"{master.name}-student",
        teacher=teacher,
        rotation=rotation,
        recipe=recipe,
        figures={},
    )
    after = agreement(_encoded(out, held_out), wanted)
    rewrite_figures(out, {"held_out_of_its_sources": after.figures(), "before_training": before.figures()})
    return Distilled(out, before, after, recipe)


def distill_command(
    items: Sequence[Path],
    teacher: str,
    out: Path,
    *,
    minutes: float | None = None,
    from_teacher: bool = False,
    shape: str | None = None,
    seed: int = 7,
    report: Report = lambda _what, _share, _seconds: None,
) -> Distilled:
    """`coldstream distill --items FILE… [--teacher NAME|DIR] [--out DIR] [--minutes M]`: a student for own catalogues.

    Begins with the shipped student unless `from_teacher`, a `shape` (`Shape.parse`) or another teacher is named. Raises
    ExportError and what `encoder.read_bundle` raises.
    """
    if not items:
        message = "there is nothing to learn from; name at least one items.jsonl with --items"
        raise TextsError(message)
    sources = [catalogue(path.name, "the user's own", path, LATEST_TEMPLATE) for path in items]
    number = sum(len(source.texts) for source in sources)
    schedule = Schedule(samples=max(64, 12 * number), batch=64, rate=3e-4, warm_up=100, seed=seed)
    form = None if shape is None else Shape.parse(shape)
    adapt = not from_teacher and form is None
    return distill(
        sources, out, teacher=teacher, adapt=adapt, minutes=minutes, schedule=schedule, shape=form, report=report
    )


def components(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Principal components of `vectors` [n, d] in the columns of an orthogonal [d, d] matrix, strongest first."""
    centred = vectors - vectors.mean(axis=0)
    _, axes = np.linalg.eigh(centred.T @ centred)
    return np.ascontiguousarray(axes[:, ::-1], dtype=np.float32)


def _split(sources: Sequence[Source]) -> tuple[list[str], list[str]]:
    """Texts to learn from and held-out ones; a text's own hash decides, so that copies in two sources never part."""
    learned: dict[str, None] = {}
    held_out: dict[str, None] = {}
    for source in sources:
        for text in source.texts:
            digest = hashlib.blake2b(text.lower().encode("utf-8", "replace"), digest_size=4).digest()
            (learned if int.from_bytes(digest, "big") % _HELD_OUT_SHARE else held_out)[text] = None
    if len(held_out) < 2 or not learned:
        message = (
            f"{len(learned) + len(held_out)} texts are too few to learn from and to prove with; give some hundreds"
        )
        raise TextsError(message)
    return list(learned), list(held_out)[:_MOST_HELD_OUT]


def _ask(
    master: Teacher, targets: Targets, texts: Sequence[str], began: float, limit: float | None, report: Report
) -> None:
    first = targets.ready
    while targets.ready < len(texts):
        passed = time.monotonic() - began
        if limit is not None and passed > limit and targets.ready:
            return
        targets.extend(master, texts)
        rate = max(1e-9, (targets.ready - first) / (time.monotonic() - began))
        report("asking the teacher", targets.ready / len(texts), (len(texts) - targets.ready) / rate)


def _begin(
    master: Teacher, calibration: Sequence[str], start: Path | None, shape: Shape | None, *, adapt: bool
) -> tuple[Student, str, Shape]:
    if adapt and shape is None:
        bundle = read_bundle(start)
        recipe = bundle.manifest.recipe
        if Path(bundle.manifest.teacher).name == master.name and "parameters" in recipe:
            form = Shape(tuple(recipe["layers"]), recipe["feed_forward"])
            student = make_student(master, form, calibration)
            restore(student, bundle)
            return student, bundle.name, form
    form = shape or Shape.usual(master)
    return make_student(master, form, calibration), _LAYERS, form


def _train(
    trainer: Trainer, held: Tokens, wanted: NDArray[np.float32], seconds: float | None, folder: Path, report: Report
) -> tuple[float, Student]:
    """Trains to the end of the schedule or of the time; stops early when held-out texts agree less. (cosine, the best.)"""
    began, first = time.monotonic(), trainer.step
    found: list[tuple[float, Student]] = []
    worse = 0

    def look() -> bool:
        """Whether the student is better than it was at every look before."""
        student = trainer.settled()
        cosine = agreement(encoded(student, held, trainer.device), wanted).cosine
        if found and cosine <= found[0][0]:
            return False
        found[:] = [(cosine, student)]
        return True

    def seen(step: int, _loss: float) -> bool:
        nonlocal worse
        passed = time.monotonic() - began
        rate = (step - first) / max(passed, 1e-9)
        whole = (
            trainer.schedule.steps if seconds is None else min(trainer.schedule.steps, first + int(rate * seconds) + 1)
        )
        report("training", min(1.0, step / whole), max(0.0, (whole - step) / max(rate, 1e-9)))
        if step % _SAVE_EVERY == 0:
            trainer.save(folder)
        if step % max(1, trainer.schedule.steps // _LOOKS) == 0:
            worse = 0 if look() else worse + 1
        return worse < _PATIENCE and (seconds is None or passed < seconds)

    trainer.run(seen)
    trainer.save(folder)
    look()
    return found[0]


def _encoded(folder: Path | None, texts: Sequence[str]) -> NDArray[np.float32]:
    return open_bundle(folder, provider="cpu").encode(texts)


__all__ = ["Distilled", "ExportError", "components", "distill", "distill_command"]

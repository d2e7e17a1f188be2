"""How the shipped student was made: students of several shapes side by side on a CUDA device, the teacher beside them.

    python -m export.shipped train --texts FOLDER --wordnet FOLDER --out FOLDER --shape 0,1,2,3,4,5x1024 --minutes 5
    python -m export.shipped write --weights FOLDER/0,1,2,3,4,5x1024.safetensors --shape 0,1,2,3,4,5x1024 --out BUNDLE

`coldstream distill` asks the teacher once and learns from its answers, which is right where the teacher is dear. On a GPU it
is cheap: it answers for every batch, so that no text comes twice the same (words are dropped anew each time), and for every
token. All shapes see the same batches. The learning rate follows the clock: half a cosine, 0 when the time is over.
"""

import argparse
import json
import math
import random
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from export.bundle import write_bundle
from export.compose import Vocabulary
from export.distillation import components
from export.pool import DeviceTokens, batches, gather, read_sources
from export.proof import agreement
from export.student import Shape, make_student
from export.teacher import DEFAULT_TEACHER, LONGEST_INPUT, Teacher, load_teacher, tokenizer_of
from export.texts import Source, read_word_counts, read_wordnet, wordnet
from export.training import Pupil, Tokens, distance, encoded, tokens_of

HELD_OUT = ("travel-questions", "x-wines-slim", "movielens-100k")
"""Data sets that the shipped student never learned from."""
_RATE, _WARM_UP = 1e-3, 300
_RELATIONAL = 10.0
_TOKEN_WEIGHT, _TOKENS_UNTIL = 0.5, 0.7
"""Weight of the tokens' loss at the beginning, and the share of the time after which it is gone."""
_HELD_OUT_TEXTS, _CALIBRATION, _ROTATED = 1000, 512, 20_000
_LOOK_EVERY, _SYNC_EVERY = 150.0, 20
_SEED, _PROCESSES = 7, 8


def main() -> int:
    """Train, or write a bundle of what was trained; 0 when done."""
    parser = argparse.ArgumentParser(prog="python -m export.shipped", description=(__doc__ or "").split("\n", 1)[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    train = verbs.add_parser("train", help="students side by side; DIR/SHAPE.safetensors for each")
    train.add_argument("--texts", type=Path, required=True, help="a folder of texts with sources.json (export.pool)")
    train.add_argument("--wordnet", type=Path, required=True, help="WordNet's data files and cntlist.rev")
    train.add_argument("--held-out", type=Path, help="a folder of texts that are looked at only")
    train.add_argument("--shape", action="append", required=True, help="LAYER,…xNEURONS; again for more students")
    train.add_argument("--minutes", type=float, required=True, help="of training alone")
    train.add_argument("--composed", type=int, default=1_200_000, help="texts composed from WordNet")
    train.add_argument("--device", default="cuda")
    write = verbs.add_parser("write", help="a bundle of one student")
    write.add_argument("--weights", type=Path, required=True)
    write.add_argument("--shape", required=True)
    for each in (train, write):
        each.add_argument("--teacher", default=DEFAULT_TEACHER)
        each.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    (_train if asked.verb == "train" else _write)(asked)
    return 0


class Lane(Pupil):
    """One of the students that learn side by side."""

    def __init__(self, shape: Shape, teacher: Teacher, calibration: Sequence[str], device: str) -> None:
        """Copied from the `teacher` and thinned on the texts of `calibration`; nothing is trained yet."""
        super().__init__(make_student(teacher, shape, calibration), _RATE, device)
        self.shape = shape
        self.losses: list[Tensor] = []

    def learn(self, ids: Tensor, mask: Tensor, states: Tensor, wanted: Tensor, rate: float, by_token: float) -> None:
        """One step towards the teacher's token `states` and its vectors `wanted`."""
        with torch.autocast(ids.device.type, torch.bfloat16, enabled=ids.is_cuda):
            own = self.student.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        own = own.float()
        loss = distance(self.student.pool(own, mask), wanted, _RELATIONAL)
        if by_token > 0:
            apart = 1 - nn.functional.cosine_similarity(own, states, dim=2)
            loss = loss + by_token * (apart * mask).sum() / mask.sum()
        self.follow(loss, rate)
        self.losses.append(loss.detach())

    def save(self, folder: Path, recipe: Mapping[str, Any], rotation: NDArray[np.float32]) -> None:
        """Writes the settled weights in fp16, the teacher's principal components, and the recipe."""
        tensors = dict(zip(self.names, self.mean, strict=True)) | {"rotation": torch.from_numpy(rotation)}
        cut = {name: each[:LONGEST_INPUT] if "position" in name else each for name, each in tensors.items()}
        halves = {name: each.half().cpu().contiguous() for name, each in cut.items()}
        save_file(halves, folder / f"{self.shape}.safetensors", {"recipe": json.dumps(recipe)})


@dataclass(slots=True)
class _Run:
    """What all students share, and what came of it so far."""

    out: Path
    device: str
    lanes: Sequence[Lane]
    recipe: Mapping[str, Any]
    rotation: NDArray[np.float32]
    held_out: Mapping[str, tuple[Tokens, NDArray[np.float32]]]
    say: Callable[[str], None]
    steps: int = 0
    samples: int = 0
    looked: float = field(default_factory=time.monotonic)

    def look(self) -> None:
        """Says how each student agrees with the teacher on held-out texts, and saves it."""
        for lane in self.lanes:
            loss = torch.stack(lane.losses).mean().item() if lane.losses else math.nan
            lane.losses.clear()
            found = {
                name: agreement(encoded(lane.settled(), tokens, self.device), wanted)
                for name, (tokens, wanted) in self.held_out.items()
            }
            figures = "  ".join(
                f"{name} {one.cosine:.4f} {one.spearman:.4f} {one.recall:.4f}" for name, one in found.items()
            )
            self.say(f"{lane.shape}: {self.steps} steps, {self.samples} samples, loss {loss:.4f}; {figures}")
            lane.save(self.out, {**self.recipe, "steps": self.steps, "samples": self.samples}, self.rotation)
        self.looked = time.monotonic()


def _train(asked: argparse.Namespace) -> None:
    began = time.monotonic()

    def say(line: str) -> None:
        sys.stdout.write(f"{time.monotonic() - began:6.1f} s  {line}\n")
        sys.stdout.flush()

    torch.manual_seed(_SEED)
    torch.backends.cuda.matmul.allow_tf32 = True
    asked.out.mkdir(parents=True, exist_ok=True)
    teacher = load_teacher(asked.teacher, "cpu")  # the pool's processes are forked: the device comes after them
    tokenizer = tokenizer_of(teacher)
    sources = [*read_sources(asked.texts), wordnet(asked.wordnet)]
    texts = list(dict.fromkeys(text for source in sources for text in source.texts))
    random.Random(_SEED).shuffle(texts)
    held, texts = texts[:_HELD_OUT_TEXTS], texts[_HELD_OUT_TEXTS:]
    vocabulary = Vocabulary.of(read_wordnet(asked.wordnet), read_word_counts(asked.wordnet))
    tokens = gather(texts, asked.composed, vocabulary, tokenizer, _PROCESSES, _SEED)
    say(f"{len(texts)} texts, {len(tokens.lengths)} in the pool, {tokens.lengths.mean():.1f} tokens each")
    teacher.model.to(asked.device)
    looks = [Source("own", "", tuple(held)), *(read_sources(asked.held_out) if asked.held_out else ())]
    held_out = {
        each.name: (tokens_of([one.ids for one in tokenizer.encode_batch(each.texts)]), teacher.encode(each.texts))
        for each in looks
    }
    lanes = [Lane(Shape.parse(each), teacher, texts[:_CALIBRATION], asked.device) for each in asked.shape]
    composed = Source("composed from WordNet 3.0", "WordNet 3.0 licence", ())
    counts = [*((each, len(each.texts)) for each in sources), (composed, asked.composed)]
    recipe = {
        "teacher": teacher.name, "begun_with": "the teacher's layers",
        "sources": [{"name": each.name, "licence": each.licence, "texts": number} for each, number in counts],
        "texts": len(tokens.lengths), "rate": _RATE, "relational": _RELATIONAL, "token_states": _TOKEN_WEIGHT,
        "seed": _SEED, "minutes": asked.minutes, "token_table": "the teacher's, packed, frozen",
        "torch": torch.__version__, "device": torch.cuda.get_device_name() if asked.device == "cuda" else asked.device,
    }  # fmt: skip
    rotation = components(teacher.encode(texts[:_ROTATED]))
    run = _Run(asked.out, asked.device, lanes, recipe, rotation, held_out, say)
    separator = tokenizer.token_to_id("[SEP]")
    _steps(run, teacher, tokens, -1 if separator is None else separator, asked.minutes * 60)


def _steps(run: _Run, teacher: Teacher, tokens: Tokens, separator: int, seconds: float) -> None:
    master = teacher.transformer
    if run.device == "cuda":
        master = master.half()
    pool = DeviceTokens(tokens, run.device, separator)
    run.look()
    start = time.monotonic()
    for rows in batches(tokens.lengths, _SEED):
        share = (time.monotonic() - start) / seconds
        if share >= 1:
            break
        rate = _RATE * min((run.steps + 1) / _WARM_UP, (1 + math.cos(math.pi * share)) / 2)
        ids, mask = pool.batch(rows)
        with torch.no_grad():
            states = master(input_ids=ids, attention_mask=mask).last_hidden_state.float()
            wanted = run.lanes[0].student.pool(states, mask)
        for lane in run.lanes:
            lane.learn(ids, mask, states, wanted, rate, _TOKEN_WEIGHT * max(0.0, 1 - share / _TOKENS_UNTIL))
        run.steps, run.samples = run.steps + 1, run.samples + len(rows)
        if run.steps % _SYNC_EVERY == 0:
            run.lanes[-1].losses[-1].item()  # the device must not fall behind the clock
        if time.monotonic() - run.looked > _LOOK_EVERY:
            run.look()
    run.look()


def _write(asked: argparse.Namespace) -> None:
    master, shape = load_teacher(asked.teacher, "cpu"), Shape.parse(asked.shape)
    student = make_student(master, shape, ["a text to count neurons by"])
    parameters = dict(student.named_parameters())
    with safe_open(asked.weights, "pt") as file, torch.no_grad():
        recipe = json.loads(file.metadata()["recipe"])
        rotation = file.get_tensor("rotation").float().numpy()
        for name in set(file.keys()) - {"rotation"}:
            value = file.get_tensor(name).float()
            parameters[name][: len(value)].copy_(value)
    form = {"layers": list(shape.layers), "feed_forward": shape.feed_forward, "held_out": list(HELD_OUT)}
    write_bundle(
        asked.out, student, tokenizer_of(master), name=f"{master.name}-student", teacher=asked.teacher,
        rotation=rotation, recipe=form | recipe, figures={},
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())

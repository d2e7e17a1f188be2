"""The training of a student: batches, loss, checkpoints. Seeded and resumable; on CUDA when it is there.

The loss is the cosine distance to the teacher's vector plus the squared difference of all similarities within the batch
(relational distillation, Park et al. 2019, section 3.1): ranking uses similarities, not vectors.
"""

import copy
import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from encoder.bundle import BLOCK, unpack
from export import ExportError
from export.lean import pack, quantised_table
from export.student import Student, token_table
from export.teacher import Targets

_WINDOW = 50
_ROUND = 51_200
_DECAY = 0.01
_CLIP = 1.0
_LAST_RATE = 0.03
_MEMORY = 0.999
_MEASURED_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and how fast: `samples` texts in all, `batch` at once, peak learning `rate`, `warm_up` steps, a
    `seed`.
    """

    samples: int
    batch: int = 128
    rate: float = 6e-4
    warm_up: int = 400
    relational: float = 10.0
    seed: int = 7

    @property
    def steps(self) -> int:
        """Optimiser steps in all."""
        return max(1, self.samples // self.batch)


@dataclass(frozen=True, slots=True)
class Tokens:
    """Token ids of many texts in one array, and where each text begins (one more offset than texts)."""

    ids: NDArray[np.int32]
    offsets: NDArray[np.int64]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each text."""
        return np.diff(self.offsets)

    def batch(self, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Ids and mask of `rows`, int64 [n, longest], padded with 0."""
        lengths = self.lengths[rows]
        ids = np.zeros((len(rows), int(lengths.max())), np.int64)
        for index, row in enumerate(rows):
            ids[index, : lengths[index]] = self.ids[self.offsets[row] : self.offsets[row + 1]]
        mask = (np.arange(ids.shape[1])[None, :] < lengths[:, None]).astype(np.int64)
        return torch.from_numpy(ids), torch.from_numpy(mask)


def tokens_of(encoded: Sequence[Sequence[int]]) -> Tokens:
    """`encoded` id lists as one array."""
    offsets = np.concatenate([[0], np.cumsum([len(ids) for ids in encoded])]).astype(np.int64)
    return Tokens(np.fromiter((number for ids in encoded for number in ids), np.int32, int(offsets[-1])), offsets)


class Pupil:
    """A student that learns: the weights that are trained, a running mean of them (what is exported), the optimiser.

    The token table is frozen, rounded as a bundle will round it.
    """

    def __init__(self, student: Student, rate: float, device: str) -> None:
        """`rate`: the optimiser's before the first `follow`. Nothing is trained yet."""
        self.student = student.to(device).eval()  # no dropout: the teacher's vector is a function of the text
        table = token_table(self.student).requires_grad_(requires_grad=False)
        self._table = table.detach().clone()
        with torch.no_grad():
            table.copy_(torch.from_numpy(shipped_table(self._table.cpu().numpy())))
        trained = {name: weight for name, weight in student.named_parameters() if weight.requires_grad}
        self.names, self.weights = list(trained), list(trained.values())
        self.mean = [weight.detach().clone() for weight in self.weights]
        self.optimiser = torch.optim.AdamW(
            self.weights, lr=rate, betas=(0.9, 0.98), weight_decay=_DECAY, fused=torch.device(device).type == "cuda"
        )
        self.step = 0

    def follow(self, loss: Tensor, rate: float) -> None:
        """One step down the gradient of `loss`."""
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.weights, _CLIP)
        self.optimiser.step()
        self.step += 1
        keep = min(_MEMORY, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(self.mean, [weight.detach() for weight in self.weights], 1 - keep)

    def settled(self) -> Student:
        """A copy of the student with the running mean of its weights and the teacher's token table: what is exported."""
        twin = copy.deepcopy(self.student)
        with torch.no_grad():
            weights = dict(twin.named_parameters())
            for name, mean in zip(self.names, self.mean, strict=True):
                weights[name].copy_(mean)
            token_table(twin).copy_(self._table)
        return twin.eval()


class Trainer(Pupil):
    """One run: a student that learns from a teacher's kept vectors, and which texts it has seen."""

    def __init__(
        self, student: Student, tokens: Tokens, targets: Targets, schedule: Schedule, device: str = "cpu"
    ) -> None:
        """Nothing is trained yet."""
        torch.manual_seed(schedule.seed)
        super().__init__(student, schedule.rate, device)
        self.schedule, self.tokens, self.targets, self.device = schedule, tokens, targets, device
        self.round = 0
        self._uses = np.zeros(len(tokens.lengths), np.int32)

    def run(self, seen: Callable[[int, float], bool]) -> None:
        """Trains until the schedule is done or `seen(step, loss)`, called after every step, says False."""
        while self.step < self.schedule.steps:
            for rows in self._batches():
                loss = self._learn(rows)
                if not seen(self.step, loss):
                    return
                if self.step >= self.schedule.steps:
                    return
            self.round += 1

    def save(self, folder: Path) -> None:
        """Writes a checkpoint (safetensors and JSON, no pickle) in one move."""
        tensors: dict[str, Tensor] = {}
        for name, weight, mean in zip(self.names, self.weights, self.mean, strict=True):
            state = self.optimiser.state[weight]
            tensors |= {f"weight/{name}": weight.detach(), f"mean/{name}": mean}
            tensors |= {f"{key}/{name}": state[key] for key in ("exp_avg", "exp_avg_sq") if key in state}
        tensors["uses"] = torch.from_numpy(self._uses)
        partial = folder / "checkpoint.part"
        state_line = json.dumps({"step": self.step, "round": self.round, "schedule": asdict(self.schedule)})
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, partial, {"state": state_line})
        os.replace(partial, folder / "checkpoint.safetensors")

    def resume(self, folder: Path) -> bool:
        """Takes up the checkpoint in `folder`; False if there is none. ExportError if it belongs to another student."""
        path = folder / "checkpoint.safetensors"
        if not path.exists():
            return False
        with safe_open(path, "pt", device=self.device) as file:
            state = json.loads(file.metadata()["state"])
            keys = set(file.keys())
            if {key[7:] for key in keys if key.startswith("weight/")} != set(self.names):
                message = f"{path} belongs to a student of another shape; remove it or choose the same shape"
                raise ExportError(message)
            with torch.no_grad():
                for index, (name, weight) in enumerate(zip(self.names, self.weights, strict=True)):
                    weight.copy_(file.get_tensor(f"weight/{name}"))
                    self.mean[index].copy_(file.get_tensor(f"mean/{name}"))
                    if f"exp_avg/{name}" in keys:
                        moments = {key: file.get_tensor(f"{key}/{name}") for key in ("exp_avg", "exp_avg_sq")}
                        self.optimiser.state[weight] = {"step": torch.tensor(float(state["step"])), **moments}
            uses = file.get_tensor("uses").cpu().numpy()
        self._uses[: len(uses)] = uses[: len(self._uses)]
        self.step, self.round = int(state["step"]), int(state["round"]) + 1
        return True

    def _learn(self, rows: NDArray[np.int64]) -> float:
        self._uses[rows] += 1
        ids, mask = self.tokens.batch(rows)
        wanted = torch.from_numpy(self.targets[rows]).to(self.device)
        loss = distance(self.student(ids.to(self.device), mask.to(self.device)), wanted, self.schedule.relational)
        self.follow(loss, self.schedule.rate * rate_at(self.step, self.schedule))
        return float(loss.detach())

    def _batches(self) -> Iterator[NDArray[np.int64]]:
        """One round: the texts used least, in random order, batches of like length (little padding), shuffled."""
        chance = np.random.default_rng((self.schedule.seed, self.round))
        ready, size = self.targets.refresh(), self.schedule.batch
        order = np.argsort(self._uses[:ready] + chance.random(ready), kind="stable")[: max(size, _ROUND)]
        rows = chance.permutation(order).astype(np.int64)
        lengths = self.tokens.lengths
        batches: list[NDArray[np.int64]] = []
        for start in range(0, len(rows), _WINDOW * size):
            window = rows[start : start + _WINDOW * size]
            window = window[np.argsort(lengths[window], kind="stable")]
            batches.extend(window[at : at + size] for at in range(0, len(window), size))
        batches = [batch for batch in batches if len(batch) == min(size, ready)]
        for index in chance.permutation(len(batches)):
            yield batches[index]


def shipped_table(table: NDArray[np.float32]) -> NDArray[np.float32]:
    """The token table [n, m] as a bundle gives it back: rounded, packed and unpacked. Training with it makes good for that."""
    quantised, scale, zero = quantised_table(table)
    if table.shape[1] % BLOCK == 0:
        quantised = unpack(**pack(quantised, int(zero)), zero=int(zero))
    return (quantised.astype(np.float32) - np.float32(zero)) * scale


def encoded(student: Student, tokens: Tokens, device: str) -> NDArray[np.float32]:
    """The student's unit rows, float32 [n, dimension], of texts as `tokens`, in their order."""
    rows = np.argsort(tokens.lengths, kind="stable").astype(np.int64)
    blocks = []
    with torch.no_grad():
        for start in range(0, len(rows), _MEASURED_AT_ONCE):
            ids, mask = tokens.batch(rows[start : start + _MEASURED_AT_ONCE])
            blocks.append(student.to(device)(ids.to(device), mask.to(device)).cpu().numpy())
    vectors = np.empty((len(rows), blocks[0].shape[1]), np.float32)
    vectors[rows] = np.concatenate(blocks)
    return vectors


def rate_at(step: int, schedule: Schedule) -> float:
    """The share of the peak learning rate at `step`: linear warm-up, then half a cosine down to `_LAST_RATE`."""
    if step < schedule.warm_up:
        return (step + 1) / schedule.warm_up
    share = min(1.0, (step - schedule.warm_up) / max(1, schedule.steps - schedule.warm_up))
    return _LAST_RATE + (1 - _LAST_RATE) * (1 + math.cos(math.pi * share)) / 2


def distance(given: Tensor, wanted: Tensor, relational: float) -> Tensor:
    """The loss of unit rows `given` against `wanted`, both [n, dimension]: a scalar, 0 when they agree."""
    cosine = 1 - (given * wanted).sum(1).mean()
    return cosine + relational * nn.functional.mse_loss(given @ given.T, wanted @ wanted.T)

"""Learned vectors against the served ranker, by the same replay: `python -m evaluation.learned DIR [--json]`.

What is compared, on the same steps, slices and candidates as `coldstream evaluate`, all lists re-ranked alike:

- `text`: an item is its short text vector, a user the mean of the history by the weights that serve;
- `residual`: item = text vector + a residual learned by id (from 0), user = the same mean;
- `mapped`: item = (1 + M) text vector + residual, M from 0, so that items nobody met learn too;
- `transformer`: items as in `mapped`; user = the mean + what a Transformer over the last 20 items adds (from 0);
- `boosted`: as `transformer`, learned on top of the served score, so that it learns what that can't tell;
- `coldstream + …`: the served ranker (`coldstream`) with that score as one more feature and expert of the guard.

The score is a dot product: an item's bias (from 0) is its last dimension, which is 1 in every user. All begin as `text` and
learn in one pass from the ranker's lessons by a softmax, each judged before it is learned. What serves is like `residual`
(`streams/decide/vectors.py`; docs/quality.md). Needs the extra `train`.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from encoder import item_text, open_bundle
from evaluation.evaluate import vectors_of
from evaluation.ours import Ours, Widened, Wider
from evaluation.protocol import Options, Stream, read
from evaluation.replay import OURS, Replay
from evaluation.report import comparison
from streams.decide.features import PLACE
from streams.decide.grids import Batch
from streams.decide.prior import prior_for
from streams.decide.ranker import FIRST_SQUARES, Learner
from streams.decide.recommend import draw
from streams.decide.table import Table
from streams.decide.taste import HISTORY, Request
from streams.values import Ranking, Vector

KINDS: Final = ("residual", "mapped", "transformer", "boosted")
RATE_BY_ID: Final = 0.03
"""AdaGrad's rate of residuals and biases."""
RATE_SHARED: Final = 1e-3
"""Adam's rate of what items share."""
SCALE, WIDTH = 5.0, 64
"""What dot products are multiplied by at first (the softmax's inverse temperature); the Transformer's dimensions."""


class Reader(nn.Module):
    """A Transformer of one layer over the set of the last items; adds nothing before it has learned."""

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.enter = nn.Linear(dimension, WIDTH)
        self.place = nn.Parameter(0.02 * torch.randn(HISTORY, WIDTH))
        self.liking = nn.Parameter(torch.zeros(WIDTH))
        self.layer = nn.TransformerEncoderLayer(WIDTH, 4, 2 * WIDTH, dropout=0.0, batch_first=True, norm_first=True)
        self.leave = nn.Linear(WIDTH, dimension, bias=False)
        nn.init.zeros_(self.leave.weight)

    def forward(self, items: Tensor, there: Tensor, liking: Tensor) -> Tensor:
        """What is added to each item: shape [users, HISTORY, …], as `there` (is there one?) and `liking` (−1 … 1) begin."""
        hidden = self.enter(items) + self.place + liking[..., None] * self.liking
        absent = ~there & (torch.arange(HISTORY) > 0)  # a user without a past attends to one that counts nothing
        return self.leave(self.layer(hidden, src_key_padding_mask=absent))


class Vectors(nn.Module):
    """Vectors of items and users that begin as text; `kind`: one of `KINDS`."""

    def __init__(self, kind: str, items: int, dimension: int) -> None:
        super().__init__()
        torch.manual_seed(7)
        torch.sparse.check_sparse_tensor_invariants.disable()  # torch's default; said, so that it doesn't warn
        self.lean = nn.Parameter(torch.tensor(0.0)) if kind == "boosted" else None
        self.residual = nn.Embedding(items, dimension, sparse=True)
        self.bias = nn.Embedding(items, 1, sparse=True)
        self.scale = nn.Parameter(torch.tensor(math.log(SCALE)))
        self.map = None if kind == "residual" else nn.Linear(dimension, dimension, bias=False)
        self.reader = Reader(dimension) if kind in {"transformer", "boosted"} else None
        by_id = [self.residual.weight, self.bias.weight]
        for zero in [*by_id, *([] if self.map is None else [self.map.weight])]:
            nn.init.zeros_(zero)
        shared = [one for name, one in self.named_parameters() if name not in {"residual.weight", "bias.weight"}]
        self._optimisers: list[Any] = [
            torch.optim.Adagrad(by_id, RATE_BY_ID, initial_accumulator_value=FIRST_SQUARES),
            torch.optim.Adam(shared, RATE_SHARED),
        ]
        self._text: NDArray[np.float32] = np.zeros((0, dimension), np.float32)

    def items(self, table: Table, rows: Tensor) -> Tensor:
        """Item vectors, without their bias. Shape [*rows, dimension]."""
        text = torch.from_numpy(table.short)[rows]
        found = text + self.residual(rows)
        return found if self.map is None else found + self.map(text)

    def forward(self, table: Table, batch: Batch) -> Tensor:
        """Scores of each user's candidates. Shape [users, candidates]; beyond their number they mean nothing."""
        past, rows = batch.past, torch.from_numpy(batch.cells.rows)
        there = torch.arange(HISTORY) < torch.from_numpy(past.length)[:, None]
        history = self.items(table, torch.from_numpy(past.rows))
        if self.reader is not None:
            history = history + self.reader(history, there, torch.from_numpy(past.liking))
        user = (torch.from_numpy(past.weight)[:, None, :] @ history)[:, 0]
        scores = (self.items(table, rows) @ user[:, :, None])[..., 0]
        return self.scale.exp() * scores + self.bias(rows)[..., 0]

    def score(self, table: Table, batch: Batch) -> NDArray[np.float32]:
        """`forward` to be ranked by."""
        self._follow(table)
        with torch.no_grad():
            return np.asarray(self(table, batch).numpy())

    def learn(
        self, table: Table, batch: Batch, targets: Sequence[int], served: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """One step on lessons whose first `targets` rows were chosen (`boosted`: on top of `served`); scores before it."""
        self._follow(table)
        own = self(table, batch)
        scores = own if self.lean is None else own + self.lean.exp() * torch.from_numpy(served)
        place, counts = torch.arange(scores.shape[1]), torch.tensor(targets)[:, None]
        is_other = (place >= counts) & (place < torch.from_numpy(batch.cells.sizes)[:, None])
        others = scores.masked_fill(~is_other, -1e9).logsumexp(dim=1, keepdim=True)
        loss = ((torch.logaddexp(scores, others) - scores) * (place < counts) / counts.clamp(min=1)).sum()
        loss.backward()
        for one in self._optimisers:
            one.step()
            one.zero_grad(set_to_none=True)
        return np.asarray(own.detach().numpy())

    def _follow(self, table: Table) -> None:
        """Turn what was learned with the table's axes, where those of the first items tell that they were found anew."""
        old, new = self._text, table.short[: min(len(table.ids), 1024)]
        if not np.array_equal(old, new[: len(old)]):
            left, _, right = np.linalg.svd(old.T @ new[: len(old)])
            turn = torch.from_numpy(np.asarray(left @ right, np.float32))
            with torch.no_grad():
                self.residual.weight.copy_(self.residual.weight @ turn)
                if self.map is not None:
                    self.map.weight.copy_(turn.T @ self.map.weight @ turn)
                if self.reader is not None:
                    self.reader.enter.weight.copy_(self.reader.enter.weight @ turn)
                    self.reader.leave.weight.copy_(turn.T @ self.reader.leave.weight)
        self._text = new.copy()


def _unless(cold: NDArray[np.bool_]) -> NDArray[np.float32]:
    return np.where(cold, np.float32(np.nan), np.float32(0))[:, None]


class Rivals(Ours):
    """The served ranker, with what is compared beside it: same state, same candidates, same lessons."""

    def __init__(
        self, stream: Stream, vectors: NDArray[np.float32], options: Options, texts: Mapping[str, Vector] | None = None,
    ) -> None:  # fmt: skip
        prior = prior_for(record.item_id for record in stream.items)
        super().__init__(stream, vectors, options, Learner(prior=prior), texts)
        shape = len(stream.items), self.columns.short.shape[1]
        self.models = {kind: Vectors(kind, *shape) for kind in KINDS}
        self.widened = {kind: Widened(prior) for kind in KINDS}
        self.seconds: defaultdict[tuple[str, str], float] = defaultdict(float)
        """CPU by (method, `learn` or `score`)."""
        self.taught = self.ranked = 0

    def teach(self, requests: Sequence[Request], targets: Sequence[Sequence[str]]) -> None:
        """As `Ours`, and all rivals."""
        drawn = draw(self.columns, requests, targets, self.policy)
        there = [(user, lesson) for user, lesson in enumerate(drawn.lessons(self.columns.ids)) if lesson is not None]
        self.taught += len(there)
        cells, cold, scores = drawn.batch.cells, drawn.batch.past.length == 0, {}
        unless_cold = _unless(cold)  # of users without a past the ranker is told nothing
        served = self.learner.model().scores(cells.values, cells.sizes, cold)
        for kind, model in self.models.items() if there else ():
            with self._timed(kind, "learn"):
                scores[kind] = model.learn(self.columns, drawn.batch, drawn.targets, served) + unless_cold
        for user, lesson in there:
            with self._timed(OURS, "learn"):
                self.learner.learn(lesson)
            for kind, widened in self.widened.items():
                with self._timed(f"{OURS} + {kind}", "learn"):
                    whole = np.column_stack([lesson.grid, scores[kind][user, : len(lesson.grid)]])
                    widened.learn(Wider(lesson.targets, lesson.cold, lesson.pool, b"", whole=whole))

    def rank_batch(self, batch: Batch) -> tuple[Ranking, set[str]]:
        """As `Ours`, and the list of each rival into `lists`."""
        self.ranked += 1
        self.lists = {"text": self.listed(batch, np.nan_to_num(batch.cells.values[PLACE["dense_mean"], 0]))}
        for kind, model in self.models.items():
            with self._timed(kind, "score"):
                scores = model.score(self.columns, batch)
            self.lists[kind] = self.listed(batch, scores[0])
            cold = batch.past.length == 0
            with self._timed(f"{OURS} + {kind}", "score"):
                wider = np.concatenate([batch.cells.values, (scores + _unless(cold))[None]])
                mixed = self.widened[kind].model().scores(wider, batch.cells.sizes, cold)
            self.lists[f"{OURS} + {kind}"] = self.listed(batch, mixed[0])
        with self._timed(OURS, "score"):
            return super().rank_batch(batch)

    @contextmanager
    def _timed(self, method: str, what: str) -> Iterator[None]:
        before = time.process_time()
        yield
        self.seconds[method, what] += time.process_time() - before


def compare(stream: Stream, options: Options, rivals: Rivals) -> dict[str, Any]:
    """What `--json` prints. `against_coldstream`: by method and slice, NDCG@10 ÷ that of the served ranker."""
    outcome = Replay(stream, options, rivals, {}).run()
    cost: dict[str, dict[str, float]] = {}
    for (method, what), seconds in rivals.seconds.items():
        times = max(rivals.taught if what == "learn" else rivals.ranked, 1)
        cost.setdefault(method, {})[what] = round(1000.0 * seconds / times, 3)
    return {
        "dataset": stream.name, "items": len(stream.items), "events": stream.events, "steps": len(outcome.tested),
        "lessons": rivals.taught, "seconds": round(outcome.seconds, 1), "methods": outcome.tally.summary(),
        "against_coldstream": outcome.tally.against(OURS), "cpu_ms": cost,
    }  # fmt: skip


def main() -> None:
    """Compare on one data set and print; the options of `coldstream evaluate`."""
    parser = argparse.ArgumentParser(prog="python -m evaluation.learned", description=__doc__.split("\n", 1)[0])
    parser.add_argument("folder", metavar="DIR", type=Path)
    for name, default in (("cut", 0.8), ("until", 1.0), ("max-steps", 4000), ("simulate-cold", 0.0)):
        parser.add_argument(f"--{name}", type=type(default), default=default)
    for flag in ("--repeats", "--json"):
        parser.add_argument(flag, action="store_true")
    asked = parser.parse_args()
    options = Options(asked.cut, asked.until, asked.max_steps, asked.repeats, asked.simulate_cold)
    stream, encoder = read(asked.folder, options), open_bundle()
    vectors, words = vectors_of(stream, encoder, item_text, encoder.template)
    found = compare(stream, options, Rivals(stream, vectors, options, words))
    sys.stdout.write((msgspec.json.encode(found).decode() if asked.json else comparison(found)) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()

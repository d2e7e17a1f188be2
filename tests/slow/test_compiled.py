"""Ranking compiles from nothing with what an installation has, keeps it, and reads it again."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from tests.support.kafka import ROOT

WITHOUT_SCIPY = "import sys; sys.modules['scipy'] = None; from streams.decide.warmup import warm_up; warm_up()"
"""Tests have scipy by other packages, an installation has not; numba's own products of vectors need it."""


def test_a_first_start_compiles_without_scipy_a_second_one_reads_it_and_what_is_broken_is_made_anew(tmp_path):
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    spent = []
    for _ in range(2):
        began = time.monotonic()
        subprocess.run([sys.executable, "-c", WITHOUT_SCIPY], env=environment, cwd=ROOT, check=True, timeout=300)
        spent.append(time.monotonic() - began)
        assert len(list(tmp_path.glob("compiled-*/complete"))) == 1
    assert spent[1] < spent[0] / 2
    for kept in (*tmp_path.rglob("*.nbi"), *tmp_path.rglob("*.nbc")):
        kept.write_bytes(kept.read_bytes()[:40])
    ran = subprocess.run(
        [sys.executable, "-c", WITHOUT_SCIPY], env=environment, cwd=ROOT, check=True, timeout=300, capture_output=True,
    )  # fmt: skip
    assert b"compiled anew" in ran.stderr
    assert min(path.stat().st_size for path in tmp_path.rglob("*.nbc")) > 40

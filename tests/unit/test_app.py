"""What the composition root does itself."""

from __future__ import annotations

import subprocess
import sys


def test_what_lives_at_the_start_is_no_work_for_the_collector_and_garbage_still_goes() -> None:
    script = """
import gc, weakref
from streams.app import GARBAGE, set_aside
old = [[] for _ in range(1000)]
set_aside()
assert gc.get_threshold() == GARBAGE
assert gc.get_freeze_count() > 1000
assert not any(one is old for one in gc.get_objects())
class Knot: pass
knot = Knot(); knot.itself = knot; gone = weakref.ref(knot); del knot
young = [[number] for number in range(2 * GARBAGE[0])]  # as many as make it look
assert gone() is None
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_what_a_batch_frees_is_there_for_the_next_one() -> None:
    script = """
import resource
import numpy as np
from streams.app import keep_memory
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        batch = [np.ones(2 << 20, np.uint8) for _ in range(8)]
        del batch
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
keep_memory()
faults()
assert faults() < 4096, faults()  # of two megabytes each is 512 pages, and there are 160 of them
"""
    subprocess.run([sys.executable, "-c", script], check=True)

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

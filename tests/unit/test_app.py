"""What the composition root does itself."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from streams.app import App
from streams.errors import ConfigurationError
from streams.settings import Settings


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


@pytest.mark.parametrize(
    "settings",
    [
        Settings(floor_small=0.1),
        Settings(floor_small=0.1, floor_provider="brand"),
        Settings(floor_new=0.7, floor_small=0.7, floor_provider="categories"),
    ],
)
async def test_settings_that_contradict_each_other_are_said_before_the_broker_is_asked(
    settings: Settings, tmp_path: Path
) -> None:
    nowhere = msgspec.structs.replace(settings, kafka="127.0.0.1:1", index=f"edge:{tmp_path}/index")
    with pytest.raises(ConfigurationError, match="floor"):
        await App(nowhere).run()
    assert not (tmp_path / "index").exists()


async def test_a_signal_cancels_the_step_of_the_start_that_is_taken() -> None:
    app = App(Settings())
    ended = asyncio.Event()

    async def wait_for_ever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    asyncio.get_running_loop().call_later(0.05, app.stop)
    async with asyncio.timeout(2):
        assert not await app._unless_stopped(wait_for_ever())
    assert ended.is_set()


async def test_a_step_of_the_start_is_taken_and_raises_what_it_raises() -> None:
    app = App(Settings())

    async def fail() -> None:
        raise LookupError("refused")

    assert await app._unless_stopped(asyncio.sleep(0))
    with pytest.raises(LookupError, match="refused"):
        await app._unless_stopped(fail())

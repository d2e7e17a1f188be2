"""One schedule: a log, workers that live and die, a world that stops at any await; then peace, and the comparison.

Everything follows from the seed. Each step draws the same number of random values whatever comes of them, so that a
fault can be muted, or a record left out, without turning the rest into another story: that is how `shrink` works.
"""

from __future__ import annotations

import gc
from collections.abc import Collection
from dataclasses import dataclass, field
from random import Random
from typing import Final

from streams.errors import ColdstreamError
from streams.values import Topic
from tests.simulation.faults import Faults
from tests.simulation.judgement import judge, judge_last, overlooked
from tests.simulation.planted import Bug
from tests.simulation.process import Knobs, Process
from tests.simulation.ranking import ranking
from tests.simulation.story import Author, Plot
from tests.simulation.weather import Weather
from tests.simulation.world import World

MOST_CALM_STEPS: Final = 8000
PATIENCE_SECONDS: Final = 3.0
"""When all seems done, everybody keeps house once more after so long: longer than any flush and reload."""


@dataclass(slots=True)
class Result:
    """What came of a schedule."""

    seed: int
    failures: list[str]
    faults: int = 0
    records: int = 0
    story: list[str] = field(default_factory=list)


class DefectError(Exception):
    """The schedule can't go on: that is a failure too."""


class Schedule:
    """Runs one."""

    def __init__(
        self, seed: int, bug: Bug, mute: Collection[int], leave_out: Collection[int], *, verbose: bool
    ) -> None:
        random = Random(seed)
        plot, weather = Plot.draw(random), Weather.draw(random)
        self.quick = random.random() < 0.9
        knobs = Knobs.draw(random, lessons=not self.quick)
        self._probing = random.random() < 0.4
        self._again = random.random() < 0.1
        self._author = Author(Random(seed + 1), plot)
        script = self._author.write()
        self.records = len(script)
        left = [sent for sent in script if sent.number not in leave_out]
        self._world = World(random, weather, knobs, plot.partitions, left, bug, verbose=verbose)
        self._faults = Faults(self._world, mute, self._resume)

    @property
    def faults(self) -> int:
        """How often the world was struck."""
        return self._faults.count

    @property
    def story(self) -> list[str]:
        """What happened, where `verbose` asked for it."""
        return self._world.story

    def run(self) -> list[str]:
        """Storm, calm, comparison; returns what is wrong."""
        world = self._world
        for number in range(world.weather.processes):
            world.spawn(f"w{number}")
        try:
            for _ in range(world.weather.steps):
                self._advance(calm=False)
            if self._again:
                self._faults.start_over()
            self._settle()
            failures = judge(world, quick=self.quick)
            if self._probing and not failures:
                probed_at = world.time.now
                world.broker.script.extend(self._author.probe())
                self._settle()
                failures = judge(world, quick=self.quick) + judge_last(world, probed_at)
        except DefectError as defect:
            return [str(defect)]
        return failures

    def run_remade(self) -> tuple[bool, list[str]]:
        """Peace; then `events` is made anew under the workers' feet. Whether they noticed, and what is wrong.

        They must where a user comes of whom more was applied than there is; else their records may pass for redeliveries.
        """
        failures = self.run()
        if failures:
            return False, failures
        broker = self._world.broker
        for place, log in broker.logs.items():
            if place[0] is Topic.EVENTS:
                log.clear()
        probes = self._author.probe()
        broker.script.extend(probes)
        self._faults.start_over()
        broker.committed |= {place: len(log) for place, log in broker.logs.items() if place[0] is not Topic.EVENTS}
        try:
            self._settle()
        except DefectError as defect:
            return True, [] if "TopicRemadeError" in str(defect) else [str(defect)]
        return False, overlooked(self._world, [sent.subject for sent in probes])

    def _settle(self) -> None:
        """No faults any more: until everything is done and has been done for a while."""
        for process in self._world.processes:
            self._world.wake(process)
        quiet_since: float | None = None
        for _ in range(MOST_CALM_STEPS):
            self._advance(calm=True)
            if not self._is_done():
                quiet_since = None
            elif quiet_since is None:
                quiet_since = self._world.time.now
                self._world.time.now += PATIENCE_SECONDS
            elif all(process.round_begun_at > quiet_since for process in self._world.processes):
                return
        raise DefectError(
            f"no end: {self._world.broker.lag} records are not committed, script {len(self._world.broker.script)}"
        )

    def _is_done(self) -> bool:
        return (
            not self._world.broker.script
            and not self._world.group.moving
            and not self._world.timers
            and all(process.is_idle and not process.expelled for process in self._world.processes)
            and self._world.broker.lag == 0
        )

    def _advance(self, *, calm: bool) -> None:
        """One process goes to its next stop; perhaps something befalls it."""
        world = self._world
        world.step += 1
        which, pace, what, how = (world.random.random() for _ in range(4))
        world.run_timers()
        awake = [process for process in world.processes if not process.asleep]
        if not awake:
            world.tell("nobody is awake")
            world.wake(world.processes[0]) if world.processes else world.spawn("w0")
            return
        process = awake[int(which * len(awake))]
        world.time.now += 0.02 * pace
        if process.stop is not None and process.stop.kind == "poll" and all(one.is_idle for one in awake):
            waiting = world.broker.script
            world.time.now = max(world.time.now + 0.3, waiting[0].time if waiting else 0.0)
        for placed in world.broker.arrive(world.time.now):
            sent = placed.sent
            world.tell(f"{sent.topic.value}/{sent.partition}/{placed.offset} of {sent.subject} comes: {sent.value!r}")
        if not calm and self._faults.befall(process, what, how):
            return
        self._resume(process, how, calm=calm)

    def _resume(self, process: Process, how: float, error: Exception | None = None, *, calm: bool = False) -> None:
        moving = self._world.group.moving or process.expelled or process.generation != self._world.group.generation
        if moving and (how < 0.3 or calm or not process.in_hand):
            process.ownership.noticed = True
        if not process.in_hand and process.unrepaired:  # its batch was given up between lists and second look
            if process.expelled or process.impatient:
                self._world.excused |= process.unrepaired
            process.unrepaired.clear()
        if calm or (how * 31) % 1 < self._world.weather.commit:
            process.commit(forged=process.expelled and process.static and (how * 7) % 1 < 0.1)
        if process.impatient and not self._world.group.moving:
            process.impatient = False
            process.take_up()
        if process.stop is not None and process.stop.kind == "poll":
            process.round_begun_at = process.round_ends_at
            process.round_ends_at = self._world.time.now
            process.fetch_limit = 1 + int(how * 8)
            if process.expelled and process.ownership.noticed:
                self._world.tell(f"{process.name} finds itself expelled and joins again")
                process.expelled = False
                self._world.group.add(process)
        try:
            process.stop = process.coroutine.throw(error) if error else process.coroutine.send(None)
        except StopIteration:
            raise DefectError(f"{process.name} ended by itself") from None
        except ColdstreamError as failure:
            raise DefectError(f"{process.name} ended: {type(failure).__name__}: {failure}") from failure
        except Exception as failure:
            raise DefectError(f"{process.name} crashed: {type(failure).__name__}: {failure}") from failure
        if self._world.verbose and process.stop.kind not in {"poll", "sleep"}:
            self._world.tell(f"{process.name}: {process.stop.kind} {process.stop.about}")


def run(
    seed: int,
    bug: Bug | None = None,
    mute: Collection[int] = (),
    leave_out: Collection[int] = (),
    *,
    verbose: bool = False,
) -> Result:
    """Run one schedule. Its garbage is collected afterwards: a sixth of the time otherwise."""
    bug = bug or Bug("none")
    gc.disable()
    try:
        with bug.planted():
            schedule = Schedule(seed, bug, frozenset(mute), frozenset(leave_out), verbose=verbose)
            with ranking(quick=schedule.quick):
                failures = schedule.run()
    finally:
        gc.enable()
    return Result(seed, failures, schedule.faults, schedule.records, schedule.story)


def run_remade(seed: int) -> tuple[bool, list[str]]:
    """One schedule after which a topic is made anew; see `Schedule.run_remade`."""
    schedule = Schedule(seed, Bug("none"), frozenset(), frozenset(), verbose=False)
    with ranking(quick=schedule.quick):
        return schedule.run_remade()

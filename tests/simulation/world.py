"""The world of a schedule: broker, index, clock, and the processes that live in it; it remembers what was written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Final

import msgspec

from streams.index.exact import ExactIndex
from streams.ports import Collection as Stored
from streams.ports import Point
from streams.values import Message, Record, Topic, UserState
from tests.simulation.broker import Broker, Group
from tests.simulation.planted import Bug
from tests.simulation.ports import DIMENSION, SimEncoder, SimIndex, Time, drive
from tests.simulation.process import Knobs, Process
from tests.simulation.story import BEGIN, Sent
from tests.simulation.weather import Weather

_STATE: Final = msgspec.json.Decoder(UserState)


class World:
    """All that is there. `random` is the schedule's: who is started draws from it."""

    def __init__(
        self, random: Random, weather: Weather, knobs: Knobs, partitions: int, script: Sequence[Sent], bug: Bug, *,
        verbose: bool,
    ) -> None:  # fmt: skip
        self.random = random
        self.weather = weather
        self.knobs = knobs
        self.bug = bug
        self.time = Time(BEGIN)
        self.broker = Broker(partitions, random.choice((1, 2)), script)
        self.group = Group(self.broker)
        self.store = ExactIndex(shared=not weather.embedded)
        drive(self.store.open(DIMENSION))
        self.encoder = SimEncoder()
        self.processes: list[Process] = []
        self.step = 0
        self.timers: list[tuple[int, Callable[[], None]]] = []
        """What happens at a later step."""
        self.states: dict[tuple[str, int], UserState] = {}
        """All that ever stood, by user and version."""
        self.excused: set[str] = set()
        """Users of whom a zombie may have sent an older list before it died (docs/reliability.md, what is left)."""
        self.story: list[str] = []
        self.verbose = verbose
        self._lives = 0

    def later(self, steps: int, happen: Callable[[], None]) -> None:
        """Let it happen after so many steps."""
        self.timers.append((self.step + steps, happen))

    def run_timers(self) -> None:
        """What is due happens."""
        for timer in [one for one in self.timers if one[0] <= self.step]:
            self.timers.remove(timer)
            timer[1]()

    def spawn(self, name: str, replacing: Process | None = None) -> None:
        """A process starts, as somebody new or in the place of a static member."""
        self._lives += 1
        index = SimIndex(self.store, self._written)
        index.unconditional = self.bug.unconditional
        process = Process(
            f"{name}.{self._lives}", self.group, self.time, 0.0, self.random.getrandbits(48), index, self._append,
            self.knobs, self.encoder, static=self.weather.static,
        )  # fmt: skip
        self.processes.append(process)
        self.tell(f"{process.name} starts" + (f" in place of {replacing.name}" if replacing else ""))
        if replacing is not None:
            self.group.replace(replacing, process)
            process.generation = -1 if self.group.moving else self.group.generation
            if not self.group.moving:
                process.take_up()
        else:
            self.group.add(process)

    def wake(self, process: Process) -> None:
        """SIGCONT."""
        if process.asleep:
            self.tell(f"SIGCONT {process.name}")
            process.asleep = False

    def _append(self, process: Process, message: Message) -> Record:
        record = self.broker.append(message, self.time.now)
        if record.topic is Topic.RECOMMENDATIONS:
            process.unrepaired.add((record.key or b"").decode())
        return record

    def _written(self, collection: Stored, point: Point) -> None:
        if collection is Stored.USERS:
            self.states[point.key, point.version] = _STATE.decode(point.body)

    def tell(self, text: str) -> None:
        """A line of the story."""
        if self.verbose:
            self.story.append(f"{self.step:4} {self.time.now - BEGIN:9.3f}  {text}")

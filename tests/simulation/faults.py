"""What befalls a process: killed, suspended, cut off, overtaken, failed, given away; and the world: slow, jumping, reset."""

from __future__ import annotations

from collections.abc import Callable, Collection

from streams.errors import BrokerUnavailableError, IndexUnavailableError
from streams.values import Topic
from tests.simulation.process import SESSION_SECONDS, Process
from tests.simulation.world import World

Resume = Callable[[Process, float, Exception], None]
"""Lets a process go on with an error, so far in the step as the number says."""


class Faults:
    """Strikes by the weather. `mute`: the numbers of those that don't happen."""

    def __init__(self, world: World, mute: Collection[int], resume: Resume) -> None:
        self._world = world
        self._mute = mute
        self._resume = resume
        self.count = 0

    def befall(self, process: Process, what: float, how: float) -> bool:
        """Perhaps something happens to this process; whether it was stopped by it."""
        weather = self._world.weather
        kind = process.stop.kind if process.stop is not None else "start"
        often = 5.0 if _sends_lists(process) else 1.0
        chances: list[tuple[float, Callable[[], bool]]] = [
            (weather.kill, lambda: self._kill(process, how)),
            (weather.sleep * often, lambda: self._put_to_sleep(process, how)),
            (weather.cut * often, lambda: self._cut(process)),
            (weather.error if kind != "poll" else 0.0, lambda: self._fail(process, how)),
            (weather.part if kind in {"write", "send"} else 0.0, lambda: self._fail_amid(process, how)),
            (weather.late if kind == "write" else 0.0, lambda: self._fail_early(process, how)),
            (weather.rebalance, lambda: self._rebalance(process, how)),
            (
                weather.impatient if process.ownership.noticed and process.in_hand else 0.0,
                lambda: self._give_away(process),
            ),
            (weather.slow, lambda: self._dawdle(how)),
            (weather.jump, lambda: self._jump(process, how)),
            (weather.reset, self.start_over),
        ]
        for chance, happen in chances:
            if what < chance:
                self.count += 1
                if self.count in self._mute:
                    return False
                return happen()
            what -= chance
        return False

    def _kill(self, process: Process, how: float) -> bool:
        stop = process.stop
        late = ""
        if stop is not None and stop.effect is not None:
            if stop.kind == "write" and how < 0.2 and not self._world.weather.embedded:
                late = ", what it wrote arrives later"
                self._world.later(int(how * 200), _once(stop.effect, None))
            elif how < 0.5:
                late = ", what it sent arrives"
                stop.effect(int(how * 2 * (stop.parts + 1)))
        self._world.tell(f"KILL {process.name} at {_name(process)}{late}")
        process.end()
        if process.expelled:
            self._world.excused |= process.unrepaired
        self._world.processes.remove(process)
        if process.expelled:
            return True
        if process.static:
            self._world.spawn(process.name.split(".")[0], replacing=process)
        else:
            self._world.later(int(how * 30), lambda: self._expel_dead(process))
            self._world.spawn(process.name.split(".")[0])
        return True

    def _expel_dead(self, process: Process) -> None:
        if process in self._world.group.members:
            self._world.tell(f"{process.name} is expelled: it is dead")
            self._world.group.remove(process)

    def _put_to_sleep(self, process: Process, how: float) -> bool:
        if process.expelled:
            return False
        process.asleep = True
        self._world.tell(f"SIGSTOP {process.name} at {_name(process)}")
        expelled_after, awake_after = 2 + int(how * 20), 2 + int(how * 977 % 1 * (250 if _sends_lists(process) else 60))
        self._world.later(expelled_after, lambda: self._expel(process))
        self._world.later(awake_after, lambda: self._world.wake(process))
        return True

    def _expel(self, process: Process) -> None:
        if process.asleep and process in self._world.group.members and process in self._world.processes:
            self._world.tell(f"{process.name} is expelled: it sleeps")
            process.expelled = True
            process.clock.slept_seconds += SESSION_SECONDS
            if process.static and self._world.random.random() < 0.5:
                self._world.spawn(process.name.split(".")[0], replacing=process)
                return
            self._world.group.remove(process)
            if not self._world.group.members:
                self._world.spawn("w9")

    def _cut(self, process: Process) -> bool:
        """It loses its partitions while it runs, and nobody tells it yet."""
        if process not in self._world.group.members:
            return False
        self._world.tell(f"CUT {process.name} off its coordinator")
        process.expelled = True
        self._world.group.remove(process)
        if not self._world.group.members:
            self._world.spawn("w9")
        return False

    def _error(self, process: Process) -> Exception | None:
        kind = process.stop.kind
        if kind.startswith(("read", "write")):
            return IndexUnavailableError("simulated")
        if kind.startswith("send"):
            return BrokerUnavailableError("simulated")
        return None

    def _fail(self, process: Process, how: float) -> bool:
        error = self._error(process) if process.stop is not None else None
        if error is None:
            return False
        self._world.tell(f"ERROR {process.name} at {_name(process)}")
        self._resume(process, how, error)
        return True

    def _fail_amid(self, process: Process, how: float) -> bool:
        stop = process.stop
        assert stop.effect is not None
        parts = int(how * (stop.parts + 1))
        self._world.tell(f"{parts} of {stop.parts} pass")
        stop.effect(parts)
        return self._fail(process, how)

    def _fail_early(self, process: Process, how: float) -> bool:
        """The call fails, and what it asked for happens later."""
        stop = process.stop
        assert stop.effect is not None
        self._world.later(1 + int(how * 40), _once(stop.effect, None))
        return self._fail(process, how)

    def _rebalance(self, process: Process, how: float) -> bool:
        if self._world.weather.embedded or how < 0.3:
            self._world.tell("REBALANCE")
            self._world.group.rebalance()
        elif how < 0.65 and len(self._world.processes) < 3:
            self._world.spawn(f"w{len(self._world.processes)}")
        elif process in self._world.group.members and len(self._world.group.members) > 1 and process.is_idle:
            self._world.tell(f"{process.name} leaves")
            process.commit(forged=False)
            process.end()
            self._world.processes.remove(process)
            self._world.group.remove(process)
            return True
        return False

    def _give_away(self, process: Process) -> bool:
        """A consumer that does not wait for the batch in hand to end."""
        if process.impatient:
            return False
        self._world.tell(f"{process.name} gives its partitions away with a batch in hand")
        if process.expelled:
            process.expelled = False
            self._world.group.add(process)
        process.impatient = True
        process.give_away()
        if self._world.group.moving:
            self._world.group.join(process)
        return False

    def _dawdle(self, how: float) -> bool:
        self._world.time.now += how * 8.0
        return False

    def _jump(self, process: Process, how: float) -> bool:
        process.clock.skew_seconds = (how - 0.5) * 4.0
        return False

    def start_over(self) -> bool:
        """All are killed, the group's offsets are set back to the beginning, and all start again."""
        self._world.tell("KILL all, start over from offset 0")
        names = [process.name.split(".")[0] for process in self._world.processes] or ["w0"]
        for process in self._world.processes:
            process.end()
            if process.expelled:
                self._world.excused |= process.unrepaired
        self._world.processes.clear()
        self._world.group.members.clear()
        self._world.group.assignment.clear()
        self._world.broker.committed = dict.fromkeys(self._world.broker.committed, 0)
        for name in names:
            self._world.spawn(name)
        return True


def _sends_lists(process: Process) -> bool:
    """Whether a process stands just before it sends lists: those can't be fenced, so that whoever sleeps there is overtaken."""
    stop = process.stop
    return stop is not None and stop.kind == "send" and Topic.RECOMMENDATIONS in stop.about


def _once(effect: Callable[[int | None], None], parts: int | None) -> Callable[[], None]:
    return lambda: effect(parts)


def _name(process: Process) -> str:
    return "start" if process.stop is None else f"{process.stop.kind} {process.stop.about}".strip()

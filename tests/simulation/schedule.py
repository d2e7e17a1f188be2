"""One schedule: a log, workers that live and die, a world that stops at any await; then peace, and the comparison.

Everything follows from the seed. Each step draws the same number of random values whatever comes of them, so that a
fault can be muted, or a record left out, without turning the rest into another story: that is how `shrink` works.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Final

import msgspec

from streams.errors import BrokerUnavailableError, ColdstreamError, IndexUnavailableError
from streams.index.exact import ExactIndex
from streams.ports import Collection as Stored
from streams.ports import Point
from streams.values import Message, Record, Topic, UserState
from streams.wire import Recommendation
from tests.simulation.broker import Broker, Group
from tests.simulation.oracle import (
    EXCLUDING,
    Expectation,
    compare_items,
    compare_statistics,
    compare_users,
    expect,
)
from tests.simulation.planted import Bug
from tests.simulation.ports import DIMENSION, SimEncoder, SimIndex, Time, drive
from tests.simulation.process import SESSION_SECONDS, Knobs, Process
from tests.simulation.ranking import digest, ranking
from tests.simulation.story import BEGIN, Author, Plot

MOST_CALM_STEPS: Final = 8000
PATIENCE_SECONDS: Final = 3.0
"""When all seems done, everybody keeps house once more after so long: longer than any flush and reload."""

_STATE: Final = msgspec.json.Decoder(UserState)
_LIST: Final = msgspec.json.Decoder(Recommendation)


@dataclass(frozen=True, slots=True)
class Weather:
    """Which faults may happen, and how often at each step."""

    steps: int
    embedded: bool
    """One process on an index of its own."""
    static: bool
    processes: int
    kill: float
    sleep: float
    cut: float
    error: float
    part: float
    late: float
    rebalance: float
    impatient: float
    slow: float
    jump: float
    reset: float
    commit: float

    @classmethod
    def draw(cls, random: Random) -> Weather:
        def rate(chance: float, most: float) -> float:
            return random.uniform(0.1, 1.0) * most if random.random() < chance else 0.0

        embedded = random.random() < 0.15
        return cls(
            steps=random.randint(60, 260),
            embedded=embedded,
            static=random.random() < 0.5,
            processes=1 if embedded else random.choice((1, 2, 2, 3)),
            kill=rate(0.7, 0.04),
            sleep=0.0 if embedded else rate(0.5, 0.04),
            cut=0.0 if embedded else rate(0.2, 0.02),
            error=rate(0.5, 0.08),
            part=rate(0.3, 0.04),
            late=rate(0.3, 0.04),
            rebalance=rate(0.4, 0.03),
            impatient=rate(0.4, 0.3),
            slow=rate(0.3, 0.05),
            jump=rate(0.2, 0.02),
            reset=rate(0.1, 0.01),
            commit=random.choice((0.05, 0.3, 1.0)),
        )


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
        self.random = Random(seed)
        self._mute = mute
        self._verbose = verbose
        self.story: list[str] = []
        self.bug = bug
        plot = Plot.draw(self.random)
        self._weather = weather = Weather.draw(self.random)
        self.quick = self.random.random() < 0.9
        self._knobs = self._draw_knobs()
        self._probing = self.random.random() < 0.4
        self._again = self.random.random() < 0.1
        self._author = Author(Random(seed + 1), plot)
        script = self._author.write()
        self.records = len(script)
        self.time = Time(BEGIN)
        self.broker = Broker(
            plot.partitions, self.random.choice((1, 2)), [s for s in script if s.number not in leave_out]
        )
        self.group = Group(self.broker)
        self.store = ExactIndex(shared=not weather.embedded)
        drive(self.store.open(DIMENSION))
        self.encoder = SimEncoder()
        self.processes: list[Process] = []
        self._probed_at = 0.0
        self._timers: list[tuple[int, Callable[[], None]]] = []
        self._step = 0
        self.faults = 0
        self._lives = 0
        self.excused: set[str] = set()
        self.states: dict[tuple[str, int], UserState] = {}

    def _draw_knobs(self) -> Knobs:
        random = self.random
        fan_out = random.random() < 0.5
        return Knobs(
            history_size=random.choice((3, 6, 50, 50)),
            exclusions_size=random.choice((2, 10_000)),
            batch_size=random.choice((1, 4, 32)),
            flush_seconds=random.choice((0.05, 0.5, 2.0)),
            reload_seconds=random.choice((0.5, 2.0)),
            columns_items=random.choice((4, 1000, 1000)),
            users_cache=random.choice((0, 2, 100)),
            fan_out_users=10 if fan_out else 0,
            fan_out_per_second=20.0 if fan_out else 0.0,
            lessons_per_second=0.0 if self.quick else 5.0,
            list_size=random.choice((2, 10)),
        )

    # -- running

    def run(self) -> list[str]:
        """Storm, calm, comparison; returns what is wrong."""
        for number in range(self._weather.processes):
            self._spawn(f"w{number}")
        try:
            for _ in range(self._weather.steps):
                self._advance(calm=False)
            if self._again:
                self._start_over()
            self._settle()
            failures = self._compare()
            if self._probing and not failures:
                self._probed_at = self.time.now
                self.broker.script.extend(self._author.probe())
                self._settle()
                failures = self._compare() + self._check_probes()
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
        for place, log in self.broker.logs.items():
            if place[0] is Topic.EVENTS:
                log.clear()
        probes = self._author.probe()
        self.broker.script.extend(probes)
        self._start_over()
        self.broker.committed |= {
            place: len(log) for place, log in self.broker.logs.items() if place[0] is not Topic.EVENTS
        }
        try:
            self._settle()
        except DefectError as defect:
            return True, [] if "TopicRemadeError" in str(defect) else [str(defect)]
        ends = {place[1]: len(log) for place, log in self.broker.logs.items() if place[0] is Topic.EVENTS}
        overlooked = []
        for sent in probes:
            point = self.store.points[Stored.USERS].get(sent.subject)
            applied = _STATE.decode(point.body).applied.get("events", {}) if point else {}
            if any(offset >= ends[number] for number, (offset, _) in applied.items()):
                overlooked.append(
                    f"nobody noticed that the topic was made anew under {sent.subject}: {applied}, {ends}"
                )
        return False, overlooked

    def _settle(self) -> None:
        """No faults any more: until everything is done and has been done for a while."""
        for process in self.processes:
            self._wake(process)
        quiet_since: float | None = None
        for _ in range(MOST_CALM_STEPS):
            self._advance(calm=True)
            if not self._is_done():
                quiet_since = None
            elif quiet_since is None:
                quiet_since = self.time.now
                self.time.now += PATIENCE_SECONDS
            elif all(process.round_begun_at > quiet_since for process in self.processes):
                return
        raise DefectError(f"no end: {self.broker.lag} records are not committed, script {len(self.broker.script)}")

    def _is_done(self) -> bool:
        return (
            not self.broker.script
            and not self.group.moving
            and not self._timers
            and all(process.is_idle and not process.expelled for process in self.processes)
            and self.broker.lag == 0
        )

    def _advance(self, *, calm: bool) -> None:
        """One process goes to its next stop; perhaps something befalls it."""
        self._step += 1
        which, pace, what, how = (self.random.random() for _ in range(4))
        for timer in [one for one in self._timers if one[0] <= self._step]:
            self._timers.remove(timer)
            timer[1]()
        awake = [process for process in self.processes if not process.asleep]
        if not awake:
            self._tell("nobody is awake")
            self._wake(self.processes[0]) if self.processes else self._spawn("w0")
            return
        process = awake[int(which * len(awake))]
        self.time.now += 0.02 * pace
        if process.stop is not None and process.stop.kind == "poll" and all(one.is_idle for one in awake):
            waiting = self.broker.script
            self.time.now = max(self.time.now + 0.3, waiting[0].time if waiting else 0.0)
        for placed in self.broker.arrive(self.time.now):
            sent = placed.sent
            self._tell(f"{sent.topic.value}/{sent.partition}/{placed.offset} of {sent.subject} comes: {sent.value!r}")
        if not calm and self._befall(process, what, how):
            return
        self._resume(process, how, calm=calm)

    def _resume(self, process: Process, how: float, *, calm: bool, error: Exception | None = None) -> None:
        moving = self.group.moving or process.expelled or process.generation != self.group.generation
        if moving and (how < 0.3 or calm or not process.in_hand):
            process.ownership.noticed = True
        if not process.in_hand and process.unrepaired:  # its batch was given up between lists and second look
            if process.expelled or process.impatient:
                self.excused |= process.unrepaired
            process.unrepaired.clear()
        if calm or (how * 31) % 1 < self._weather.commit:
            process.commit(forged=process.expelled and process.static and (how * 7) % 1 < 0.1)
        if process.impatient and not self.group.moving:
            process.impatient = False
            process.take_up()
        if process.stop is not None and process.stop.kind == "poll":
            process.round_begun_at = process.round_ends_at
            process.round_ends_at = self.time.now
            process.fetch_limit = 1 + int(how * 8)
            if process.expelled and process.ownership.noticed:
                self._tell(f"{process.name} finds itself expelled and joins again")
                process.expelled = False
                self.group.add(process)
        try:
            process.stop = process.coroutine.throw(error) if error else process.coroutine.send(None)
        except StopIteration:
            raise DefectError(f"{process.name} ended by itself") from None
        except ColdstreamError as failure:
            raise DefectError(f"{process.name} ended: {type(failure).__name__}: {failure}") from failure
        except Exception as failure:
            raise DefectError(f"{process.name} crashed: {type(failure).__name__}: {failure}") from failure
        if self._verbose and process.stop.kind not in {"poll", "sleep"}:
            self._tell(f"{process.name}: {process.stop.kind} {process.stop.about}")

    # -- faults

    def _befall(self, process: Process, what: float, how: float) -> bool:
        """Perhaps something happens to this process; whether it was stopped by it."""
        weather = self._weather
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
            (weather.reset, self._start_over),
        ]
        for chance, happen in chances:
            if what < chance:
                self.faults += 1
                if self.faults in self._mute:
                    return False
                return happen()
            what -= chance
        return False

    def _kill(self, process: Process, how: float) -> bool:
        stop = process.stop
        late = ""
        if stop is not None and stop.effect is not None:
            if stop.kind == "write" and how < 0.2:
                late = ", what it wrote arrives later"
                self._timers.append((self._step + int(how * 200), _once(stop.effect, None)))
            elif how < 0.5:
                late = ", what it sent arrives"
                stop.effect(int(how * 2 * (stop.parts + 1)))
        self._tell(f"KILL {process.name} at {_name(process)}{late}")
        if process.expelled:
            self.excused |= process.unrepaired
        process.end()
        self.processes.remove(process)
        if process.expelled:
            return True
        if process.static:
            self._spawn(process.name.split(".")[0], replacing=process)
        else:
            self._timers.append((self._step + int(how * 30), lambda: self._expel_dead(process)))
            self._spawn(process.name.split(".")[0])
        return True

    def _expel_dead(self, process: Process) -> None:
        if process in self.group.members:
            self._tell(f"{process.name} is expelled: it is dead")
            self.group.remove(process)

    def _put_to_sleep(self, process: Process, how: float) -> bool:
        if process.expelled:
            return False
        process.asleep = True
        self._tell(f"SIGSTOP {process.name} at {_name(process)}")
        expelled_after, awake_after = 2 + int(how * 20), 2 + int(how * 977 % 1 * (250 if _sends_lists(process) else 60))
        self._timers.append((self._step + expelled_after, lambda: self._expel(process)))
        self._timers.append((self._step + awake_after, lambda: self._wake(process)))
        return True

    def _expel(self, process: Process) -> None:
        if process.asleep and process in self.group.members and process in self.processes:
            self._tell(f"{process.name} is expelled: it sleeps")
            process.expelled = True
            process.clock.slept_seconds += SESSION_SECONDS
            if process.static and self.random.random() < 0.5:
                self._spawn(process.name.split(".")[0], replacing=process)
                return
            self.group.remove(process)
            if not self.group.members:
                self._spawn("w9")

    def _wake(self, process: Process) -> None:
        if process.asleep:
            self._tell(f"SIGCONT {process.name}")
            process.asleep = False

    def _cut(self, process: Process) -> bool:
        """It loses its partitions while it runs, and nobody tells it yet."""
        if process not in self.group.members:
            return False
        self._tell(f"CUT {process.name} off its coordinator")
        process.expelled = True
        self.group.remove(process)
        if not self.group.members:
            self._spawn("w9")
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
        self._tell(f"ERROR {process.name} at {_name(process)}")
        self._resume(process, how, calm=False, error=error)
        return True

    def _fail_amid(self, process: Process, how: float) -> bool:
        stop = process.stop
        assert stop.effect is not None
        parts = int(how * (stop.parts + 1))
        self._tell(f"{parts} of {stop.parts} pass")
        stop.effect(parts)
        return self._fail(process, how)

    def _fail_early(self, process: Process, how: float) -> bool:
        """The call fails, and what it asked for happens later."""
        stop = process.stop
        assert stop.effect is not None
        self._timers.append((self._step + 1 + int(how * 40), _once(stop.effect, None)))
        return self._fail(process, how)

    def _rebalance(self, process: Process, how: float) -> bool:
        if self._weather.embedded or how < 0.3:
            self._tell("REBALANCE")
            self.group.rebalance()
        elif how < 0.65 and len(self.processes) < 3:
            self._spawn(f"w{len(self.processes)}")
        elif process in self.group.members and len(self.group.members) > 1 and process.is_idle:
            self._tell(f"{process.name} leaves")
            process.commit(forged=False)
            process.end()
            self.processes.remove(process)
            self.group.remove(process)
            return True
        return False

    def _give_away(self, process: Process) -> bool:
        """A consumer that does not wait for the batch in hand to end."""
        if process.impatient:
            return False
        self._tell(f"{process.name} gives its partitions away with a batch in hand")
        if process.expelled:
            process.expelled = False
            self.group.add(process)
        process.impatient = True
        process.give_away()
        if self.group.moving:
            self.group.join(process)
        return False

    def _dawdle(self, how: float) -> bool:
        self.time.now += how * 8.0
        return False

    def _jump(self, process: Process, how: float) -> bool:
        process.clock.skew_seconds = (how - 0.5) * 4.0
        return False

    def _start_over(self) -> bool:
        """All are killed, the group's offsets are set back to the beginning, and all start again."""
        self._tell("KILL all, start over from offset 0")
        names = [process.name.split(".")[0] for process in self.processes] or ["w0"]
        for process in self.processes:
            if process.expelled:
                self.excused |= process.unrepaired
            process.end()
        self.processes.clear()
        self.group.members.clear()
        self.group.assignment.clear()
        self.broker.committed = dict.fromkeys(self.broker.committed, 0)
        for name in names:
            self._spawn(name)
        return True

    def _spawn(self, name: str, replacing: Process | None = None) -> None:
        self._lives += 1
        index = SimIndex(self.store, self._written)
        index.unconditional = self.bug.unconditional
        process = Process(
            f"{name}.{self._lives}", self.group, self.time, 0.0, self.random.getrandbits(48), index, self._append,
            self._knobs, self.encoder, static=self._weather.static,
        )  # fmt: skip
        self.processes.append(process)
        self._tell(f"{process.name} starts" + (f" in place of {replacing.name}" if replacing else ""))
        if replacing is not None:
            self.group.replace(replacing, process)
            process.generation = -1 if self.group.moving else self.group.generation
            if not self.group.moving:
                process.take_up()
        else:
            self.group.add(process)

    # -- the world's memory

    def _append(self, process: Process, message: Message) -> Record:
        record = self.broker.append(message, self.time.now)
        if record.topic is Topic.RECOMMENDATIONS:
            process.unrepaired.add((record.key or b"").decode())
        return record

    def _written(self, collection: Stored, point: Point) -> None:
        if collection is Stored.USERS:
            self.states[point.key, point.version] = _STATE.decode(point.body)

    def _tell(self, text: str) -> None:
        if self._verbose:
            self.story.append(f"{self._step:4} {self.time.now - BEGIN:9.3f}  {text}")

    # -- judging

    def _expect(self) -> Expectation:
        return expect(self.broker.placed, self._knobs.history_size, self._knobs.exclusions_size)

    def _compare(self) -> list[str]:
        expected = self._expect()
        points = self.store.points
        return [
            *compare_users(expected.users, points[Stored.USERS]),
            *compare_items(expected.items, points[Stored.ITEMS]),
            *compare_statistics(expected.statistics, points[Stored.STATISTICS]),
            *self._check_dead(expected),
            *self._check_lists(expected),
        ]

    def _sent(self, topic: Topic) -> Iterator[Record]:
        for place, log in self.broker.logs.items():
            if place[0] is topic:
                yield from log

    def _check_dead(self, expected: Expectation) -> list[str]:
        found = {}
        for record in self._sent(Topic.DEAD_LETTERS):
            headers = {name: value.decode() for name, value in record.headers}
            source = (headers["topic"], int(headers["partition"]), int(headers["offset"]))
            found[source] = (headers["reason"], record.key, record.value)
        return [
            f"dead letter of {source}: {found.get(source)} instead of {expected.dead.get(source)}"
            for source in sorted(found.keys() | expected.dead.keys())
            if found.get(source) != expected.dead.get(source)
            and not (source not in found and source in expected.superseded)
        ]

    def _check_lists(self, expected: Expectation) -> list[str]:
        wrong: list[str] = []
        last: dict[str, tuple[int, Recommendation | None]] = {}
        greatest: dict[str, int] = {}
        named: set[str] = set()
        for record in self._sent(Topic.RECOMMENDATIONS):
            user = (record.key or b"").decode()
            version = int(dict(record.headers)["version"])
            value = None if record.value is None else _LIST.decode(record.value)
            last[user] = (version, value)
            greatest[user] = max(version, greatest.get(user, 0))
            state = self.states.get((user, version))
            if state is None:
                wrong.append(f"a list of {user} carries version {version}, which never stood")
            elif state.is_marker != (value is None):
                wrong.append(f"version {version} of {user} has {'no ' if value is None else 'a '}list")
            elif value is not None:
                wrong += _check_list(value, state, version)
                named |= {value.trigger.id, *value.conflated}
        wrong += [
            f"event {event} of {user} is named by no list"
            for event, user in expected.named.items()
            if event not in named
        ]
        for user, want in expected.users.items():
            if user in self.excused or not want.loud:
                continue
            final = (
                _STATE.decode(self.store.points[Stored.USERS][user].body)
                if user in self.store.points[Stored.USERS]
                else None
            )
            version, value = last.get(user, (0, None))
            if user not in last:
                wrong.append(f"{user} has no list")
            elif version != greatest[user]:
                wrong.append(f"the last list of {user} is version {version}, {greatest[user]} was sent")
            elif want.marker != (value is None):
                wrong.append(
                    f"the last list of {user}, {'a marker' if want.marker else 'who lives'}, is {value and value.items}"
                )
            elif value is not None and self.quick and final is not None and value.ranker != digest(final):
                wrong.append(
                    f"the last list of {user} (version {version}) was made of another state than {final.version}"
                )
        return wrong

    def _check_probes(self) -> list[str]:
        """Lists made when everything was known for long hold nothing that may not be shown."""
        items = self._expect().items
        last: dict[str, Record] = {}
        for record in self._sent(Topic.RECOMMENDATIONS):
            last[(record.key or b"").decode()] = record
        wrong = []
        for user, record in last.items():
            if record.time < self._probed_at:
                continue  # nobody asked for a list of somebody who was erased
            for place in _LIST.decode(record.value or b"null").items if record.value else ():
                item = items.get(place.item_id)
                body = item.body if item is not None else None
                if (
                    body is None
                    or not body.get("available", True)
                    or body.get("expires_at", self.time.now) < record.time - 60.0
                    or body.get("published_at", 0.0) > record.time
                ):
                    wrong.append(f"the last list of {user} holds {place.item_id}: {body}")
        return wrong


def _check_list(value: Recommendation, state: UserState, version: int) -> list[str]:
    shown = [place.item_id for place in value.items]
    barred = {one.item_id for one in state.exclusions if one.type.value in EXCLUDING}
    if state.profile is not None:
        barred |= set(state.profile.blocked_items)
    wrong = []
    if len(set(shown)) != len(shown):
        wrong.append(f"list {version} of {value.user_id} holds an item twice: {shown}")
    if barred & set(shown):
        wrong.append(f"list {version} of {value.user_id} holds what is excluded: {barred & set(shown)}")
    if value.version != version:
        wrong.append(f"list {version} of {value.user_id} says version {value.version}")
    return wrong


def _sends_lists(process: Process) -> bool:
    """Whether a process stands just before it sends lists: those can't be fenced, so that whoever sleeps there is overtaken."""
    stop = process.stop
    return stop is not None and stop.kind == "send" and Topic.RECOMMENDATIONS in stop.about


def _once(effect: Callable[[int | None], None], parts: int | None) -> Callable[[], None]:
    return lambda: effect(parts)


def _name(process: Process) -> str:
    return "start" if process.stop is None else f"{process.stop.kind} {process.stop.about}".strip()


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

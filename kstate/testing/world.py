"""A cluster on one thread in virtual time: processes, the log between them, and whoever decides what happens next.

A *process* (worker, leader, or somebody outside of the job) is a set of *actors*, generators of named steps, that start
and die together. `turn` lets one actor take one step, or lets one thing happen that was put off: a process that is
started again, a marker or a late request that arrives. A *director* decides all that is left open: who goes on, how
long things take, what fails. So the same world is a quick and faithful cluster for the driver and a hostile one for
the simulation, and the same seed makes the same story.

A crash drops the actors of a process as they stand. Their generators are kept, unrun, until the world ends, so that no
clean-up of theirs reaches the log.
"""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from itertools import count
from operator import attrgetter
from typing import Any, Protocol

from kstate.clock import Step, Steps
from kstate.testing.memory_broker import PartitionLog, Transaction
from kstate.testing.memory_log import Call, Fault, MemoryLog
from kstate.testing.virtual_time import VirtualClock

STORY_LENGTH = 500
"""Events kept for a report: enough to see what led to a violation."""

FOR_EVER = float("inf")


class Status(Enum):
    """How a process stands; ENDED and CRASHED are final."""

    RUNNING = "running"
    ENDED = "ended"
    CRASHED = "crashed"


@dataclass(slots=True, eq=False)
class Actor:
    """One thread of a process."""

    name: str
    steps: Steps[Any]
    process: Process
    wake: float = 0.0
    """When it goes on; FOR_EVER while it is held."""
    at: str = "start"
    """The step it stands at."""


@dataclass(slots=True, eq=False)
class Process:
    """Actors that live and die together; the first one is the main thread, whose end ends the process."""

    name: str
    incarnation: str
    role: str
    """"worker", "leader", or whatever else takes part."""
    status: Status = Status.RUNNING
    actors: list[Actor] = field(default_factory=list)
    result: Any = None
    """What the main thread returned, or the exception that it raised."""
    held_until: float = 0.0
    gone: Callable[[Process], None] | None = None
    """Called when the process has ended or crashed."""

    @property
    def main(self) -> Actor:
        """The main thread."""
        return self.actors[0]


class Director(Protocol):
    """Decides what the world leaves open."""

    def pick(self, ready: Sequence[Actor]) -> Actor:
        """Who of those that can go on does."""
        ...

    def pause_after(self, actor: Actor, step: Step) -> float:
        """Seconds until an actor goes on that has just taken a step; at least what the step asks for."""
        ...

    def stepped(self, actor: Actor) -> None:
        """An actor has taken a step: now it may be crashed or held."""
        ...

    def fault(self, actor: Actor | None, call: Call) -> Fault | None:
        """What goes wrong in a call of this actor."""
        ...

    def marker_delay(self, log: PartitionLog) -> float:
        """Seconds until the marker of a decided transaction reaches a partition."""
        ...

    def request_delay(self) -> float | None:
        """Seconds until a late EndTxn or report arrives; None: it is lost."""
        ...


class World:
    """Clock, log, processes and what is under way.

    Invariant: nothing but `turn` moves the clock, and nothing happens but by `turn` or the caller's own hand.
    """

    def __init__(self, *, transaction_timeout_ms: int = 10_000, auto_deliver: bool = True) -> None:
        self.clock = VirtualClock()
        self.log = MemoryLog(self.clock, transaction_timeout_ms=transaction_timeout_ms, auto_deliver=auto_deliver)
        self.log.faults = lambda call: self.director.fault(self.current, call)
        self.director: Director = FairDirector()
        self.current: Actor | None = None
        """Whose step is being taken."""
        self.processes: list[Process] = []
        """All there ever were."""
        self.actors: list[Actor] = []
        """Those of running processes."""
        self.watch: Callable[[], None] = lambda: None
        """Called after everything that happens."""
        self.steps = 0
        self.coverage: Counter[tuple[str, str]] = Counter()
        """(role, step name) → how often it was taken."""
        self.story: deque[tuple[float, str, str]] = deque(maxlen=STORY_LENGTH)
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._number = count()
        self._on_their_way: set[tuple[Transaction, PartitionLog]] = set()

    # -- processes

    def start(self, role: str, name: str, incarnation: str, *threads: Steps[Any]) -> Process:
        """A new process; its actors, the main thread first, may go on at once."""
        process = Process(name, incarnation, role)
        for number, steps in enumerate(threads):
            suffix = "" if number == 0 else f"'{number}"
            process.actors.append(Actor(incarnation + suffix, steps, process, self.clock.now))
        self.processes.append(process)
        self.actors += process.actors
        self.tell(incarnation, "starts")
        return process

    def crash(self, process: Process, why: str = "crashes") -> None:
        """Kill -9: not a single further instruction of it is run."""
        self.tell(process.incarnation, f"{why} at {process.main.at}")
        self._remove(process, Status.CRASHED)

    def hold(self, process: Process, seconds: float = FOR_EVER) -> None:
        """SIGSTOP, for a while: all its actors stand still."""
        self.tell(process.incarnation, f"is held for {seconds:.2f} s at {process.main.at}")
        process.held_until = self.clock.now + seconds
        for actor in process.actors:
            actor.wake = process.held_until

    def release(self, process: Process) -> None:
        """SIGCONT."""
        process.held_until = 0.0
        for actor in process.actors:
            actor.wake = min(actor.wake, self.clock.now)

    def running(self) -> list[Process]:
        """The processes that have neither ended nor crashed."""
        return [process for process in self.processes if process.status is Status.RUNNING]

    # -- what happens

    def turn(self) -> None:
        """One step of one actor, or one thing that was put off, whichever comes first."""
        now = self.clock.now
        if self._timers and self._timers[0][0] <= now:
            heapq.heappop(self._timers)[2]()
            self._happened()
            return
        ready = [actor for actor in self.actors if actor.wake <= now]
        if ready:
            self.step(self.director.pick(ready))
            return
        wakes = [actor.wake for actor in self.actors]
        instant = min([*wakes, self._timers[0][0]] if self._timers else wakes, default=FOR_EVER)
        if instant == FOR_EVER:
            raise RuntimeError("nothing can happen any more: every actor is held or gone")
        self.clock.move_to(instant)

    def step(self, actor: Actor) -> None:
        """Let this actor take one step."""
        self.current = actor
        try:
            step = next(actor.steps)
        except StopIteration as end:
            self._end(actor, end.value)
        except Exception as error:  # noqa: BLE001 - whatever a process dies of, the world goes on and tells
            self._end(actor, error)
        else:
            self._took(actor, step)
        finally:
            self.current = None
        self._happened()

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        """Let something happen after a while."""
        heapq.heappush(self._timers, (self.clock.now + seconds, next(self._number), action))

    @property
    def quiet(self) -> bool:
        """Nothing is under way in the log, and nothing was put off."""
        return not self._timers and not self.log.broker.markers

    def run(self, until: Callable[[], bool], turns_max: int) -> bool:
        """Turn until a condition holds; False when it does not within so many turns."""
        for _ in range(turns_max):
            if until():
                return True
            self.turn()
        return until()

    def tell(self, who: str, what: str) -> None:
        """Add an event to the story."""
        self.story.append((self.clock.now, who, what))

    def told(self) -> str:
        """The story so far, one line per event."""
        return "\n".join(f"{instant:9.3f}  {who:12} {what}" for instant, who, what in self.story)

    def _took(self, actor: Actor, step: Step) -> None:
        self.steps += 1
        self.coverage[actor.process.role, step.name] += 1
        actor.at = step.name
        actor.wake = self.clock.now + self.director.pause_after(actor, step)
        self.story.append((self.clock.now, actor.name, step.name))
        self.director.stepped(actor)

    def _end(self, actor: Actor, result: Any) -> None:
        process = actor.process
        if actor is not process.main:
            self.actors.remove(actor)
            return
        process.result = result
        self.tell(process.incarnation, f"ends with {result!r}")
        self._remove(process, Status.ENDED)

    def _remove(self, process: Process, status: Status) -> None:
        process.status = status
        self.actors = [actor for actor in self.actors if actor.process is not process]
        if process.gone is not None:
            process.gone(process)

    def _happened(self) -> None:
        """Put off what the log has left open, then let the watcher look."""
        if self.log.broker.markers:
            self._send_markers()
        for request in self.log.pending_requests():
            self.log.drop_request()
            if (delay := self.director.request_delay()) is not None:
                self.later(delay, request.arrive)
        self.watch()

    def _send_markers(self) -> None:
        for marker in self.log.broker.markers:
            if marker not in self._on_their_way:
                self._on_their_way.add(marker)
                self.later(self.director.marker_delay(marker[1]), partial(self._deliver, marker))

    def _deliver(self, marker: tuple[Transaction, PartitionLog]) -> None:
        """A marker arrives, unless its owner's next transaction was waited for and it is there already."""
        self._on_their_way.remove(marker)
        if marker in self.log.broker.markers:
            self.log.deliver_marker(self.log.broker.markers.index(marker))


class FairDirector:
    """Everybody goes on in turn, nothing fails, nothing takes longer than it must."""

    STEP_S = 0.0001

    def pick(self, ready: Sequence[Actor]) -> Actor:
        return min(ready, key=attrgetter("wake"))

    def pause_after(self, actor: Actor, step: Step) -> float:  # noqa: ARG002 (the same for everybody)
        return step.wait or self.STEP_S

    def stepped(self, actor: Actor) -> None:
        """Nothing happens to it."""

    def fault(self, actor: Actor | None, call: Call) -> Fault | None:  # noqa: ARG002 (nothing fails)
        return None

    def marker_delay(self, log: PartitionLog) -> float:  # noqa: ARG002 (all at once)
        return 0.0

    def request_delay(self) -> float | None:
        return 0.0

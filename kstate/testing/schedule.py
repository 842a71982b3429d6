"""Hostile directors: everything that a world leaves open is decided by a seed, to the job's disadvantage.

*Uniform* schedules hit any process at any step with small probability. *Biased* ones choose a few named steps and what
happens there, for long: a process stopped between two particular steps until others have taken over is what uniform
schedules hardly ever make, and what breaks protocols. Both have the same noise underneath: markers that arrive late,
polls that bring nothing, lost and late reports, idle processes that wake late.

Every blow that found its victim is counted in `landed`. `end` ends it all, and brings back who is held.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from kstate.clock import Step
from kstate.plan import Move, MovePhase, Plan
from kstate.state.layout import lineage_key
from kstate.testing.cluster import Cluster
from kstate.testing.faults import Blow, Trigger, some_fault
from kstate.testing.memory_broker import PartitionLog
from kstate.testing.memory_log import Call, Fault
from kstate.testing.memory_store import MemoryStore
from kstate.testing.named_steps import copy_steps, leader_steps, worker_steps
from kstate.testing.world import Actor, Process

UNIFORM_BLOW = 0.012
"""Probability that a step of a uniform schedule is hit."""
EMPTY_POLL = 0.03
SHORT_POLL = 0.1
LOST_REPORT = 0.03
LATE_REPORT = 0.03
LOST_LINEAGE = 0.3
DOUBT_SHARE = 0.6
"""Of the biased schedules."""
LINEAGE_KEYS = lineage_key(0, 0)[:3], b"\x00\x00\x03"

BLOWS: Sequence[tuple[Blow, int]] = (
    (Blow.CRASH, 5),
    (Blow.HOLD, 5),
    (Blow.DELAY, 2),
    (Blow.BREAK, 4),
    (Blow.DOUBT, 4),
    (Blow.CUT, 2),
    (Blow.CUT_CONTROL, 2),
    (Blow.SILENCE, 2),
    (Blow.STOP, 1),
)
"""With their weights."""

COMMIT_STEPS = [
    "polled",
    "processed",
    "begun",
    "outputs-sent",
    "blocks-sent",
    "markers-sent",
    "flushed",
    "committed",
    "stored",
    "idle",
]
DOUBT_STEPS = ["tainted", "opened", "control-read", "looked", "undone"]
MOVER_STEPS = ("plan-begun", "plan-sent", "plan-committed", "plan-seen", "fenced", "decision-seen", "idle")
MOVE_SHARE = 0.6
"""Of the triggers of a schedule with orders: they concern whoever takes part in a move."""


class SeededDirector:
    """`Director` and `Supervision` by seed: delays, and small losses until it is calm."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self.calm = False
        self.landed: Counter[str] = Counter()
        """Blow or fault → how often it met somebody."""
        self.hit: Counter[tuple[str, str]] = Counter()
        """(role, step) → how often somebody was hit there."""
        self.taken: Counter[tuple[str, str]] = Counter()
        """(part in a move, step) → how often it was taken."""
        self.cluster: Cluster
        """Set by whoever makes the cluster."""
        self._slow = rng.random() < 0.3
        self._pace = rng.choice((1.0, 2.0, 4.0))

    def pick(self, ready: Sequence[Actor]) -> Actor:
        return ready[int(self.rng.random() * len(ready))]

    def pause_after(self, actor: Actor, step: Step) -> float:  # noqa: ARG002 (everybody is slow)
        """Idle processes wake late by a factor, busy ones take up to a few milliseconds per step."""
        if step.name == "beat":
            return step.wait
        if step.wait:
            return step.wait * self._pace * (0.5 + self.rng.random())
        return self.rng.random() * 0.002

    def stepped(self, actor: Actor) -> None:
        """Nothing happens to it."""

    def is_spent(self) -> bool:
        """Nothing more is planned."""
        return True

    def fault(self, actor: Actor | None, call: Call) -> Fault | None:
        """Polls that bring little, reports that are lost or late."""
        if self.calm or actor is None or actor.process.role == "outside":
            return None
        roll = self.rng.random()
        if call.operation == "poll":
            return Fault.EMPTY if roll < EMPTY_POLL else Fault.SHORT if roll < EMPTY_POLL + SHORT_POLL else None
        if call.operation == "report":
            return Fault.LOST if roll < LOST_REPORT else Fault.DELAYED if roll < LOST_REPORT + LATE_REPORT else None
        return None

    def marker_delay(self, log: PartitionLog) -> float:  # noqa: ARG002 (all alike)
        if self.calm:
            return 0.001
        return self.rng.random() * (0.4 if self._slow and self.rng.random() < 0.3 else 0.01)

    def request_delay(self) -> float | None:
        if not self.calm and self.rng.random() < 0.3:
            return None
        return self.rng.random() * 0.5

    def restart_delay(self, process: Process) -> float:  # noqa: ARG002 (all alike)
        return 0.01 + self.rng.random() * 0.3

    def reports(self, process: Process) -> bool:  # noqa: ARG002 (all alike)
        return self.rng.random() < 0.5

    def crash_store(self, store: MemoryStore) -> None:
        """Now and then it says no longer how far it is: a copy of unknown age, which is of no use."""
        store.crash(self.rng)
        if self.rng.random() < LOST_LINEAGE:
            entries = [key for key, _ in store.scan(*LINEAGE_KEYS)]
            store.write(entries, [None] * len(entries))
            store.flush()

    def end(self) -> None:
        """No more faults; whoever is held comes back."""
        self.calm = True
        for process in self.cluster.world.running():
            self.cluster.world.release(process)


class HostileDirector(SeededDirector):
    """Hits processes at their steps, as triggers say, or anywhere with a small probability."""

    def __init__(self, rng: Random, triggers: Sequence[Trigger], *, uniform: float) -> None:
        super().__init__(rng)
        self._uniform = uniform
        self._triggers = list(triggers)
        self._counts: Counter[tuple[str, str]] = Counter()
        self._plan: Plan | None = None
        self._parts: dict[str, tuple[str, ...]] = {}
        """Incarnation → its parts in the moves of that plan."""
        self._breaks: dict[Process, Callable[[Call], bool]] = {}
        """The next call of this process for which it says so fails."""
        self._cuts: dict[Process, list[_Cut]] = {}

    def stepped(self, actor: Actor) -> None:
        process = actor.process
        if actor is not process.main or process.role == "outside":
            return
        parts = self._parts_of(process)
        self.taken.update((part, actor.at) for part in parts)
        if self.calm:
            return
        self._counts[process.role, actor.at] += 1
        for trigger in self._triggers:
            if trigger.step == actor.at and self._is_due(trigger, (process.role, *parts)):
                self._triggers.remove(trigger)
                self._strike(process, trigger)
                return
        if self._uniform and self.rng.random() < self._uniform:
            self._strike(process, Trigger(process.role, actor.at, 1, some_blow(self.rng), some_duration(self.rng)))

    def fault(self, actor: Actor | None, call: Call) -> Fault | None:
        if self.calm or actor is None or actor.process.role == "outside":
            return None
        process, now = actor.process, self.cluster.world.clock.now
        for cut in self._cuts.get(process, ()):
            if now < cut.until and cut.concerns(call):
                self.landed[cut.name] += not cut.felt
                cut.felt = True
                return Fault.LOST if call.operation == "report" else Fault.RETRYABLE
        breaks = self._breaks.get(process)
        if breaks is not None and breaks(call):
            del self._breaks[process]
            self.landed[f"{call.operation} fails"] += 1
            return some_fault(self.rng, call)
        return super().fault(actor, call)

    def is_spent(self) -> bool:
        return not self._triggers and not self._uniform

    def end(self) -> None:
        self._triggers.clear()
        self._breaks.clear()
        self._cuts.clear()
        super().end()

    # -- blows

    def _is_due(self, trigger: Trigger, roles: Sequence[str]) -> bool:
        if trigger.role not in roles:
            return False
        place = trigger.role, trigger.step
        return self._counts[place] + self.taken[place] >= trigger.nth

    def _parts_of(self, process: Process) -> tuple[str, ...]:
        """What a process has to do with the moves of the newest plan."""
        plans = self.cluster.plans
        if not plans or not plans[-1].moves:
            return ()
        if plans[-1] is not self._plan:
            self._plan, self._parts = plans[-1], _parts(plans[-1].moves)
        return ("mover",) if process.role == "leader" else self._parts.get(process.incarnation, ())

    def _strike(self, process: Process, trigger: Trigger) -> None:
        world, blow, seconds = self.cluster.world, trigger.blow, trigger.seconds
        self.hit[process.role, process.main.at] += 1
        if trigger.role != process.role:
            self.hit[trigger.role, process.main.at] += 1
        match blow:
            case Blow.CRASH:
                world.crash(process)
            case Blow.HOLD:
                world.hold(process, seconds)
            case Blow.DELAY:
                world.tell(process.incarnation, f"is slow for {seconds:.2f} s at {process.main.at}")
                process.main.wake = world.clock.now + seconds
            case Blow.STOP:
                self._stop(process)
            case _:
                world.tell(process.incarnation, f"{blow.name.lower()} for {seconds:.2f} s at {process.main.at}")
                self._disturb(process, blow, world.clock.now + seconds)
                return
        self.landed[blow.name.lower()] += 1

    def _disturb(self, process: Process, blow: Blow, until: float) -> None:
        """Blows that let calls fail; they have landed only when one does."""
        match blow:
            case Blow.BREAK:
                self._breaks[process] = lambda call: call.operation != "report"
            case Blow.DOUBT:
                self._breaks[process] = lambda call: call.operation == "commit"
            case _:
                control = Call("poll", self.cluster.control_topic)
                concerns: Mapping[Blow, Callable[[Call], bool]] = {
                    Blow.CUT: lambda _: True,
                    Blow.CUT_CONTROL: lambda call: call == control,
                    Blow.SILENCE: lambda call: call.operation == "report",
                }
                self._cuts.setdefault(process, []).append(_Cut(blow.name.lower(), until, concerns[blow]))

    def _stop(self, process: Process) -> None:
        """SIGTERM and a new start later: a rolling restart. A leader has no work to finish."""
        world = self.cluster.world
        world.tell(process.incarnation, f"is told to stop at {process.main.at}")
        if process.role == "leader":
            world.crash(process)
        else:
            self.cluster.stop_worker(process, self.restart_delay(process))


@dataclass(slots=True)
class _Cut:
    """Some calls of a process get no answer for a while."""

    name: str
    until: float
    concerns: Callable[[Call], bool]
    felt: bool = False


def some_blow(rng: Random) -> Blow:
    """A blow by weight."""
    return rng.choices([blow for blow, _ in BLOWS], [weight for _, weight in BLOWS])[0]


def some_duration(rng: Random) -> float:
    """Short, longer than it takes to be declared dead, or longer than a transaction may last."""
    return rng.choice((0.05, 0.3, 0.6, 1.2)) * (0.5 + rng.random())


def some_triggers(rng: Random, count: int, *, moves: bool = False) -> list[Trigger]:
    """A biased schedule: any step of worker or leader may be chosen, however rare it is; with `moves` more often one
    of those who take part in a move.
    """
    workers, leaders = sorted(worker_steps()), sorted(leader_steps())
    places = [("worker", step) for step in workers] + [("leader", step) for step in leaders]
    chosen = [_move_place(rng) if moves and rng.random() < MOVE_SHARE else rng.choice(places) for _ in range(count)]
    triggers = [Trigger(r, s, _nth(rng, r), some_blow(rng), some_duration(rng)) for r, s in chosen]
    return triggers + (_doubt(rng) if rng.random() < DOUBT_SHARE else [])


def _nth(rng: Random, role: str) -> int:
    """The parts that somebody has in a move are short."""
    return 1 + int(rng.expovariate(0.3 if role in ("worker", "leader") else 0.9))


def _move_place(rng: Random) -> tuple[str, str]:
    """A step of somebody who takes part in a move."""
    role = rng.choice(("source", "releaser", "releaser", "target", "adopter", "adopter", "mover"))
    if role == "mover":
        return role, rng.choice(MOVER_STEPS if rng.random() < 0.7 else sorted(leader_steps()))
    copying = sorted(copy_steps()) if role in ("target", "adopter") else []
    return role, rng.choice([*COMMIT_STEPS, *COMMIT_STEPS, *DOUBT_STEPS, *copying])


def _parts(moves: Sequence[Move]) -> dict[str, tuple[str, ...]]:
    """Incarnation → "source", "target" of moves that are warm, "releaser", "adopter" once the release was ordered."""
    parts: dict[str, set[str]] = defaultdict(set)
    for move in moves:
        warm = move.phase is MovePhase.WARM
        parts[move.source].add("source" if warm else "releaser")
        parts[move.target].add("target" if warm else "adopter")
    return {incarnation: tuple(sorted(names)) for incarnation, names in parts.items()}


def _doubt(rng: Random) -> list[Trigger]:
    """A commit in doubt, and something that hits its worker while it finds out: by chance the two hardly ever meet."""
    role = rng.choice(("worker", "worker", "source", "releaser", "adopter"))
    doubt = Trigger(role, "flushed", 1 + int(rng.expovariate(0.2 if role == "worker" else 1.0)), Blow.DOUBT, 0.0)
    steps = rng.sample(("tainted", "looked", "undone"), 2)
    return [doubt, *(Trigger("worker", step, 1, some_blow(rng), some_duration(rng)) for step in steps)]

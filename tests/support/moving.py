"""A leader's core among model workers that follow the protocol of moves to the letter, and nothing else.

Workers read the control topic when it pleases them, own what it gives them, release and adopt as it says, and die at
any time. Whatever they do, no slot is ever owned by two of them that can still commit: that is checked at every step
(S2, S6, S7), beside what the control plane itself checks of its plans.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from kstate.coordinator.commands import Answer, Command, Declare, Fence, Finish, Halt, Publish, TakeEnds
from kstate.coordinator.control import ControlView, take
from kstate.coordinator.core import Rules, State, decide, fresh_state, observe
from kstate.coordinator.events import ControlRead, Draft, Event, Fenced, OwnBeat, Surveyed, Tick
from kstate.description import InputDescription, JobDescription, OperatorDescription
from kstate.keyspace import KeyRange
from kstate.messages import (
    Control,
    Fatality,
    Heartbeat,
    JobHalted,
    Order,
    OrderAnswered,
    PlanPublished,
    TermStarted,
    TilePhase,
    TileReport,
    WorkerDied,
)
from kstate.plan import Move, MovePhase, Plan, Registry, Shard, Tile
from kstate.progress import SlotMap

PARTITIONS = 2
JOB = JobDescription("app", (OperatorDescription("count", "string", (InputDescription("words", "words"),)),))
SHARDS = tuple(Shard("count", partition) for partition in range(PARTITIONS))
DRAFT = Draft(
    Registry(),
    {"words": PARTITIONS},
    {"count": PARTITIONS},
    {("count", "words", p): 0 for p in range(PARTITIONS)},
    {},
    bounded=False,
    reason="",
)


@dataclass(frozen=True, slots=True)
class Mark:
    """The newest marker over a slot in the backup log."""

    grant: int
    move: int | None = None
    """Of a release."""


class RuleBrokenError(AssertionError):
    """Two workers own a slot, or nobody ever will."""


@dataclass
class ModelWorker:
    """One incarnation: what it has read, what it owns, what it released."""

    name: str
    incarnation: str
    build: str
    plan: Plan | None = None
    alive: bool = True
    owned: dict[Shard, SlotMap[int]] = field(default_factory=lambda: defaultdict(SlotMap))
    """Slot → grant under which it runs."""
    released: dict[Shard, SlotMap[int]] = field(default_factory=lambda: defaultdict(SlotMap))
    """Slot → grant under which it released it last (P6)."""
    copies: dict[tuple[Shard, KeyRange, int], int] = field(default_factory=dict)
    """Copy of a range for a move's grant, or for a standby's 0 → how often it was brought forward."""
    fatalities: tuple[Fatality, ...] = ()

    def own_tiles(self) -> list[Tile]:
        return [] if self.plan is None else list(self.plan.owned_by(self.incarnation))

    def own_moves(self, phase: MovePhase) -> list[Move]:
        moves = () if self.plan is None else self.plan.moves
        return [m for m in moves if m.phase is phase and self.incarnation in {m.source, m.target}]

    def beat(self) -> Heartbeat:
        """All that it has, as a worker reports it."""
        tiles = [TileReport(s, r, g, TilePhase.RUNNING, 1, {}) for s, owned in self.owned.items() for r, g in owned]
        for (shard, key_range, grant), steps in self.copies.items():
            tiles.append(TileReport(shard, key_range, grant, TilePhase.WARM if steps > 1 else TilePhase.WARMING, 0, {}))
        version = self.plan.version if self.plan else 0
        return Heartbeat(
            self.incarnation,
            self.name,
            "host",
            1,
            1,
            version,
            tuple(tiles),
            build=self.build,
            fatalities=self.fatalities,
        )


class MovingCluster:
    """A leader, its control topic, the backup logs and the workers."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.now_ms = 0
        self.log: list[Control] = []
        self.view = ControlView()
        self.workers: dict[str, ModelWorker] = {}
        self.fenced: set[str] = set()
        """By anybody, ever."""
        self.marks: dict[Shard, SlotMap[Mark]] = {shard: SlotMap() for shard in SHARDS}
        self.beats: list[Heartbeat] = []
        """On their way."""
        self.orders: dict[str, Order] = {}
        """Repeated until they are answered."""
        self.state: State = fresh_state(JOB, rules)
        self.take_over()

    # -- the leader

    def take_over(self) -> None:
        """A new leader, which knows nothing but the control topic."""
        self.state = fresh_state(JOB, self.rules)
        self.see(Tick(self.now_ms))
        for message in self.log:
            self.see(ControlRead(message))
        self.write(TermStarted(self.state.control.term + 1, "leader"))
        if self.state.control.plan is None:
            self.see(Surveyed(DRAFT))

    def see(self, *events: Event) -> None:
        for event in events:
            self.state = observe(self.state, event)

    def write(self, message: Control) -> None:
        self.log.append(message)
        self.view = take(self.view, message)
        self.see(ControlRead(message))

    def wait(self) -> None:
        self.now_ms += 400
        self.see(Tick(self.now_ms), OwnBeat())

    def decide(self, *, lost: bool = False) -> Command | None:
        """Carry out the one next thing; a lost command had no effect."""
        command = decide(self.state)
        if command is None or lost:
            return None if lost else command
        term = self.state.control.term
        match command:
            case Declare(incarnation, reason):
                self.write(WorkerDied(term, incarnation, reason))
            case Fence(incarnation):
                assert incarnation in self.view.dead, "S2: fenced before the decision was seen"
                self.fenced.add(incarnation)
                self.see(Fenced(incarnation))
            case Publish(plan, reason, order):
                assert reason, "a plan without a reason"
                self.write(PlanPublished(plan, reason, order))
            case Answer(order, accepted, reason):
                assert reason
                self.write(OrderAnswered(term, order, accepted, reason))
            case Halt(reason, exit_code):
                self.write(JobHalted(term, reason, exit_code))
            case TakeEnds() | Finish():
                raise AssertionError("no bounded run")
        return command

    def lead(self, limit: int = 60) -> list[Command]:
        """Whatever is due now."""
        done: list[Command] = []
        while (command := self.decide()) is not None:
            done.append(command)
            assert len(done) < limit, [type(c).__name__ for c in done]
        return done

    def order(self, order: Order) -> None:
        self.orders[order.id] = order
        self.see(order)

    def repeat_orders(self) -> None:
        """As the command line does, until the control topic answers."""
        answered = {m.order for m in self.log if isinstance(m, PlanPublished | OrderAnswered)}
        self.orders = {i: order for i, order in self.orders.items() if i not in answered}
        self.see(*self.orders.values())

    @property
    def plan(self) -> Plan | None:
        return self.view.plan

    def reasons(self) -> list[str]:
        return [m.reason for m in self.log if isinstance(m, PlanPublished | OrderAnswered)]

    # -- workers

    def start(self, name: str, build: str = JOB.build) -> ModelWorker:
        """The next incarnation of a name; one that runs goes on beside it."""
        number = 1 + sum(w.name == name for w in self.workers.values())
        made = ModelWorker(name, f"{name}.{number}", build)
        self.workers[made.incarnation] = made
        return made

    def newest(self, name: str) -> ModelWorker | None:
        return next((w for w in reversed(self.workers.values()) if w.name == name and w.alive), None)

    def live(self) -> list[ModelWorker]:
        return [w for w in self.workers.values() if w.alive]

    def read(self, worker: ModelWorker) -> None:
        """It reads control to its end; declared dead, it exits."""
        worker.plan = self.plan
        named = any(m.plan.member(worker.incarnation) is not None for m in self.log if isinstance(m, PlanPublished))
        gone = named and self.plan is not None and self.plan.member(worker.incarnation) is None
        if worker.incarnation in self.view.dead or gone:
            worker.alive = False

    def work(self, worker: ModelWorker) -> None:
        """One epoch by the plan that it has read; the fenced cannot commit, so they end."""
        if not worker.alive or worker.plan is None or worker.plan.member(worker.incarnation) is None:
            return
        if worker.incarnation in self.fenced:
            worker.alive = False
            return
        self._commit(worker)
        self._release(worker)
        self._give_up(worker)
        self._take(worker)
        self._adopt(worker)
        self._copy(worker)

    def _commit(self, worker: ModelWorker) -> None:
        """A marker for every piece that it runs."""
        for shard, owned in worker.owned.items():
            for key_range, grant in owned:
                self.marks[shard].assign(key_range, Mark(grant))

    def _release(self, worker: ModelWorker) -> None:
        for move in worker.own_moves(MovePhase.RELEASE):
            if move.source != worker.incarnation:
                continue
            for key_range, grant in list(worker.owned[move.shard].slice(move.key_range)):
                if grant >= move.grant:
                    continue  # it is the target too, and has adopted it again
                self.marks[move.shard].assign(key_range, Mark(grant, move.id))
                worker.released[move.shard].assign(key_range, grant)
                worker.owned[move.shard].clear(key_range)

    def _give_up(self, worker: ModelWorker) -> None:
        """What the plan neither gives to it nor has on the way to it."""
        kept: dict[Shard, SlotMap[int]] = defaultdict(SlotMap)
        for tile in worker.own_tiles():
            kept[tile.shard].assign(tile.key_range, 1)
        for move in worker.own_moves(MovePhase.RELEASE):
            if move.target == worker.incarnation:
                kept[move.shard].assign(move.key_range, 1)
        for shard, owned in worker.owned.items():
            for key_range, _ in list(owned):
                for gone in kept[shard].gaps(key_range):
                    owned.clear(gone)

    def _take(self, worker: ModelWorker) -> None:
        """Tiles of the plan: owned under a grant that is newer than that under which they were released."""
        leaving = [m for m in worker.own_moves(MovePhase.RELEASE) if m.source == worker.incarnation]
        for tile in worker.own_tiles():
            shard, rest = tile.shard, SlotMap([(tile.key_range, 1)])
            for move in leaving:
                if move.shard == shard:
                    rest.clear(move.key_range)
            for free, _ in list(rest):
                released = worker.released[shard]
                takes = [r for r, old in released.slice(free) if tile.grant > old] + released.gaps(free)
                for key_range in takes:
                    self._own(worker, shard, key_range, tile.grant)

    def _adopt(self, worker: ModelWorker) -> None:
        """The range of a move whose release stands in the log (S6)."""
        for move in worker.own_moves(MovePhase.RELEASE):
            if move.target != worker.incarnation:
                continue
            owned = worker.owned[move.shard]
            marks: list[tuple[KeyRange, Mark | None]] = [*self.marks[move.shard].slice(move.key_range)]
            marks += [(gap, None) for gap in self.marks[move.shard].gaps(move.key_range)]
            if all(_proves(mark, move) for _, mark in marks) and owned.slice(move.key_range) != SlotMap(
                [(move.key_range, move.grant)]
            ):
                self._own(worker, move.shard, move.key_range, move.grant)

    def _own(self, worker: ModelWorker, shard: Shard, key_range: KeyRange, grant: int) -> None:
        for other in self.live():
            if other is not worker and other.incarnation not in self.fenced:
                for piece, _ in other.owned[shard].slice(key_range):
                    raise RuleBrokenError(f"{worker.incarnation} takes {shard} {piece}, {other.incarnation} runs it")
        worker.owned[shard].assign(key_range, grant)

    def _copy(self, worker: ModelWorker) -> None:
        """Copies for moves and as a standby come forward by a step; those nobody wants any more are dropped."""
        plan = worker.plan
        assert plan is not None
        mine = [m for m in plan.moves if m.target == worker.incarnation]
        wanted = {(m.shard, m.key_range, m.grant) for m in mine}
        wanted |= {(s.shard, s.key_range, 0) for s in plan.standbys if s.worker == worker.incarnation}
        worker.copies = {place: worker.copies.get(place, 0) + 1 for place in wanted}

    # -- time

    def settle(self, rounds: int = 40) -> None:
        """No more faults: everybody reads, works and is heard, until nothing happens any more."""
        for _ in range(rounds):
            for worker in self.live():
                self.read(worker)
                self.work(worker)
            self.see(*(worker.beat() for worker in self.live()))
            self.repeat_orders()
            self.lead()
            self.wait()
        self.check_settled()

    def check_settled(self) -> None:
        """No move is left, every tile runs or is parked, and there are as many standbys as can be."""
        plan = self.plan
        assert plan is not None
        if plan.moves or self.state.orders or plan.dead:
            raise RuleBrokenError(f"not over: {plan.moves} {self.state.orders} {plan.dead} {self.reasons()[-3:]}")
        able = [m.incarnation for m in plan.members if m.build == JOB.build and m.incarnation not in plan.drained]
        parked = {(p.shard, p.key_range) for p in plan.parked}
        for tile in plan.tiles:
            if tile.worker is None and (tile.shard, tile.key_range) in parked:
                continue
            worker = self.workers[tile.worker] if tile.worker else None
            if (
                worker is None
                or not worker.alive
                or list(worker.owned[tile.shard].slice(tile.key_range)) != [(tile.key_range, tile.grant)]
            ):
                raise RuleBrokenError(f"{tile} of {tile.worker} does not run: {self.reasons()[-3:]}")
            if tile.worker in plan.drained and able:
                raise RuleBrokenError(f"{tile} is still with {tile.worker}, which is drained")
            there = [s.worker for s in plan.standbys if (s.shard, s.key_range) == (tile.shard, tile.key_range)]
            possible = len([i for i in able if i != tile.worker])
            if len(there) != min(self.rules.recovery.standbys, possible) or not set(there) <= set(able) - {tile.worker}:
                raise RuleBrokenError(f"{tile} has standbys {there} of {able}")


def _proves(mark: Mark | None, move: Move) -> bool:
    """Whether the newest marker over a slot shows that the source of the move has let it go."""
    return mark is not None and (mark.move == move.id or mark.grant >= move.id)

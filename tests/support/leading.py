"""A leader's core and the control topic that it reads back; what it commits is checked as it is written."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kstate.coordinator.commands import Answer, Command, Declare, Fence, Finish, Halt, Publish, TakeEnds
from kstate.coordinator.core import Rules, decide, fresh_state, observe
from kstate.coordinator.events import (
    ControlRead,
    Draft,
    EndsTaken,
    Event,
    Fenced,
    OwnBeat,
    Surveyed,
    Tick,
)
from kstate.description import InputDescription, JobDescription, OperatorDescription
from kstate.messages import (
    Control,
    Heartbeat,
    JobHalted,
    OrderAnswered,
    PlanPublished,
    TermStarted,
    WorkerDied,
)
from kstate.plan import InputPartition, Plan, Registry, Shard, tiling_fault

WORDS = "app.split.words"
JOB = JobDescription(
    "app",
    (
        OperatorDescription("split", "none", (InputDescription("lines", "lines"),)),
        OperatorDescription("count", "string", (InputDescription("words", WORDS, internal=True, source_uid="split"),)),
    ),
)
STARTS = {("split", "lines", 0): 0, ("count", WORDS, 0): 0, ("count", WORDS, 1): 0}
COUNTS = {"lines": 1, WORDS: 2}


def draft(ends: Mapping[InputPartition, int] | None = None) -> Draft:
    """What a survey of the job finds: one partition of lines, two of words."""
    return Draft(Registry(), COUNTS, {"split": 1, "count": 2}, STARTS, ends or {}, ends is not None, "")


def beat(name: str, start: int = 1, **fields: Any) -> Heartbeat:
    """A heartbeat of the n-th start of a worker."""
    fields = {"build": JOB.build, **fields}
    return Heartbeat(f"{name}-{start}", name, "host", 1, 1, 0, fields.pop("tiles", ()), **fields)


@dataclass
class Leading:
    """A leader's core and the control topic it reads back; what it commits is checked as it is written."""

    rules: Rules = field(default_factory=lambda: Rules(expected_workers=2))
    log: list[Control] = field(default_factory=list)
    fenced: set[str] = field(default_factory=set)
    now_ms: int = 0
    ends: Mapping[InputPartition, int] | None = None
    check: bool = True
    """Whether tiles go from the dead only: there are no moves."""

    def __post_init__(self) -> None:
        self.state = fresh_state(JOB, self.rules)
        self.take_over()

    def take_over(self) -> None:
        """A new leader: it knows nothing but what stands in control."""
        self.state = fresh_state(JOB, self.rules)
        self.fenced.clear()
        self.see(Tick(self.now_ms))
        for message in self.log:
            self.see(ControlRead(message))
        self.write(TermStarted(self.state.control.term + 1, "leader"))
        if self.state.control.plan is None:
            self.see(Surveyed(draft(self.ends)))

    def see(self, *events: Event) -> None:
        for event in events:
            self.state = observe(self.state, event)

    def wait(self, seconds: float) -> None:
        """Time goes by and the leader reads its own beats."""
        for _ in range(round(seconds / 0.4)):
            self.now_ms += 400
            self.see(Tick(self.now_ms), OwnBeat())

    def write(self, message: Control) -> None:
        """Append to control, checking the rules, and read it back."""
        self._check(message)
        self.log.append(message)
        self.see(ControlRead(message))

    def run(self, limit: int = 50) -> list[Command]:
        """Do what the core says until it says nothing more."""
        done: list[Command] = []
        while (command := decide(self.state)) is not None and not isinstance(command, Finish):
            done.append(command)
            self.carry_out(command)
            assert len(done) < limit, done
        return done

    def carry_out(self, command: Command, *, lost: bool = False) -> None:
        """One command; a lost one fails before it had any effect."""
        if lost:
            return
        match command:
            case Declare(incarnation, reason):
                self.write(WorkerDied(self.state.control.term, incarnation, reason))
            case Fence(incarnation):
                assert incarnation in self.deaths(), "S2: fenced before the decision was seen"
                self.fenced.add(incarnation)
                self.see(Fenced(incarnation))
            case Publish(plan, reason, order):
                self.write(PlanPublished(plan, reason, order))
            case Answer(order, accepted, reason):
                self.write(OrderAnswered(self.state.control.term, order, accepted, reason))
            case Halt(reason, exit_code):
                self.write(JobHalted(self.state.control.term, reason, exit_code))
            case TakeEnds(places):
                self.see(EndsTaken(dict.fromkeys(places, 5)))
            case Finish():
                raise AssertionError("the loop's own affair")

    def deaths(self) -> set[str]:
        return {m.incarnation for m in self.log if isinstance(m, WorkerDied)}

    def plans(self) -> list[Plan]:
        return [m.plan for m in self.log if isinstance(m, PlanPublished)]

    def owners(self) -> dict[Shard, str | None]:
        return {tile.shard: tile.worker for tile in self.plans()[-1].tiles}

    def _check(self, message: Control) -> None:
        """S2 and S8 as seen by whoever reads control."""
        if not isinstance(message, PlanPublished) or not self.check:
            return
        plan, plans = message.plan, self.plans()
        assert tiling_fault(plan) is None
        assert {t.shard for t in plan.tiles} == {Shard("split", 0), Shard("count", 0), Shard("count", 1)}
        before = {tile.shard: tile for tile in plans[-1].tiles} if plans else {}
        assert plan.version == (plans[-1].version + 1 if plans else 1)
        assert not {m.incarnation for m in plan.members} & self.deaths(), "a dead worker is a member"
        assert len({m.name for m in plan.members}) == len(plan.members), "two members of one name"
        for tile in plan.tiles:
            old = before.get(tile.shard)
            if old == tile:
                continue
            assert tile.grant == plan.version
            assert tile.worker not in self.deaths(), "S2: a dead worker is given a tile"
            assert plan.member(tile.worker or "") is not None, "a stranger is given a tile"
            if old is not None and old.worker is not None:
                assert old.worker in self.deaths(), "S2: taken from a live worker"
                assert old.worker in self.fenced, "S2: given before the fence"
        owners = {tile.worker for tile in plan.tiles}
        assert set(plan.dead) == self.deaths() & owners, "S3: undelivered deaths are repeated in every plan"


def started(**options: Any) -> Leading:
    """A leader of two workers, a and b, whose first plan is out."""
    lead = Leading(**options)
    lead.see(beat("a"), beat("b"))
    lead.run()
    return lead

"""Leaders and heartbeats on one thread in virtual time, over the log in memory, for the tests of the control plane."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from kstate.clock import Step, Steps
from kstate.config import FailureSettings, Settings
from kstate.coordinator.core import Rules
from kstate.coordinator.edges import LeaderEdges
from kstate.coordinator.leader import Leader, Office
from kstate.description import (
    InputDescription,
    JobDescription,
    OperatorDescription,
    OutputDescription,
    StateDescription,
)
from kstate.keyspace import FULL_RANGE
from kstate.messages import (
    Control,
    Heartbeat,
    PlanPublished,
    Report,
    TermStarted,
    TilePhase,
    TileReport,
    WorkerDied,
)
from kstate.plan import Member, Plan, TopicPartition, control_topic, reports_topic, tiling_fault
from kstate.testing.memory_log import MemoryLog
from kstate.testing.virtual_time import VirtualClock
from kstate.wire import decode_control, encode_report

WORDS = "app.split.words"
SPLIT = OperatorDescription(
    "split", "none", (InputDescription("lines", "lines"),), (OutputDescription("words", WORDS, internal=True),)
)
COUNT = OperatorDescription(
    "count",
    "string",
    (InputDescription("words", WORDS, internal=True, source_uid="split"),),
    (OutputDescription("counts", "word-counts"),),
    (StateDescription("n", '"long"'),),
)
JOB = JobDescription("app", (SPLIT, COUNT))
SETTINGS = Settings(stream_partitions=2)


class Silent:
    """An event log that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, event: str, **fields: object) -> None:
        self.lines.append(f"{event} {fields}")

    debug = warning = error = info


@dataclass
class Actor:
    """A generator of steps and when it goes on."""

    steps: Steps[Any]
    wake: float = 0.0
    at: str = "start"
    result: Any = None
    over: bool = False


@dataclass
class Stage:
    """Leaders, and workers that do nothing but heartbeat."""

    clock: VirtualClock = field(default_factory=VirtualClock)
    actors: list[Actor] = field(default_factory=list)
    events: Silent = field(default_factory=Silent)

    def __post_init__(self) -> None:
        self.log = MemoryLog(self.clock)
        self.log.broker.create_topic("lines", 2)
        self.log.broker.create_topic("word-counts", 1)
        self.workers: dict[str, Actor] = {}

    # -- actors

    def leader(self, name: str = "leader-1", job: JobDescription = JOB, *, until_end: bool = False) -> Actor:
        """A candidate, with the thread that beats for it."""
        rules = Rules(FailureSettings(), expected_workers=2)
        edges = LeaderEdges(self.log, self.clock, self.events)
        leader = Leader(job, SETTINGS, edges, Office(name, until_end, rules))
        actor = Actor(leader.run())
        self.actors += [actor, Actor(self._while(actor, leader.beat))]
        return actor

    def worker(self, incarnation: str, *, done: bool = False, job: JobDescription = JOB) -> Actor:
        """A worker that does nothing but heartbeat; `done`: it reports all its tiles to be at their ends."""
        actor = Actor(self._beats(Member(incarnation.rpartition(".")[0], incarnation, job.build), done=done))
        self.workers[incarnation] = actor
        self.actors.append(actor)
        return actor

    def _beats(self, member: Member, *, done: bool) -> Steps[None]:
        incarnation, name = member.incarnation, member.name
        for sequence in range(100_000):
            plan = self.plan()
            tiles = _tiles_at_their_ends(plan, incarnation) if plan and done else ()
            over = plan is not None and plan.complete and plan.member(incarnation) is not None
            self.report(Heartbeat(incarnation, name, "host", 1, sequence, 0, tiles, leaving=over, build=member.build))
            if over:
                return
            yield Step("beat", wait=0.4)

    def _while(self, actor: Actor, beat: Callable[[], None]) -> Steps[None]:
        while not actor.over:
            beat()
            yield Step("beat", wait=0.4)

    def crash(self, actor: Actor) -> None:
        """It stops as it stands; its producer is not closed."""
        actor.over = True

    # -- time

    def turn(self) -> None:
        """The next actor takes one step."""
        actor = min((a for a in self.actors if not a.over), key=lambda a: a.wake)
        self.clock.move_to(actor.wake)
        try:
            step = next(actor.steps)
        except StopIteration as end:
            actor.result, actor.over = end.value, True
        except Exception as error:  # noqa: BLE001 (the tests look at what a leader raised)
            actor.result, actor.over = error, True
        else:
            actor.at, actor.wake = step.name, self.clock.now + step.wait

    def run(self, seconds: float) -> None:
        """Let time pass."""
        end = self.clock.now + seconds
        while self.clock.now < end:
            self.turn()

    def await_true(self, condition: Callable[[], object], seconds: float = 30.0) -> None:
        """Let time pass until a condition holds."""
        end = self.clock.now + seconds
        while not condition():
            assert self.clock.now < end, "\n".join(self.events.lines)
            self.turn()

    # -- looking

    def control(self) -> list[Control]:
        if control_topic("app") not in self.log.broker.topics:
            return []
        return [decode_control(r.value or b"") for r in self.log.records(TopicPartition(control_topic("app"), 0))]

    def plan(self) -> Plan | None:
        plans = [m.plan for m in self.control() if isinstance(m, PlanPublished)]
        return plans[-1] if plans else None

    def owners(self) -> set[str | None]:
        plan = self.plan()
        return {tile.worker for tile in plan.tiles} if plan else set()

    def report(self, report: Report) -> None:
        if reports_topic("app") in self.log.broker.topics:
            self.log.report(reports_topic("app"), {"value": encode_report(report), "partition": 0})


def _tiles_at_their_ends(plan: Plan, incarnation: str) -> tuple[TileReport, ...]:
    """What a worker reports that has processed all there is."""
    reports = []
    for tile in plan.owned_by(incarnation):
        topic = "lines" if tile.shard.operator == "split" else WORDS
        end = plan.ends.get((tile.shard.operator, topic, tile.shard.partition), 0)
        reports.append(TileReport(tile.shard, FULL_RANGE, tile.grant, TilePhase.RUNNING, 1, {topic: end}))
    return tuple(reports)


def check_control(messages: list[Control]) -> None:
    """S2, S3 and S8 over the whole control topic, as any reader sees it."""
    dead: set[str] = set()
    tiles: dict[Any, Any] = {}
    version = term = 0
    for message in messages:
        match message:
            case TermStarted(number, _):
                assert number > term
                term = number
            case WorkerDied(incarnation=incarnation):
                dead.add(incarnation)
            case PlanPublished(plan):
                assert plan.version > version
                assert plan.term == term
                assert tiling_fault(plan) is None
                assert not {m.incarnation for m in plan.members} & dead
                for tile in plan.tiles:
                    before = tiles.get(tile.shard)
                    if before is not None and before.worker != tile.worker:
                        assert before.worker in dead
                        assert tile.grant == plan.version
                version, tiles = plan.version, {tile.shard: tile for tile in plan.tiles}
            case _:
                pass


def running(stage: Stage) -> Actor:
    """A leader with two workers and its first plan."""
    leader = stage.leader()
    stage.worker("worker-1.1")
    stage.worker("worker-2.1")
    stage.await_true(stage.plan)
    return leader

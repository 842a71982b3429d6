"""The leader over the log in memory: first plans, deaths, takeover at every step, faults of the control transaction."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from kstate.clock import Step, Steps
from kstate.config import FailureSettings, Settings
from kstate.coordinator.core import Rules
from kstate.coordinator.edges import Edges
from kstate.coordinator.leader import Leader, Office
from kstate.description import (
    InputDescription,
    JobDescription,
    OperatorDescription,
    OutputDescription,
    StateDescription,
)
from kstate.errors import ConfigError, FencedError
from kstate.keyspace import FULL_RANGE
from kstate.messages import (
    Control,
    Heartbeat,
    JobHalted,
    PlanPublished,
    ProcessExited,
    Report,
    TermStarted,
    TileReport,
    WorkerDied,
)
from kstate.plan import Plan, TopicPartition, control_topic, leader_id, reports_topic, tiling_fault
from kstate.testing.memory_log import Fault, MemoryLog
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

    warning = info


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
    """Leaders and heartbeats on one thread in virtual time."""

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
        edges = Edges(self.log, self.clock, self.events)
        leader = Leader(job, SETTINGS, edges, Office(name, until_end, rules))
        actor = Actor(leader.run())
        self.actors += [actor, Actor(self._while(actor, leader.beat))]
        return actor

    def worker(self, incarnation: str, *, done: bool = False) -> Actor:
        """A worker that does nothing but heartbeat; `done`: it reports all its tiles to be at their ends."""
        name = incarnation.rpartition(".")[0]
        actor = Actor(self._beats(incarnation, name, done=done))
        self.workers[incarnation] = actor
        self.actors.append(actor)
        return actor

    def _beats(self, incarnation: str, name: str, *, done: bool) -> Steps[None]:
        for sequence in range(100_000):
            plan = self.plan()
            tiles = _tiles_at_their_ends(plan, incarnation) if plan and done else ()
            over = plan is not None and plan.complete and plan.member(incarnation) is not None
            self.report(Heartbeat(incarnation, name, "host", 1, sequence, 0, tiles, leaving=over))
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
        reports.append(TileReport(tile.shard, FULL_RANGE, tile.grant, "running", 1, {topic: end}))
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


@pytest.fixture
def stage() -> Iterator[Stage]:
    """A stage; at its end the control topic is checked as a whole."""
    made = Stage()
    yield made
    check_control(made.control())


def running(stage: Stage) -> Actor:
    """A leader with two workers and its first plan."""
    leader = stage.leader()
    stage.worker("worker-1.1")
    stage.worker("worker-2.1")
    stage.await_true(stage.plan)
    return leader


def test_the_first_plan_says_all_that_is_needed(stage: Stage) -> None:
    """Members, tiles, ids, schema texts, partition counts and start offsets; the internal topics exist by then."""
    running(stage)
    plan = stage.plan()
    assert plan is not None
    assert [m.name for m in plan.members] == ["worker-1", "worker-2"]
    assert stage.owners() == {"worker-1.1", "worker-2.1"}
    assert plan.registry.operators == {"split": 1, "count": 2}
    assert plan.registry.states == {("count", "n"): 1}
    assert plan.registry.schemas == {1: '"long"'}
    assert plan.starts == dict.fromkeys(
        [("split", "lines", 0), ("split", "lines", 1), ("count", WORDS, 0), ("count", WORDS, 1)], 0
    )
    for topic, count in plan.partitions.items():
        assert len(stage.log.broker.topics[topic]) == count
    assert set(plan.partitions) >= {"lines", "word-counts", WORDS, "app.split.backup", "app.count.dlq"}
    assert (plan.bounded, plan.ends) == (False, {})


@pytest.mark.parametrize(("start", "offset"), [("earliest", 1), ("latest", 3), (1_750_000_000_000, 1), (2**50, 3)])
def test_start_positions_are_resolved_once_into_the_plan(stage: Stage, start: Any, offset: int) -> None:
    """Earliest is the log start, latest the end now, a time the first record at or after it."""
    lines = stage.log.partition(TopicPartition("lines", 0))
    for _ in range(3):
        lines.append({"value": b"x", "partition": 0}, stage.clock.time_ms(), None)
    stage.log.delete_records({TopicPartition("lines", 0): 1})
    split = OperatorDescription("split", "none", (InputDescription("lines", "lines", start),), SPLIT.outputs)
    stage.leader(job=JobDescription("app", (split, COUNT)))
    stage.worker("worker-1.1")
    stage.worker("worker-2.1")
    stage.await_true(stage.plan)
    plan = stage.plan()
    assert plan is not None
    assert plan.starts["split", "lines", 0] == offset
    assert plan.starts["split", "lines", 1] == 0


def test_a_killed_worker_is_replaced_by_its_successor(stage: Stage) -> None:
    """Its exit is reported, its successor heartbeats: decision, fence, plan; nobody waits for missed heartbeats."""
    running(stage)
    stage.crash(stage.workers["worker-2.1"])
    killed_at = stage.clock.now
    stage.report(ProcessExited("worker-2.1", -9))
    stage.worker("worker-2.2")
    stage.await_true(lambda: "worker-2.2" in stage.owners())
    assert stage.clock.now - killed_at < 1.0
    assert stage.log.broker.epoch("worker-2.1") == 0, "fenced once"
    assert [type(m) for m in stage.control()[-2:]] == [WorkerDied, PlanPublished]


def test_a_silent_worker_is_noticed_in_two_seconds_and_its_tiles_go_to_the_others(stage: Stage) -> None:
    """No supervisor, no successor: heartbeats alone tell, then the wait for the successor."""
    running(stage)
    stage.crash(stage.workers["worker-2.1"])
    silent_at = stage.clock.now
    stage.await_true(lambda: any(isinstance(m, WorkerDied) for m in stage.control()))
    assert 1.2 <= stage.clock.now - silent_at <= 2.4
    stage.await_true(lambda: stage.owners() == {"worker-1.1"})
    assert stage.clock.now - silent_at <= 6.0


def test_a_leader_that_cannot_read_suspects_nobody(stage: Stage) -> None:
    """The broker answers nobody for a minute, then all is well again."""
    running(stage)
    stage.log.faults = lambda call: Fault.RETRYABLE if call.operation in {"poll", "partitions"} else None
    stage.run(60)
    stage.log.faults = lambda _: None
    stage.run(10)
    assert not any(isinstance(m, WorkerDied) for m in stage.control())


def test_a_bounded_run_completes_and_a_second_one_has_nothing_to_do(stage: Stage) -> None:
    """Ends are fixed once, streams get theirs when their source is done, the leader returns 0; so does the next."""
    lines = stage.log.partition(TopicPartition("lines", 1))
    lines.append({"value": b"x", "partition": 1}, 0, None)
    first = stage.leader(until_end=True)
    stage.worker("worker-1.1", done=True)
    stage.worker("worker-2.1", done=True)
    stage.await_true(lambda: first.over)
    assert first.result == 0
    plan = stage.plan()
    assert plan is not None
    assert plan.complete
    assert plan.ends == {
        ("split", "lines", 0): 0,
        ("split", "lines", 1): 1,
        ("count", WORDS, 0): 0,
        ("count", WORDS, 1): 0,
    }
    second = stage.leader("leader-2", until_end=True)
    stage.await_true(lambda: second.over)
    assert second.result == 0
    assert stage.plan() == plan


def test_a_finished_job_goes_on_from_its_plan(stage: Stage) -> None:
    """More input and a second bounded run: the same starts and ids, new ends, tiles for the new incarnations."""
    first = stage.leader(until_end=True)
    for name in ("worker-1.1", "worker-2.1"):
        stage.worker(name, done=True)
    stage.await_true(lambda: first.over)
    before = stage.plan()
    lines = stage.log.partition(TopicPartition("lines", 0))
    lines.append({"value": b"x", "partition": 0}, 0, None)
    second = stage.leader("leader-2", until_end=True)
    for name in ("worker-1.2", "worker-2.2"):
        stage.worker(name, done=True)
    stage.await_true(lambda: second.over)
    plan = stage.plan()
    assert plan is not None
    assert before is not None
    assert (plan.starts, plan.registry) == (before.starts, before.registry)
    assert plan.complete
    assert plan.ends["split", "lines", 0] == 1
    assert stage.owners() == {"worker-1.2", "worker-2.2"}


def test_a_missing_topic_stops_the_start_before_anything_is_made(stage: Stage) -> None:
    """ConfigError that names it; no control topic appears."""
    stage.log.delete_topic("lines")
    leader = stage.leader()
    stage.await_true(lambda: leader.over)
    assert isinstance(leader.result, ConfigError)
    assert "'lines' does not exist" in str(leader.result)
    assert set(stage.log.broker.topics) == {"word-counts"}


def test_leftovers_of_another_life_are_refused(stage: Stage) -> None:
    """A backup topic with records and no plan: its state is not ours; the workers are told, too."""
    stage.log.broker.create_topic("app.count.backup", 2)
    stage.log.partition(TopicPartition("app.count.backup", 1)).append({"value": b"old", "partition": 1}, 0, None)
    leader = stage.leader()
    stage.await_true(lambda: leader.over)
    assert isinstance(leader.result, ConfigError)
    assert "app.count.backup" in str(leader.result)
    halted = stage.control()[-1]
    assert isinstance(halted, JobHalted)
    assert halted.exit_code == 2


@pytest.mark.parametrize("change", ["grow", "delete"])
def test_changed_topics_halt_a_running_job(stage: Stage, change: str) -> None:
    """Partitions added or a topic deleted under a running job: exit code 2, with the reason in control."""
    leader = running(stage)
    if change == "grow":
        stage.log.recreate_topic("lines", 5)
    else:
        stage.log.delete_topic("lines")
    stage.await_true(lambda: leader.over)
    halted = stage.control()[-1]
    assert isinstance(halted, JobHalted)
    assert "'lines'" in halted.reason
    assert leader.result == halted.exit_code == 2


def test_a_vanished_state_is_refused_at_the_restart(stage: Stage) -> None:
    """The job halts with the error of the survey, and the newest plan stays."""
    stage.crash(running(stage))
    before = stage.plan()
    without = OperatorDescription("count", "string", COUNT.inputs, COUNT.outputs)
    leader = stage.leader("leader-2", JobDescription("app", (SPLIT, without)))
    stage.await_true(lambda: leader.over)
    assert isinstance(leader.result, ConfigError)
    assert "state 'n' of operator 'count' vanished" in str(leader.result)
    assert stage.plan() == before


def test_a_new_state_gets_an_id_at_the_restart(stage: Stage) -> None:
    """The registry is extended by a new plan, tiles and their grants stay."""
    stage.crash(running(stage))
    before = stage.plan()
    more = OperatorDescription(
        "count", "string", COUNT.inputs, COUNT.outputs, (StateDescription("m", '"string"'), *COUNT.states)
    )
    stage.leader("leader-2", JobDescription("app", (SPLIT, more)))
    stage.await_true(lambda: stage.plan() != before)
    plan = stage.plan()
    assert plan is not None
    assert before is not None
    assert plan.registry.states == {("count", "n"): 1, ("count", "m"): 2}
    assert plan.tiles == before.tiles


# -- candidates


def test_a_candidate_stays_quiet_while_the_leader_beats(stage: Stage) -> None:
    """One term as long as the leader lives; a new one within three seconds of its death."""
    leader = running(stage)
    stage.leader("leader-2")
    stage.run(20)
    assert [m.leader for m in stage.control() if isinstance(m, TermStarted)] == ["leader-1"]
    stage.crash(leader)
    died_at = stage.clock.now
    stage.await_true(lambda: sum(isinstance(m, TermStarted) for m in stage.control()) == 2)
    assert stage.clock.now - died_at < 3.0
    stage.run(10)
    assert not any(isinstance(m, WorkerDied) for m in stage.control())


def test_a_leader_whose_exit_was_reported_is_not_waited_for(stage: Stage) -> None:
    """Its supervisor saw it end: the next one leads at once."""
    stage.crash(running(stage))
    stage.report(ProcessExited("leader-1", -9))
    died_at = stage.clock.now
    stage.leader("leader-2")
    stage.await_true(lambda: sum(isinstance(m, TermStarted) for m in stage.control()) == 2)
    assert stage.clock.now - died_at < 0.5


def test_a_candidate_ends_with_the_job(stage: Stage) -> None:
    """A candidate that waited must not start a complete job anew."""
    first = stage.leader(until_end=True)
    stage.worker("worker-1.1", done=True)
    stage.worker("worker-2.1", done=True)
    stage.await_true(lambda: first.at == "idle")
    second = stage.leader("leader-2", until_end=True)
    stage.await_true(lambda: first.over and second.over)
    assert (first.result, second.result) == (0, 0)
    assert sum(isinstance(m, TermStarted) for m in stage.control()) == 1


def test_a_leader_that_was_paused_and_replaced_stops(stage: Stage) -> None:
    """It wakes up, reads the newer term and stops without writing anything."""
    first = running(stage)
    first.wake = stage.clock.now + 30
    stage.actors[1].wake = first.wake
    stage.leader("leader-2")
    stage.await_true(lambda: first.over, 60)
    assert isinstance(first.result, FencedError)
    assert [m.leader for m in stage.control() if isinstance(m, TermStarted)] == ["leader-1", "leader-2"]


def test_a_leader_fenced_in_the_middle_of_a_decision_stops(stage: Stage) -> None:
    """Paused with an open control transaction, replaced, woken up: its commit is fenced, the decision is not there."""
    first = running(stage)
    stage.report(ProcessExited("worker-2.1", -9))
    stage.await_true(lambda: first.at == "decision-sent")
    first.wake = stage.clock.now + 30
    stage.actors[1].wake = first.wake
    stage.leader("leader-2")
    stage.await_true(lambda: first.over, 60)
    assert isinstance(first.result, FencedError)
    terms = [i for i, m in enumerate(stage.control()) if isinstance(m, TermStarted)]
    deaths = [i for i, m in enumerate(stage.control()) if isinstance(m, WorkerDied)]
    assert all(death > terms[1] for death in deaths)


# -- who may die where

STEPS = (
    "surveyed",
    "topics-created",
    "opened",
    "control-read",
    "term-begun",
    "term-sent",
    "term-committed",
    "term-seen",
    "term-started",
    "offsets-taken",
    "plan-begun",
    "plan-sent",
    "plan-committed",
    "plan-seen",
    "decision-begun",
    "decision-sent",
    "decision-committed",
    "decision-seen",
    "fenced",
    "ends-taken",
)


def story(stage: Stage, *, until_end: bool) -> None:
    """Two workers, one of which is killed and replaced; in a bounded run everything is at its end then."""
    stage.worker("worker-1.1", done=until_end)
    stage.worker("worker-2.1")
    stage.await_true(stage.plan, 60)
    stage.crash(stage.workers["worker-2.1"])
    stage.report(ProcessExited("worker-2.1", -9))
    stage.worker("worker-2.2", done=until_end)
    if until_end:
        stage.await_true(lambda: (plan := stage.plan()) is not None and plan.complete, 60)
    else:
        stage.await_true(lambda: stage.owners() == {"worker-1.1", "worker-2.2"}, 60)


@pytest.mark.parametrize("nth", [1, 2])
@pytest.mark.parametrize("step", STEPS)
def test_a_leader_may_die_at_every_step(stage: Stage, step: str, nth: int) -> None:
    """It dies at the n-th time it reaches the step; the next leader brings the same story to the same end."""
    reached: list[int] = []
    crash_at(stage, stage.leader(until_end=True), step, nth, reached)
    stage.actors.append(Actor(_later(stage, lambda: stage.leader("leader-2", until_end=True))))
    story(stage, until_end=True)
    if nth == 1:
        assert reached, f"the leader never came to {step}"


def _later(stage: Stage, start: Callable[[], Actor]) -> Steps[None]:
    yield Step("wait", wait=0.5)
    start()


def crash_at(stage: Stage, leader: Actor, step: str, nth: int, reached: list[int]) -> None:
    """Let an actor die at the n-th time it reaches a step."""
    steps, seen = leader.steps, 0

    def cut() -> Steps[None]:
        nonlocal seen
        for taken in steps:
            seen += taken.name == step
            yield taken
            if seen == nth:
                reached.append(nth)
                leader.over = True
                yield taken

    leader.steps = cut()


@pytest.mark.parametrize("fault", [Fault.NOT_APPLIED, Fault.APPLIED, Fault.TAINTED, Fault.RETRYABLE])
@pytest.mark.parametrize("operation", ["begin", "send", "flush", "commit", "fence", "open", "end_offsets", "poll"])
@pytest.mark.parametrize("nth", [1, 2, 4])
def test_a_fault_in_any_call_ends_in_the_same_plan(stage: Stage, operation: str, fault: Fault, nth: int) -> None:
    """The n-th call fails, done or not done: the leader looks at what is there and goes on from it (S4)."""
    calls = 0

    def faults(call: Any) -> Fault | None:
        nonlocal calls
        mine = call.subject == leader_id("app") if operation in {"begin", "send", "flush", "commit", "open"} else True
        calls += call.operation == operation and mine
        return fault if call.operation == operation and mine and calls == nth else None

    stage.log.faults = faults
    stage.leader()
    story(stage, until_end=False)

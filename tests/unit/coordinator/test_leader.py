"""The leader over the log in memory: first plans, deaths, restarts, changed topics."""

from collections.abc import Iterator
from typing import Any

import pytest

from kstate.description import InputDescription, JobDescription, OperatorDescription, StateDescription
from kstate.errors import ConfigError
from kstate.messages import JobHalted, Order, OrderAnswered, OrderKind, PlanPublished, ProcessExited, WorkerDied
from kstate.plan import Shard, TopicPartition
from kstate.testing.memory_log import Fault
from tests.support.leaders import COUNT, JOB, SPLIT, WORDS, Stage, check_control, running


@pytest.fixture
def stage() -> Iterator[Stage]:
    """A stage; at its end the control topic is checked as a whole."""
    made = Stage()
    yield made
    check_control(made.control())


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
    job = JobDescription("app", (split, COUNT))
    stage.leader(job=job)
    stage.worker("worker-1.1", job=job)
    stage.worker("worker-2.1", job=job)
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
    assert 1.2 <= stage.clock.now - silent_at <= 2.1
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


def test_another_build_makes_another_plan(stage: Stage) -> None:
    """Even where nothing else is new: workers learn from plans which build leads."""
    stage.crash(running(stage))
    before = stage.plan()
    same = JobDescription("app", JOB.operators, dropped=("gone.long.ago",))
    stage.leader("leader-2", same)
    stage.await_true(lambda: stage.plan() != before)
    plan = stage.plan()
    assert plan is not None
    assert before is not None
    assert (before.build, plan.build) == (JOB.build, same.build)
    assert plan.tiles == before.tiles


def test_an_order_is_heard_on_the_reports_topic_and_answered_on_the_control_topic(stage: Stage) -> None:
    """Refused by a message, or begun by a plan that names it; each once, though they are repeated."""
    running(stage)
    count = Shard("count", 0)
    wrong = Order("1f3a", OrderKind.MOVE, count, target="worker-9")
    right = Order("1f3b", OrderKind.SPLIT, count)
    for _ in range(10):
        stage.report(wrong)
        stage.report(right)
        stage.run(0.5)
    answers = [m for m in stage.control() if isinstance(m, OrderAnswered)]
    there = "there are: worker-1, worker-2"
    assert answers == [OrderAnswered(1, "1f3a", False, f"there is no worker 'worker-9'; {there}")]
    begun = [m for m in stage.control() if isinstance(m, PlanPublished) and m.order == "1f3b"]
    assert [len(m.plan.moves) for m in begun] == [1]
    assert any("waits for worker-" in line and line.startswith("waiting ") for line in stage.events.lines)

"""Leaders that die, wake up too late, or whose calls fail: whoever leads next brings the same story to the same end."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kstate.clock import Step, Steps
from kstate.errors import FencedError
from kstate.messages import ProcessExited, TermStarted, WorkerDied
from kstate.plan import leader_id
from kstate.testing.memory_log import Fault
from tests.support.leaders import Actor, Stage, check_control, running


@pytest.fixture
def stage() -> Iterator[Stage]:
    """A stage; at its end the control topic is checked as a whole."""
    made = Stage()
    yield made
    check_control(made.control())


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

"""What a worker takes from the control topic."""

from __future__ import annotations

from kstate.clock import run_steps
from kstate.interfaces import Producer, TopicSpec
from kstate.messages import Control, JobHalted, PlanPublished, TermStarted
from kstate.plan import Member, Plan, Registry, control_topic
from kstate.testing.memory_log import MemoryLog
from kstate.testing.virtual_time import VirtualClock
from kstate.wire import encode_control
from kstate.worker.control import ControlFollower, Standing


def write(producer: Producer, *messages: Control) -> None:
    """Commit messages of a leader."""
    producer.begin()
    producer.send(control_topic("app"), [{"value": encode_control(message), "partition": 0} for message in messages])
    producer.commit()


def followed() -> tuple[VirtualClock, Producer, ControlFollower]:
    """An empty control topic, its leader's producer and a worker's reader."""
    clock = VirtualClock()
    log = MemoryLog(clock)
    log.create_topics([TopicSpec(control_topic("app"), 1)])
    producer = log.producer("leader")
    producer.open()
    return clock, producer, ControlFollower(log, "app", clock)


def test_a_halt_of_which_the_end_was_trimmed_is_over() -> None:
    """A later plan says so: nobody makes plans for a job that is halted."""
    clock, producer, follower = followed()
    write(producer, JobHalted(1, "a bug", 3))
    run_steps(follower.catch_up(), clock)
    assert follower.halted is not None
    write(producer, PlanPublished(Plan("app", 9, 2, (), (), (), Registry(), {}, {})))
    follower.poll()
    assert follower.halted is None


def test_a_new_term_starts_a_halted_job_anew() -> None:
    """A worker that slept through the halt goes on; for the leader, too, only the halt of the present term counts."""
    clock, producer, follower = followed()
    write(producer, TermStarted(1, "first"), JobHalted(1, "a bug", 3), TermStarted(2, "second"))
    run_steps(follower.catch_up(), clock)
    assert follower.halted is None
    write(producer, JobHalted(2, "another bug", 3))
    follower.poll()
    assert follower.halted == JobHalted(2, "another bug", 3)


def test_whoever_was_named_once_is_out_though_its_death_was_trimmed() -> None:
    """Also when a leader that knows nothing of the death has named it again by the time it reads."""
    clock, producer, follower = followed()
    me, other = Member("w", "w.1", "b"), Member("x", "x.1", "b")
    write(producer, PlanPublished(Plan("app", 1, 1, (me, other), (), (), Registry(), {}, {})))
    run_steps(follower.catch_up(), clock)
    assert follower.standing("w.1") is Standing.MEMBER
    write(producer, PlanPublished(Plan("app", 8, 1, (other,), (), (), Registry(), {}, {})))
    write(producer, PlanPublished(Plan("app", 9, 2, (me, other), (), (), Registry(), {}, {})))
    follower.poll()
    assert follower.standing("w.1") is Standing.DEAD
    assert follower.standing("x.1") is Standing.MEMBER

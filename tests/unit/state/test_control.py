"""Reading a control topic that is trimmed behind its plans, now and while somebody reads it."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from kstate.clock import run_steps
from kstate.coordinator.control_log import ControlLog
from kstate.errors import ConfigError, RetryableError
from kstate.interfaces import TopicSpec
from kstate.messages import Control, PlanPublished, TermStarted, WorkerDied
from kstate.plan import Plan, Registry, TopicPartition, control_topic
from kstate.state.control import ControlReader
from kstate.testing.memory_log import Fault, MemoryLog
from kstate.testing.virtual_time import VirtualClock

CONTROL = TopicPartition(control_topic("app"), 0)


@dataclass(slots=True)
class Desk:
    """A leader that writes, and the topic in memory."""

    clock: VirtualClock = field(default_factory=VirtualClock)
    log: MemoryLog = field(init=False)
    leader: ControlLog = field(init=False)
    version: int = 0

    def __post_init__(self) -> None:
        self.log = MemoryLog(self.clock)
        self.log.create_topics([TopicSpec(CONTROL.topic, 1)])
        self.leader = ControlLog(self.log, "app", self.clock)
        run_steps(self.leader.open(), self.clock)

    def write(self, *messages: Control) -> None:
        """One transaction each; the leader reads back what it wrote."""
        for message in messages:
            run_steps(self.leader.commit("any", message), self.clock)
        run_steps(self.leader.fresh(), self.clock)

    def plans(self, count: int) -> None:
        """So many further plans, a death before each."""
        for _ in range(count):
            self.version += 1
            self.write(WorkerDied(1, f"worker-{self.version}", "gone"), published(self.version))

    def reader(self) -> ControlReader:
        return ControlReader(self.log, "app", self.clock)

    def start(self) -> int:
        """Of the topic."""
        return self.log.start_offsets([CONTROL])[CONTROL]


def published(version: int) -> PlanPublished:
    """A plan in which nobody takes part."""
    return PlanPublished(Plan("app", version, 1, (), (), (), Registry(), {}, {}))


def versions(messages: list[Control]) -> list[int]:
    """Of the plans among them."""
    return [message.plan.version for message in messages if isinstance(message, PlanPublished)]


def test_it_is_trimmed_behind_the_newest_plans_when_there_are_twice_as_many() -> None:
    """What stays begins with a plan, whoever reads it from its start."""
    desk = Desk()
    desk.write(TermStarted(1, "a"))
    desk.plans(5)
    assert desk.leader.trim(3) is None
    desk.plans(1)
    assert desk.leader.trim(3) == desk.start() > 0
    assert desk.leader.trim(3) is None
    messages = desk.reader().poll()
    assert versions(messages) == [4, 5, 6]
    assert messages[0] == published(4)


def test_a_new_leader_counts_the_plans_that_it_finds() -> None:
    """Leaders may change more often than there are so many plans."""
    desk = Desk()
    desk.plans(4)
    heir = ControlLog(desk.log, "app", desk.clock)
    run_steps(heir.open(), desk.clock)
    run_steps(heir.fresh(), desk.clock)
    assert heir.trim(2) == desk.start() > 0


def test_who_stood_still_meanwhile_goes_on_at_the_plan_that_is_there() -> None:
    """Nothing twice, nothing before that plan."""
    desk = Desk()
    desk.plans(2)
    slow = desk.reader()
    assert versions(slow.poll()) == [1, 2]
    desk.plans(6)
    desk.leader.trim(2)
    messages = run_steps(slow.fresh(), desk.clock)
    assert messages[0] == published(7)
    assert versions(messages) == [7, 8]


def test_who_is_not_so_far_behind_misses_nothing() -> None:
    """A trim behind a reader's back is no news to it."""
    desk = Desk()
    desk.plans(6)
    reader = desk.reader()
    reader.poll()
    desk.leader.trim(3)
    desk.plans(1)
    assert reader.poll() == [WorkerDied(1, "worker-7", "gone"), published(7)]


def test_what_stands_before_the_first_plan_of_a_trimmed_topic_counts_no_more() -> None:
    """A broker that lost power may give back a part of what was deleted."""
    desk = Desk()
    desk.plans(3)
    desk.log.delete_records({CONTROL: desk.leader.plans[0] + 1})
    assert versions(messages := desk.reader().poll()) == [2, 3]
    assert messages[0] == published(2)


def test_a_topic_that_somebody_else_trimmed_is_refused() -> None:
    """No plan is left in it."""
    desk = Desk()
    desk.plans(2)
    desk.write(WorkerDied(1, "w", "gone"))
    desk.log.delete_records({CONTROL: desk.leader.plans[-1] + 1})
    with pytest.raises(ConfigError, match="no plan is left in it"):
        run_steps(desk.reader().fresh(), desk.clock)


def test_a_reader_that_fell_behind_while_the_broker_is_away_goes_on_when_it_is_back() -> None:
    """It is told once that its place is gone."""
    desk = Desk()
    desk.plans(2)
    slow = desk.reader()
    slow.poll()
    desk.plans(6)
    desk.leader.trim(2)
    desk.log.inject("start_offsets", Fault.RETRYABLE)
    with pytest.raises(RetryableError):
        slow.poll()
    assert versions(run_steps(slow.fresh(), desk.clock)) == [7, 8]


def test_a_fresh_end_before_the_new_start_is_not_enough() -> None:
    """Whoever jumps has read nothing before it has read the plan there."""
    desk = Desk()
    desk.plans(2)
    slow = desk.reader()
    slow.poll()
    reading = slow.fresh()
    while next(reading).name != "h-taken":
        continue
    desk.plans(6)
    desk.leader.trim(2)
    assert versions(run_steps(reading, desk.clock)) == [7, 8]

"""Reading a control topic that is trimmed behind its plans, now and while somebody reads it."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from kstate.clock import run_steps
from kstate.coordinator.control_log import ControlLog
from kstate.errors import ConfigError
from kstate.interfaces import TopicSpec
from kstate.messages import Control, PlanPublished, TermStarted, WorkerDied
from kstate.plan import Plan, Registry, TopicPartition, control_topic
from kstate.state.control import ControlReader
from kstate.testing.memory_log import MemoryLog
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


def test_a_topic_that_somebody_else_trimmed_is_refused() -> None:
    """It begins with something that speaks of a past which is gone."""
    desk = Desk()
    desk.plans(2)
    desk.log.delete_records({CONTROL: desk.leader.plans[0] + 1})
    with pytest.raises(ConfigError, match=r"begins at offset \d+ with no plan"):
        desk.reader().poll()

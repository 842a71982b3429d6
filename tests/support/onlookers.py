"""A control topic and reports in memory, written by hand: for those who only look on, and for those who order."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, TypeVar

from kstate.cli.watching import WatchEdges
from kstate.clock import Steps
from kstate.keyspace import FULL_RANGE, KeyRange
from kstate.messages import (
    Control,
    Heartbeat,
    LeaderBeat,
    Order,
    PlanPublished,
    Report,
    TermStarted,
    TilePhase,
    TileReport,
)
from kstate.plan import (
    Member,
    Move,
    MovePhase,
    Plan,
    Registry,
    Shard,
    Tile,
    TopicPartition,
    control_topic,
    reports_topic,
)
from kstate.testing.memory_log import MemoryLog
from kstate.testing.virtual_time import VirtualClock
from kstate.wire import decode_report, encode_control, encode_report

T = TypeVar("T")

COUNT = Shard("count", 0)
LOW, HIGH = KeyRange(0, 0x8000), KeyRange(0x8000, 0x10000)
A, B = Member("worker-1", "worker-1.a", "b1"), Member("worker-2", "worker-2.a", "b1")
LEADER = "leader.a"


def plan(version: int = 1, *tiles: Tile, **changes: Any) -> Plan:
    """A plan of two workers for an operator `count` with two partitions; without tiles each worker has one of them."""
    tiles = tiles or (tile(A), tile(B, shard=Shard("count", 1)))
    starts = {("count", "words", 0): 0, ("count", "words", 1): 0}
    made = Plan("app", version, 1, (A, B), (), tiles, Registry(), {"words": 2}, starts, build="b1")
    return replace(made, **changes)


def tile(owner: Member | None, key_range: KeyRange = FULL_RANGE, shard: Shard = COUNT, grant: int = 1) -> Tile:
    """A key range of partition 0 of `count`, all of it by default."""
    return Tile(shard, key_range, None if owner is None else owner.incarnation, grant)


def move(
    number: int = 2,
    key_range: KeyRange = HIGH,
    phase: MovePhase = MovePhase.WARM,
    *,
    target: Member = B,
    order: str = "",
) -> Move:
    """A move of a part of partition 0 away from worker-1."""
    return Move(number, COUNT, key_range, A.incarnation, target.incarnation, number, phase, order)


def beat(member: Member, *tiles: TileReport, sequence: int = 1, **more: Any) -> Heartbeat:
    """A worker's state."""
    return Heartbeat(member.incarnation, member.name, "host", 7, sequence, 1, tiles, build=member.build, **more)


def piece(
    key_range: KeyRange = FULL_RANGE, phase: str = "running", *, grant: int = 1, at: int = 0, **more: Any
) -> TileReport:
    """What a worker says of a part of partition 0; `at`: its progress."""
    return TileReport(
        COUNT, key_range, grant, TilePhase(phase), 5, {"words": at} if phase == TilePhase.RUNNING else {}, **more
    )


class Topics:
    """The topics of an application `app`, in virtual time."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.log = MemoryLog(self.clock)
        self.edges = WatchEdges(self.log, self.clock)
        for topic in (control_topic("app"), reports_topic("app")):
            self.log.broker.create_topic(topic, 1)
        self.log.broker.create_topic("words", 2)

    @property
    def control(self) -> TopicPartition:
        """Where the leader's decisions stand."""
        return TopicPartition(control_topic("app"), 0)

    def say(self, *messages: Control) -> None:
        """The leader decides."""
        for message in messages:
            self._append(control_topic("app"), encode_control(message))

    def report(self, *messages: Report) -> None:
        for message in messages:
            self._append(reports_topic("app"), encode_report(message))

    def feed(self, partition: int, count: int) -> None:
        """Records of the input."""
        for _ in range(count):
            self.log.report("words", {"value": b"x", "partition": partition})

    def led(self, first: Plan | None = None) -> Topics:
        """A leader has begun, and made a first plan; everybody is heard."""
        self.say(TermStarted(1, LEADER), PlanPublished(first or plan(), "first plan"))
        self.alive()
        return self

    def alive(self, *members: Member) -> None:
        """Leader and workers are heard."""
        self.report(LeaderBeat(1, LEADER), *(beat(member) for member in members or (A, B)))

    def orders(self) -> list[Order]:
        """What was ordered, repetitions too."""
        records = self.log.records(TopicPartition(reports_topic("app"), 0))
        found: Iterable[Report] = (decode_report(record.value or b"") for record in records)
        return [report for report in found if isinstance(report, Order)]

    def run(self, steps: Steps[T], turns_max: int = 100_000) -> T:
        """Exhaust a protocol in virtual time."""
        for _ in range(turns_max):
            if (end := self.step(steps)) is not None:
                result: T = end.value
                return result
        raise AssertionError(f"no end within {turns_max} turns")

    def step(self, steps: Steps[Any]) -> StopIteration | None:
        """One step, and the time that it asks for."""
        try:
            self.clock.sleep(next(steps).wait)
        except StopIteration as end:
            return end
        return None

    def let(self, steps: Steps[Any], seconds: float) -> StopIteration | None:
        """Let a protocol go on for some time; its end if it comes to it."""
        until = self.clock.now + seconds
        while self.clock.now < until:
            if (end := self.step(steps)) is not None:
                return end
        return None

    def _append(self, topic: str, value: bytes) -> None:
        self.log.report(topic, {"value": value, "partition": 0})

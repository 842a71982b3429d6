"""A worker that outlives a bounded run: what lay behind its end is done by the run that follows, not skipped."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest

from kstate import Context, Input, Operator, Output, Table, TimerMap, Tumbling, Window, WindowState
from kstate.adapters.avro import AvroCodecs
from kstate.api.describe import describe
from kstate.api.job import Job
from kstate.api.topology import resolve
from kstate.config import EpochSettings, FailureSettings, Settings
from kstate.coordinator.core import Rules
from kstate.interfaces import TopicSpec
from kstate.keyspace import partition_of
from kstate.plan import Plan, TopicPartition
from kstate.testing.cluster import Blueprint, Cluster, QuickSupervision
from kstate.testing.sample_job import Balance, Fed, Payment, Totals
from kstate.testing.world import FOR_EVER, Process, World

TURNS_MAX = 100_000


class _Events:
    """An event log on Python's logging."""

    def debug(self, event: str, /, **fields: object) -> None:
        logging.getLogger("test").debug("%s %s", event, fields)

    info = warning = error = debug


class Bounded:
    """One worker and one leader at a time, one input partition; `feed` writes, `paid` is what came out."""

    def __init__(self, *operators: type[Operator[Any]], partitions: int = 1) -> None:
        job = Job("sim", operators or [Totals], epoch=timedelta(milliseconds=20))
        topology, codecs = resolve(job), AvroCodecs()
        failure = FailureSettings(successor_wait_ms=100)
        settings = Settings(epoch=EpochSettings(poll_records=4), failure=failure, stream_partitions=2)
        description = describe(topology, lambda kind: codecs.value(kind).schema)
        rules = Rules(settings.failure, expected_workers=1, linger_ms=100)
        self.world = World()
        others = [TopicSpec(topic, 1) for topic in ("names", "totals", "closed")]
        self.world.log.create_topics([TopicSpec("payments", partitions), *others])
        blueprint = Blueprint(topology, description, settings, codecs, rules)
        self.cluster = Cluster(self.world, blueprint, QuickSupervision(), _Events())

    def lead(self, *, until_end: bool) -> Process:
        """A leader that nobody starts again."""
        self.cluster.blueprint = replace(self.cluster.blueprint, until_end=until_end)
        leader = self.cluster.start_leader("leader")
        leader.gone = None
        return leader

    def feed(self, first: int, last: int) -> None:
        """Payments with these numbers, of one account."""
        for number in range(first, last + 1):
            message = Fed("payments", "x1", Payment(number, 1)).message(self.cluster.blueprint.codecs)
            self.world.log.report("payments", {**message, "partition": 0})

    def write(self, topic: str, record: Any) -> None:
        """A record of the same account, for any topic."""
        value = self.cluster.blueprint.codecs.value(type(record)).encode(record)
        self.world.log.report(topic, {"key": b"x1", "value": value, "partition": 0})

    def complete(self) -> None:
        """Run from the first record to the end that is there now."""
        leader = self.lead(until_end=True)
        self.cluster.start_worker("w")
        self.until(lambda: leader not in self.world.running())
        assert leader.result == 0

    def paid(self) -> list[int]:
        """The committed outputs, by the number of their payment."""
        values = [record.value or b"" for record in self.world.log.records(TopicPartition("totals", 0))]
        return [each.payment for each in self.cluster.blueprint.codecs.value(Balance).decode_many(values)]

    def plan(self) -> Plan:
        plan = self.cluster.plan()
        assert plan is not None
        return plan

    def until(self, condition: Callable[[], object]) -> None:
        assert self.world.run(lambda: bool(condition()), TURNS_MAX), self.world.told()

    def reached(self, worker: Process, offset: int) -> bool:
        """Whether the worker's next heartbeat says that it has come so far."""
        tiles = self.cluster.live[worker.incarnation].load.snapshot.tiles
        return any(tile.progress.get("payments", 0) >= offset for tile in tiles)


def test_what_lay_behind_the_end_is_done_when_the_run_becomes_unbounded() -> None:
    """Its leader dies before the run is complete, the next one has no end: the worker has read beyond the old one."""
    run = Bounded()
    run.feed(1, 10)
    first = run.lead(until_end=True)
    worker = run.cluster.start_worker("w")
    run.until(run.cluster.plan)
    run.feed(11, 20)
    run.world.crash(first)
    run.until(lambda: run.reached(worker, 10))
    for _ in range(200):
        run.world.turn()
    run.lead(until_end=False)
    run.until(lambda: not run.plan().bounded)
    run.feed(21, 30)
    run.until(lambda: run.paid()[-1:] == [30])
    assert run.paid() == list(range(1, 31))


def test_a_worker_that_missed_the_end_of_one_run_does_all_of_the_next() -> None:
    """It is stuck while the run is declared complete and the next one, with further ends, begins."""
    run = Bounded()
    run.feed(1, 10)
    first = run.lead(until_end=True)
    worker = run.cluster.start_worker("w")
    run.until(run.cluster.plan)
    run.feed(11, 20)
    run.until(lambda: run.reached(worker, 10))
    worker.main.wake = FOR_EVER  # its heartbeats go on
    run.until(lambda: run.plan().complete and first not in run.world.running())
    second = run.lead(until_end=True)
    run.until(lambda: not run.plan().complete)
    run.world.release(worker)
    run.until(lambda: second not in run.world.running())
    assert second.result == 0
    assert run.paid() == list(range(1, 21))


@dataclass(frozen=True, slots=True)
class Name:
    text: str


class Named(Operator[str], uid="named"):
    """Gives each payment the name that a table has for its account."""

    payments = Input(Payment, topic="payments")
    names = Table(Name, topic="names")
    totals = Output(Name, topic="totals")

    @payments.each
    def name(self, _payment: Payment, _ctx: Context) -> None:
        self.totals.emit(self.names.get() or Name("nobody"))


def test_a_table_that_grows_during_the_run_does_not_hold_it_up() -> None:
    """It is read to the end that the run has for it, not to the one that it has when the tile starts to run."""
    run = Bounded(Named)
    run.write("names", Name("first"))
    run.feed(1, 3)
    leader = run.lead(until_end=True)
    run.cluster.start_worker("w")
    run.until(run.cluster.plan)
    run.write("names", Name("second"))
    run.until(lambda: leader not in run.world.running())
    assert leader.result == 0
    values = [record.value or b"" for record in run.world.log.records(TopicPartition("totals", 0))]
    assert run.cluster.blueprint.codecs.value(Name).decode_many(values) == [Name("first")] * 3


@dataclass(frozen=True, slots=True)
class Sum:
    start: int
    total: int


SECOND = timedelta(seconds=1)


class ByAmount(Operator[int], uid="by-amount"):
    """Two stages: payments of an amount per second, then all that closed in a second."""

    payments = Input(Payment, topic="payments", rekey="amount", event_time=lambda payment: payment.id)
    sums = Output(Sum, key=lambda closed: closed.start)
    n = WindowState(int, Tumbling(SECOND), default=0)

    @payments.each
    def add(self, _payment: Payment, _ctx: Context) -> None:
        self.n.update(lambda n: n + 1)

    @n.closes
    def report(self, n: int, window: Window, _ctx: Context) -> None:
        self.sums.emit(Sum(window.start, n))


class All(Operator[int], uid="all"):
    sums = Input(ByAmount.sums)
    totals = Output(Sum, topic="totals")
    total = WindowState(int, Tumbling(SECOND), default=0)

    @sums.each
    def add(self, closed: Sum, _ctx: Context) -> None:
        self.total.update(lambda total: total + closed.total)

    @total.closes
    def report(self, total: int, window: Window, _ctx: Context) -> None:
        self.totals.emit(Sum(window.start, total))


def test_an_empty_partition_holds_back_no_window_of_a_bounded_run() -> None:
    """Nothing will ever tell its time; the watermark is not raised, so the last window stays open."""
    run = Bounded(ByAmount, All, partitions=2)
    for second in range(1, 6):
        for amount in range(10):
            message = Fed("payments", "x1", Payment(second * 1_000 + amount, amount)).message(
                run.cluster.blueprint.codecs
            )
            run.world.log.report("payments", {**message, "partition": partition_of(b"x1", 2)})
    run.complete()
    values = [record.value or b"" for record in run.world.log.records(TopicPartition("totals", 0))]
    sums = run.cluster.blueprint.codecs.value(Sum).decode_many(values)
    assert sorted(sums, key=lambda s: s.start) == [Sum(second * 1_000, 10) for second in range(1, 5)]


class Burst(Operator[str], uid="burst"):
    """Sets more timers than one epoch fires, all of them in the past."""

    payments = Input(Payment, topic="payments", event_time=lambda payment: 1_000_000)
    totals = Output(Sum, topic="totals")
    marks = TimerMap(int)

    @payments.each
    def start(self, payment: Payment, _ctx: Context) -> None:
        for tag in range(5_000):
            self.marks.set(tag, at=1 + tag)

    @marks.fires
    def fire(self, tag: int, _ctx: Context) -> None:
        self.totals.emit(Sum(tag, 0))


def test_a_bounded_run_is_not_over_before_what_is_due_has_fired(monkeypatch: pytest.MonkeyPatch) -> None:
    """All input is read, and every epoch is full after a few timers."""
    monkeypatch.setattr("kstate.worker.firing.CHUNK", 10)
    monkeypatch.setattr("kstate.worker.running_epoch.RunningEpoch.due", lambda self: not self.empty)
    run = Bounded(Burst)
    run.feed(1, 1)
    run.complete()
    assert len(run.world.log.records(TopicPartition("totals", 0))) == 5_000

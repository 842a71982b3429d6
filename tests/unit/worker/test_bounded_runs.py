"""A worker that outlives a bounded run: what lay behind its end is done by the run that follows, not skipped."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from kstate import Context, Input, Operator, Output, Table
from kstate.adapters.avro import AvroCodecs
from kstate.api.describe import describe
from kstate.api.job import Job
from kstate.api.topology import resolve
from kstate.config import EpochSettings, FailureSettings, Settings
from kstate.coordinator.core import Rules
from kstate.interfaces import TopicSpec
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

    def __init__(self, operator: type[Operator[Any]] = Totals) -> None:
        topology, codecs = resolve(Job("sim", [operator], epoch=timedelta(milliseconds=20))), AvroCodecs()
        settings = Settings(epoch=EpochSettings(poll_records=4), failure=FailureSettings(successor_wait_ms=100))
        description = describe(topology, lambda kind: codecs.value(kind).schema)
        rules = Rules(settings.failure, expected_workers=1, linger_ms=100)
        self.world = World()
        self.world.log.create_topics([TopicSpec("payments", 1), TopicSpec("names", 1), TopicSpec("totals", 1)])
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

"""The commands that move work, on a real leader and real workers in virtual time, under input."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta

import pytest

from kstate.cli.order_progress import LegState, Outcome, Progress
from kstate.cli.order_report import verdict
from kstate.cli.order_request import Request
from kstate.cli.ordering import Ordering, Patience
from kstate.cli.watching import Watch, WatchEdges
from kstate.clock import Steps
from kstate.config import FailureSettings
from kstate.coordinator.status import Overview
from kstate.errors import ConfigError, KstateError
from kstate.keyspace import FULL_RANGE, KeyRange
from kstate.messages import Order, OrderKind
from kstate.plan import Shard
from kstate.testing import Driver
from kstate.testing.orders import send_order
from kstate.testing.world import Process
from operators.records import Line, RunningCount
from operators.running_count import job
from operators.running_count.operators import Count
from operators.word_count.operators import Split

COUNT = Shard("count", 0)
LOW, HIGH = KeyRange(0, 0x8000), KeyRange(0x8000, 0x10000)
WORDS = [f"w{number}" for number in range(40)]
TURNS_MAX = 400_000


@dataclass(frozen=True)
class Refused:
    """A person who is refused is no failure of the job."""

    error: KstateError


def or_refused(steps: Steps[Progress]) -> Steps[Progress | Refused]:
    """What becomes of an order, also where it comes to nothing."""
    try:
        return (yield from steps)
    except KstateError as error:
        return Refused(error)


class Rig:
    """A job with two workers, and people who order."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.world, self.cluster = driver._world, driver._cluster
        self.edges = WatchEdges(self.world.log, self.world.clock)
        self.sent = 0
        self.orders = 0

    def begin(self, request: Request, timeout_s: float = 60.0) -> tuple[Ordering, Process]:
        """Somebody types a command."""
        self.orders += 1
        ordering = Ordering(request, f"order-{self.orders}", self.edges, "running-count", lambda line: None)
        steps = or_refused(ordering.run(Patience(timeout_s)))
        return ordering, self.world.start("outside", "person", f"person-{self.orders}", steps)

    def order(self, request: Request, timeout_s: float = 60.0) -> Progress:
        """What becomes of a command, typed while words come in. Raises what it raises."""
        ordering, person = self.begin(request, timeout_s)
        while person.result is None:
            self.feed(1)
            assert self.world.run(lambda: person.result is not None or self.world.quiet, TURNS_MAX)
            self.world.run(lambda: False, 50)
        ordering.close()
        if isinstance(person.result, Refused):
            raise person.result.error
        assert isinstance(person.result, Progress)
        return person.result

    def feed(self, count: int) -> None:
        """Words come in, without waiting for what follows from them."""
        for _ in range(count):
            word = WORDS[self.sent % len(WORDS)]
            spec, given = self.driver._input(Split.lines)
            plan = self.driver._plan()
            now = self.world.clock.time_ms()
            message = self.driver._feed.message(spec, given, Line(word, now), None, now, plan.partitions)
            self.world.log.report(given.topic, message)
            self.sent += 1

    def look(self) -> Overview:
        """What `kstate status` shows."""
        watch = Watch(self.edges, "running-count")
        steps = watch.begin()
        for _ in steps:
            pass
        failure = FailureSettings()
        found = watch.overview(failure.silence_max_ms)
        watch.close()
        return found

    def until(self, condition: Callable[[Overview], bool]) -> Overview:
        """Let time pass until the job stands so."""
        for _ in range(200):
            if condition(found := self.look()):
                return found
            later = self.world.clock.now + 0.2
            assert self.world.run(lambda: self.world.clock.now >= later, TURNS_MAX)  # noqa: B023 (called at once)
        raise AssertionError(f"it does not come to that: {self.look()}")

    def owners(self, partition: int = 0) -> dict[tuple[int, int], str | None]:
        """Key range → worker of a partition of `count`."""
        shards = [s for s in self.look().shards if (s.operator, s.partition) == ("count", partition)]
        return {(s.lo, s.hi): s.worker for s in shards}

    def check(self) -> None:
        """Every word is counted once, in order: the results of each word are the numbers from 1 on."""
        self.driver._settle()
        seen: dict[str, list[int]] = {}
        found: list[RunningCount] = self.driver.read(Count.counts)
        for each in found:
            seen.setdefault(each.word, []).append(each.n)
        assert sum(map(len, seen.values())) == self.sent
        assert all(numbers == list(range(1, len(numbers) + 1)) for numbers in seen.values())


@pytest.fixture
def rig() -> Iterator[Rig]:
    """Two workers that have counted every word a few times."""
    with Driver(job, workers=2) as driver:
        rig = Rig(driver)
        rig.feed(200)
        driver._settle()
        yield rig
        rig.check()


def only_owner(rig: Rig, partition: int = 0) -> str:
    """Who owns all of a partition of `count`."""
    (owner,) = set(rig.owners(partition).values())
    assert owner is not None
    return owner


def other(name: str) -> str:
    """The other worker."""
    return {"worker-0": "worker-1", "worker-1": "worker-0"}[name]


def test_a_split_and_a_merge(rig: Rig) -> None:
    """The upper part goes to the other worker, and comes back; touching ranges of one worker are one again."""
    source = only_owner(rig)
    split = rig.order(Request(OrderKind.SPLIT, COUNT, at=0.5))
    assert split.outcome is Outcome.DONE, verdict(split, 0)
    (leg,) = split.legs.values()
    assert [state for state, _ in leg.times] == [LegState.WARM, LegState.RELEASE, LegState.DONE]
    assert rig.owners() == {(0, 0x8000): source, (0x8000, 0x10000): other(source)}
    rig.feed(100)
    rig.driver._settle()
    merge = rig.order(Request(OrderKind.MERGE, COUNT, target=source))
    assert merge.outcome is Outcome.DONE, verdict(merge, 0)
    rig.driver.advance(timedelta(seconds=3))
    assert rig.owners() == {(0, 0x10000): source}


def test_a_whole_partition_moves(rig: Rig) -> None:
    """And back."""
    source = only_owner(rig)
    for target in (other(source), source):
        moved = rig.order(Request(OrderKind.MOVE, COUNT, target=target))
        assert moved.outcome is Outcome.DONE, verdict(moved, 0)
        assert only_owner(rig) == target


def test_a_drain_and_what_status_says_of_it(rig: Rig) -> None:
    """The worker has nothing left, is marked, and gets nothing by order either."""
    drained = rig.order(Request(OrderKind.DRAIN, worker="worker-1"))
    assert drained.outcome is Outcome.DONE, verdict(drained, 0)
    found = rig.look()
    assert {shard.worker for shard in found.shards} == {"worker-0"}
    assert {w.name: (w.state, w.load.tiles) for w in found.workers}["worker-1"] == ("draining", 0)
    refused = rig.order(Request(OrderKind.MOVE, COUNT, target="worker-1"))
    assert refused.outcome is Outcome.REFUSED
    assert refused.answer is not None
    assert "worker-1 is being drained" in refused.answer.reason
    assert "refused" in rig.look().decisions[-1].what


def test_a_rebalance_after_everything_was_moved_to_one(rig: Rig) -> None:
    """Then there is nothing more to do."""
    for shard in {tile.shard for tile in rig.driver._plan().tiles}:
        rig.order(Request(OrderKind.MOVE, shard, target="worker-0"))
    assert {s.worker for s in rig.look().shards} == {"worker-0"}
    balanced = rig.order(Request(OrderKind.REBALANCE))
    assert balanced.outcome is Outcome.DONE, verdict(balanced, 0)
    assert {w.load.tiles for w in rig.look().workers} == {2}
    assert rig.order(Request(OrderKind.REBALANCE)).outcome is Outcome.NOTHING


def test_a_move_to_its_owner_is_refused(rig: Rig) -> None:
    """By the leader, with the name."""
    source = only_owner(rig)
    refused = rig.order(Request(OrderKind.MOVE, COUNT, target=source))
    assert refused.outcome is Outcome.REFUSED
    assert refused.answer is not None
    assert source in refused.answer.reason


def test_a_worker_that_does_not_exist_is_refused_before_anything_is_sent(rig: Rig) -> None:
    """The job goes on."""
    with pytest.raises(ConfigError, match="no worker 'worker-7'"):
        rig.order(Request(OrderKind.MOVE, COUNT, target="worker-7"))


def test_a_second_move_of_a_range_under_way_is_refused(rig: Rig) -> None:
    """The first one goes on."""
    source = only_owner(rig)
    first, person = rig.begin(Request(OrderKind.MOVE, COUNT, FULL_RANGE, target=other(source)))
    assert rig.world.run(lambda: bool((plan := rig.cluster.plan()) and plan.moves), TURNS_MAX)
    refused = rig.order(Request(OrderKind.SPLIT, COUNT, at=0.5))
    assert refused.outcome is Outcome.REFUSED
    assert refused.answer is not None
    assert "under way" in refused.answer.reason
    assert rig.world.run(lambda: person.result is not None, TURNS_MAX)
    assert first.progress is not None
    assert first.progress.outcome is Outcome.DONE


def test_a_target_that_dies_before_the_release_is_told_as_cancelled(rig: Rig) -> None:
    """The source has the range still."""
    source = only_owner(rig)
    ordering, person = rig.begin(Request(OrderKind.MOVE, COUNT, target=other(source)))
    assert rig.world.run(lambda: bool((plan := rig.cluster.plan()) and plan.moves), TURNS_MAX)
    rig.world.crash(next(p for p in rig.world.running() if p.name == other(source)))
    assert rig.world.run(lambda: person.result is not None, TURNS_MAX)
    progress = ordering.progress
    assert progress is not None
    assert progress.outcome is Outcome.MISSED
    (leg,) = progress.missed
    assert leg.state is LegState.CANCELLED
    assert "dead" in leg.reason or "died" in leg.reason
    assert only_owner(rig) == source


def test_an_order_that_is_repeated_after_its_answer_changes_nothing(rig: Rig) -> None:
    """Copies may still be on their way."""
    source = only_owner(rig)
    done = rig.order(Request(OrderKind.MOVE, COUNT, target=other(source)))
    assert done.outcome is Outcome.DONE
    version = rig.driver._plan().version
    send_order(rig.cluster, Order(done.order.id, OrderKind.MOVE, COUNT, target=source))
    rig.driver.advance(timedelta(seconds=3))
    assert rig.driver._plan().version == version


def test_a_dead_worker_is_refused_as_a_target_and_takes_part_again_when_it_is_back(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused by the command, which reads that it was declared dead; a new start of the name may be ordered to."""
    monkeypatch.setattr(rig.cluster.supervision, "restart_delay", lambda process: 20.0)
    rig.world.crash(next(p for p in rig.world.running() if p.name == "worker-1"))
    rig.until(lambda found: [worker.name for worker in found.workers] == ["worker-0"])
    with pytest.raises(ConfigError, match="Worker 'worker-1' of job 'running-count' is dead"):
        rig.order(Request(OrderKind.MOVE, COUNT, target="worker-1"))
    rig.until(lambda found: [worker.state for worker in found.workers] == ["running", "running"])
    moved = rig.order(Request(OrderKind.MOVE, COUNT, target="worker-1"))
    assert moved.outcome is Outcome.DONE, verdict(moved, 0)


def test_a_range_that_nobody_has_is_refused_and_the_job_goes_on_when_workers_come(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All workers are dead: there is nobody to move it from."""
    monkeypatch.setattr(rig.cluster.supervision, "restart_delay", lambda process: 20.0)
    for name in ("worker-0", "worker-1"):
        rig.world.crash(next(p for p in rig.world.running() if p.name == name))
    found = rig.until(lambda found: {worker.state for worker in found.workers} == {"dead"})
    assert found.state == "no workers"
    assert {shard.phase for shard in found.shards} == {"lost"}
    refused = rig.order(Request(OrderKind.SPLIT, COUNT, at=0.5))
    assert refused.outcome is Outcome.REFUSED
    assert refused.answer is not None
    assert "dead" in refused.answer.reason
    rig.until(lambda found: {shard.phase for shard in found.shards} == {"running"})

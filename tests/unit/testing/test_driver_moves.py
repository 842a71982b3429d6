"""The driver's orders: split, move, merge and drain run the real thing, and change nothing but who works."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Self

import pytest

from kstate import ConfigError, Context, Input, Job, Operator, Output, PartialState, Timer, ValueState
from kstate.testing import Driver

KEYS = [f"k{number}" for number in range(12)]


@dataclass(frozen=True, slots=True)
class Hit:
    """Something happened to a key."""

    key: str
    ts: int


@dataclass(frozen=True, slots=True)
class Count:
    """How often, so far."""

    key: str
    n: int


@dataclass(frozen=True, slots=True)
class Hits:
    """How many hits a key range has seen."""

    n: int = 0

    def split(self, fraction: float) -> tuple[Self, Self]:
        lower = round(self.n * fraction)
        return replace(self, n=lower), replace(self, n=self.n - lower)

    def merge(self, other: Self) -> Self:
        return replace(self, n=self.n + other.n)


class Counter(Operator[str], uid="counter"):
    """Counts per key and per key range, and says when a key was quiet."""

    hits = Input(Hit, topic="hits", key="key", event_time="ts")
    counts = Output(Count, topic="counts")
    quiet = Output(Count, topic="quiet")
    n = ValueState(int, default=0)
    silence = Timer()
    all = PartialState(Hits, initial=Hits)

    @hits.each
    def count(self, hit: Hit, _: Context) -> None:
        self.n.set(self.n.get() + 1)
        self.all.set(Hits(self.all.get().n + 1))
        self.counts.emit(Count(hit.key, self.n.get()))
        self.silence.set(after=timedelta(seconds=10))

    @silence.fires
    def tell(self, _: Context) -> None:
        self.quiet.emit(Count(self.key, self.n.get()))


JOB = Job("hits", [Counter])


def hit(d: Driver, ts: int) -> list[Count]:
    """One hit of every key; what was counted."""
    d.send(Counter.hits, *(Hit(key, ts) for key in KEYS))
    return sorted(d.read(Counter.counts), key=lambda count: KEYS.index(count.key))


def owners(d: Driver) -> dict[str, list[tuple[int, int]]]:
    """Worker → (partition, width of the key range) of its tiles, as the newest plan says."""
    found: dict[str, list[tuple[int, int]]] = {}
    for tile in d._plan().tiles:
        found.setdefault((tile.worker or "").split(".")[0], []).append((tile.shard.partition, tile.key_range.width))
    return found


def test_keys_are_counted_on_through_split_move_merge_and_drain() -> None:
    """State, timers and what is kept per key range are where they were, whoever has them."""
    orders: list[Callable[[Driver], None]] = [
        lambda d: d.split(Counter, at=0.3),
        lambda d: d.move(Counter, to=0, keys=(0.5, 1.0)),
        lambda d: d.merge(Counter, partition=0),
        lambda d: d.drain(1),
        lambda d: d.crash(0, at="now"),
    ]
    with Driver(JOB, workers=2) as d:
        for n, order in enumerate(orders, 1):
            assert hit(d, 1_000 * n) == [Count(key, n) for key in KEYS]
            assert d.partial(Counter.all) == Hits(n * len(KEYS))
            order(d)
        assert {d.state(Counter.n, key=key) for key in KEYS} == {5}
        d.send(Counter.hits, *(Hit(key, 60_000) for key in KEYS))
        assert sorted(d.read(Counter.quiet), key=lambda c: KEYS.index(c.key)) == [Count(key, 5) for key in KEYS]


def test_a_split_cuts_every_partition_and_gives_the_upper_part_away() -> None:
    """Half of the key space by default; the other worker gets it."""
    with Driver(JOB, workers=2) as d:
        d.split(Counter)
        assert {name: sorted(tiles) for name, tiles in owners(d).items()} == {
            "worker-0": [(0, 32768), (1, 32768)],
            "worker-1": [(0, 32768), (1, 32768)],
        }


def test_a_split_of_one_partition_may_name_the_worker() -> None:
    """The other partition stays whole."""
    with Driver(JOB, workers=3) as d:
        d.split(Counter, at=0.25, to=2, partition=0)
        assert (0, 49152) in owners(d)["worker-2"]
        assert [width for tiles in owners(d).values() for p, width in tiles if p != 0] == [65536, 65536]


def test_a_merge_makes_a_partition_whole_again() -> None:
    """At the worker that is named; touching tiles of one worker are one tile."""
    with Driver(JOB, workers=2) as d:
        d.split(Counter)
        d.merge(Counter, to=1)
        assert owners(d) == {"worker-1": [(0, 65536), (1, 65536)]}


def test_a_drained_worker_has_nothing() -> None:
    """And gets nothing any more."""
    with Driver(JOB, workers=2) as d:
        d.drain(0)
        assert list(owners(d)) == ["worker-1"]
        with pytest.raises(ConfigError, match="worker-0 is being drained"):
            d.move(Counter, to=0)


def test_what_the_leader_refuses_is_an_error_with_its_reason() -> None:
    """Nobody there to take it; a slot that cuts nothing off; a partition that is not there."""
    with Driver(JOB) as d:
        with pytest.raises(ConfigError, match="no other worker to take it"):
            d.split(Counter)
        with pytest.raises(ConfigError, match="There is no worker 1"):
            d.move(Counter, to=1)
    with Driver(JOB, workers=2) as d:
        with pytest.raises(ConfigError, match="cuts nothing off"):
            d.split(Counter, at=0.0)
        with pytest.raises(ConfigError, match="partitions 0 … 1"):
            d.split(Counter, partition=7)


@pytest.mark.parametrize("worker", [0, 1])
def test_a_crash_amid_a_move_changes_no_result(worker: int) -> None:
    """Of its source or of its target, at the next commit of either."""
    with Driver(JOB, workers=2) as d:
        assert hit(d, 1_000) == [Count(key, 1) for key in KEYS]
        d.crash(worker, at="before_commit")
        d.split(Counter)
        assert hit(d, 2_000) == [Count(key, 2) for key in KEYS]

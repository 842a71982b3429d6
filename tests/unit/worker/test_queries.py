"""What a worker answers to queries of its state."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from kstate.answers import Query, RangeGone
from kstate.keyspace import FULL_RANGE, KeyRange
from kstate.messages import Heartbeat, TilePhase, TileReport
from kstate.plan import Shard
from kstate.state.layout import key_suffix, shard_prefix
from kstate.testing.memory_store import MemoryStore
from kstate.times import UNKNOWN_TIME
from kstate.worker.queries import Queries

COUNT = Shard("count", 3)
OPERATOR = 7
LOW, HIGH = KeyRange(0, 0x8000), KeyRange(0x8000, 0x10000)
KEYS = {slot: key_suffix(slot, 1, b"key") for slot in (0, 5, 0x7FFF, 0x8000, 0xFFFF)}


@dataclass
class Bench:
    """A store with an entry in some slots, and what the worker says that it runs."""

    store: MemoryStore = field(default_factory=MemoryStore)
    tiles: list[TileReport] = field(default_factory=list)

    def __post_init__(self) -> None:
        keys = [shard_prefix(OPERATOR, COUNT.partition) + suffix for suffix in KEYS.values()]
        others = [shard_prefix(OPERATOR, COUNT.partition + 1) + KEYS[5], shard_prefix(OPERATOR + 1, 3) + KEYS[5]]
        self.store.write([*keys, *others], [b"%d" % slot for slot in KEYS] + [b"other"] * 2)

    def runs(self, *ranges: KeyRange, phase: TilePhase = TilePhase.RUNNING, grant: int = 4) -> None:
        """Nothing else from now on."""
        self.tiles = [TileReport(COUNT, each, grant, phase, 1, {}) for each in ranges]

    def queries(self) -> Queries:
        return Queries(self.store, lambda: Heartbeat("w-1.1", "w-1", "host", 1, 1, 1, tuple(self.tiles)))

    def slots(self, key_range: KeyRange, shard: Shard = COUNT) -> list[int]:
        """Of the entries in an answer."""
        found = list(self.queries().answer(Query(shard, OPERATOR, key_range)))
        assert all(KEYS[int(value)] == suffix and mark == UNKNOWN_TIME for suffix, value, mark in found)
        return [int(value) for _, value, _ in found]


def test_all_entries_of_a_range_that_runs_are_given_in_order() -> None:
    """Of that shard and of no other, in one piece or in several."""
    bench = Bench()
    for ranges in ((FULL_RANGE,), (LOW, HIGH)):
        bench.runs(*ranges)
        assert bench.slots(FULL_RANGE) == sorted(KEYS)
        assert bench.slots(KeyRange(5, 0x8000)) == [5, 0x7FFF]


@pytest.mark.parametrize("phase", [phase for phase in TilePhase if phase is not TilePhase.RUNNING])
def test_nobody_answers_for_what_he_does_not_run(phase: TilePhase) -> None:
    """A copy is behind; a part of the range is not all of it; another shard is another's."""
    bench = Bench()
    bench.runs(FULL_RANGE, phase=phase)
    with pytest.raises(RangeGone):
        bench.slots(LOW)
    bench.runs(LOW)
    with pytest.raises(RangeGone):
        bench.slots(KeyRange(0x7000, 0x9000))
    with pytest.raises(RangeGone):
        bench.slots(LOW, Shard("count", 4))


def test_an_answer_during_which_the_range_went_away_does_not_count() -> None:
    """Also when it came back meanwhile, under another grant."""
    bench = Bench()
    for ranges, grant in (((HIGH,), 4), ((LOW, HIGH), 5)):
        bench.runs(LOW, HIGH)
        answer = bench.queries().answer(Query(COUNT, OPERATOR, LOW))
        next(answer)
        bench.runs(*ranges, grant=grant)
        with pytest.raises(RangeGone):
            list(answer)

"""restore-state: interrupted anywhere, it starts over and gives the right state."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import pytest

from kstate.adapters.rocksdb import open_store
from kstate.clock import Step, Steps
from kstate.keyspace import FULL_RANGE, KeyRange
from kstate.state.layout import identity_entry
from kstate.state.lineage import Lineage, lineage_entry
from kstate.state.restore import RestoreTarget, restore
from kstate.testing.memory_store import MemoryStore
from tests.support.backup_log import HIGH, LOW, OPERATOR, SOURCE, entry, held, lineage_of
from tests.support.restore_bench import PREFIX, SETTINGS, Bench, filled_bench, finish, step_until


@pytest.fixture
def bench() -> Bench:
    """A log of 20 epochs of each half, and an empty store."""
    return filled_bench()


Scenario = Callable[[Bench], None]


def _cold(bench: Bench) -> None:
    """Nothing is there."""


def _stale(bench: Bench) -> None:
    bench.put_stale()


def _behind(bench: Bench) -> None:
    """A warm copy that is far behind."""
    bench.restore()
    bench.epochs(30, seed=9)


def _rebased(bench: Bench) -> None:
    bench.restore()
    bench.epochs(10, seed=9)
    cut = bench.backup.read().next_offset
    bench.epochs(4, seed=10)
    bench.backup.rebase(FULL_RANGE, cut)
    bench.epochs(4, seed=11)
    bench.backup.trim(cut)


@pytest.mark.parametrize("scenario", [_cold, _stale, _behind, _rebased])
def test_a_crash_at_any_step_and_starting_over_gives_the_right_state(bench: Bench, scenario: Scenario) -> None:
    """Killed after each step in turn, with each a different part of the unflushed writes lost; then killed again."""
    scenario(bench)
    bench.store.flush()
    length = len(deepcopy(bench).restore())
    for stop in range(1, length + 1):
        for seed in range(4):
            victim = Bench(bench.backup, deepcopy(bench.store))
            rng = Random(f"{stop} {seed}")
            for stop_now in (stop, rng.randint(1, stop)):
                steps = victim.steps()
                _take(steps, stop_now)
                steps.close()
                victim.store.crash(rng)
            victim.restore()


def _take(steps: Steps[Lineage], count: int) -> list[Step]:
    """At most so many steps."""
    return [step for step, _ in zip(steps, range(count), strict=False)]


class KilledError(Exception):
    """The process ends here."""


class DoomedStore(MemoryStore):
    """A store whose process is killed before a given change of it."""

    def __init__(self, content: MemoryStore, left: int) -> None:
        super().__init__()
        self.__dict__.update(deepcopy(content.__dict__))
        self._left = left

    def flush(self) -> None:
        self._count()
        super().flush()

    def _do(self, change: Any) -> None:
        self._count()
        super()._do(change)

    def _count(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise KilledError


@pytest.mark.parametrize("scenario", [_cold, _stale, _behind, _rebased])
def test_a_crash_between_any_two_changes_of_the_store_never_leaves_a_false_copy(
    bench: Bench, scenario: Scenario
) -> None:
    """What the lineage entry claims is what the store holds, with any part of the unflushed changes lost."""
    scenario(bench)
    bench.store.flush()
    before = held(bench.store)
    for changes in count():
        victim = Bench(bench.backup, DoomedStore(bench.store, changes))
        try:
            victim.restore()
            break
        except KilledError:
            _check_claims(victim, before)
    assert changes >= 4


def _check_claims(victim: Bench, before: list[tuple[bytes, bytes]]) -> None:
    """For many ways in which the crash may come out."""
    for seed in range(8):
        store = deepcopy(victim.store)
        store.crash(Random(seed))
        for key_range, position in lineage_of(store):
            state = victim.backup.history.get(position.offset)
            claimed = before if state is None else victim.backup.part(key_range, state)
            assert held(store, key_range) == claimed


def test_what_was_dropped_stays_dropped(bench: Bench) -> None:
    """From that step on nothing old can come back."""
    bench.put_stale()
    steps = bench.steps()
    step_until(steps, "dropped")
    bench.store.crash(Random(0))
    assert held(bench.store) == []
    assert len(lineage_of(bench.store)) == 0


@pytest.mark.parametrize("seed", range(30))
def test_a_crash_leaves_the_other_ranges_of_the_shard_consistent(bench: Bench, seed: int) -> None:
    """One half runs on, unflushed, in the same store while the other half is restored: its lineage never lies."""
    rng = Random(seed)
    bench.restore(LOW)
    steps = bench.steps(HIGH)
    stop = rng.randint(1, 12)
    while stop and next(steps, None):
        stop -= 1
        _run_epoch(bench, LOW, rng)
        if rng.random() < 0.2:
            bench.store.flush()
    bench.store.crash(rng)
    (position,) = lineage_of(bench.store, LOW).values()
    assert held(bench.store, LOW) == bench.backup.part(LOW, bench.backup.history[position.offset])
    bench.restore(LOW)
    bench.restore(HIGH)
    bench.check(FULL_RANGE, bench.backup.lineage)


def _run_epoch(bench: Bench, key_range: KeyRange, rng: Random) -> None:
    """What a worker does after a commit: one write of changes and lineage entry."""
    backup = bench.backup
    entries = {entry(rng.randrange(key_range.lo, key_range.hi)): b"run", entry(key_range.lo): b"%d" % rng.randrange(99)}
    backup.commit(entries, key_range)
    key, value = lineage_entry(bench.store, OPERATOR, SOURCE.partition, backup.lineage.slice(key_range))
    bench.store.write([PREFIX + suffix for suffix in entries] + [key], [*entries.values(), value])


def test_a_running_range_is_not_undone_by_the_end_of_a_restore(bench: Bench) -> None:
    """The lineage entry is put together from what the store holds at that very moment."""
    bench.restore(LOW)
    steps = bench.steps(HIGH)
    rng = Random(1)
    while next(steps, None):
        _run_epoch(bench, LOW, rng)
    bench.check(LOW, bench.backup.lineage.slice(LOW))
    bench.check(HIGH, bench.backup.lineage.slice(HIGH))


def test_the_real_store_and_the_model_end_equal(bench: Bench, tmp_path: Path) -> None:
    """The same restore into RocksDB."""
    bench.put_stale()
    stamp = identity_entry("app", "w", "c")
    real = open_store(tmp_path, stamp, 8 << 20).store
    real.write(*map(list, zip(*bench.store.scan(b"", b"\xff"), strict=True)))
    bench.restore()
    target = RestoreTarget(SOURCE, OPERATOR, FULL_RANGE)
    finish(restore(bench.backup.log, real, target, bench.backup.clock, SETTINGS))
    assert list(real.scan(b"\x00\x00\x02", b"\xff")) == list(bench.store.scan(b"", b"\xff"))
    real.close()

"""Following a backup log beside running ranges: small steps, whatever the size of what was committed at once."""

from __future__ import annotations

from random import Random

import pytest

from kstate.keyspace import FULL_RANGE
from kstate.state.follow import Follower
from kstate.state.restore import RestoreTarget
from tests.support.backup_log import OPERATOR, SOURCE, entry, lineage_of
from tests.support.restore_bench import RUN_BYTES, SETTINGS, Bench, filled_bench, finish
from tests.unit.state.test_follow import follower_of, go_on


@pytest.fixture
def bench() -> Bench:
    """A log of 20 epochs of each half, and an empty store."""
    return filled_bench()


BIG = {entry(slot, b"big"): b"%04d" % slot * 2_000 for slot in range(0, 0x10000, 0x100)}
"""An epoch of five blocks, each much larger than a gentle follower's run."""


def test_beside_running_ranges_a_large_epoch_is_applied_in_steps(bench: Bench) -> None:
    """A block at a time: until all are there the copy counts as not there, then it stands where the log does."""
    follower = follower_of(bench)
    follower.gentle = True
    tail = follower.tail()
    go_on(tail)
    bench.backup.commit(BIG)
    names = []
    while (step := next(tail)).name != "followed":
        names.append(step.name)
        if "spilled" in names:
            assert not len(lineage_of(bench.store))
            assert not follower.caught_up
    assert names.count("spilled") >= 4
    go_on(tail)
    assert follower.caught_up
    bench.check(FULL_RANGE, lineage_of(bench.store))


def test_who_takes_over_in_the_middle_of_a_large_epoch_has_all_of_it(bench: Bench) -> None:
    """Whether it goes on gently or not."""
    for gentle in (True, False):
        follower = follower_of(bench)
        follower.gentle = True
        tail = follower.tail()
        go_on(tail)
        bench.backup.commit({**BIG, entry(7): b"%d" % gentle})
        while next(tail).name != "spilled":
            continue
        tail.close()
        follower.gentle = gentle
        bench.check(FULL_RANGE, finish(follower.adopt()))


@pytest.mark.parametrize("seed", range(6))
def test_a_crash_in_the_middle_of_a_large_epoch_costs_the_copy_and_nothing_else(bench: Bench, seed: int) -> None:
    """What was written of it is dropped, whatever of the last writes was lost."""
    follower = follower_of(bench)
    follower.gentle = True
    tail = follower.tail()
    go_on(tail)
    bench.backup.commit(BIG)
    for _ in range(seed // 2 + 1):
        while next(tail).name != "spilled":
            continue
    bench.store.crash(Random(seed))
    bench.restore()


def test_beside_running_ranges_many_small_epochs_are_kept_as_they_come(bench: Bench) -> None:
    """With the lineage entry: who is stopped goes on from there, and does not begin anew."""
    follower = follower_of(bench)
    follower.gentle = True
    tail = follower.tail()
    while next(tail).name != "followed":
        continue
    assert follower.behind
    assert len(lineage_of(bench.store))
    follower.close()
    assigned = bench.assigned()
    names = go_on(follower.tail())
    assert "followed" in names
    assert "spilled" not in names
    assert min(assigned) > 0
    bench.check(FULL_RANGE, lineage_of(bench.store))


@pytest.mark.parametrize("partial", [frozenset({9}), frozenset[int]()])
def test_a_gentle_run_stays_small_where_no_epoch_is_large(bench: Bench, partial: frozenset[int]) -> None:
    """Partial states or not: it is written between two markers."""
    target = RestoreTarget(SOURCE, OPERATOR, FULL_RANGE, partial=partial)
    follower = Follower(bench.backup.log, bench.store, target, bench.backup.clock, SETTINGS, bench.said.append)
    follower.gentle = True
    tail = follower.tail()
    names, largest = [], 0
    while (step := next(tail)).name != "await-news":
        names.append(step.name)
        largest = max(largest, follower._copy.collected_bytes)
    assert names.count("followed") >= 4
    assert largest < 3 * RUN_BYTES


def test_objects_of_partial_states_are_never_written_before_their_marker(bench: Bench) -> None:
    """Which of them are in force is told by markers alone: such an epoch stays in memory until it is whole."""
    target = RestoreTarget(SOURCE, OPERATOR, FULL_RANGE, partial=frozenset({9}))
    follower = Follower(bench.backup.log, bench.store, target, bench.backup.clock, SETTINGS, bench.said.append)
    follower.gentle = True
    tail = follower.tail()
    go_on(tail)
    bench.backup.commit(BIG)
    assert "spilled" not in go_on(tail)
    bench.check(FULL_RANGE, lineage_of(bench.store))

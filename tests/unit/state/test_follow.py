"""Following a backup log: a copy that keeps up, and from which the range is taken over."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from itertools import count
from random import Random

import pytest

from kstate.clock import Step, Steps
from kstate.config import Settings
from kstate.errors import BackupLogError, DataLossError, RetryableError
from kstate.keyspace import FULL_RANGE, KeyRange
from kstate.state.backup import backup_messages
from kstate.state.follow import Follower
from kstate.state.lineage import Lineage, released
from kstate.state.restore import RestoreTarget, forget
from kstate.testing.memory_log import Fault, MemoryReader
from kstate.testing.memory_store import MemoryStore
from tests.support.backup_log import HIGH, LOW, OPERATOR, SOURCE, entry, held, lineage_of
from tests.support.restore_bench import SETTINGS, Bench, filled_bench, finish


@pytest.fixture
def bench() -> Bench:
    """A log of 20 epochs of each half, and an empty store."""
    return filled_bench()


def follower_of(bench: Bench, key_range: KeyRange = FULL_RANGE) -> Follower:
    """A follower of the bench's log into its store."""
    target = RestoreTarget(SOURCE, OPERATOR, key_range)
    return Follower(bench.backup.log, bench.store, target, bench.backup.clock, SETTINGS, bench.said.append)


def go_on(tail: Steps[None]) -> list[str]:
    """Take steps up to a wait for news; their names."""
    names = []
    while (step := next(tail)).name != "await-news":
        names.append(step.name)
    return names


def test_a_tail_brings_the_copy_forward_and_keeps_it_there(bench: Bench) -> None:
    """In runs as a restore does, the rest in one write; then what came since, in one write for each look."""
    follower = follower_of(bench)
    tail = follower.tail()
    names = go_on(tail)
    assert names.count("ingested") >= 2
    assert names[-1] in {"ingested", "followed"}
    bench.check(FULL_RANGE, lineage_of(bench.store))
    for seed in range(3):
        bench.backup.commit({entry(seed): b"new", entry(0x9000): b"%d" % seed})
        bench.backup.commit({entry(seed): None}, LOW)
        assert go_on(tail) == ["followed"]
        bench.check(FULL_RANGE, lineage_of(bench.store))
    assert go_on(tail) == []


def test_a_tail_waits_between_looks_and_asks_the_broker_nothing(bench: Bench) -> None:
    """A standby is cheap: the reader tells where the log ends."""
    follower = follower_of(bench)
    tail = follower.tail()
    go_on(tail)
    assigned = bench.assigned()
    bench.backup.log.end_offsets = None  # type: ignore[method-assign, assignment]
    for seed in range(3):
        bench.epochs(1, seed=60 + seed)
        go_on(tail)
        assert 0.01 <= next(tail).wait <= 0.02
    assert assigned == []


def test_a_tail_says_how_far_behind_it_is(bench: Bench) -> None:
    """Nothing is known before it has looked; at the end nothing is left."""
    follower = follower_of(bench)
    assert (follower.caught_up, follower.behind) == (False, 0)
    tail = follower.tail()
    seen = []
    while not follower.caught_up:
        next(tail)
        seen.append(follower.behind)
    assert seen == sorted(seen, reverse=True)
    assert seen[0] > 10
    assert seen[-1] == 0


def test_a_reader_that_has_not_heard_of_the_end_is_not_caught_up(bench: Bench) -> None:
    """And one that was at the end and finds nothing more still is."""
    follower = follower_of(bench)
    tail = follower.tail()
    for _ in range(2):
        bench.backup.log.inject("poll", Fault.EMPTY)
    assert [next(tail).name for _ in range(2)] == ["await-records"] * 2
    assert not follower.caught_up
    go_on(tail)
    bench.backup.log.inject("poll", Fault.EMPTY)
    assert next(tail).name == "await-news"
    assert follower.caught_up


def test_a_reader_that_hears_of_the_end_late_leaves_its_follower_caught_up(bench: Bench) -> None:
    """Kafka tells of an end with the next fetch; what was read is written all the same."""
    made: list[MemoryReader] = []
    follower = follower_of(bench)
    make = follower.make_reader

    def kept() -> MemoryReader:
        reader = make()
        assert isinstance(reader, MemoryReader)
        made.append(reader)
        return reader

    follower.make_reader = kept
    tail = follower.tail()
    go_on(tail)
    made[0].at_end = dict  # type: ignore[method-assign]
    bench.backup.commit({entry(3): b"new"})
    assert next(tail).name == "followed"
    assert follower.caught_up
    bench.check(FULL_RANGE, lineage_of(bench.store))


def test_a_tail_that_was_left_far_behind_says_so(bench: Bench) -> None:
    """More news than one look can take."""
    follower = follower_of(bench)
    tail = follower.tail()
    go_on(tail)
    bench.epochs(400, seed=3)
    next(tail)
    assert not follower.caught_up
    assert follower.behind > 0
    go_on(tail)
    bench.check(FULL_RANGE, lineage_of(bench.store))


def test_a_follower_goes_on_where_it_stood(bench: Bench) -> None:
    """The heir of a move has little left to read: one reader, put in place once."""
    assigned = bench.assigned()
    follower = follower_of(bench)
    tail = follower.tail()
    go_on(tail)
    tail.close()
    bench.epochs(1, seed=5)
    bench.check(FULL_RANGE, finish(follower.adopt()))
    assert assigned == [0]


def test_adopting_takes_a_new_end(bench: Bench) -> None:
    """S1: after the plan, whatever the tail has seen; a transaction that is open there is waited for."""
    follower = follower_of(bench)
    tail = follower.tail()
    go_on(tail)
    tail.close()
    writer = bench.backup.log.producer("stranger")
    writer.open()
    writer.begin()
    writer.send(SOURCE.topic, [{"value": b"aborted", "partition": SOURCE.partition}])
    bench.epochs(1, seed=6)
    steps = follower.adopt()
    assert [next(steps).name for _ in range(3)] == ["h-taken", "await-stable", "await-stable"]
    writer.abort()
    bench.check(FULL_RANGE, finish(steps))


def released_by(move: int, key_range: KeyRange) -> Callable[[Lineage], bool]:
    """What the heir of a planned move waits for."""
    return lambda lineage: released(lineage, key_range, move)


def test_the_heir_of_a_move_waits_for_the_release(bench: Bench) -> None:
    """H is reached, but the source still writes; what it writes is followed meanwhile."""
    follower = follower_of(bench, LOW)
    steps = follower.adopt(released_by(9, LOW))
    waits = 0
    for seed in range(3):
        while next(steps).name != "await-release":
            continue
        waits += 1
        bench.epochs(1, LOW, seed=70 + seed)
    bench.backup.release({entry(1): b"last words"}, LOW, move=9)
    names: list[str] = []
    lineage = finish(steps, names)
    assert waits == 3
    assert names[-1] == "restored"
    assert [position.move for position in lineage.values()] == [9]
    bench.check(LOW, lineage)


def test_half_a_release_is_none(bench: Bench) -> None:
    """Every slot must prove it."""
    bench.backup.release({}, LOW, move=9)
    steps = follower_of(bench).adopt(released_by(9, FULL_RANGE))
    while next(steps).name != "await-release":
        continue
    assert next(steps).name == "await-release"
    bench.backup.release({}, HIGH, move=9)
    finish(steps)


def test_a_look_that_ends_within_an_epoch_is_not_where_the_range_is_taken_over(bench: Bench) -> None:
    """Of one who does not know that he is dead: the release is there, and behind it what the true heir wrote."""
    follower = follower_of(bench, LOW)
    steps = follower.adopt(released_by(9, LOW))
    while next(steps).name != "await-release":
        continue
    bench.backup.release({}, LOW, move=9)
    bench.backup.commit_frames(bench.backup.checkpoint({entry(2): b"heir"}, LOW, writer="w-2", grant=9))
    fetched = iter([Fault.SHORT, Fault.SHORT, Fault.EMPTY])
    bench.backup.log.faults = lambda call: next(fetched, None) if call.operation == "poll" else None
    bench.check(LOW, finish(steps))


def test_a_torn_epoch_behind_a_release_is_told_of(bench: Bench) -> None:
    """It does not wait for a marker that does not come."""
    follower = follower_of(bench, LOW)
    steps = follower.adopt(released_by(9, LOW))
    while next(steps).name != "await-release":
        continue
    bench.backup.release({}, LOW, move=9)
    torn = bench.backup.checkpoint({entry(2): b"heir"}, LOW, writer="w-2", grant=9)
    producer = bench.backup.producer("w-2")
    producer.begin()
    producer.send(SOURCE.topic, backup_messages(torn, SOURCE.partition)[0])
    producer.commit()
    with pytest.raises(BackupLogError, match="torn"):
        finish(steps)


Scenario = Callable[[Bench], None]


def _cold(bench: Bench) -> None:
    """Nothing is there."""


def _stale(bench: Bench) -> None:
    bench.put_stale()


def _warm(bench: Bench) -> None:
    bench.restore()
    bench.epochs(12, seed=9)


@pytest.mark.parametrize("scenario", [_cold, _stale, _warm])
def test_a_tail_may_be_closed_at_any_step_and_gone_on_with(bench: Bench, scenario: Scenario) -> None:
    """Nothing is lost or doubled: the result is that of a restore that nobody interrupted."""
    scenario(bench)
    bench.store.flush()
    for stop in count(1):
        victim = Bench(bench.backup, deepcopy(bench.store))
        follower = follower_of(victim)
        ended = _take(follower.tail(), stop)
        _take(follower.tail(), 1)
        victim.check(FULL_RANGE, finish(follower.adopt()))
        if ended == "await-news":
            break
    assert stop >= 3


@pytest.mark.parametrize("scenario", [_cold, _stale, _warm])
def test_an_adoption_may_be_closed_at_any_step_and_begun_again(bench: Bench, scenario: Scenario) -> None:
    """By the same follower, or by another one after a crash: both end as if nobody had interrupted."""
    scenario(bench)
    bench.store.flush()
    length = len(deepcopy(bench).restore())
    for stop in range(1, length + 1):
        victim = Bench(bench.backup, deepcopy(bench.store))
        follower = follower_of(victim)
        _take(follower.adopt(), stop)
        crashed = Bench(bench.backup, deepcopy(victim.store))
        victim.check(FULL_RANGE, finish(follower.adopt()))
        crashed.store.crash(Random(stop))
        crashed.restore()


def _take(steps: Steps[None] | Steps[Lineage], count: int) -> str:
    """At most so many steps, then no more; the name of the last."""
    taken: list[Step] = [step for step, _ in zip(steps, range(count), strict=False)]
    steps.close()
    return taken[-1].name


def test_a_closed_follower_goes_on_from_the_store(bench: Bench) -> None:
    """Its reader is given up, what it had only in memory is read again."""
    follower = follower_of(bench)
    tail = follower.tail()
    while next(tail).name != "ingested":
        continue
    next(tail)
    tail.close()
    follower.close()
    assert not follower.caught_up
    bench.check(FULL_RANGE, finish(follower.adopt()))


@pytest.mark.parametrize("operation", ["poll", "start_offsets", "end_offsets"])
def test_a_broker_that_is_away_is_the_callers_to_retry(bench: Bench, operation: str) -> None:
    """Whenever it happens, a new generator goes on with nothing lost or doubled."""
    follower = follower_of(bench)
    failed = 0
    tail = follower.tail()
    for number in range(60):
        if number % 5 == 0:
            bench.epochs(1, seed=200 + number)
        if number % 7 == 0:
            bench.backup.log.inject(operation, Fault.RETRYABLE)
            if operation != "poll":  # asked when it begins only
                tail.close()
                follower.close()
                tail = follower.tail()
        try:
            next(tail)
        except RetryableError:
            failed += 1
            tail = follower.tail()
    bench.check(FULL_RANGE, finish(follower.adopt()))
    assert failed


def test_a_follower_that_falls_below_the_log_start_starts_over(bench: Bench) -> None:
    """It never goes on with a gap: a key deleted meanwhile would stay (P10)."""
    follower = follower_of(bench)
    tail = follower.tail()
    go_on(tail)
    gone = held(bench.store)[0][0][6:]
    bench.backup.commit({gone: None})
    cut = bench.backup.read().next_offset
    bench.backup.rebase(LOW, cut)
    bench.backup.rebase(HIGH, cut)
    bench.backup.trim(cut)
    assert "dropped" in go_on(tail)
    bench.check(FULL_RANGE, lineage_of(bench.store))


def test_what_was_collected_before_the_log_was_trimmed_is_forgotten(bench: Bench) -> None:
    """It may have been deleted meanwhile: no run, no proof outlives a start from the new log start."""
    target = RestoreTarget(SOURCE, OPERATOR, FULL_RANGE)
    follower = Follower(bench.backup.log, bench.store, target, bench.backup.clock, Settings(), bench.said.append)
    bench.epochs(500, seed=4)
    tail = follower.tail()
    assert next(tail).name == "restore-read"
    gone = [key[6:] for key, _ in bench.backup.part(FULL_RANGE)][::2]
    bench.backup.commit(dict.fromkeys(gone))
    cut = bench.backup.read().next_offset
    bench.backup.rebase(FULL_RANGE, cut)
    bench.backup.trim(cut)
    go_on(tail)
    bench.check(FULL_RANGE, lineage_of(bench.store))


def test_a_log_that_was_made_anew_is_not_followed(bench: Bench) -> None:
    """What was committed is gone: nobody may go on with it."""
    follower = follower_of(bench)
    tail = follower.tail()
    go_on(tail)
    bench.backup.log.recreate_topic(SOURCE.topic, SOURCE.partition + 1)
    with pytest.raises(DataLossError):
        go_on(tail)


def test_a_fault_of_the_log_is_met_again(bench: Bench) -> None:
    """S5: nobody goes on behind a marker that does not fit, however often it is tried."""
    follower = follower_of(bench)
    tail = follower.tail()
    go_on(tail)
    made = bench.backup.checkpoint({entry(1): b"x"})
    bench.epochs(1)
    bench.backup.commit_frames(made)
    for _ in range(2):
        with pytest.raises(BackupLogError, match="follows"):
            go_on(follower.tail())


def test_a_copy_is_forgotten_without_the_other_slots(bench: Bench) -> None:
    """The range went to another worker; the rest runs on."""
    bench.restore()
    forget(bench.store, OPERATOR, SOURCE.partition, LOW)
    assert held(bench.store, LOW) == []
    assert len(lineage_of(bench.store, LOW)) == 0
    bench.check(HIGH, lineage_of(bench.store, HIGH))
    bench.restore()


def test_a_crash_while_a_copy_is_forgotten_leaves_no_false_copy(bench: Bench) -> None:
    """Whatever part of it is durable, what the lineage claims is there, and a restore gives the right state."""
    bench.restore()
    bench.store.flush()
    for seed in range(12):
        victim = Bench(bench.backup, deepcopy(bench.store))
        forget(victim.store, OPERATOR, SOURCE.partition, LOW)
        victim.store.crash(Random(seed))
        for key_range, _ in lineage_of(victim.store):
            assert held(victim.store, key_range) == bench.backup.part(key_range)
        victim.restore()


def test_a_follower_of_one_half_leaves_the_other_alone(bench: Bench) -> None:
    """It runs in the same store, and its lineage entry is the same one."""
    bench.restore(HIGH)
    follower = follower_of(bench, LOW)
    tail = follower.tail()
    go_on(tail)
    bench.check(FULL_RANGE, lineage_of(bench.store))


def test_the_store_of_a_follower_that_crashes_is_a_valid_copy(bench: Bench) -> None:
    """Every write holds the lineage entry that it makes true, and a prefix of the writes is what is left."""
    for seed in range(20):
        victim = Bench(bench.backup, MemoryStore())
        tail = follower_of(victim).tail()
        go_on(tail)
        for number in range(4):
            bench.epochs(1, FULL_RANGE if number % 2 else LOW, seed=300 + 10 * seed + number)
            go_on(tail)
        victim.store.crash(Random(seed))
        for key_range, position in lineage_of(victim.store):
            assert held(victim.store, key_range) == bench.backup.part(key_range, bench.backup.history[position.offset])
        victim.restore()

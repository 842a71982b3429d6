"""restore-state: the time index comes back with the state that it is derived from."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

import pytest

from kstate.config import MIB, Settings, StateSettings
from kstate.keyspace import FULL_RANGE, KeyRange, slot_of
from kstate.state.agenda import Agenda
from kstate.state.layout import Item, Timeline, index_bounds, key_suffix, parse_index_key
from kstate.state.restore import RestoreTarget, TimedState, restore
from kstate.state.values import NEVER, value_prefix
from kstate.testing.memory_store import MemoryStore
from tests.support.backup_log import HIGH, LOW, OPERATOR, SOURCE, BackupLog
from tests.support.restore_bench import RUN_BYTES, finish

TIMED = {1: TimedState("timer", "event"), 2: TimedState("clock", "processing"), 3: TimedState("seen", "ttl")}
TIMELINES: tuple[Timeline, ...] = ("event", "processing", "ttl")
ONE_RUN, MANY_RUNS = 100 * MIB, 4 * RUN_BYTES

Deadlines = dict[tuple[int, bytes, bytes], int]
"""(state id, key, subkey) → expiry."""


class Backup:
    """A backup log whose epochs set, move and delete expiries, beside what they are now."""

    def __init__(self) -> None:
        self.log = BackupLog()
        self.deadlines: Deadlines = {}
        self._rng = Random(1)

    def epochs(self, count: int, key_range: KeyRange = FULL_RANGE) -> None:
        rng = self._rng
        for _ in range(count):
            entries: dict[bytes, bytes | None] = {}
            for _ in range(12):
                place = rng.randint(1, 5), b"key\x00%d" % rng.randrange(40), b"\x00t" * rng.randrange(2)
                if slot_of(place[1]) not in key_range:
                    continue
                self.deadlines.pop(place, None)
                state_id, key, subkey = place
                expiry = rng.randrange(1, 1_000) if state_id != 5 else None
                gone = rng.random() < 0.3
                suffix = key_suffix(slot_of(key), state_id, key, subkey)
                entries[suffix] = None if gone else value_prefix(9, expiry) + b"payload"
                if not gone and expiry is not None:
                    self.deadlines[place] = expiry
            self.log.commit(entries, key_range)

    def restore(
        self,
        store: MemoryStore,
        key_range: KeyRange = FULL_RANGE,
        timed: Mapping[int, TimedState] = TIMED,
        store_bytes: int = MANY_RUNS,
    ) -> list[str]:
        names: list[str] = []
        target = RestoreTarget(SOURCE, OPERATOR, key_range, timed)
        limits = Settings(state=StateSettings(store_bytes=store_bytes))
        finish(restore(self.log.log, store, target, self.log.clock, limits), names)
        return names

    def expected(self, timeline: Timeline, key_range: KeyRange = FULL_RANGE) -> list[Item]:
        """What is to fire on a timeline."""
        return sorted(
            Item(at, TIMED[state_id].name, key, subkey)
            for (state_id, key, subkey), at in self.deadlines.items()
            if state_id in TIMED and TIMED[state_id].timeline == timeline and slot_of(key) in key_range
        )

    def live(self, store: MemoryStore, timeline: Timeline, key_range: KeyRange = FULL_RANGE) -> list[Item]:
        """What an agenda of the store offers, without the stale."""
        agenda = Agenda(store, OPERATOR, SOURCE.partition, timeline, key_range, memory_items=20)
        ids = {state.name: state_id for state_id, state in TIMED.items()}
        items = iter(lambda: agenda.pop(NEVER), None)
        return [item for item in items if self.deadlines.get((ids[item.name], item.key, item.subkey)) == item.at]

    def check(self, store: MemoryStore, key_range: KeyRange = FULL_RANGE) -> None:
        for timeline in TIMELINES:
            assert self.live(store, timeline, key_range) == self.expected(timeline, key_range)


@pytest.fixture
def backup() -> Backup:
    """A log of 40 epochs."""
    made = Backup()
    made.epochs(20, LOW)
    made.epochs(20, HIGH)
    return made


def indexed(store: MemoryStore, timeline: Timeline) -> list[Item]:
    """All of the index, stale or not."""
    return [parse_index_key(key) for key, _ in store.scan(*index_bounds(OPERATOR, SOURCE.partition, timeline))]


def test_a_cold_restore_in_one_run_brings_exactly_the_index_of_the_state(backup: Backup) -> None:
    """What was set and moved in the past of the log leaves nothing."""
    store = MemoryStore()
    assert "ingested" not in backup.restore(store, store_bytes=ONE_RUN)
    for timeline in TIMELINES:
        assert indexed(store, timeline) == backup.expected(timeline)
        assert backup.expected(timeline)


def test_a_cold_restore_in_many_runs_lacks_no_deadline(backup: Backup) -> None:
    """Index entries of older runs may be stale."""
    store = MemoryStore()
    assert backup.restore(store).count("ingested") >= 2
    backup.check(store)


def test_the_index_of_the_tail_joins_that_of_a_local_copy(backup: Backup) -> None:
    """The copy's own was written with its state."""
    store = MemoryStore()
    backup.restore(store)
    backup.epochs(5)
    backup.restore(store)
    backup.check(store)


def test_only_the_slots_of_the_target_are_indexed(backup: Backup) -> None:
    """And those restored later join them."""
    store = MemoryStore()
    backup.restore(store, LOW)
    backup.check(store, LOW)
    assert not any(slot_of(item.key) in HIGH for timeline in TIMELINES for item in indexed(store, timeline))
    backup.restore(store, HIGH)
    backup.check(store)


def test_a_range_that_is_dropped_and_restored_again_is_whole(backup: Backup) -> None:
    """Its stale index entries do no harm."""
    store = MemoryStore()
    backup.restore(store)
    backup.epochs(5)
    cut = backup.log.read().next_offset
    backup.log.rebase(FULL_RANGE, cut)
    backup.log.trim(cut)
    assert "dropped" in backup.restore(store)
    backup.check(store)


def test_a_crash_between_two_runs_loses_no_deadline(backup: Backup) -> None:
    """Index and state arrive in the same file."""
    for seed in range(10):
        store = MemoryStore()
        steps = restore(
            backup.log.log,
            store,
            RestoreTarget(SOURCE, OPERATOR, FULL_RANGE, TIMED),
            backup.log.clock,
            Settings(state=StateSettings(store_bytes=MANY_RUNS)),
        )
        ingested = 0
        while ingested < 1 + seed % 2:
            ingested += next(steps).name == "ingested"
        steps.close()
        store.crash(Random(seed))
        backup.restore(store)
        backup.check(store)


def test_an_operator_without_timed_states_has_no_index(backup: Backup) -> None:
    """Nothing is looked at then."""
    store = MemoryStore()
    backup.restore(store, timed={})
    assert [indexed(store, timeline) for timeline in TIMELINES] == [[], [], []]

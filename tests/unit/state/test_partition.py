"""partition-processing-state: one shard's state as that of several key ranges, and back."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kstate.config import Settings
from kstate.errors import BackupLogError
from kstate.keyspace import FULL_RANGE, SLOTS, KeyRange
from kstate.plan import TopicPartition
from kstate.state.lineage import stored_lineage
from kstate.state.partition import Part, cut_points, cut_range, merge_copies, object_within, split_backup
from kstate.testing.memory_store import MemoryStore
from tests.support.backup_log import OPERATOR, SOURCE, held, lineage_of
from tests.support.moving_shard import ALL, PLAIN, MovingShard, Sum, target_of
from tests.support.restore_bench import SETTINGS, filled_bench, finish

ranges = st.lists(st.integers(0, SLOTS), min_size=2, max_size=2, unique=True).map(lambda e: KeyRange(*sorted(e)))
narrow = st.tuples(st.integers(0, SLOTS - 1), st.integers(1, 40)).map(lambda e: KeyRange(e[0], min(sum(e), SLOTS)))


def test_a_range_is_cut_into_parts_of_equal_width() -> None:
    """To the slot; whatever is left over is spread."""
    assert cut_points(FULL_RANGE, 1) == []
    assert cut_points(FULL_RANGE, 4) == [0x4000, 0x8000, 0xC000]
    assert cut_points(KeyRange(10, 20), 3) == [13, 16]
    assert cut_range(KeyRange(10, 20), [13, 16]) == [KeyRange(10, 13), KeyRange(13, 16), KeyRange(16, 20)]


def test_a_range_in_two_is_cut_at_the_weighted_median() -> None:
    """As much load on either side as can be; one hot slot cannot be cut."""
    assert cut_points(KeyRange(0, 10), 2, dict.fromkeys(range(10), 1.0)) == [5]
    assert cut_points(KeyRange(0, 10), 2, {7: 1.0, 8: 1.0, 9: 1.0, 0: 1.0}) == [8]
    assert cut_points(KeyRange(0, 10), 2, {0: 5.0, 9: 1.0}) == [1]
    assert cut_points(KeyRange(0, 3), 2, {0: 5.0, 1: 20.0, 2: 1.0}) == [1]
    assert cut_points(KeyRange(0, 3), 2, {0: 1.0, 1: 20.0, 2: 5.0}) == [2]
    assert cut_points(KeyRange(0, 10), 2, {9: 5.0}) == [9]
    assert cut_points(KeyRange(0, 10), 2, {3: 0.0}) == [5]
    assert cut_points(KeyRange(0, 10), 2, {200: 9.0}) == [5]


def test_more_parts_than_slots_are_an_error_that_names_the_range() -> None:
    """No part is empty."""
    assert cut_points(KeyRange(5, 8), 3, {5: 100.0}) == [6, 7]
    assert cut_points(KeyRange(5, 8), 3, {7: 100.0}) == [6, 7]
    for n in (0, 4):
        with pytest.raises(ValueError, match=rf"\[0x0005, 0x0008\) of 3 slots cannot be cut into {n} parts"):
            cut_points(KeyRange(5, 8), n)


@settings(deadline=None)
@given(narrow, st.integers(1, 6), st.dictionaries(st.integers(0, 39), st.floats(0, 1e6)), st.booleans())
def test_parts_tile_and_no_other_cut_is_better_balanced(
    key_range: KeyRange, n: int, loads: dict[int, float], weighted: bool
) -> None:
    """With weights each cut is as near to its share of the load as the slots allow."""
    n = min(n, key_range.width)
    weights = {key_range.lo + slot: load for slot, load in loads.items() if slot < key_range.width}
    cuts = cut_points(key_range, n, weights if weighted else None)
    parts = cut_range(key_range, cuts)
    assert len(parts) == n
    assert sum(part.width for part in parts) == key_range.width
    total = sum(load for load in weights.values())
    if n == 2 and weighted and total:

        def distance(cut: int) -> float:
            return abs(sum(load for slot, load in weights.items() if slot < cut) - total / 2)

        assert distance(cuts[0]) <= min(map(distance, range(key_range.lo + 1, key_range.hi))) + 1e-6 * total


@settings(deadline=None)
@given(ranges, st.data(), st.integers(-1000, 1000))
def test_parts_of_an_object_that_are_cut_apart_from_each_other_are_the_object(
    made_for: KeyRange, data: st.DataObject, total: int
) -> None:
    """Each heir of a parallel recovery knows its own part only; the class rounds."""
    inner = st.integers(made_for.lo, made_for.hi).filter(lambda at: made_for.lo < at < made_for.hi)
    cuts = sorted(data.draw(st.sets(inner, max_size=5))) if made_for.width > 1 else []
    parts = [object_within(Sum(total), made_for, part) for part in cut_range(made_for, cuts)]
    assert sum(part.total for part in parts) == total


def test_the_parts_of_an_object_are_merged_in_slot_order() -> None:
    """`other` is the object of the higher slots; every half is cut once."""
    calls = []

    def split(value: str, fraction: float) -> tuple[str, str]:
        calls.append(value)
        at = round(len(value) * fraction)
        return value[:at], value[at:]

    assert (
        object_within("abcdefgh", KeyRange(0, 8), KeyRange(1, 7), split, lambda lower, upper: lower + upper) == "bcdefg"
    )
    assert calls == ["abcdefgh", "abcd", "ab", "efgh", "gh"]
    assert (
        object_within("abcdefgh", KeyRange(0, 8), KeyRange(4, 8), split, lambda lower, upper: lower + upper) == "efgh"
    )


def busy_shard(seed: int) -> MovingShard:
    """A shard with a history: values, deadlines, partial states, cuts, a recovery by parts that wrote nothing yet."""
    shard, rng = MovingShard(), Random(seed)
    for number in range(60):
        slot = rng.randrange(ALL.width)
        shard.add(slot, rng.randrange(2), rng.randrange(100))
        shard.put(rng.randrange(ALL.width), PLAIN, None)
        shard.put(rng.randrange(ALL.width), rng.randint(1, 2), rng.randrange(40))
        shard.owner(slot).cut(rng.randrange(ALL.width) if number % 9 == 0 else 0)
        shard.commit(shard.owner(slot))
    shard.kill(shard.owners[0].store, rng)
    for part in cut_range(ALL, [11, 29]):
        shard.give(part, MemoryStore())
    shard.add(15, 0, 7)
    shard.commit(shard.owner(15))
    return shard


@pytest.mark.parametrize("seed", range(4))
def test_a_stored_backup_is_split_and_merged_again(seed: int) -> None:
    """Each part has its slots' entries, deadlines and objects, together they are the whole; the operator runs on."""
    shard = busy_shard(seed)
    end = shard.log.read().next_offset
    parts = [Part(target_of(key_range), MemoryStore()) for key_range in cut_range(ALL, [7, 20, 31])]
    lineages = finish(split_backup(shard.log.log, parts, shard.log.clock, SETTINGS))
    whole = Part(target_of(ALL), MemoryStore())
    merged = finish(merge_copies(parts[::-1], whole, SETTINGS))
    for part, lineage in zip(parts, lineages, strict=True):
        shard.check_copy(part.store, part.target.key_range)
        assert merged.slice(part.target.key_range) == lineage
    shard.check_copy(whole.store, ALL)
    assert merged == stored_lineage(whole.store, OPERATOR, SOURCE.partition)
    shard.check_total()
    shard.check_owners()
    assert shard.log.read().next_offset == end


def test_a_merged_copy_may_be_followed_on() -> None:
    """It is a local copy like any other."""
    shard = busy_shard(9)
    parts = [Part(target_of(key_range), MemoryStore()) for key_range in cut_range(ALL, [20])]
    finish(split_backup(shard.log.log, parts, shard.log.clock, SETTINGS))
    store = MemoryStore()
    finish(merge_copies(parts, Part(target_of(ALL), store), SETTINGS))
    shard.add(3, 1, 50)
    for owner in shard.owners:
        shard.commit(owner)
    names: list[str] = []
    finish(shard.follower(ALL, store).adopt(), names)
    assert "dropped" not in names
    shard.check_copy(store, ALL)


def test_an_owner_s_store_may_be_merged_though_its_cells_reach_over_the_part() -> None:
    """They are cut to it on the way; the store stays as it is."""
    shard = MovingShard()
    shard.add(30, 0, 999)
    shard.put(30, PLAIN, None)
    shard.commit(shard.owners[0])
    store = shard.owners[0].store
    before = dict(store.scan(b"", b"\xff"))
    into = MemoryStore()
    whole = Part(target_of(ALL), into)
    finish(merge_copies([Part(target_of(part), store) for part in cut_range(ALL, [10, 35])], whole, SETTINGS))
    assert dict(store.scan(b"", b"\xff")) == before
    shard.check_copy(into, ALL)
    shard.add(30, 0, 0)
    shard.commit(shard.owners[0])
    finish(shard.follower(ALL, into).adopt())
    shard.check_copy(into, ALL)


def test_parts_are_filled_in_runs_and_nothing_old_stays() -> None:
    """Memory is bounded by the setting for all parts together; what the stores held of the parts is dropped."""
    bench = filled_bench()
    bench.put_stale()
    target = target_of(FULL_RANGE)
    cuts = cut_points(FULL_RANGE, 3)
    parts = [Part(replace(target, key_range=part, timed={}), bench.store) for part in cut_range(FULL_RANGE, cuts)]
    names: list[str] = []
    finish(split_backup(bench.backup.log, parts, bench.backup.clock, SETTINGS), names)
    assert names.count("restore-read") > 3
    bench.check(FULL_RANGE, lineage_of(bench.store))
    into = Part(replace(target, timed={}), MemoryStore())
    names.clear()
    finish(merge_copies(parts, into, SETTINGS), names)
    assert names.count("ingested") > 1
    assert held(into.store) == bench.backup.part(FULL_RANGE)


def test_a_hole_in_the_log_stops_the_split() -> None:
    """S5 holds for each part."""
    bench = filled_bench()
    cut = bench.backup.read().next_offset
    bench.epochs(1)
    bench.backup.trim(cut)
    parts = [Part(target_of(part), MemoryStore()) for part in cut_range(FULL_RANGE, [100])]
    with pytest.raises(BackupLogError):
        finish(split_backup(bench.backup.log, parts, bench.backup.clock, Settings()))


def test_parts_that_are_not_of_one_shard_are_refused() -> None:
    """Also those that overlap, and none at all."""
    bench, target = filled_bench(), target_of(KeyRange(0, 10))
    others = [replace(target, source=TopicPartition("other", 0)), replace(target, operator_id=9), target]
    for parts in ([], *([target, other] for other in others)):
        given_parts = [Part(each, MemoryStore()) for each in parts]
        with pytest.raises(ValueError, match="expected parts of one shard"):
            finish(split_backup(bench.backup.log, given_parts, bench.backup.clock, SETTINGS))


def test_copies_that_do_not_tile_are_not_merged() -> None:
    """A gap would be taken for slots without state."""
    whole = Part(target_of(KeyRange(0, 20)), MemoryStore())
    parts = [Part(target_of(part), MemoryStore()) for part in (KeyRange(0, 9), KeyRange(10, 20))]
    with pytest.raises(ValueError, match="do not tile"):
        finish(merge_copies(parts, whole, SETTINGS))

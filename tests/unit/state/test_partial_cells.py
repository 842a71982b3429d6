"""Partial states in copies: the object in force for a slot is that of the newest marker covering it."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from kstate.errors import CorruptStateError
from kstate.keyspace import FULL_RANGE, KeyRange
from kstate.state.layout import key_suffix, shard_prefix
from kstate.state.lineage import Lineage, lineage_entry
from kstate.state.partial_cells import Cell, parse_cell
from kstate.state.restore import RestoreTarget, forget, restore
from kstate.testing.memory_store import MemoryStore
from tests.support.backup_log import HIGH, LOW, OPERATOR, SOURCE, BackupLog, entry, lineage_of
from tests.support.moving_shard import ALL, PARTIAL, PLAIN, PREFIX, MovingShard, in_force
from tests.support.restore_bench import SETTINGS, finish

LOWER, UPPER = KeyRange(0, 24), KeyRange(24, 48)


def total(shard: MovingShard) -> int:
    """The first sum, at those who run it."""
    return sum(int(piece.get(0).total) for owner in shard.owners for piece in owner.pieces)


def test_a_cell_names_the_slots_that_it_counts_for() -> None:
    """Eight bytes as in a backup; sixteen where it counts for a part of what its object was made for."""
    own = Cell.of(KeyRange(0x1000, 0x2000))
    part = Cell(KeyRange(0x1800, 0x1900), own.valid)
    assert own.suffix(3) == key_suffix(0x1000, 3, b"", bytes.fromhex("00001000 00002000"))
    assert part.suffix(3) == key_suffix(0x1800, 3, b"", bytes.fromhex("00001800 00001900 00001000 00002000"))
    assert [parse_cell(cell.suffix(3)) for cell in (own, part)] == [own, part]
    assert part.divided(KeyRange(0x1880, 0x18F0)) == [
        Cell(KeyRange(lo, hi), own.valid) for lo, hi in [(0x1880, 0x18F0), (0x1800, 0x1880), (0x18F0, 0x1900)]
    ]
    assert own.divided(FULL_RANGE) == [own]
    assert own.outside(FULL_RANGE) == []


@pytest.mark.parametrize(
    ("slot", "key", "subkey"),
    [
        (0, b"", "0000000000000000"),
        (0, b"", "00000001000000"),
        (0, b"", "0000000100000002"),
        (1, b"k", "0000000100000002"),
        (1, b"", "000000010000000200000002 00000003"),
        (1, b"", "000000010000000900000001 00000003"),
        (1, b"", "0000000100010001"),
    ],
)
def test_a_cell_that_names_no_range_is_damage(slot: int, key: bytes, subkey: str) -> None:
    """Not its own slot, no slots at all, more than the object was made for."""
    with pytest.raises(CorruptStateError, match="a cell names no key range"):
        parse_cell(key_suffix(slot, 3, key, bytes.fromhex(subkey)))


def test_the_heir_of_an_upper_part_has_its_part_of_the_object() -> None:
    """The cell lies in a slot below the part. Each heir writes its own, when it comes to it."""
    shard = MovingShard()
    shard.add(3, 0, 1001)
    shard.commit(shard.owners[0])
    shard.kill(shard.owners[0].store, Random(0))
    upper, lower = (shard.give(part, MemoryStore()) for part in (UPPER, LOWER))
    assert total(shard) == 1001
    assert upper.pieces[0].get(0).total in {500, 501}
    assert upper.pieces[0].pending
    assert lower.pieces[0].pending
    shard.check_total()
    for owner in (upper, lower):
        shard.commit(owner)
        assert not owner.pieces[0].pending
        shard.check_total()
        shard.check_copy(owner.store, owner.tile)
    assert [len({cell for cell, _ in in_force(o.store, o.tile, 3).values()}) for o in (upper, lower)] == [1, 1]


def test_what_an_object_counts_for_may_be_cut_out_of_its_middle() -> None:
    """Then two cells hold one object."""
    shard = MovingShard()
    shard.add(3, 0, 1001)
    shard.commit(shard.owners[0])
    shard.kill(shard.owners[0].store, Random(0))
    for part in (KeyRange(0, 10), KeyRange(10, 20), KeyRange(20, 48)):
        shard.give(part, MemoryStore())
    shard.commit(shard.owner(15))
    store = MemoryStore()
    finish(shard.follower(ALL, store).adopt())
    told = in_force(store, ALL, 3)
    assert {slot for slot, (made_for, _) in told.items() if made_for == ALL} == {*range(10), *range(20, 48)}
    shard.check_total()
    assert total(shard) == 1001


def test_pieces_of_one_transaction_are_told_apart() -> None:
    """Both stand at its end; the lower one never had an object. After a rollback that of the upper one is found."""
    shard = MovingShard()
    (owner,) = shard.owners
    owner.cut(24)
    shard.put(3, PLAIN, None)
    shard.add(30, 0, 7)
    shard.commit(owner)
    owner.reload(ALL)
    assert total(shard) == 7
    shard.kill(owner.store, Random(0))
    shard.give(ALL, owner.store)
    assert total(shard) == 7


def test_two_parts_of_one_object_in_one_store_are_both_found() -> None:
    """One process restored both; its tiles were joined before it wrote, and then an epoch was undone."""
    shard = MovingShard()
    shard.add(3, 0, 1001)
    shard.commit(shard.owners[0])
    store = shard.owners[0].store
    shard.kill(store, Random(0))
    for part in (UPPER, LOWER):
        shard.give(part, store)
    shard.join(*shard.owners)
    assert len(shard.owners[0].lineage) == 1
    shard.owners[0].reload(ALL)
    assert total(shard) == 1001


def test_a_warm_copy_of_the_whole_serves_each_of_its_parts() -> None:
    """Its cell is cut at the ends of what is taken of it, also when the parts are taken one after the other."""
    for parts in ((UPPER, LOWER), (LOWER, UPPER), (KeyRange(10, 20), KeyRange(0, 10), KeyRange(20, 48))):
        shard = MovingShard()
        shard.add(3, 0, 1001)
        shard.commit(shard.owners[0])
        store = shard.owners[0].store
        store.flush()
        shard.kill(store, Random(0))
        for part in parts:
            shard.give(part, store)
            shard.check_copy(store, part)
        assert total(shard) == 1001


def test_what_lies_about_without_lineage_is_not_cut_into_a_neighbour() -> None:
    """A stale cell of the whole, in a store in which the upper half runs by now."""
    shard = MovingShard()
    shard.add(3, 0, 10)
    shard.commit(shard.owners[0])
    store = MemoryStore()
    store.write([PREFIX + Cell.of(ALL).suffix(3)], [b"stale"])
    shard.kill(shard.owners[0].store, Random(0))
    for part in (UPPER, LOWER):
        shard.give(part, store)
    shard.check_copy(store, UPPER)
    shard.check_copy(store, LOWER)


def test_forgetting_a_part_leaves_the_rest_its_part_of_the_object() -> None:
    """The cell of the whole lies in the slots that are forgotten."""
    shard = MovingShard()
    shard.add(3, 0, 1001)
    shard.commit(shard.owners[0])
    store = shard.owners[0].store
    forget(store, OPERATOR, SOURCE.partition, LOWER, PARTIAL)
    store.flush()
    shard.kill(store, Random(0))
    shard.give(LOWER, MemoryStore())
    shard.give(UPPER, store)
    shard.check_copy(store, UPPER)
    assert total(shard) == 1001


def test_a_cell_counts_for_no_slots_but_those_of_its_lineage() -> None:
    """Its upper half was forgotten by somebody who knew of no partial states, and runs anew in the same store."""
    shard = MovingShard()
    shard.add(3, 0, 1001)
    shard.commit(shard.owners[0])
    store = shard.owners[0].store
    forget(store, OPERATOR, SOURCE.partition, UPPER)
    store.flush()
    shard.kill(store, Random(0))
    shard.give(UPPER, store)
    shard.commit(shard.owners[0])
    shard.give(LOWER, store)
    shard.check_copy(store, UPPER)
    shard.check_copy(store, LOWER)
    assert total(shard) == 1001


def test_objects_of_other_states_stay_as_they_are() -> None:
    """A marker that says nothing of a state says nothing of its objects."""
    shard = MovingShard()
    shard.add(3, 0, 10)
    shard.add(3, 1, 20)
    shard.commit(shard.owners[0])
    shard.add(3, 1, 1)
    shard.commit(shard.owners[0])
    shard.check_total()
    store = MemoryStore()
    finish(shard.follower(UPPER, store).adopt())
    shard.check_copy(store, UPPER)


PARTIAL_ID = 9


def _restored(log: BackupLog, store: MemoryStore, key_range: KeyRange, said: list[str]) -> Lineage:
    target = RestoreTarget(SOURCE, OPERATOR, key_range, partial=frozenset({PARTIAL_ID}))
    return finish(restore(log.log, store, target, log.clock, SETTINGS, said.append))


def test_base_blocks_replace_slots_but_no_objects_of_other_slots() -> None:
    """A cell that was cut to a part lies in a slot of which the base knows no cell."""
    log, store, said = BackupLog(), MemoryStore(), list[str]()
    log.commit({Cell.of(FULL_RANGE).suffix(PARTIAL_ID): b"object", entry(0x9000): b"gone", entry(0x9001): b"kept"})
    _restored(log, store, HIGH, said)
    del log.state[shard_prefix(OPERATOR, SOURCE.partition) + entry(0x9000)]
    cut = log.read().next_offset
    log.commit({entry(1): b"x"}, LOW)  # says nothing of the object: a base that begins in the middle neither
    log.rebase(HIGH, cut)
    lineage = _restored(log, store, HIGH, said)
    assert lineage == log.lineage.slice(HIGH)
    assert in_force(store, HIGH, PARTIAL_ID) == dict.fromkeys(range(HIGH.lo, HIGH.hi), (FULL_RANGE, b"object"))
    prefix = shard_prefix(OPERATOR, SOURCE.partition)
    assert store.get_many([prefix + entry(0x9000), prefix + entry(0x9001)]) == [None, b"kept"]


def test_the_base_of_a_piece_brings_its_object_to_every_part() -> None:
    """Of a trimmed log: the cell stands in the base block of the slot below."""
    log, said = BackupLog(), list[str]()
    log.commit({Cell.of(FULL_RANGE).suffix(PARTIAL_ID): b"object", entry(0x9001): b"kept"})
    cut = log.read().next_offset
    log.rebase(FULL_RANGE, cut)
    log.trim(cut)
    for part in (HIGH, LOW, KeyRange(7, 9)):
        store = MemoryStore()
        _restored(log, store, part, said)
        assert in_force(store, part, PARTIAL_ID) == dict.fromkeys(range(part.lo, part.hi), (FULL_RANGE, b"object"))


def test_a_copy_of_an_earlier_release_is_made_anew_when_there_are_partial_states() -> None:
    """Its lineage does not say where markers ended."""
    log, said = BackupLog(), list[str]()
    log.commit({Cell.of(FULL_RANGE).suffix(PARTIAL_ID): b"object"})
    for partial, dropped in (({PARTIAL_ID}, True), (set[int](), False)):
        store = MemoryStore()
        target = RestoreTarget(SOURCE, OPERATOR, FULL_RANGE, partial=frozenset(partial))
        finish(restore(log.log, store, target, log.clock, SETTINGS))
        old = Lineage([(key_range, replace(p, marked=None)) for key_range, p in lineage_of(store)])
        key, value = lineage_entry(store, OPERATOR, SOURCE.partition, old)
        store.write([key], [value])
        said.clear()
        names: list[str] = []
        finish(restore(log.log, store, target, log.clock, SETTINGS, said.append), names)
        assert ("dropped" in names) == dropped
        assert any("earlier release" in line for line in said) == dropped

"""Lineage: how far the local copy of a shard is."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kstate.errors import CorruptStateError, DecodeError
from kstate.keyspace import FULL_RANGE, KeyRange
from kstate.progress import SlotMap
from kstate.state.layout import lineage_key
from kstate.state.lineage import (
    Lineage,
    Position,
    decode_lineage,
    encode_lineage,
    lineage_entry,
    released,
    stored_lineage,
)
from kstate.testing.memory_store import MemoryStore
from kstate.times import Times
from tests.golden.state_formats import CONTENT, LINEAGE, LINEAGE_V1, LINEAGE_V2, golden
from tests.support.times import times

u64 = st.integers(0, (1 << 64) - 1)
numbers = st.dictionaries(st.text(max_size=6), st.integers(-(1 << 63), (1 << 63) - 1), max_size=2)
ranges = st.lists(st.integers(0, 65536), min_size=2, max_size=2, unique=True).map(lambda ends: KeyRange(*sorted(ends)))
moves = st.none() | st.integers(1, (1 << 64) - 1)
positions = st.builds(Position, u64, u64, u64, st.text(max_size=9), numbers, times(), u64, moves, st.none() | ranges)
lineages = st.lists(st.tuples(ranges, positions), max_size=5).map(SlotMap)


def at(offset: int) -> Position:
    """A position that differs in its offset only."""
    return Position(offset, 1, 1, "w", {"words": 1}, Times(), 0)


@settings(deadline=None)
@given(lineages)
def test_a_lineage_is_read_back_as_it_was_written(lineage: Lineage) -> None:
    """Every piece and every field."""
    assert decode_lineage(encode_lineage(lineage)) == lineage


def test_the_golden_lineage_is_read_and_written_so_today() -> None:
    """The bytes are part of the format of the local store."""
    assert golden("lineage-v3.hex") == CONTENT["lineage-v3.hex"]
    assert [decode_lineage(data) for data in golden("lineage-v3.hex")] == [LINEAGE, Lineage()]


def test_lineages_of_earlier_versions_are_still_read() -> None:
    """Version 2 knew nothing of moves, version 1 the watermarks of inputs only."""
    assert [decode_lineage(data) for data in golden("lineage-v2.hex")] == [LINEAGE_V2, Lineage()]
    assert [decode_lineage(data) for data in golden("lineage-v1.hex")] == [LINEAGE_V1, Lineage()]


def test_every_truncation_and_every_appended_byte_is_refused() -> None:
    """RocksDB's checksums guard the bits; the form is guarded here."""
    data = encode_lineage(LINEAGE)
    for damaged in [*(data[:end] for end in range(len(data))), data + b"\x00", b"\x04" + data[1:], b"\x00" + data[1:]]:
        with pytest.raises(DecodeError, match="Lineage"):
            decode_lineage(damaged)


@given(st.binary(max_size=120))
def test_random_bytes_raise_nothing_but_a_decode_error(data: bytes) -> None:
    """Also behind a sound header."""
    for candidate in (data, *(b"%c\x00\x00\x00\x01" % version + data for version in (1, 2, 3))):
        try:
            decode_lineage(candidate)
        except DecodeError:
            continue


def test_pieces_out_of_order_are_refused() -> None:
    """A slot has one position."""
    low, high = (encode_lineage(SlotMap([(r, at(1))]))[5:] for r in (KeyRange(0, 10), KeyRange(9, 20)))
    with pytest.raises(DecodeError, match="begins before slot"):
        decode_lineage(b"\x03\x00\x00\x00\x02" + low + high)


def test_a_marker_range_that_is_none_is_refused() -> None:
    """The first slot not below the last."""
    data = encode_lineage(SlotMap([(FULL_RANGE, replace(at(1), marked=KeyRange(3, 4)))]))
    marked = b"\x00\x00\x00\x03\x00\x00\x00\x04"
    for damaged in (b"\x00\x00\x00\x04\x00\x00\x00\x04", b"\x00\x00\x00\x03\x00\x00\x00\x00"):
        with pytest.raises(DecodeError, match="Lineage: its marker's key range"):
            decode_lineage(data.replace(marked, damaged))


def test_neighbours_behind_different_markers_of_one_epoch_stay_apart() -> None:
    """Both stand at the end of their transaction; where one marker ended must stay known."""
    lower, upper = KeyRange(0, 10), KeyRange(10, 20)
    lineage = SlotMap([(key_range, replace(at(1), marked=key_range)) for key_range in (lower, upper)])
    assert [key_range for key_range, _ in lineage] == [lower, upper]


def test_a_range_is_released_when_every_slot_proves_it() -> None:
    """By the RELEASE of that move, or because somebody wrote under its grant or a newer one already (S6)."""
    lower, upper, both = KeyRange(0, 10), KeyRange(10, 20), KeyRange(0, 20)
    for position, proves in [
        (replace(at(1), grant=3, move=7), True),
        (replace(at(1), grant=7), True),
        (replace(at(1), grant=8, move=9), True),
        (replace(at(1), grant=3, move=6), False),
        (replace(at(1), grant=6), False),
    ]:
        lineage = SlotMap([(lower, replace(at(2), grant=3, move=7)), (upper, position)])
        assert released(lineage, both, 7) == proves
        assert released(lineage, lower, 7)


def test_a_slot_without_a_marker_is_not_released() -> None:
    """Its owner has still to say that it will write nothing more."""
    lineage = SlotMap([(KeyRange(0, 10), replace(at(2), move=7))])
    assert released(lineage, KeyRange(0, 10), 7)
    assert not released(lineage, KeyRange(0, 11), 7)
    assert not released(Lineage(), KeyRange(0, 11), 7)


def test_an_entry_changes_the_slots_it_names_and_no_others() -> None:
    """Another key range of the shard may be running in the same store."""
    store = MemoryStore()
    first = SlotMap([(KeyRange(0, 10), at(1)), (KeyRange(20, 30), at(2))])
    for part, dropped in ((first, []), (SlotMap([(KeyRange(5, 10), at(3))]), [KeyRange(25, 30)])):
        key, value = lineage_entry(store, 1, 2, part, dropped)
        store.write([key], [value])
    assert stored_lineage(store, 1, 2) == SlotMap(
        [(KeyRange(0, 5), at(1)), (KeyRange(5, 10), at(3)), (KeyRange(20, 25), at(2))]
    )
    assert len(stored_lineage(store, 1, 3).slice(FULL_RANGE)) == 0


def test_a_damaged_entry_of_the_store_asks_for_a_wipe() -> None:
    """The local copy is worth nothing when nobody knows how far it is."""
    store = MemoryStore()
    store.write([lineage_key(1, 0)], [b"\x01\x00"])
    with pytest.raises(CorruptStateError, match="operator 1, partition 0"):
        stored_lineage(store, 1, 0)

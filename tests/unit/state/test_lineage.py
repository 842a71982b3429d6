"""Lineage: how far the local copy of a shard is."""

from __future__ import annotations

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
    stored_lineage,
)
from kstate.testing.memory_store import MemoryStore
from kstate.times import Times
from tests.golden.state_formats import CONTENT, LINEAGE, LINEAGE_V1, golden
from tests.support.times import times

u64 = st.integers(0, (1 << 64) - 1)
numbers = st.dictionaries(st.text(max_size=6), st.integers(-(1 << 63), (1 << 63) - 1), max_size=2)
positions = st.builds(Position, u64, u64, u64, st.text(max_size=9), numbers, times(), u64)
ranges = st.lists(st.integers(0, 65536), min_size=2, max_size=2, unique=True).map(lambda ends: KeyRange(*sorted(ends)))
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
    assert golden("lineage-v2.hex") == CONTENT["lineage-v2.hex"]
    assert [decode_lineage(data) for data in golden("lineage-v2.hex")] == [LINEAGE, Lineage()]


def test_a_lineage_of_version_1_is_still_read() -> None:
    """It knew the watermarks of inputs only."""
    assert [decode_lineage(data) for data in golden("lineage-v1.hex")] == [LINEAGE_V1, Lineage()]


def test_every_truncation_and_every_appended_byte_is_refused() -> None:
    """RocksDB's checksums guard the bits; the form is guarded here."""
    data = encode_lineage(LINEAGE)
    for damaged in [*(data[:end] for end in range(len(data))), data + b"\x00", b"\x03" + data[1:], b"\x00" + data[1:]]:
        with pytest.raises(DecodeError, match="Lineage"):
            decode_lineage(damaged)


@given(st.binary(max_size=120))
def test_random_bytes_raise_nothing_but_a_decode_error(data: bytes) -> None:
    """Also behind a sound header."""
    for candidate in (data, b"\x01\x00\x00\x00\x01" + data, b"\x02\x00\x00\x00\x01" + data):
        try:
            decode_lineage(candidate)
        except DecodeError:
            continue


def test_pieces_out_of_order_are_refused() -> None:
    """A slot has one position."""
    low, high = (encode_lineage(SlotMap([(r, at(1))]))[5:] for r in (KeyRange(0, 10), KeyRange(9, 20)))
    with pytest.raises(DecodeError, match="begins before slot"):
        decode_lineage(b"\x02\x00\x00\x00\x02" + low + high)


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

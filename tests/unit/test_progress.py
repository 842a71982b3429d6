"""The map over slots, against a plain dictionary of slots."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from kstate.keyspace import KeyRange
from kstate.progress import SlotMap

SLOTS_TRIED = 40
RANGES = st.tuples(st.integers(0, SLOTS_TRIED - 1), st.integers(1, SLOTS_TRIED)).map(
    lambda cut: KeyRange(cut[0], max(cut[1], cut[0] + 1))
)
CHANGES = st.lists(st.tuples(RANGES, st.integers(0, 2) | st.none()), max_size=12)
"""Ranges with their new value; None makes a gap."""


def made(changes: list[tuple[KeyRange, int | None]]) -> tuple[SlotMap[int], dict[int, int]]:
    """The same changes made to a map over slots and to a dictionary."""
    slots, plain = SlotMap[int](), dict[int, int]()
    for key_range, value in changes:
        for slot in range(key_range.lo, key_range.hi):
            plain.pop(slot, None)
            if value is not None:
                plain[slot] = value
        if value is None:
            slots.clear(key_range)
        else:
            slots.assign(key_range, value)
    return slots, plain


@given(CHANGES)
def test_every_slot_has_the_value_it_was_given_last(changes: list[tuple[KeyRange, int | None]]) -> None:
    """Slots outside of a change keep theirs; gaps have none."""
    slots, plain = made(changes)
    assert [slots.get(slot) for slot in range(SLOTS_TRIED)] == [plain.get(slot) for slot in range(SLOTS_TRIED)]


@given(CHANGES)
def test_pieces_ascend_without_overlap_and_touching_ones_differ(changes: list[tuple[KeyRange, int | None]]) -> None:
    """So two maps with the same values are equal, however they came to be."""
    slots, plain = made(changes)
    for (left, before), (right, after) in pairwise(slots):
        assert left.hi < right.lo or (left.hi == right.lo and before != after)
    assert slots == SlotMap((KeyRange(slot, slot + 1), value) for slot, value in sorted(plain.items()))


@given(CHANGES, RANGES)
def test_a_slice_and_its_gaps_cover_a_range_once(changes: list[tuple[KeyRange, int | None]], cut: KeyRange) -> None:
    """The slice says what the map says, the gaps are what it does not say."""
    slots, plain = made(changes)
    part = slots.slice(cut)
    for slot in range(cut.lo, cut.hi):
        assert part.get(slot) == plain.get(slot)
        assert sum(slot in gap for gap in slots.gaps(cut)) == (slot not in plain)
    assert all(cut.overlap(piece) == piece for piece in [*(piece for piece, _ in part), *slots.gaps(cut)])


@given(CHANGES, RANGES)
def test_a_copy_goes_its_own_way(changes: list[tuple[KeyRange, int | None]], cut: KeyRange) -> None:
    """Changing the one leaves the other as it was."""
    slots, _ = made(changes)
    twin = slots.copy()
    twin.assign(cut, 9)
    assert slots == made(changes)[0]
    assert twin.get(cut.lo) == 9

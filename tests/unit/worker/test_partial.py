"""Partial state: one object per piece, cut and joined with it, and stored under the range it stands for."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kstate.errors import CorruptStateError, OperatorError
from kstate.keyspace import FULL_RANGE, SLOTS, KeyRange
from kstate.state.columns import ValueFault
from kstate.state.layout import key_suffix, parse_suffix
from kstate.testing.memory_store import MemoryStore
from kstate.worker.handles import Cursor
from kstate.worker.ownership import Piece
from kstate.worker.partial import PartialColumn, Partials, PartialStore
from kstate.worker.value_handles import BoundPartial
from tests.support.state_bench import PREFIX, column_of


@dataclass(frozen=True, slots=True)
class Sum:
    """A total with the parts of the slots it was cut into, so that a test sees who got what."""

    total: int
    joins: tuple[str, ...] = ()

    def split(self, fraction: float) -> tuple[Sum, Sum]:
        lower = round(self.total * fraction)
        return Sum(lower, self.joins), Sum(self.total - lower)

    def merge(self, other: Sum) -> Sum:
        return Sum(self.total + other.total, (*self.joins, *other.joins))


class Kept:
    """Two partial states of one shard in a memory store; `index` 1 is `Sum(0)` from the start, 4 is `Sum(100)`."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.partials = PartialStore(
            self.store,
            PREFIX,
            [
                PartialColumn(1, column_of(Sum, "sums", 3, cells=True), lambda: Sum(0)),
                PartialColumn(4, column_of(Sum, "more", 4, cells=True), lambda: Sum(100)),
            ],
        )

    def load(self, key_range: KeyRange, *starts: int) -> Partials:
        """The committed objects of a piece."""
        return self.partials.load(key_range, starts)

    def commit(self, *pieces: Partials) -> None:
        """One epoch of all these pieces."""
        for piece in pieces:
            changes = piece.changes()
            for suffix in changes.suffixes:
                assert parse_suffix(suffix).slot in piece.key_range
            self.store.write([PREFIX + suffix for suffix in changes.suffixes], changes.values)
            piece.settle()
            assert not piece.pending
            assert len(piece.changes()) == 0

    def cells(self, state_id: int = 3) -> list[tuple[int, int]]:
        """The ranges of the stored objects of a state."""
        suffixes = [parse_suffix(key[len(PREFIX) :]) for key, _ in self.store.scan(PREFIX, PREFIX + b"\xff")]
        subkeys = [suffix.subkey for suffix in suffixes if suffix.state_id == state_id]
        return [(int.from_bytes(subkey[:4], "big"), int.from_bytes(subkey[4:], "big")) for subkey in subkeys]


def test_an_object_that_was_never_set_is_that_of_the_start_and_is_not_stored() -> None:
    """Each state has its own; a read changes nothing."""
    kept = Kept()
    piece = kept.load(FULL_RANGE)
    assert (piece.get(1), piece.get(4)) == (Sum(0), Sum(100))
    assert not piece.pending
    assert len(piece.changes()) == 0
    lower, upper = piece.cut(7)
    assert not lower.join(upper).pending


def test_an_object_is_stored_under_the_slots_that_it_stands_for() -> None:
    """Key empty, slot and subkey from the range."""
    kept = Kept()
    piece = kept.load(KeyRange(0x1000, 0x2000))
    piece.set(1, Sum(5), [])
    (suffix,) = piece.changes().suffixes
    assert suffix == key_suffix(0x1000, 3, b"", bytes.fromhex("0000100000002000"))
    kept.commit(piece)
    assert kept.load(KeyRange(0x1000, 0x2000)).get(1) == Sum(5)
    assert kept.load(KeyRange(0x2000, 0x3000), 0x1000).get(1) == Sum(0)


def test_a_failed_call_leaves_the_object_as_it_was() -> None:
    """The handle writes to the cursor's journal; a first object that is undone is not stored."""
    kept, cursor = Kept(), Cursor()
    cursor.piece = cast(Piece, SimpleNamespace(partials=kept.load(FULL_RANGE)))
    handle: Any = BoundPartial(cursor, 1)
    handle.set(Sum(1))
    cursor.undo()
    assert handle.get() == Sum(0)
    assert len(cursor.piece.partials.changes()) == 0
    handle.set(Sum(2))
    cursor.journal.clear()
    handle.set(Sum(3))
    handle.set(Sum(4))
    assert handle.get() == Sum(4)
    cursor.undo()
    assert handle.get() == Sum(2)
    assert len(cursor.piece.partials.changes()) == 1


def test_an_operator_without_partial_state_has_nothing_to_write() -> None:
    """Nothing is pending, nothing is joined."""
    lower, upper = Partials(KeyRange(0, 9)), Partials(KeyRange(9, 20))
    assert not lower.pending
    assert len(lower.join(upper).changes()) == 0


def test_the_parts_of_a_cut_replace_the_whole_in_one_epoch() -> None:
    """Both are pending, even without a record; the old cell goes with the lower part, in whose slots it lies."""
    kept = Kept()
    whole = kept.load(FULL_RANGE)
    whole.set(1, Sum(1000), [])
    kept.commit(whole)
    lower, upper = whole.cut(SLOTS // 4)
    assert (lower.get(1), upper.get(1)) == (Sum(250), Sum(750))
    assert lower.pending
    assert upper.pending
    kept.commit(lower, upper)
    assert kept.cells() == [(0, SLOTS // 4), (SLOTS // 4, SLOTS)]
    both = kept.load(FULL_RANGE, 0, SLOTS // 4)
    assert both.get(1) == Sum(1000)
    assert both.pending
    kept.commit(both)
    assert kept.cells() == [(0, SLOTS)]


def test_a_change_is_not_forgotten_when_its_piece_is_cut_and_joined_again() -> None:
    """The piece then stands for the range of its cell again, but not for the same object."""
    kept = Kept()
    whole = kept.load(FULL_RANGE)
    whole.set(1, Sum(1), [])
    kept.commit(whole)
    whole.set(1, Sum(2), [])
    lower, upper = whole.cut(SLOTS // 2)
    kept.commit(lower.join(upper))
    assert kept.load(FULL_RANGE).get(1) == Sum(2)


def test_a_part_is_loaded_from_a_cell_that_begins_before_it() -> None:
    """A tile of the upper half finds its part in the cell of the whole."""
    kept = Kept()
    whole = kept.load(FULL_RANGE)
    whole.set(1, Sum(1000), [])
    kept.commit(whole)
    middle = kept.load(KeyRange(SLOTS // 4, SLOTS // 2), 0)
    assert middle.get(1) == Sum(250)
    assert middle.pending
    assert kept.load(KeyRange(SLOTS // 2, SLOTS), 0).get(1) == Sum(500)


def test_neighbours_are_joined_in_slot_order_and_nothing_adds_nothing() -> None:
    """`other` is the object of the higher slots; a piece that was never set has no part in it."""
    kept = Kept()
    pieces = [kept.load(KeyRange(lo, lo + 10)) for lo in (0, 10, 20)]
    pieces[0].set(1, Sum(1, ("low",)), [])
    pieces[2].set(1, Sum(2, ("high",)), [])
    pieces[2].set(4, Sum(7), [])
    joined = pieces[0].join(pieces[1]).join(pieces[2])
    assert joined.get(1) == Sum(3, ("low", "high"))
    assert joined.get(4) == Sum(7)
    kept.commit(joined)
    assert kept.cells() == [(0, 30)]


def test_objects_that_overlap_are_damage() -> None:
    """Nobody can say which of the two counts."""
    kept = Kept()
    for key_range in (KeyRange(0, 10), KeyRange(5, 20)):
        piece = kept.load(key_range)
        piece.set(1, Sum(1), [])
        kept.commit(piece)
    with pytest.raises(CorruptStateError, match=r"two objects stand for slots \[0x0005"):
        kept.load(FULL_RANGE, 0, 5)


def test_a_cell_without_a_key_range_is_damage() -> None:
    """The store is wiped and restored."""
    kept = Kept()
    kept.store.write([PREFIX + key_suffix(0, 3, b"", b"abc")], [bytes.fromhex("0000010000")])
    with pytest.raises(CorruptStateError, match="names no key range"):
        kept.load(FULL_RANGE)


def test_an_object_that_cannot_be_stored_is_named() -> None:
    """By state and range; with checks after each call, and at the epoch's end."""
    wrong: Any = Sum("a lot")  # type: ignore[arg-type]
    piece = Kept().load(KeyRange(0, 16))
    journal: list[Any] = []
    piece.set(1, wrong, journal)
    with pytest.raises(ValueFault, match=r"state 'sums' of key KeyRange\(lo=0, hi=16\) does not encode"):
        journal[0].check()
    with pytest.raises(ValueFault, match="state 'sums'"):
        piece.changes()


@dataclass(frozen=True, slots=True)
class Clumsy:
    """Forgets to be cut, and fails to be joined."""

    total: int

    def split(self, fraction: float) -> Any:
        return self

    def merge(self, other: Clumsy) -> Clumsy:
        raise ZeroDivisionError("boom")


def test_a_class_that_fails_to_split_or_merge_stops_the_job_with_its_name() -> None:
    """Nothing is lost by it: the epoch does not commit."""
    column = PartialColumn(0, column_of(Clumsy, "clumsy", 3, cells=True), lambda: Clumsy(0))
    pieces = [Partials(KeyRange(lo, lo + 10), [column]) for lo in (0, 10)]
    for piece in pieces:
        piece.set(0, Clumsy(1), [])
    with pytest.raises(OperatorError, match="State 'clumsy': split of its class failed with TypeError"):
        pieces[0].cut(5)
    with pytest.raises(OperatorError, match="State 'clumsy': merge of its class failed with ZeroDivisionError: boom"):
        pieces[0].join(pieces[1]).changes()


ADD = st.tuples(st.just("add"), st.integers(0, SLOTS - 1), st.integers(-1000, 1000))
MOVE = st.tuples(st.sampled_from(["cut", "join"]), st.integers(0, SLOTS - 1), st.booleans())
BETWEEN = st.tuples(st.sampled_from(["commit", "rollback"]), st.just(0), st.just(0))


@settings(deadline=None, max_examples=150)
@given(st.lists(ADD | ADD | MOVE | BETWEEN, max_size=30))
def test_whatever_is_cut_and_joined_the_whole_stays_the_same(steps: list[tuple[str, int, Any]]) -> None:
    """Additions at random slots, calls that fail, pieces cut and joined, epochs committed and rolled back."""
    kept = Kept()
    pieces, ranges = [kept.load(FULL_RANGE)], [FULL_RANGE]
    total = committed = 0
    for name, slot, argument in steps:
        at = next(i for i, piece in enumerate(pieces) if slot in piece.key_range)
        if name == "add":
            journal: list[Any] = []
            pieces[at].set(1, pieces[at].get(1).merge(Sum(argument)), journal)
            if argument % 5 == 0:
                journal[0]()
            else:
                total += argument
        elif name == "cut" and pieces[at].key_range.lo < slot:
            pieces[at : at + 1] = pieces[at].cut(slot)
        elif name == "join" and at + 1 < len(pieces):
            pieces[at : at + 2] = [pieces[at].join(pieces[at + 1])]
        elif name == "commit":
            kept.commit(*pieces)
            committed, ranges = total, [piece.key_range for piece in pieces]
        elif name == "rollback":
            total = committed
            pieces = [kept.load(key_range, *(r.lo for r in ranges)) for key_range in ranges]
        assert sum(piece.get(1).total for piece in pieces) == total
    kept.commit(*pieces)
    assert kept.load(FULL_RANGE, *(piece.key_range.lo for piece in pieces)).get(1).total == total

"""A map over slots, and progress as one (rule S8).

Progress is the reader's next offset of each input topic, for one partition index and one key range. A split forks it, a
merge joins it, so it is kept as a piecewise constant map over the slots: *the newest marker covering a slot counts*.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Generic, TypeVar

from kstate.keyspace import KeyRange

T = TypeVar("T")

Progress = Mapping[str, int]
"""Input topic → next offset to read, counted past foreign slots and control records too."""


class SlotMap(Generic[T]):
    """A piecewise constant map slot → value; gaps are allowed, equal neighbours are one piece.

    Invariant: pieces are sorted, do not overlap, and touching pieces have different values.
    """

    __slots__ = ("_pieces",)

    def __init__(self, pieces: Iterable[tuple[KeyRange, T]] = ()) -> None:
        self._pieces: list[tuple[KeyRange, T]] = []
        for key_range, value in pieces:
            self.assign(key_range, value)

    def __iter__(self) -> Iterator[tuple[KeyRange, T]]:
        return iter(self._pieces)

    def __len__(self) -> int:
        return len(self._pieces)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SlotMap) and self._pieces == other._pieces

    def __repr__(self) -> str:
        return "SlotMap(" + ", ".join(f"{r}: {v!r}" for r, v in self._pieces) + ")"

    def get(self, slot: int) -> T | None:
        """The value at a slot, None in a gap."""
        for key_range, value in self._pieces:
            if slot < key_range.lo:
                return None
            if slot < key_range.hi:
                return value
        return None

    def assign(self, key_range: KeyRange, value: T) -> None:
        """Set all slots of the range, over whatever was there."""
        self._rebuild([*self._outside(key_range), (key_range, value)])

    def clear(self, key_range: KeyRange) -> None:
        """Make the range a gap."""
        self._rebuild(self._outside(key_range))

    def slice(self, key_range: KeyRange) -> SlotMap[T]:
        """The part of the map within the range."""
        cut: SlotMap[T] = SlotMap()
        cut._pieces = [(o, v) for r, v in self._pieces if (o := r.overlap(key_range))]
        return cut

    def gaps(self, key_range: KeyRange) -> list[KeyRange]:
        """The parts of the range that have no value."""
        gaps, lo = [], key_range.lo
        for piece, _ in self.slice(key_range):
            if piece.lo > lo:
                gaps.append(KeyRange(lo, piece.lo))
            lo = piece.hi
        if lo < key_range.hi:
            gaps.append(KeyRange(lo, key_range.hi))
        return gaps

    def values(self) -> list[T]:
        """The value of each piece, in slot order."""
        return [v for _, v in self._pieces]

    def copy(self) -> SlotMap[T]:
        """An independent map with the same pieces."""
        twin: SlotMap[T] = SlotMap()
        twin._pieces = list(self._pieces)
        return twin

    def _outside(self, key_range: KeyRange) -> list[tuple[KeyRange, T]]:
        kept: list[tuple[KeyRange, T]] = []
        for piece, value in self._pieces:
            if piece.lo < key_range.lo:
                kept.append((KeyRange(piece.lo, min(piece.hi, key_range.lo)), value))
            if piece.hi > key_range.hi:
                kept.append((KeyRange(max(piece.lo, key_range.hi), piece.hi), value))
        return kept

    def _rebuild(self, pieces: list[tuple[KeyRange, T]]) -> None:
        joined: list[tuple[KeyRange, T]] = []
        for key_range, value in sorted(pieces, key=lambda piece: piece[0].lo):
            if joined and joined[-1][0].hi == key_range.lo and joined[-1][1] == value:
                joined[-1] = (KeyRange(joined[-1][0].lo, key_range.hi), value)
            else:
                joined.append((key_range, value))
        self._pieces = joined

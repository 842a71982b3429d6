"""Partial state: one object per piece instead of one value per key, cut and joined as key ranges are.

Paper: SEEP, section 3.3, custom and partial state. An object is stored as a cell that names the range it stands for
(kstate.state.partial_cells). A piece that was cut or joined stands for another range than its cells: it is `pending`
until it was written as one cell of its own range, which takes the old ones away. The parts of a piece that was cut are
all written in the epoch that writes the first of them: the cell that they came from goes with it.

A tile that was cut without its owner finds a cell of which only a part is its own. Its owner and those of the other
parts cut the object apart from each other, so they cut it alike (kstate.state.partition), and nothing is lost or
doubled.

An object that was never set stands for nothing: a range without a cell adds nothing to its neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

from kstate.errors import CorruptStateError, OperatorError
from kstate.interfaces import Store
from kstate.keyspace import KeyRange
from kstate.state.cells import CheckedUndo, Journal
from kstate.state.checkpoint import Changes
from kstate.state.columns import StateColumn
from kstate.state.partial_cells import Cell, find_cells
from kstate.state.partition import object_within


class PartialObject(NamedTuple):
    """An object and the slots that it stands for."""

    key_range: KeyRange
    value: Any


@dataclass(frozen=True, slots=True)
class PartialColumn:
    """A partial state of an operator: its place among all states, how it is stored, what it is from the start."""

    index: int
    column: StateColumn
    initial: Callable[[], Any]

    def suffix(self, cell: Cell) -> bytes:
        """Store key below the shard of a cell."""
        return cell.suffix(self.column.state_id)

    def within(self, cell: Cell, value: Any, key_range: KeyRange) -> PartialObject:
        """What of a stored object stands for a range within its cell."""
        return PartialObject(key_range, object_within(value, cell.nominal, key_range, self._split, self._merge))

    def cut(self, part: PartialObject, key_range: KeyRange) -> PartialObject:
        """The part of an object that stands for a range within its own."""
        (lo, hi), value = (part.key_range.lo, part.key_range.hi), part.value
        if key_range.hi < hi:
            value, hi = self._split(value, (key_range.hi - lo) / (hi - lo))[0], key_range.hi
        if lo < key_range.lo:
            value = self._split(value, (key_range.lo - lo) / (hi - lo))[1]
        return PartialObject(key_range, value)

    def join(self, parts: Sequence[PartialObject]) -> Any:
        """One object for all parts, which are in slot order."""
        value = parts[0].value
        for part in parts[1:]:
            value = self._merge(value, part.value)
        return value

    def _merge(self, lower: Any, upper: Any) -> Any:
        try:
            return lower.merge(upper)
        except Exception as error:
            raise self._failed("merge", error) from error

    def _split(self, value: Any, fraction: float) -> tuple[Any, Any]:
        try:
            lower, upper = value.split(fraction)
        except Exception as error:
            raise self._failed("split", error) from error
        return lower, upper

    def _failed(self, method: str, error: Exception) -> OperatorError:
        return OperatorError(
            f"State {self.column.name!r}: {method} of its class failed with {type(error).__name__}: {error}",
            hint="a key range cannot be moved without it; mend the class and deploy it.",
        )


class Partials:
    """The partial states of one piece; `key_range` is that of the piece.

    Invariant: the parts of a state are in slot order, do not overlap, and lie within the key range.
    """

    def __init__(
        self,
        key_range: KeyRange,
        columns: Sequence[PartialColumn] = (),
        parts: Mapping[int, Sequence[PartialObject]] = MappingProxyType({}),
        stored: Mapping[int, frozenset[Cell]] = MappingProxyType({}),
    ) -> None:
        """`parts` and `stored` by index of the state; `stored`: cells that lie in slots of the piece."""
        self.key_range = key_range
        self._columns = {column.index: column for column in columns}
        self._parts = {index: list(parts.get(index, ())) for index in self._columns}
        self._stored = {index: stored.get(index, frozenset()) for index in self._columns}
        self._dirty: frozenset[int] = frozenset()

    @property
    def pending(self) -> bool:
        """Whether the piece must be written, though no call may have changed anything."""
        return any(self._is_pending(index) for index in self._columns)

    def get(self, index: int) -> Any:
        """The object of a state, as it is from the start when none was set. Raises OperatorError."""
        parts = self._parts[index]
        if not parts:
            return self._columns[index].initial()
        if len(parts) > 1:
            parts = self._parts[index] = [PartialObject(self.key_range, self._columns[index].join(parts))]
        return parts[0].value

    def set(self, index: int, value: Any, journal: Journal) -> None:
        """Replace the object of a state."""
        journal.append(PartialUndo(self, index, self._parts[index], self._dirty))
        self._replace(index, [PartialObject(self.key_range, value)], self._dirty | {index})

    def undo(self, change: PartialUndo) -> None:
        """Take back the newest change that was not taken back yet."""
        self._replace(change.index, change.parts, change.dirty)

    def check(self, index: int) -> None:
        """Raise ValueFault when the object of a state cannot be stored."""
        self._columns[index].column.check(self.get(index), self.key_range)

    def rewrite(self) -> None:
        """Have the epoch write all objects anew, changed or not."""
        self._dirty |= {index for index, parts in self._parts.items() if parts}

    def cut(self, at: int) -> tuple[Partials, Partials]:
        """The partial states of the slots below `at`, and of those from there on."""
        lower, upper = KeyRange(self.key_range.lo, at), KeyRange(at, self.key_range.hi)
        return self._within(lower), self._within(upper)

    def join(self, upper: Partials) -> Partials:
        """The partial states of this piece and of the next one together."""
        joined = Partials(
            KeyRange(self.key_range.lo, upper.key_range.hi),
            list(self._columns.values()),
            {index: [*self._parts[index], *upper._parts[index]] for index in self._columns},
            {index: self._stored[index] | upper._stored[index] for index in self._columns},
        )
        joined._dirty = self._dirty | upper._dirty
        return joined

    def changes(self) -> Changes:
        """What the epoch changed, encoded for the backup and the store. Raises ValueFault, OperatorError."""
        changes = Changes([], [])
        for index in self._columns:
            if index in self._dirty or self._is_pending(index):
                self._add_cell(changes, index)
        return changes

    def settle(self) -> None:
        """The epoch committed and is in the store."""
        for index, parts in self._parts.items():
            if index in self._dirty or self._is_pending(index):
                self._parts[index] = [PartialObject(self.key_range, self.get(index))] if parts else []
                self._stored[index] = self._own_cells(index)
        self._dirty = frozenset()

    def _add_cell(self, changes: Changes, index: int) -> None:
        column, parts = self._columns[index], self._parts[index]
        if parts:
            (data,) = column.column.encode([self.get(index)], lambda _: (self.key_range, b""))
            changes.suffixes.append(column.suffix(Cell.of(self.key_range)))
            changes.values.append(data)
        gone = sorted(self._stored[index] - self._own_cells(index))
        changes.suffixes.extend(column.suffix(cell) for cell in gone)
        changes.values.extend([None] * len(gone))

    def _is_pending(self, index: int) -> bool:
        """Whether what is stored for a state is not one cell of the piece's range, or not nothing where it is nothing.

        (An object that was set for the first time is both pending and changed.)
        """
        return self._stored[index] != self._own_cells(index)

    def _own_cells(self, index: int) -> frozenset[Cell]:
        """What is to be stored for a state."""
        return frozenset([Cell.of(self.key_range)] if self._parts[index] else [])

    def _replace(self, index: int, parts: list[PartialObject], dirty: frozenset[int]) -> None:
        self._parts[index] = parts
        self._dirty = dirty

    def _within(self, key_range: KeyRange) -> Partials:
        part = Partials(
            key_range,
            list(self._columns.values()),
            {i: _parts_within(self._columns[i], parts, key_range) for i, parts in self._parts.items()},
            {i: frozenset(c for c in stored if c.valid.lo in key_range) for i, stored in self._stored.items()},
        )
        part._dirty = self._dirty
        return part


class PartialUndo(CheckedUndo):
    """How to take back that an object was replaced."""

    __slots__ = ("dirty", "index", "partials", "parts")

    def __init__(self, partials: Partials, index: int, parts: list[PartialObject], dirty: frozenset[int]) -> None:
        self.partials = partials
        self.index = index
        self.parts = parts
        self.dirty = dirty

    def __call__(self) -> None:
        self.partials.undo(self)

    def check(self) -> None:
        self.partials.check(self.index)


@dataclass(frozen=True, slots=True)
class PartialStore:
    """Where the partial states of one shard are stored; `prefix` is that of the shard."""

    store: Store
    prefix: bytes
    columns: Sequence[PartialColumn]

    def load(self, key_range: KeyRange, starts: Iterable[int]) -> Partials:
        """The committed partial states of a piece.

        `starts`: the slots at which ranges begin for which a cell may have been written: those of the shard's lineage.
        A cell that reaches beyond the piece is cut. Raises CorruptStateError when cells of one state overlap.
        """
        parts: dict[int, list[PartialObject]] = {}
        stored: dict[int, frozenset[Cell]] = {}
        slots = {key_range.lo, *starts}
        for column in self.columns:
            found = find_cells(self.store, self.prefix, column.column.state_id, slots)
            parts[column.index] = _cells_within(column, found, key_range)
            stored[column.index] = frozenset(cell for cell in found if cell.valid.lo in key_range)
        return Partials(key_range, self.columns, parts, stored)


def _cells_within(column: PartialColumn, cells: Mapping[Cell, bytes], key_range: KeyRange) -> list[PartialObject]:
    """What of some stored objects stands for slots of a range, in slot order."""
    found: list[PartialObject] = []
    values = column.column.decode(list(cells.values()))
    for cell, value in sorted(zip(cells, values, strict=True), key=lambda pair: pair[0]):
        overlap = cell.valid.overlap(key_range)
        if overlap is None:
            continue
        if found and found[-1].key_range.hi > overlap.lo:
            raise CorruptStateError(
                f"State {column.column.name!r}: two objects stand for slots {overlap}, expected one."
            )
        found.append(column.within(cell, value, overlap))
    return found


def _parts_within(column: PartialColumn, parts: Iterable[PartialObject], key_range: KeyRange) -> list[PartialObject]:
    """What of the objects of a piece stands for slots of a range, in slot order."""
    return [column.cut(part, overlap) for part in parts if (overlap := part.key_range.overlap(key_range))]

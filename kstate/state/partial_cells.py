"""Cells of partial states: where an object that stands for a key range is stored, and for which slots it is in force.

Paper: SEEP, section 3.3, custom and partial state. An object was made for a range of slots, its *nominal* one, and is
in force for those of them that no newer object covers: its *valid* ones. A cell has the key b"", lies in the first
valid slot, and names both ranges in its subkey:

    lo u32 | hi u32                                             valid and nominal are the same
    valid lo u32 | valid hi u32 | nominal lo u32 | nominal hi u32

Backup logs hold the first form: a piece writes one object, for its own range, and takes away the cells it came from.
So the entries of a state in a marker of piece X, if there are any, say all there is to say of the state for all slots
of X. Whoever applies the marker to a copy, of whatever range, cuts the cells that are there to their slots outside X
and adds the new one, cut to the copy, though it may lie in a slot below it. No object is cut here, only what of it
counts: its class knows how to (kstate.worker.partial).
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from kstate.errors import CorruptStateError
from kstate.interfaces import Store
from kstate.keyspace import SLOTS, KeyRange
from kstate.state.backup import Applied
from kstate.state.cells import prefix_end
from kstate.state.layout import key_suffix, parse_suffix
from kstate.state.lineage import Lineage

_ONE = struct.Struct(">II")
_TWO = struct.Struct(">IIII")
_STATE_ID = slice(2, 4)
"""Of a key suffix."""

Run = dict[bytes, bytes | None]
"""Stored keys → values, None = to be deleted: changes on their way into the store."""


@dataclass(frozen=True, slots=True, order=True)
class Cell:
    """An object of a partial state: the slots it is in force for, within those it was made for."""

    valid: KeyRange
    nominal: KeyRange

    @classmethod
    def of(cls, key_range: KeyRange) -> Cell:
        """The cell of an object that was made for this range and counts for all of it."""
        return cls(key_range, key_range)

    def suffix(self, state_id: int) -> bytes:
        """Its store key below the shard."""
        valid, nominal = self.valid, self.nominal
        if valid == nominal:
            subkey = _ONE.pack(valid.lo, valid.hi)
        else:
            subkey = _TWO.pack(valid.lo, valid.hi, nominal.lo, nominal.hi)
        return key_suffix(valid.lo, state_id, b"", subkey)

    def within(self, key_range: KeyRange) -> Cell | None:
        """What is in force of it in a range."""
        valid = self.valid.overlap(key_range)
        return Cell(valid, self.nominal) if valid else None

    def outside(self, key_range: KeyRange) -> list[Cell]:
        """What is in force of it below and above a range."""
        ranges = [(0, key_range.lo), (key_range.hi, SLOTS)]
        parts = (self.within(KeyRange(lo, hi)) for lo, hi in ranges if lo < hi)
        return [part for part in parts if part]

    def divided(self, key_range: KeyRange) -> list[Cell]:
        """What is in force of it within a range, below and above."""
        inside = self.within(key_range)
        return [*([inside] if inside else []), *self.outside(key_range)]


def parse_cell(suffix: bytes) -> Cell:
    """The cell of a key below the shard; CorruptStateError for what no cell has."""
    slot, state_id, key, subkey = parse_suffix(suffix)
    try:
        if key or len(subkey) not in {_ONE.size, _TWO.size}:
            raise ValueError(f"{subkey.hex()!r} below key {key.hex()!r}")
        numbers = (_ONE if len(subkey) == _ONE.size else _TWO).unpack(subkey)
        valid, nominal = KeyRange(*numbers[:2]), KeyRange(*numbers[-2:])
        if valid.lo != slot or valid.overlap(nominal) != valid or Cell(valid, nominal).suffix(state_id) != suffix:
            raise ValueError(f"{valid} of {nominal} in slot 0x{slot:04x}")
    except ValueError as error:
        raise CorruptStateError(f"State {state_id}: a cell names no key range: {error}.") from None
    return Cell(valid, nominal)


def is_cell(suffix: bytes, state_ids: Collection[int]) -> bool:
    """Whether a key belongs to one of these partial states."""
    return int.from_bytes(suffix[_STATE_ID], "big") in state_ids


def find_cells(store: Store, prefix: bytes, state_id: int, starts: Iterable[int]) -> dict[Cell, bytes]:
    """The stored cells that lie in these slots, and those in the slots where a cell that is found ends.

    All cells of a lineage are found from the slots where its pieces begin: within a piece, which follows one marker,
    the state has either no cell, or cells from the first slot to the last.
    """
    found: dict[Cell, bytes] = {}
    left, seen = sorted(starts, reverse=True), set[int]()
    while left:
        if (slot := left.pop()) in seen or slot > 0xFFFF:
            continue
        seen.add(slot)
        lo = prefix + key_suffix(slot, state_id, b"")
        for stored_key, value in store.scan(lo, prefix_end(lo)):
            cell = parse_cell(stored_key[len(prefix) :])
            found[cell] = value
            left.append(cell.valid.hi)
    return found


class PartialCells:
    """The cells of a local copy: which there are, so that markers can be applied to them."""

    def __init__(self, store: Store, prefix: bytes, state_ids: Collection[int]) -> None:
        self._store = store
        self._prefix = prefix
        self._cells: dict[int, set[Cell]] = {state_id: set() for state_id in sorted(state_ids)}

    def load(self, kept: Lineage) -> None:
        """Take up the cells of what is kept of the copy, once `cut` is written and all else is dropped."""
        for state_id, cells in self._cells.items():
            cells.clear()
            for cell in self._found(state_id, kept):
                if kept.get(cell.valid.lo):
                    cells.add(cell)

    def cut(self, lineage: Lineage, key_range: KeyRange) -> Run:
        """What to write so that no cell of a shard reaches over an end of a range; `lineage` is that of the shard.

        Data in a slot without lineage counts as not there, so a cell counts within the piece of lineage it lies in.
        """
        run: Run = {}
        for state_id in self._cells:
            for cell, value in self._found(state_id, lineage).items():
                parts = [part for piece, _ in lineage if cell.valid.lo in piece and (part := cell.within(piece))]
                parts = [each for part in parts for each in part.divided(key_range)]
                if parts != [cell] and any(part.within(key_range) for part in parts):
                    run[self._key(state_id, cell)] = None
                    run.update((self._key(state_id, part), value) for part in parts)
        return run

    def apply(self, applied: Applied, run: Run) -> None:
        """Add to a run of changes what a marker changes in partial states."""
        for state_id, put in self._entries(applied).items():
            cells = self._cells[state_id]
            for key_range in applied.ranges:
                for cell in [cell for cell in cells if cell.within(key_range)]:
                    self._replace(state_id, cell, cell.outside(key_range), run)
                for cell, value in put.items():
                    if part := cell.within(key_range):
                        run[self._key(state_id, part)] = value
                        cells.add(part)

    def _entries(self, applied: Applied) -> dict[int, dict[Cell, bytes]]:
        """State → what the marker puts, for the states that it says something of."""
        told: dict[int, dict[Cell, bytes]] = {}
        for block in applied.blocks:
            for suffix, value in zip(*block.entries(), strict=True):
                if is_cell(suffix, self._cells):
                    state_id, cell = int.from_bytes(suffix[_STATE_ID], "big"), parse_cell(suffix)
                    put = told.setdefault(state_id, {})
                    put.pop(cell, None)
                    if value is not None:
                        put[cell] = value
        return told

    def _replace(self, state_id: int, cell: Cell, parts: list[Cell], run: Run) -> None:
        key = self._key(state_id, cell)
        value = run[key] if key in run else self._store.get_many([key])[0]
        run[key] = None
        self._cells[state_id].remove(cell)
        for part in parts:
            run[self._key(state_id, part)] = value
            self._cells[state_id].add(part)

    def _found(self, state_id: int, lineage: Lineage) -> dict[Cell, bytes]:
        return find_cells(self._store, self._prefix, state_id, [key_range.lo for key_range, _ in lineage])

    def _key(self, state_id: int, cell: Cell) -> bytes:
        return self._prefix + cell.suffix(state_id)

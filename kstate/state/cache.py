"""The write-back cache of decoded state in front of the local store.

An `Entry` holds everything known about one key: its decoded values, one per declared state, and which of them changed
in the running epoch. Handlers touch entries only, a whole batch of keys is loaded at once, and changed values are
encoded once per epoch. Memory is bounded by two generations: a hit in the old one moves the entry to the young one,
and when the young one is full at an epoch's end the old one is dropped. So a hit costs one dictionary look-up and
nothing else. States with subkeys are loaded when they are asked for (kstate.state.cells).

Invariants: an entry with changes is in the young generation; the store never holds a value of an epoch that did not
commit; after `discard` every value comes from the store again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from kstate.interfaces import Store
from kstate.keyspace import KeyRange, slot_of
from kstate.state.cells import DECODED_FACTOR, Cells, CheckedUndo, Journal, Ledger
from kstate.state.checkpoint import Changes, TimeChange
from kstate.state.columns import ABSENT, Entry, StateColumn, ValueFault
from kstate.state.layout import key_suffix
from kstate.state.values import NEVER

__all__ = ["ABSENT", "ENTRY_OVERHEAD_BYTES", "Entry", "StateCache", "StateColumn", "ValueFault", "check_changes"]

ENTRY_OVERHEAD_BYTES = 600
"""An entry with its dictionary slot, key, list of values and stored key, measured with tracemalloc."""

CELLS_KEPT_BYTES = 65_536
"""Cells of one key and state that outlive their generation; larger ones are loaded again as far as they are used, so
that a key in constant use does not keep a map of any size in memory."""


class StateCache:
    """Entries of one shard; `changed` lists those with changes, in order of first change."""

    def __init__(self, prefix: bytes, columns: Sequence[StateColumn], decode_key: Callable[[bytes], Any]) -> None:
        self._prefix = prefix
        self._columns = columns
        self._decode_key = decode_key
        self._young: dict[bytes, Entry] = {}
        self._old: dict[bytes, Entry] = {}
        self._ledger = Ledger(prefix, columns)
        self._with_cells = [index for index, column in enumerate(columns) if column.cells]
        self.changed = self._ledger.changed
        self.originals: dict[tuple[bytes, int], Any] = {}
        """(key bytes, state) → committed value of what `put` changed in expiring columns without subkeys."""

    @property
    def columns(self) -> Sequence[StateColumn]:
        """The states, in order of declaration."""
        return self._columns

    @property
    def size_bytes(self) -> int:
        """Estimated memory of the young generation; the old one is at most as large as it was at its turn."""
        return self._ledger.size_bytes

    def entries(self, keys: Sequence[bytes], store: Store, admit: Callable[[bytes], None]) -> list[Entry]:
        """The entry of each key, loading in one read those that are not here; `admit` checks a key never seen before.

        Raises DecodeError when a key does not decode (nothing is loaded then), CorruptStateError from the store.
        """
        young = self._young
        try:
            return [young[key] for key in keys]
        except KeyError:
            self._load({key for key in keys if key not in young}, store, admit)
            return [young[key] for key in keys]

    def cells(self, entry: Entry, index: int, store: Store) -> Cells:
        """The cells of an entry in a column with subkeys; the same object until entry or cells leave the cache."""
        found = entry.values[index]
        if found is ABSENT:
            found = entry.values[index] = Cells(self._ledger, entry, index, store)
            self._ledger.size_bytes += ENTRY_OVERHEAD_BYTES
        assert isinstance(found, Cells)
        return found

    def put(self, entry: Entry, index: int, value: Any, journal: Journal) -> None:
        """Set the value of a column without subkeys, ABSENT to take it away; remembers what an expiring one replaces.

        Columns that do not expire may be set without it (kstate.worker.value_handles).
        """
        changed, before = entry.changed, entry.values[index]
        if self._columns[index].expiring and not changed >> index & 1:
            self.originals[entry.key_bytes, index] = before
        journal.append((entry, index, before, changed))
        if not changed:
            self.changed.append(entry)
        entry.changed = changed | 1 << index
        entry.values[index] = value

    def expiry(self, entry: Entry, index: int, subkey: bytes, store: Store) -> int | None:
        """When the value at a subkey (b"" in a column without) of an expiring column expires; None: there is none."""
        found = self.cells(entry, index, store).get(subkey) if self._columns[index].cells else entry.values[index]
        return None if found is ABSENT or found.at == NEVER else int(found.at)

    def expire(self, entry: Entry, index: int, subkey: bytes, store: Store, journal: Journal) -> None:
        """Take away what expired, if it is still there."""
        if self._columns[index].cells:
            self.cells(entry, index, store).remove(subkey, journal)
        elif entry.values[index] is not ABSENT:
            self.put(entry, index, ABSENT, journal)

    def _load(self, missing: set[bytes], store: Store, admit: Callable[[bytes], None]) -> None:
        fresh: list[Entry] = []
        for key in missing:
            entry = self._old.pop(key, None)
            if entry is not None:
                self._young[key] = entry
                self._ledger.size_bytes += ENTRY_OVERHEAD_BYTES + self._cells_kept(entry)
                continue
            admit(key)
            slot = slot_of(key)
            suffixes = tuple(key_suffix(slot, column.state_id, key) for column in self._columns)
            fresh.append(Entry(self._decode_key(key), key, slot, suffixes, []))
        self._read(fresh, store)
        for entry in fresh:
            self._young[entry.key_bytes] = entry

    def _cells_kept(self, entry: Entry) -> int:
        """The size of an entry's cells; those that are too large to be kept are forgotten."""
        kept = 0
        for index in self._with_cells:
            cells = entry.values[index]
            if cells is not ABSENT and cells.size_bytes > CELLS_KEPT_BYTES:
                entry.values[index] = ABSENT
            elif cells is not ABSENT:
                kept += ENTRY_OVERHEAD_BYTES + cells.size_bytes
        return kept

    def _read(self, fresh: list[Entry], store: Store) -> None:
        """Fill the values of new entries, one multi-get per state without subkeys."""
        for index, column in enumerate(self._columns):
            for entry in fresh:
                entry.values.append(ABSENT)
            if column.cells:
                continue
            found = store.get_many([self._prefix + entry.suffixes[index] for entry in fresh])
            present = [(entry, data) for entry, data in zip(fresh, found, strict=True) if data is not None]
            stored = [data for _, data in present]
            for (entry, _), value in zip(present, column.decode(stored), strict=True):
                entry.values[index] = value
            self._ledger.size_bytes += DECODED_FACTOR * sum(map(len, stored))
        self._ledger.size_bytes += ENTRY_OVERHEAD_BYTES * len(fresh)

    def changes(self, entries: Iterable[Entry] | None = None) -> Changes:
        """The changed values of these entries (default: all changed ones), encoded for the backup and the store.

        Raises ValueFault when a value does not encode or is over the limit.
        """
        entries = self.changed if entries is None else list(entries)
        changes = Changes([], [])
        for index, column in enumerate(self._columns):
            bit = 1 << index
            mine = [entry for entry in entries if entry.changed & bit]
            if column.cells:
                self._add_cells(changes, index, mine)
                continue
            put = [entry for entry in mine if entry.values[index] is not ABSENT]
            changes.suffixes.extend([entry.suffixes[index] for entry in put])
            values = [entry.values[index] for entry in put]
            changes.values.extend(column.encode(values, lambda row, put=put: (put[row].key, b"")))  # type: ignore[misc]
            gone = [entry.suffixes[index] for entry in mine if entry.values[index] is ABSENT]
            changes.suffixes.extend(gone)
            changes.values.extend([None] * len(gone))
            if column.expiring:
                self._add_times(changes.times, index, mine)
        return changes

    def _add_times(self, times: list[TimeChange], index: int, entries: Sequence[Entry]) -> None:
        for entry in entries:
            old_at = _at(self.originals.get((entry.key_bytes, index), ABSENT))
            new_at = _at(entry.values[index])
            if old_at != new_at:
                times.append(TimeChange(index, entry.key_bytes, b"", old_at, new_at))

    def _add_cells(self, changes: Changes, index: int, entries: Sequence[Entry]) -> None:
        """The changed cells of these entries in one column."""
        column = self._columns[index]
        rows = [
            (entry, subkey, original, cells.get(subkey))
            for entry in entries
            for cells in (entry.values[index],)
            for subkey, original in cells.dirty.items()
        ]
        put = [(entry, subkey, value) for entry, subkey, _, value in rows if value is not ABSENT]
        changes.suffixes.extend([entry.suffixes[index] + subkey for entry, subkey, _ in put])
        stored = column.encode([value for _, _, value in put], lambda row: (put[row][0].key, put[row][1]))
        changes.values.extend(stored)
        for (entry, _, _), data in zip(put, stored, strict=True):
            entry.values[index].size_bytes += len(data)
        gone = [
            entry.suffixes[index] + subkey
            for entry, subkey, original, value in rows
            if value is ABSENT and original is not ABSENT  # else it came and went within the epoch
        ]
        changes.suffixes.extend(gone)
        changes.values.extend([None] * len(gone))
        if column.expiring:
            changes.times.extend(
                TimeChange(index, entry.key_bytes, subkey, _at(original), _at(value))
                for entry, subkey, original, value in rows
                if _at(original) != _at(value)
            )

    def settle(self, stored_bytes: int) -> None:
        """The epoch committed and is in the store: nothing is changed any more. `stored_bytes`: size of its values."""
        for index in self._with_cells:
            for entry in self.changed:
                if entry.changed >> index & 1:
                    entry.values[index].settle()
        for entry in self.changed:
            entry.changed = 0
        self.changed.clear()
        self.originals.clear()
        self._ledger.size_bytes += stored_bytes

    def discard(self) -> None:
        """The epoch is rolled back: forget every changed entry, the store has the values that count."""
        for entry in self.changed:
            self._young.pop(entry.key_bytes, None)
        self.changed.clear()
        self.originals.clear()

    def evict(self, key_range: KeyRange) -> None:
        """Forget the entries of these slots, which are not owned any more; none of them is changed."""
        for generation in (self._young, self._old):
            for key in [key for key, entry in generation.items() if entry.slot in key_range]:
                assert not generation[key].changed, "what is given away was committed"
                del generation[key]

    def turn(self) -> None:
        """Drop the old generation and start a young one; only between epochs, when nothing is changed."""
        assert not self.changed, "a generation with changes is never dropped"
        self._old = self._young
        self._young = {}
        self._ledger.size_bytes = 0


def check_changes(columns: Sequence[StateColumn], journal: Iterable[Any]) -> None:
    """Raise ValueFault when a value that a call changed cannot be stored; `journal` is that of the call."""
    for change in journal:
        if isinstance(change, CheckedUndo):
            change.check()
        elif isinstance(change, tuple):
            entry, index = change[0], change[1]
            columns[index].check(entry.values[index], entry.key)


def _at(value: Any) -> int | None:
    """The expiry of a value of an expiring column, None for none."""
    return None if value is ABSENT or value.at == NEVER else int(value.at)

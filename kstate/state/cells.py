"""Cells: the values of one key in a state with subkeys, loaded one by one or all at once, whichever is asked for.

Lists, maps, timers with tags and windows are kept so: each element is stored under a subkey of its own, and to change
one touches no other. A list numbers its elements from 0 and takes the complement of the number (8 bytes, big-endian) as
subkey: the newest comes first, and to append needs one seek whatever the length.

Invariants: a subkey that changed this epoch is in `_known`, and `dirty` has the committed value that it replaced; in
complete cells a subkey that is not in `_known` is not stored either.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, Final

from kstate.interfaces import Store
from kstate.state.columns import ABSENT, KEY_BYTES_MAX, Entry, StateColumn

CELL_OVERHEAD_BYTES = 170
"""A subkey with its dictionary slots and the object around its value, measured with tracemalloc."""

DECODED_FACTOR = 4
"""A decoded value takes about this many times its Avro bytes."""

_CHUNK = 10_000
"""Stored values decoded at a time: their bytes and what was made of them are in memory together."""

_UNKNOWN: Final = object()
"""What the store has was not looked at yet."""

Journal = list[Any]
"""How to take back the changes of a call, in order (kstate.worker.handles)."""


@dataclass(slots=True)
class Ledger:
    """What the entries of one shard share: where they are stored, which changed this epoch, how large they are."""

    prefix: bytes
    columns: Sequence[StateColumn]
    changed: list[Entry] = field(default_factory=list)
    """In order of first change."""
    size_bytes: int = 0


class CheckedUndo:
    """Takes back one change of a call when called; `check` raises ValueFault when what it changed cannot be stored."""

    __slots__ = ()

    def __call__(self) -> None:
        raise NotImplementedError

    def check(self) -> None:
        raise NotImplementedError


class Cells:
    """The values of one key in one column with subkeys; every change goes to a journal, which takes it back exactly."""

    __slots__ = (
        *("_bit", "_column", "_complete", "_count", "_first", "_known", "_ledger", "_prefix", "_store"),
        *("dirty", "entry", "size_bytes"),
    )

    def __init__(self, ledger: Ledger, entry: Entry, index: int, store: Store) -> None:
        self.entry = entry
        self.size_bytes = 0
        """Estimated memory."""
        self.dirty: dict[bytes, Any] = {}
        """Subkeys that changed this epoch, with the committed value; not always known, but in an expiring column."""
        self._ledger = ledger
        self._column = ledger.columns[index]
        self._store = store
        self._prefix = ledger.prefix + entry.suffixes[index]
        self._bit = 1 << index
        self._known: dict[bytes, Any] = {}
        self._complete = False
        self._count = 0
        """Of those present, once complete."""
        self._first: Any = _UNKNOWN
        """The least subkey present, None when there is none."""

    def get(self, subkey: bytes) -> Any:
        """The value at a subkey, or ABSENT."""
        found = self._known.get(subkey, _UNKNOWN)
        if found is not _UNKNOWN:
            return found
        return ABSENT if self._is_absent(subkey) else self._read(subkey)

    def put(self, subkey: bytes, value: Any, journal: Journal) -> None:
        """Set the value at a subkey; ValueError when key and subkey are too long to be stored."""
        if len(subkey) + len(self.entry.key_bytes) > KEY_BYTES_MAX:
            raise ValueError(
                f"state {self._column.name!r}: a key of {len(self.entry.key_bytes):,} bytes with {len(subkey):,} bytes "
                f"within it, the limit is {KEY_BYTES_MAX:,} together"
            )
        before = self._known.get(subkey, _UNKNOWN)
        if before is _UNKNOWN:
            self._weigh(CELL_OVERHEAD_BYTES + len(subkey))
            if self._is_absent(subkey):
                before = ABSENT
            elif self._column.expiring:  # the time index must drop the expiry that it replaces
                before = self._read(subkey)
        self._change(subkey, before, value, journal)

    def remove(self, subkey: bytes, journal: Journal) -> None:
        """Take the value at a subkey away, if there is one."""
        before = self.get(subkey)
        if before is not ABSENT:
            self._change(subkey, before, ABSENT, journal)

    def clear(self, journal: Journal) -> None:
        """Take all values away."""
        for subkey, _ in self.items():  # noqa: PERF102 - it is no dictionary
            self.remove(subkey, journal)

    def items(self) -> list[tuple[bytes, Any]]:
        """All values with their subkeys, in the order of these: a copy."""
        self._complete_known()
        return sorted(((key, value) for key, value in self._known.items() if value is not ABSENT), key=itemgetter(0))

    def first(self) -> tuple[bytes, Any] | None:
        """The least subkey with its value, None when there is none; one seek at most."""
        if self._first is _UNKNOWN:
            self._first = self._find_first()
        return None if self._first is None else (self._first, self._known[self._first])

    def __len__(self) -> int:
        self._complete_known()
        return self._count

    def settle(self) -> None:
        """The epoch committed and is in the store."""
        if self._complete:
            for subkey in self.dirty:
                if self._known[subkey] is ABSENT:
                    del self._known[subkey]
        self.dirty.clear()

    def undo(self, change: CellUndo) -> None:
        """Take back the newest change that was not taken back yet."""
        subkey, before = change.subkey, change.before
        if before is _UNKNOWN:
            before = self.dirty[subkey]  # it may have been found out since
        if change.fresh:
            del self.dirty[subkey]
        now = self._known.pop(subkey)
        if before is not _UNKNOWN:
            self._known[subkey] = before
            self._count += (before is not ABSENT) - (now is not ABSENT)
        self._first = change.first
        if not change.changed:
            self._ledger.changed.pop()
        self.entry.changed = change.changed

    def check(self, subkey: bytes) -> None:
        """Raise ValueFault when the value at a subkey cannot be stored."""
        self._column.check(self.get(subkey), self.entry.key, subkey)

    def _change(self, subkey: bytes, before: Any, value: Any, journal: Journal) -> None:
        entry = self.entry
        changed, fresh = entry.changed, subkey not in self.dirty
        journal.append(CellUndo(self, subkey, before, fresh, changed, self._first))
        if fresh:
            self.dirty[subkey] = before
        if not changed:
            self._ledger.changed.append(entry)
        entry.changed = changed | self._bit
        self._known[subkey] = value
        if before is not _UNKNOWN:
            self._count += (value is not ABSENT) - (before is not ABSENT)
        if self._first is _UNKNOWN:
            return
        if value is ABSENT:
            if subkey == self._first:
                self._first = _UNKNOWN
        elif self._first is None or subkey < self._first:
            self._first = subkey

    def _is_absent(self, subkey: bytes) -> bool:
        """Whether a subkey that is not in `_known` is known not to be stored."""
        first = self._first
        return self._complete or (first is not _UNKNOWN and (first is None or subkey < first))

    def _read(self, subkey: bytes) -> Any:
        (data,) = self._store.get_many([self._prefix + subkey])
        value = self._known[subkey] = ABSENT if data is None else self._column.decode([data])[0]
        self._weigh(CELL_OVERHEAD_BYTES + len(subkey) + DECODED_FACTOR * len(data or b""))
        return value

    def _find_first(self) -> bytes | None:
        first = min((subkey for subkey, value in self._known.items() if value is not ABSENT), default=None)
        if self._complete:
            return first
        for subkey, data in self._stored():
            if first is not None and subkey >= first:
                break
            if subkey not in self._known:
                (self._known[subkey],) = self._column.decode([data])
                return subkey
        return first

    def _stored(self) -> Iterator[tuple[bytes, bytes]]:
        """All that is stored, in order of subkeys."""
        start = len(self._prefix)
        for key, data in self._store.scan(self._prefix, prefix_end(self._prefix)):
            yield key[start:], data

    def _complete_known(self) -> None:
        if self._complete:
            return
        known, dirty = self._known, self.dirty
        wanted: list[tuple[bytes, bytes]] = []
        for subkey, data in self._stored():
            if subkey not in known or dirty.get(subkey) is _UNKNOWN:
                wanted.append((subkey, data))
                if len(wanted) == _CHUNK:
                    self._take_in(wanted)
                    wanted = []
        self._take_in(wanted)
        for subkey, original in dirty.items():
            if original is _UNKNOWN:
                dirty[subkey] = ABSENT
        self._complete = True
        self._count = sum(value is not ABSENT for value in known.values())

    def _take_in(self, stored: Sequence[tuple[bytes, bytes]]) -> None:
        values = self._column.decode([data for _, data in stored])
        for (subkey, _), value in zip(stored, values, strict=True):
            (self.dirty if subkey in self._known else self._known)[subkey] = value
        self._weigh(sum(CELL_OVERHEAD_BYTES + len(subkey) + DECODED_FACTOR * len(data) for subkey, data in stored))

    def _weigh(self, size: int) -> None:
        self.size_bytes += size
        self._ledger.size_bytes += size


class CellUndo(CheckedUndo):
    """How to take back one change of cells: what stood there, and how the entry and the cells were marked."""

    __slots__ = ("before", "cells", "changed", "first", "fresh", "subkey")

    def __init__(self, cells: Cells, subkey: bytes, before: Any, fresh: bool, changed: int, first: Any) -> None:
        self.cells = cells
        self.subkey = subkey
        self.before = before
        self.fresh = fresh
        self.changed = changed
        self.first = first

    def __call__(self) -> None:
        self.cells.undo(self)

    def check(self) -> None:
        self.cells.check(self.subkey)


def prefix_end(prefix: bytes) -> bytes:
    """The least key behind all that begin with a prefix; operator ids leave room for it."""
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes((stem[-1] + 1,))

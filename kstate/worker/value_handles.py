"""Bound handles of states with one value: ValueState, with and without ttl, and Table per key, PartialState per piece.

`BoundValue` is on the hottest path of all: it reads and writes the entry itself, without a call in between.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kstate.api.state import PartialState, ValueState
from kstate.api.streams import Table
from kstate.state.cache import ABSENT, Entry
from kstate.state.values import expiring
from kstate.worker.handles import Cursor


class BoundValue(ValueState[Any]):
    """A ValueState of the current key."""

    def __init__(self, cursor: Cursor, index: int, default: Any) -> None:
        self._cursor = cursor
        self._index = index
        self._bit = 1 << index
        self._default = default

    def get(self) -> Any:
        value = self._cursor.entry.values[self._index]
        return self._default if value is ABSENT else value

    def set(self, value: Any, /) -> None:
        cursor, index = self._cursor, self._index
        entry = cursor.entry
        changed = entry.changed
        cursor.journal.append((entry, index, entry.values[index], changed))
        if not changed:
            cursor.changed.append(entry)
        entry.changed = changed | self._bit
        entry.values[index] = ABSENT if value is None else value

    def pop(self) -> Any:
        value = self.get()
        self.clear()
        return value

    def clear(self) -> None:
        self.set(ABSENT)

    def get_many(self, keys: Sequence[Any], /) -> list[Any]:
        index, default = self._index, self._default
        values = [entry.values[index] for entry in _entries(self._cursor, keys)]
        return [default if value is ABSENT else value for value in values]

    def set_many(self, keys: Sequence[Any], values: Sequence[Any], /) -> None:
        cursor = self._cursor
        for entry, value in _paired(cursor, keys, values):
            cursor.cache.put(entry, self._index, ABSENT if value is None else value, cursor.journal)


class BoundExpiringValue(ValueState[Any]):
    """A ValueState with ttl of the current key; it expires so long after the event time of the call that set it.

    In a batch each key goes by its own records, or results would depend on what else is in the batch: its value is read
    as at the first of them, and expires so long after the last.
    """

    def __init__(self, cursor: Cursor, index: int, default: Any, ttl_ms: int) -> None:
        self._cursor = cursor
        self._index = index
        self._default = default
        self._ttl_ms = ttl_ms

    def get(self) -> Any:
        return self._visible(self._cursor.entry, self._cursor.row)

    def set(self, value: Any, /) -> None:
        cursor = self._cursor
        cursor.cache.put(cursor.entry, self._index, self._expiring(value, cursor.row), cursor.journal)

    def pop(self) -> Any:
        value = self.get()
        self.clear()
        return value

    def clear(self) -> None:
        self.set(None)

    def get_many(self, keys: Sequence[Any], /) -> list[Any]:
        entries, rows = _entries(self._cursor, keys), self._cursor.batch_rows(last=False)
        return [self._visible(entry, rows[key]) for key, entry in zip(keys, entries, strict=True)]

    def set_many(self, keys: Sequence[Any], values: Sequence[Any], /) -> None:
        cursor = self._cursor
        pairs, rows = _paired(cursor, keys, values), cursor.batch_rows(last=True)
        for key, (entry, value) in zip(keys, pairs, strict=True):
            cursor.cache.put(entry, self._index, self._expiring(value, rows[key]), cursor.journal)

    def _visible(self, entry: Entry, row: int) -> Any:
        found = entry.values[self._index]
        return found.value if found is not ABSENT and self._cursor.visible(found.at, row) else self._default

    def _expiring(self, value: Any, row: int) -> Any:
        return ABSENT if value is None else expiring(value, self._cursor.event_times[row], self._ttl_ms)


class BoundTable(Table[Any]):
    """The record that a Table has for the current key; the engine sets it, handlers read it."""

    def __init__(self, cursor: Cursor, index: int) -> None:
        self._cursor = cursor
        self._index = index

    def get(self) -> Any:
        value = self._cursor.entry.values[self._index]
        return None if value is ABSENT else value

    def get_many(self, keys: Sequence[Any], /) -> list[Any]:
        values = [entry.values[self._index] for entry in _entries(self._cursor, keys)]
        return [None if value is ABSENT else value for value in values]

    def take_in(self, record: Any) -> None:
        """Set the record of the current key, None after a tombstone; for the engine."""
        cursor = self._cursor
        cursor.cache.put(cursor.entry, self._index, ABSENT if record is None else record, cursor.journal)


class BoundPartial(PartialState[Any]):
    """A PartialState of the piece that the current record belongs to."""

    def __init__(self, cursor: Cursor, index: int) -> None:
        self._cursor = cursor
        self._index = index

    def get(self) -> Any:
        return self._cursor.piece.partials.get(self._index)

    def set(self, value: Any, /) -> None:
        cursor = self._cursor
        cursor.piece.partials.set(self._index, value, cursor.journal)


def _entries(cursor: Cursor, keys: Sequence[Any]) -> list[Entry]:
    """The entries of keys of the current batch."""
    known: Mapping[Any, Entry] = cursor.batch_entries
    try:
        return [known[key] for key in keys]
    except KeyError as error:
        raise ValueError(
            f"key {error.args[0]!r} is not in the current batch (ctx.keys): its state may be with another worker"
        ) from None


def _paired(cursor: Cursor, keys: Sequence[Any], values: Sequence[Any]) -> list[tuple[Entry, Any]]:
    """Entry and new value of each key of the current batch."""
    if len(keys) != len(values):
        raise ValueError(f"set_many: {len(keys)} keys, but {len(values)} values")
    return list(zip(_entries(cursor, keys), values, strict=True))

"""Bound timers: deadlines of the current key, kept as the expiry of an empty value (kstate.state.values).

Setting one changes the state, which the journal can undo, and tells the agenda, which need not be undone: an item
whose value has another deadline is stale (kstate.state.agenda).
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from kstate.api.specs import TimerSpec
from kstate.api.timers import Timer, TimerMap
from kstate.interfaces import KeyCodec
from kstate.state.cells import Cells
from kstate.state.columns import ABSENT
from kstate.state.layout import Item
from kstate.state.values import NEVER, Expiring
from kstate.times import MILLISECOND, since_epoch_ms
from kstate.worker.handles import Cursor


class BoundTimer(Timer):
    """The deadline of the current key."""

    def __init__(self, cursor: Cursor, index: int, spec: TimerSpec) -> None:
        self._cursor = cursor
        self._index = index
        self._spec = spec

    def set(self, *, at: int | datetime | None = None, after: timedelta | None = None) -> None:
        cursor, spec = self._cursor, self._spec
        deadline = _deadline(cursor, spec, at, after)
        entry = cursor.entry
        found = entry.values[self._index]
        if found is not ABSENT and found.at == deadline:
            return
        cursor.cache.put(entry, self._index, Expiring(None, deadline), cursor.journal)
        cursor.piece.agendas[spec.clock].add(Item(deadline, spec.name, entry.key_bytes, b""))

    def get(self) -> int | None:
        found = self._cursor.entry.values[self._index]
        return None if found is ABSENT else int(found.at)

    def cancel(self) -> None:
        cursor, index = self._cursor, self._index
        if cursor.entry.values[index] is not ABSENT:
            cursor.cache.put(cursor.entry, index, ABSENT, cursor.journal)


class BoundTimerMap(TimerMap[Any]):
    """The deadlines of the current key, by tag."""

    def __init__(self, cursor: Cursor, index: int, spec: TimerSpec, tags: KeyCodec[Any]) -> None:
        """`tags` makes the canonical bytes of tags."""
        self._cursor = cursor
        self._index = index
        self._spec = spec
        self._tags = tags

    def set(self, tag: Any, /, *, at: int | datetime | None = None, after: timedelta | None = None) -> None:
        cursor, spec = self._cursor, self._spec
        deadline = _deadline(cursor, spec, at, after)
        cells, subkey = self._cells(), self._tags.encode(tag)
        found = cells.get(subkey)
        if found is not ABSENT and found.at == deadline:
            return
        cells.put(subkey, Expiring(None, deadline), cursor.journal)
        cursor.piece.agendas[spec.clock].add(Item(deadline, spec.name, cursor.entry.key_bytes, subkey))

    def get(self, tag: Any, /) -> int | None:
        found = self._cells().get(self._tags.encode(tag))
        return None if found is ABSENT else int(found.at)

    def cancel(self, tag: Any, /) -> None:
        self._cells().remove(self._tags.encode(tag), self._cursor.journal)

    def items(self) -> Iterator[tuple[Any, int]]:
        return iter([(self._tags.decode(subkey), found.at) for subkey, found in self._cells().items()])

    def clear(self) -> None:
        self._cells().clear(self._cursor.journal)

    def _cells(self) -> Cells:
        cursor = self._cursor
        return cursor.cache.cells(cursor.entry, self._index, cursor.store)


def _deadline(cursor: Cursor, spec: TimerSpec, at: int | datetime | None, after: timedelta | None) -> int:
    """Ms since the epoch; TypeError or ValueError for what is no deadline: the record is then rejected."""
    if (at is None) == (after is None):
        raise TypeError(f"timer {spec.name!r}: give set() either at= or after=")
    if after is not None:
        if not isinstance(after, timedelta):
            raise TypeError(f"timer {spec.name!r}: after= is a timedelta, not {after!r}")
        start = cursor.clock_ms if spec.clock == "processing" else cursor.event_time
        deadline = start + after // MILLISECOND
    elif isinstance(at, datetime):
        if at.tzinfo is None:
            raise ValueError(
                f"timer {spec.name!r}: at={at!r} has no time zone; give it one, as in datetime(..., tzinfo=UTC)"
            )
        deadline = since_epoch_ms(at)
    elif isinstance(at, int) and not isinstance(at, bool):
        deadline = at
    else:
        raise TypeError(f"timer {spec.name!r}: at= is ms since the epoch as an int or a datetime, not {at!r}")
    if not 0 < deadline < NEVER:
        raise ValueError(
            f"timer {spec.name!r}: deadline {deadline} is not a time after 1970-01-01T00:00Z in ms that fits 64 bits"
        )
    return deadline

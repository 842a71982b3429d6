"""Bound windows: values of the current key and spans of event time, which expire at the span's end.

A window is open while its end lies behind the watermark, whether or not it was closed already: so `update` decides the
same wherever batches and epochs are cut. A window that gets its first value goes on the agenda (kstate.state.agenda).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import reduce
from typing import Any, Final

from kstate.api.specs import WindowSpec
from kstate.api.windows import Hopping, Session, Tumbling, Window, WindowState
from kstate.state.cells import Cells
from kstate.state.columns import ABSENT
from kstate.state.layout import Item
from kstate.state.values import Expiring
from kstate.times import MILLISECOND
from kstate.worker.handles import Cursor

_SUBKEY: Final = struct.Struct(">QQ")
_BIAS: Final = 1 << 63


def window_subkey(window: Window) -> bytes:
    """End, then start, as i64 with the sign bit flipped: windows of a key are stored in order of their ends."""
    return _SUBKEY.pack(window.end + _BIAS, window.start + _BIAS)


def window_of(subkey: bytes) -> Window:
    """The inverse of `window_subkey`."""
    end, start = _SUBKEY.unpack(subkey)
    return Window(start - _BIAS, end - _BIAS)


def bound_window(cursor: Cursor, index: int, spec: WindowSpec) -> BoundWindow:
    """The handle of a window state; `index` is that of its column."""
    match spec.window:
        case Tumbling(size):
            return _AlignedWindow(cursor, index, spec, size, size)
        case Hopping(size, step):
            return _AlignedWindow(cursor, index, spec, size, step)
        case Session(gap):
            return _SessionWindow(cursor, index, spec, gap)


class BoundWindow(WindowState[Any]):
    """The windows of the current key; `late` counts the calls of `update` that found none open."""

    def __init__(self, cursor: Cursor, index: int, spec: WindowSpec) -> None:
        self.late = 0
        self._cursor = cursor
        self._index = index
        self._spec = spec

    def update(self, change: Callable[[Any], Any], /) -> bool:
        cursor = self._cursor
        if self._update(cursor.event_time, cursor.watermark, change):
            return True
        self.late += 1
        return False

    def items(self) -> Iterator[tuple[Window, Any]]:
        watermark = self._cursor.watermark
        found = [(window_of(subkey), value.value) for subkey, value in self._cells().items()]
        return iter([(window, value) for window, value in found if window.end > watermark])

    def _update(self, event_time: int, watermark: int, change: Callable[[Any], Any]) -> bool:
        """Change the open windows that this time is in; False when there is none."""
        raise NotImplementedError

    def _cells(self) -> Cells:
        cursor = self._cursor
        return cursor.cache.cells(cursor.entry, self._index, cursor.store)

    def _put_new(self, cells: Cells, window: Window, value: Any) -> None:
        """Store a window that was not there, and see to it that it closes."""
        cursor, subkey = self._cursor, window_subkey(window)
        cells.put(subkey, Expiring(value, window.end), cursor.journal)
        cursor.piece.agendas.event.add(Item(window.end, self._spec.name, cursor.entry.key_bytes, subkey))


class _AlignedWindow(BoundWindow):
    """Windows of one size that begin at the multiples of `step`."""

    def __init__(self, cursor: Cursor, index: int, spec: WindowSpec, size: timedelta, step: timedelta) -> None:
        super().__init__(cursor, index, spec)
        self._size = size // MILLISECOND
        self._step = step // MILLISECOND

    def _update(self, event_time: int, watermark: int, change: Callable[[Any], Any]) -> bool:
        size, step = self._size, self._step
        open_since = max(event_time, watermark) - size  # what begins later ends behind both
        starts = range((open_since // step + 1) * step, event_time + 1, step)
        if not starts:
            return False
        cells, journal = self._cells(), self._cursor.journal
        for start in starts:
            window = Window(start, start + size)
            subkey = window_subkey(window)
            found = cells.get(subkey)
            if found is ABSENT:
                self._put_new(cells, window, change(self._spec.default))
            else:
                cells.put(subkey, Expiring(change(found.value), window.end), journal)
        return True


class _SessionWindow(BoundWindow):
    """Windows that a record prolongs to its own time + gap, and joins when it overlaps several."""

    def __init__(self, cursor: Cursor, index: int, spec: WindowSpec, gap: timedelta) -> None:
        super().__init__(cursor, index, spec)
        self._gap = gap // MILLISECOND

    def _update(self, event_time: int, watermark: int, change: Callable[[Any], Any]) -> bool:
        own = Window(event_time, event_time + self._gap)
        cells, journal = self._cells(), self._cursor.journal
        joined = self._overlapping(cells, own, watermark)
        if not joined:
            if own.end <= watermark:
                return False
            self._put_new(cells, own, change(self._spec.default))
            return True
        value = change(self._merged([found for _, found in joined]))
        windows = [window for window, _ in joined]
        session = Window(min(own.start, windows[0].start), max(own.end, windows[-1].end))
        if windows == [session]:
            cells.put(window_subkey(session), Expiring(value, session.end), journal)
            return True
        for window in windows:
            cells.remove(window_subkey(window), journal)
        self._put_new(cells, session, value)
        return True

    def _overlapping(self, cells: Cells, own: Window, watermark: int) -> list[tuple[Window, Any]]:
        """The open sessions that share an instant with a record's own, the earlier first; they never share any."""
        found = [(window_of(subkey), value.value) for subkey, value in cells.items()]
        return [
            (window, value)
            for window, value in found
            if window.start < own.end and window.end > own.start and window.end > watermark
        ]

    def _merged(self, values: list[Any]) -> Any:
        if len(values) == 1:
            return values[0]
        merge = self._spec.merge
        assert merge is not None, "session windows are declared with merge="
        return reduce(merge, values)

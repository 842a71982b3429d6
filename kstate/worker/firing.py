"""Firing: the calls that are due, in order, before the record that made them due is handled.

What is fired is gone, whatever its handler does: timer, window or value is removed first, and then the handler is
called like one of a record, atomically. If it raises, its own changes are undone and a dead letter tells of it.
Handlers may set what is due at once; that fires in its turn, in the same run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from kstate.api.operator import Operator
from kstate.api.specs import TimerSpec, WindowSpec
from kstate.interfaces import KeyCodec
from kstate.state.agenda import Agenda
from kstate.state.cache import Entry, check_changes
from kstate.state.columns import StateColumn
from kstate.state.layout import Item, Timeline
from kstate.worker.handles import BoundContext, Cursor
from kstate.worker.ownership import OwnedShard, Piece
from kstate.worker.rejects import Rejects, fails_its_record
from kstate.worker.window_handles import window_of

CHUNK = 1_000
"""So many due items have their keys read at once, and are fired before anybody asks whether the epoch is full."""

Told = Callable[[Item, Any], None]
"""Calls the handler of a state for an item, with the value that was stored under it."""

Callee: TypeAlias = tuple[Operator[Any], BoundContext]
"""The instance whose handler is called, and the context that it is given."""


@dataclass(frozen=True, slots=True)
class Due:
    """What happens when something of one state falls due.

    `lead_ms`: the call's event time lies so long before the item's. `told` None: nobody is.
    """

    lead_ms: int
    told: Told | None


def timer_due(spec: TimerSpec, callee: Callee, tags: KeyCodec[Any] | None) -> Due:
    """Of a timer, or with `tags` of a map of timers."""
    handler = spec.handler
    instance, context = callee
    if tags is None:
        return Due(0, lambda _item, _value: handler(instance, context))
    return Due(0, lambda item, _value: handler(instance, tags.decode(item.subkey), context))


def window_due(spec: WindowSpec, callee: Callee) -> Due:
    """Of a window: its last instant is the one before its end."""
    handler = spec.handler
    if handler is None:
        return Due(1, None)
    instance, context = callee
    return Due(1, lambda item, value: handler(instance, value, window_of(item.subkey), context))


class Firing:
    """Fires what is due of one operator's pieces.

    `careful` is set while an epoch is redone because a state value did not encode (kstate.worker.running_epoch).
    """

    def __init__(
        self,
        due: Mapping[str, Due],
        instance: Operator[Any],
        cursor: Cursor,
        columns: Sequence[StateColumn],
        rejects: Rejects,
        enough: Callable[[], bool],
    ) -> None:
        """`due` by name of the state; `enough` says that the epoch is full. The cursor has its store already."""
        self.careful = False
        self._due = due
        self._instance = instance
        self._cursor = cursor
        self._columns = columns
        self._index = {column.name: index for index, column in enumerate(columns)}
        self._rejects = rejects
        self._enough = enough

    def fire_due(self, shard: OwnedShard, piece: Piece, timeline: Timeline, upto: int, watermark: int) -> bool:
        """Fire all of a piece with a deadline <= `upto`, seeing this watermark; False when the epoch is full first.

        The cursor stands at the same row of the same batch afterwards, but not at its key.
        """
        agenda = piece.agendas[timeline]
        if agenda.next_at > upto:
            return True
        cursor = self._cursor
        batch, row, event_times, watermarks = cursor.batch, cursor.row, cursor.event_times, cursor.watermarks
        cursor.batch, cursor.row, cursor.watermarks = None, 0, (watermark,)
        cursor.leave_batch()
        cursor.enter(shard, piece)
        try:
            while agenda.next_at <= upto:
                for item, entry in self._next(agenda, upto, CHUNK):
                    self._fire(item, entry)
                if agenda.next_at <= upto and self._enough():
                    return False
            return True
        finally:
            cursor.batch, cursor.row, cursor.event_times, cursor.watermarks = batch, row, event_times, watermarks

    def sweep(self, shard: OwnedShard, piece: Piece, watermark: int, limit: int) -> int:
        """Remove values whose ttl is over, looking at most at so many; nobody is told. How many were removed."""
        agenda = piece.agendas.ttl
        if agenda.next_at > watermark:
            return 0
        self._cursor.enter(shard, piece)
        removed = 0
        for item, entry in self._next(agenda, watermark, limit):
            self._remove(item, entry)
            removed += 1
        return removed

    def _next(self, agenda: Agenda, upto: int, count: int) -> Iterator[tuple[Item, Entry]]:
        """The next due items that still count; of `count` that are looked at, as items are added on the way."""
        cursor = self._cursor
        cache, store = cursor.cache, cursor.store
        cache.entries(list({item.key for item in agenda.peek(count, upto)}), store, _admit)
        for _ in range(count):
            item = agenda.pop(upto)
            if item is None:
                return
            (entry,) = cache.entries([item.key], store, _admit)
            index = self._index.get(item.name)
            if index is not None and agenda is not cursor.piece.agendas[self._columns[index].timeline or "ttl"]:
                continue  # of a state of the same name in another version of the job
            if index is not None and not self._columns[index].expiring:
                continue  # it had a ttl in another version of the job, and may have one again
            if index is None or cache.expiry(entry, index, item.subkey, store) != item.at:
                # An expiry may come back within the epoch without the agenda being told, unlike a deadline.
                if agenda is not cursor.piece.agendas.ttl or not entry.changed:
                    agenda.drop(item)
            else:
                yield item, entry

    def _fire(self, item: Item, entry: Entry) -> None:
        due, cursor = self._due[item.name], self._cursor
        value = self._remove(item, entry)
        if due.told is None:
            return
        cursor.entry, cursor.key_bytes, cursor.event_times = entry, entry.key_bytes, (item.at - due.lead_ms,)
        self._instance.key = entry.key
        self._rejects.handled += 1
        try:
            due.told(item, value)
            if self.careful:
                check_changes(self._columns, cursor.journal)
        except Exception as error:  # noqa: BLE001 - whatever user code raises
            self._reject(item, error)
        else:
            cursor.journal.clear()

    def _remove(self, item: Item, entry: Entry) -> Any:
        """Take away what is due, for good; the value that it had."""
        cursor, index = self._cursor, self._index[item.name]
        cache, store = cursor.cache, cursor.store
        found = cache.cells(entry, index, store).get(item.subkey) if self._columns[index].cells else entry.values[index]
        cache.expire(entry, index, item.subkey, store, cursor.journal)
        cursor.journal.clear()
        cursor.piece.touched = True
        return found.value

    def _reject(self, item: Item, error: Exception) -> None:
        """Undo the call; a dead letter tells of it, unless the failure is the engine's or the machine's."""
        self._cursor.undo()
        if not fails_its_record(error):
            raise error
        self._rejects.add_timer(self._cursor.partition, item, str(error) or type(error).__name__, error)


def _admit(key: bytes) -> None:
    """Keys on the agenda were admitted when they got their state."""

"""Calls users' handlers, record by record or batch by batch, each call atomically.

If a call raises, its state changes, timers and outputs are undone and its record becomes a dead letter; a batch that
raises is done again in halves until the culprits are found.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from kstate.api.operator import Operator
from kstate.errors import ConfigError
from kstate.state.agenda import Agenda
from kstate.state.cache import Entry, StateColumn, check_changes
from kstate.worker.decode import Decoded
from kstate.worker.handles import Handles
from kstate.worker.rejects import Rejects, fails_its_record


@dataclass(frozen=True, slots=True)
class Call:
    """A handler as a plain function of (record or records, context)."""

    function: Callable[[Any, Any], None]
    batch: bool


class Handling:
    """The loops over the records of one operator.

    `careful` is set while an epoch is redone because a state value did not encode: values are then checked after every
    call, so that the culprit is found and becomes a dead letter.
    """

    def __init__(
        self, instance: Operator[Any], handles: Handles, columns: Sequence[StateColumn], rejects: Rejects
    ) -> None:
        self.careful = False
        self._instance = instance
        self._cursor = handles.cursor
        self._context = handles.context
        self._columns = columns
        self._rejects = rejects
        self._decoded: Decoded
        self._entries: Sequence[Entry] = ()
        self._watermarks: Sequence[int] | None = None

    def start(self, decoded: Decoded, entries: Sequence[Entry], watermarks: Sequence[int] | None) -> None:
        """The records to handle next, one entry for each unless the operator has no key."""
        self._decoded, self._entries, self._watermarks = decoded, entries, watermarks
        self.resume()

    def resume(self) -> None:
        """Put the cursor back to these records: timers that fired in between moved it."""
        cursor = self._cursor
        cursor.batch, cursor.event_times = self._decoded.batch, self._decoded.event_times
        cursor.watermarks = self._watermarks
        cursor.leave_batch()

    def watermark_from(self, row: int, watermark: int) -> None:
        """From this row on the watermark is another."""
        assert isinstance(self._watermarks, list)
        self._watermarks[row:] = [watermark] * (len(self._watermarks) - row)

    def all(self, call: Call) -> None:
        """Handle all records, nothing falls due between them."""
        if call.batch:
            if len(self._decoded.records):
                self._some(call, 0, len(self._decoded.records))
        elif self._entries:
            self._keyed(call)
        else:
            self._unkeyed(call, 0, len(self._decoded.records))

    def until_due(self, call: Call, start: int, stop: int, agenda: Agenda) -> int:
        """Handle the records from `start` on, until one of them makes something due; its row, else `stop`."""
        watermarks = self._watermarks
        assert watermarks is not None
        if call.batch:
            row = bisect_left(watermarks, agenda.next_at, start, stop)
            if row > start:
                self._some(call, start, row)
            return row
        if not self._entries:
            self._unkeyed(call, start, stop)  # an operator without key has no timers
            return stop
        return self._keyed_until_due(call, start, stop, agenda)

    def _keyed(self, call: Call) -> None:
        cursor, context, instance, journal = self._cursor, self._context, self._instance, self._cursor.journal
        function, careful = call.function, self.careful
        for row, (entry, record) in enumerate(zip(self._entries, self._decoded.records, strict=True)):
            cursor.row = row
            cursor.entry = entry
            cursor.key_bytes = entry.key_bytes
            instance.key = entry.key
            try:
                function(record, context)
                if careful:
                    check_changes(self._columns, journal)
            except Exception as error:  # noqa: BLE001 - whatever user code raises
                self._reject(row, error)
            else:
                journal.clear()

    def _keyed_until_due(self, call: Call, start: int, stop: int, agenda: Agenda) -> int:
        cursor, context, instance, journal = self._cursor, self._context, self._instance, self._cursor.journal
        function, careful, watermarks = call.function, self.careful, self._watermarks
        entries, records = self._entries, self._decoded.records
        assert watermarks is not None
        for row in range(start, stop):
            if agenda.next_at <= watermarks[row]:
                return row
            entry = entries[row]
            cursor.row = row
            cursor.entry = entry
            cursor.key_bytes = entry.key_bytes
            instance.key = entry.key
            try:
                function(records[row], context)
                if careful:
                    check_changes(self._columns, journal)
            except Exception as error:  # noqa: BLE001 - whatever user code raises
                self._reject(row, error)
            else:
                journal.clear()
        return stop

    def _unkeyed(self, call: Call, start: int, stop: int) -> None:
        cursor, context, journal, function = self._cursor, self._context, self._cursor.journal, call.function
        keys, records = self._decoded.batch.keys, self._decoded.records
        for row in range(start, stop):
            cursor.row = row
            cursor.key_bytes = keys[row]
            try:
                function(records[row], context)
                if self.careful:
                    check_changes(self._columns, journal)
            except Exception as error:  # noqa: BLE001 - whatever user code raises
                self._reject(row, error)
            else:
                journal.clear()

    def _some(self, call: Call, start: int, stop: int) -> None:
        """One call for the rows start <= row < stop; when it raises, two calls for half of them each."""
        cursor = self._cursor
        entries = self._entries[start:stop]
        cursor.row, cursor.key_bytes, cursor.entry = stop - 1, None, _NO_KEY
        cursor.batch_keys = [entry.key for entry in entries]
        cursor.batch_entries = {entry.key: entry for entry in entries}
        cursor.batch_times = self._decoded.event_times[start:stop]
        self._instance.key = None
        try:
            call.function(self._decoded.records[start:stop], self._context)
            if self.careful:
                check_changes(self._columns, cursor.journal)
        except Exception as error:  # noqa: BLE001 - whatever user code raises
            if stop - start == 1:
                self._reject(start, error)
                return
            self._undo(error)
            middle = (start + stop) // 2
            self._some(call, start, middle)
            self._some(call, middle, stop)
        else:
            cursor.journal.clear()

    def _reject(self, row: int, error: Exception) -> None:
        """Undo the call; its record becomes a dead letter, unless the failure is the engine's or the machine's."""
        self._undo(error)
        self._rejects.add(self._decoded.batch, row, str(error) or type(error).__name__, error)

    def _undo(self, error: Exception) -> None:
        self._cursor.undo()
        if not fails_its_record(error):
            raise error


class _NoKey:
    """Stands where the current key's entry would be while a handler has many records."""

    def __getattr__(self, name: str) -> Any:
        raise ConfigError(
            "A .batch handler has records of many keys, and used a state of one.",
            hint="use get_many(ctx.keys) and set_many(ctx.keys, …), or a handler for @input.each.",
        )


_NO_KEY = cast(Entry, _NoKey())

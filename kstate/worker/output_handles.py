"""Bound outputs: they collect encoded records for the end of the epoch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from kstate.api.streams import Output
from kstate.interfaces import OutMessage
from kstate.keyspace import partition_of, slot_of_offset
from kstate.worker.handles import Cursor
from kstate.worker.stream_frames import record_frame

TIMESTAMP_AHEAD_MS = 3_600_000
"""Kafka's default `message.timestamp.after.max.ms`."""

PARTITION_MEMO_MAX = 100_000
"""Remembered key → partition pairs per output; murmur2 in Python costs more than a dictionary hit."""


@dataclass(frozen=True, slots=True)
class OutputRoute:
    """Where an output goes, and how its key and time are made; `key_of` None: the key of the current record."""

    name: str
    topic: str
    partitions: int
    key_of: Callable[[Any], bytes] | None
    encode_key: Callable[[Any], bytes]
    bytes_max: int
    kind: Literal["internal", "event", "now"]
    """Framed with the event time, stamped with it, or left to the clock of the broker."""


class BoundOutput(Output[Any]):
    """An Output that collects encoded records for the end of the epoch.

    They carry the event time: in a frame on internal streams, as Kafka's timestamp on users' topics (OutputRoute).
    """

    def __init__(self, cursor: Cursor, encode: Callable[[Any], bytes], route: OutputRoute) -> None:
        self._cursor = cursor
        self._encode = encode
        self._route = route
        self._partitions: dict[bytes, int] = {}
        self.messages: list[OutMessage] = []
        self.size_bytes = 0
        self.topic = route.topic

    def emit(self, record: Any, /, *, event_time: int | None = None) -> None:
        cursor, route = self._cursor, self._route
        key = cursor.key_bytes if route.key_of is None else route.key_of(record)
        if event_time is None:
            event_time = cursor.event_times[cursor.row]
        else:
            self._check_event_time(event_time)
        self._collect(record, key, event_time)

    def emit_many(
        self, records: Sequence[Any], /, *, keys: Sequence[Any] | None = None, event_times: Sequence[int] | None = None
    ) -> None:
        route, count = self._route, len(records)
        if keys is not None:
            key_bytes: Sequence[bytes | None] = [route.encode_key(key) for key in keys]
        elif route.key_of is not None:
            key_bytes = [route.key_of(record) for record in records]
        else:
            key_bytes = self._keys_of_call(count)
        if event_times is None:
            event_times = self._times_of_call(count)
        else:
            for event_time in event_times:
                self._check_event_time(event_time)
        if not count == len(key_bytes) == len(event_times):
            raise ValueError(
                f"output {route.name!r}: {count} records with {len(key_bytes)} keys and {len(event_times)} event times"
            )
        for record, key, event_time in zip(records, key_bytes, event_times, strict=True):
            self._collect(record, key, event_time)

    def _keys_of_call(self, count: int) -> Sequence[bytes | None]:
        """The current key for each record; in a `.batch` handler there is none."""
        if self._cursor.batch_times:
            raise ValueError(
                f"output {self._route.name!r} has no key=, and a .batch handler no current key: give keys="
            )
        return [self._cursor.key_bytes] * count

    def _times_of_call(self, count: int) -> Sequence[int]:
        """The event time of the call, of a batch those of its rows."""
        times = self._cursor.batch_times
        if times and len(times) != count:
            raise ValueError(
                f"output {self._route.name!r}: {count} records from a batch of {len(times)}: give event_times="
            )
        return times or [self._cursor.event_time] * count

    def _collect(self, record: Any, key: bytes | None, event_time: int) -> None:
        cursor, route = self._cursor, self._route
        value = self._encode(record)
        if route.kind == "internal":
            value = record_frame(event_time, value)
        size = len(value) if key is None else len(value) + len(key)
        if size > route.bytes_max:
            raise ValueError(f"output {route.name!r}: a record of {size:,} bytes, the limit is {route.bytes_max:,}")
        partition = self._partitions.get(key) if key is not None else None
        if partition is None:
            partition = self._partition(key)
        message: OutMessage = {"key": key, "value": value, "partition": partition}
        if route.kind == "event" and event_time > 0:  # Kafka itself gives 0 or less where a record has no time
            message["timestamp"] = event_time
        self.messages.append(message)
        self.size_bytes += size
        cursor.journal.append(self.messages)

    def _check_event_time(self, event_time: int) -> None:
        """What cannot be sent is an error of this record, not of its epoch: TypeError, OverflowError, ValueError."""
        if not isinstance(event_time, int):
            raise TypeError(f"event_time: expected milliseconds since the epoch as an int, got {event_time!r}")
        event_time.to_bytes(8, "big", signed=True)
        if self._route.kind == "event" and event_time > self._cursor.clock_ms + TIMESTAMP_AHEAD_MS:
            raise ValueError(
                f"output {self._route.name!r}: event time {event_time} is more than an hour ahead of the clock, and "
                'Kafka refuses such timestamps; emit an earlier one, or declare the output with timestamp="now"'
            )

    def _partition(self, key: bytes | None) -> int:
        if key is None:
            batch = self._cursor.batch
            assert batch is not None, "only an operator without key has a null key, and it has no timers"
            return slot_of_offset(batch.offsets[self._cursor.row]) % self._route.partitions
        if len(self._partitions) >= PARTITION_MEMO_MAX:
            self._partitions.clear()
        partition = self._partitions[key] = partition_of(key, self._route.partitions)
        return partition

    def start_epoch(self) -> None:
        """Nothing is collected any more."""
        self.messages = []
        self.size_bytes = 0

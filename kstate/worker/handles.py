"""Bound handles: what a handler sees as `self.state`, `self.output` and `ctx` while it runs.

The engine puts them into the operator's instance under the names of the class's declarations, with the same static
types. They share one `Cursor`, which the process loop moves from record to record, and one journal, which makes a
handler call atomic: every change appends how to undo it, and a call that raises is rolled back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from kstate.api.context import Context, Source
from kstate.api.streams import Output
from kstate.interfaces import Batch, OutMessage, Store
from kstate.keyspace import partition_of, slot_of_offset
from kstate.state.cache import Entry, StateCache
from kstate.worker.stream_frames import record_frame

if TYPE_CHECKING:
    from kstate.worker.ownership import Piece

PARTITION_MEMO_MAX = 100_000
"""Remembered key → partition pairs per output; murmur2 in Python costs more than a dictionary hit."""


@dataclass(frozen=True, slots=True)
class OutputRoute:
    """Where an output goes, and how its key and time are made; `key_of` None: the key of the current record."""

    name: str
    topic: str
    partitions: int
    key_of: Callable[[Any], bytes] | None
    bytes_max: int
    kind: Literal["internal", "event", "now"]
    """Framed with the event time, stamped with it, or left to the clock of the broker."""


Undo: TypeAlias = Callable[[], object] | tuple[Entry, int, Any, int] | list[OutMessage]
"""How to take back a change: a call, the value and the change bits that an entry had, or a message to pop."""


class Cursor:
    """Where the process loop stands: the entry of the current key and the row of the current batch.

    While a timer fires or a window closes, `event_times` and `watermarks` have one item, and there is no batch.
    """

    __slots__ = (
        *("batch", "batch_entries", "cache", "changed", "clock_ms", "entry", "event_times", "journal", "key_bytes"),
        *("partition", "piece", "row", "store", "watermarks"),
    )

    def __init__(self) -> None:
        self.entry: Entry
        self.piece: Piece
        """The key range that the current key belongs to."""
        self.cache: StateCache
        self.store: Store
        self.batch: Batch | None = None
        self.batch_entries: Mapping[Any, Entry] = {}
        """By key, during a call of a `.batch` handler: what `get_many` may ask for."""
        self.partition = 0
        """Of the shard."""
        self.row = 0
        self.key_bytes: bytes | None = None
        self.event_times: Sequence[int] = ()
        self.watermarks: Sequence[int] | None = None
        """Of the piece, at each row; None where nothing goes by event time."""
        self.clock_ms = 0
        """Processing time: one reading per epoch."""
        self.changed: list[Entry] = []
        self.journal: list[Undo] = []

    @property
    def event_time(self) -> int:
        """Of the current call, ms since the epoch."""
        return self.event_times[self.row]

    @property
    def watermark(self) -> int:
        """Of the piece at the current call; only where something goes by event time."""
        assert self.watermarks is not None
        return self.watermarks[self.row]

    def visible(self, at: int) -> bool:
        """Whether a value that expires then is still to be seen: neither event time nor watermark has reached it."""
        row = self.row
        return self.event_times[row] < at and (self.watermarks is None or self.watermarks[row] < at)

    def undo(self) -> None:
        """Take back, in reverse, what the current handler call did."""
        for change in reversed(self.journal):
            if isinstance(change, list):
                change.pop()
            elif isinstance(change, tuple):
                entry, index, value, changed = change
                entry.values[index] = value
                if not changed:
                    self.changed.pop()
                entry.changed = changed
            else:
                change()
        self.journal.clear()


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
        value = self._encode(record)
        if event_time is None:
            event_time = cursor.event_times[cursor.row]
        else:
            _check_event_time(event_time)  # what cannot be sent is an error of this record, not of its epoch
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


def _check_event_time(event_time: int) -> None:
    """TypeError or OverflowError for what is no int64."""
    if not isinstance(event_time, int):
        raise TypeError(f"event_time: expected milliseconds since the epoch as an int, got {event_time!r}")
    event_time.to_bytes(8, "big", signed=True)


class BoundContext(Context):
    """The context of the current record; everything is computed only when asked for."""

    def __init__(self, cursor: Cursor, log: Any) -> None:
        self._cursor = cursor
        self._log = log
        self._floor = 0
        self._lateness_ms = 0
        self._watermarks: list[int] | None = None

    def start_batch(self, floor: int, lateness_ms: int) -> None:
        """A new batch begins: `floor` is the watermark so far, ms since the epoch."""
        self._floor, self._lateness_ms, self._watermarks = floor, lateness_ms, None

    @property
    def event_time(self) -> int:
        return self._cursor.event_times[self._cursor.row]

    @property
    def watermark(self) -> int:
        if self._watermarks is None:
            late = self._lateness_ms
            self._watermarks = list(accumulate((t - late for t in self._cursor.event_times), max, initial=self._floor))[
                1:
            ]
        return self._watermarks[self._cursor.row]

    @property
    def source(self) -> Source:
        cursor = self._cursor
        if cursor.batch is None:
            return Source("", cursor.partition, -1)
        return Source(cursor.batch.source.topic, cursor.batch.source.partition, cursor.batch.offsets[cursor.row])

    @property
    def log(self) -> Any:
        return self._log


@dataclass(frozen=True, slots=True)
class Handles:
    """What the process loop moves and collects from: all bound handles of an operator share the cursor."""

    cursor: Cursor
    context: BoundContext
    outputs: Mapping[str, BoundOutput]
    """By attribute."""

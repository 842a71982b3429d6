"""Bound handles: what a handler sees as `self.state`, `self.output` and `ctx` while it runs.

The engine puts them into the operator's instance under the names of the class's declarations, with the same static
types. They share one `Cursor`, which the process loop moves from record to record, and one journal, which makes a
handler call atomic: every change appends how to undo it, and a call that raises is rolled back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from kstate.api.context import BatchContext, Source
from kstate.interfaces import Batch, OutMessage, Store
from kstate.state.cache import Entry, StateCache
from kstate.worker.ownership import OwnedShard, Piece

Undo: TypeAlias = Callable[[], object] | tuple[Entry, int, Any, int] | list[OutMessage]
"""How to take back a change: a call, the value and the change bits that an entry had, or a message to pop."""


class Cursor:
    """Where the process loop stands: the entry of the current key and the row of the current batch.

    While a timer fires or a window closes, `event_times` and `watermarks` have one item, and there is no batch.
    """

    __slots__ = (
        *("batch", "batch_entries", "batch_keys", "batch_times", "cache", "changed", "clock_ms", "entry"),
        *("event_times", "journal", "key_bytes", "partition", "piece", "row", "store", "watermarks"),
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
        self.batch_keys: Sequence[Any] = ()
        self.batch_times: Sequence[int] = ()
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

    def enter(self, shard: OwnedShard, piece: Piece) -> None:
        """What follows concerns keys of this piece."""
        self.piece, self.partition = piece, shard.shard.partition
        self.cache, self.changed = shard.cache, shard.cache.changed

    @property
    def event_time(self) -> int:
        """Of the current call, ms since the epoch."""
        return self.event_times[self.row]

    @property
    def watermark(self) -> int:
        """Of the piece at the current call; where nothing goes by event time it is computed only when asked for."""
        if self.watermarks is None:
            assert self.batch is not None
            self.watermarks = self.piece.watermarks.over(self.batch.source.topic, self.event_times)
        return self.watermarks[self.row]

    def visible(self, at: int, row: int | None = None) -> bool:
        """Whether a value that expires then is still to be seen: neither event time nor watermark has reached it.

        At the present row, or another of the batch.
        """
        row = self.row if row is None else row
        return self.event_times[row] < at and (self.watermarks is None or self.watermarks[row] < at)

    def batch_rows(self, *, last: bool) -> Mapping[Any, int]:
        """During a call of a `.batch` handler: of each key the row of its first or its last record."""
        rows = range(self.row + 1 - len(self.batch_keys), self.row + 1)
        numbered = zip(self.batch_keys, rows, strict=True)
        return dict(numbered if last else reversed(list(numbered)))

    def leave_batch(self) -> None:
        """No `.batch` handler is being called: what the last one had is nobody's any more."""
        self.batch_times, self.batch_keys, self.batch_entries = (), (), {}

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


class BoundContext(BatchContext):
    """The context of the current call; everything is computed only when asked for."""

    def __init__(self, cursor: Cursor, log: Any) -> None:
        self._cursor = cursor
        self._log = log

    @property
    def event_time(self) -> int:
        return self._cursor.event_times[self._cursor.row]

    @property
    def watermark(self) -> int:
        return self._cursor.watermark

    @property
    def source(self) -> Source:
        cursor = self._cursor
        if cursor.batch is None:
            return Source("", cursor.partition, -1)
        return Source(cursor.batch.source.topic, cursor.batch.source.partition, cursor.batch.offsets[cursor.row])

    @property
    def log(self) -> Any:
        return self._log

    @property
    def keys(self) -> Sequence[Any]:
        return self._cursor.batch_keys

    @property
    def event_times(self) -> Sequence[int]:
        return self._cursor.batch_times


class CollectsOutput(Protocol):
    """What the engine asks of an output handle."""

    topic: str
    messages: list[OutMessage]
    size_bytes: int

    def start_epoch(self) -> None:
        """Nothing is collected any more."""
        ...


class CountsLate(Protocol):
    """What the engine asks of a window handle."""

    late: int


@dataclass(frozen=True, slots=True)
class Handles:
    """What the process loop moves and collects from: all bound handles of an operator share the cursor."""

    cursor: Cursor
    context: BoundContext
    outputs: Mapping[str, CollectsOutput]
    """By attribute."""
    windows: Sequence[CountsLate] = ()

"""A bench for bound states: one state, one cache, a memory store; calls, epochs, roll-backs and reloads by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from kstate.adapters.avro import AvroCodecs
from kstate.interfaces import Store
from kstate.keyspace import FULL_RANGE
from kstate.state.cache import ABSENT, Entry, StateCache
from kstate.state.cells import Cells
from kstate.state.checkpoint import Changes
from kstate.state.columns import StateColumn
from kstate.state.layout import parse_suffix, shard_bounds, shard_prefix
from kstate.state.values import split_value
from kstate.testing.memory_store import MemoryStore
from kstate.worker.handles import Cursor

PREFIX = shard_prefix(1, 0)
CODECS = AvroCodecs()


def column_of(type_: Any, name: str = "s", state_id: int = 1, **options: Any) -> StateColumn:
    """A column of a state with values of this type."""
    if options.get("expiring"):
        options.setdefault("timeline", "ttl")
    return StateColumn(name, state_id, 1, CODECS.value(type_), options.pop("value_bytes_max", 1_000), **options)


class StateBench:
    """One column (index 0) with one handle; `index` is what a time index made of all `Changes.times` would hold."""

    def __init__(
        self, column: StateColumn, bind: Callable[[Cursor], Any] = lambda cursor: None, *, store: Store | None = None
    ) -> None:
        self.column = column
        self.store = MemoryStore() if store is None else store
        self.index: dict[tuple[bytes, bytes], int] = {}
        self.cursor = Cursor()
        self.cursor.store = self.store
        self.handle = bind(self.cursor)
        self.reload()

    def reload(self) -> None:
        """A new process: nothing is cached."""
        self.cache = StateCache(PREFIX, [self.column], bytes.decode)
        self.cursor.cache = self.cache
        self.cursor.changed = self.cache.changed

    def entry(self, key: str) -> Entry:
        """The entry of a key."""
        (entry,) = self.cache.entries([key.encode()], self.store, lambda _: None)
        return entry

    def cells(self, key: str = "k") -> Cells:
        """The cells of a key."""
        return self.cache.cells(self.entry(key), 0, self.store)

    @contextmanager
    def call(self, key: str = "k", at: int = 0, watermark: int | None = None) -> Iterator[Any]:
        """A handler call for a key at an event time; it is undone when it raises."""
        cursor = self.cursor
        cursor.entry, cursor.event_times = self.entry(key), [at]
        cursor.watermarks = None if watermark is None else [watermark]
        try:
            yield self.handle
        except BaseException:
            cursor.undo()
            raise
        finally:
            cursor.journal.clear()

    def commit(self) -> Changes:
        """End the epoch."""
        self.cursor.journal.clear()
        changes = self.cache.changes()
        assert len(set(changes.suffixes)) == len(changes.suffixes)
        self.store.write([PREFIX + suffix for suffix in changes.suffixes], changes.values)
        self.cache.settle(sum(map(len, filter(None, changes.values))))
        assert not self.cache.originals
        for change in changes.times:
            assert change.old_at != change.new_at
            assert self.index.pop((change.key, change.subkey), None) == change.old_at
            if change.new_at is not None:
                self.index[change.key, change.subkey] = change.new_at
        return changes

    def rollback(self) -> None:
        """Undo the epoch."""
        self.cache.discard()

    def turn(self) -> None:
        """A generation of the cache is full."""
        self.commit()
        self.cache.turn()

    def sweep(self, watermark: int) -> None:
        """Take away physically what has expired, as the agenda does."""
        for (key, subkey), at in list(self.index.items()):
            entry = self.entry(key.decode())
            if at <= watermark and self.cache.expiry(entry, 0, subkey, self.store) == at:
                self.cache.expire(entry, 0, subkey, self.store, self.cursor.journal)
        self.cursor.journal.clear()

    def stored(self) -> dict[tuple[bytes, bytes], bytes]:
        """Stored values by key and subkey."""
        found = {}
        for key, data in self.store.scan(*shard_bounds(1, 0, FULL_RANGE)):
            suffix = parse_suffix(key[len(PREFIX) :])
            found[suffix.key, suffix.subkey] = data
        return found

    def stored_expiries(self) -> dict[tuple[bytes, bytes], int]:
        """The expiries of all stored values, by key and subkey."""
        expiries = {place: split_value(data).expiry for place, data in self.stored().items()}
        return {place: at for place, at in expiries.items() if at is not None}

    def check_marks(self) -> None:
        """An entry is listed once when it has changes, else not at all."""
        listed = [id(entry) for entry in self.cache.changed]
        assert len(set(listed)) == len(listed)
        assert all(entry.changed for entry in self.cache.changed)


def value_of(entry: Entry) -> Any:
    """What the only column of an entry holds."""
    return None if entry.values[0] is ABSENT else entry.values[0]

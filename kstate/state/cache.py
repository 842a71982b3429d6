"""The write-back cache of decoded state in front of the local store.

An `Entry` holds everything known about one key: its decoded values, one per declared state, and which of them changed
in the running epoch. Handlers touch entries only, a whole batch of keys is loaded at once, and changed values are
encoded once per epoch. Memory is bounded by two generations: a hit in the old one moves the entry to the young one,
and when the young one is full at an epoch's end the old one is dropped. So a hit costs one dictionary look-up and
nothing else.

Invariants: an entry with changes is in the young generation; the store never holds a value of an epoch that did not
commit; after `discard` every value comes from the store again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from kstate.errors import ConfigError, CorruptStateError, DecodeError
from kstate.interfaces import Codec, Store
from kstate.keyspace import slot_of
from kstate.state.checkpoint import Changes
from kstate.state.layout import key_suffix
from kstate.state.values import split_value, value_prefix

ENTRY_OVERHEAD_BYTES = 600
"""An entry with its dictionary slot, key, list of values and stored key, measured with tracemalloc."""

DECODED_FACTOR = 4
"""A decoded value takes about this many times its Avro bytes."""


class _Absent:
    """The value of a state that is not there."""

    def __repr__(self) -> str:
        return "ABSENT"


ABSENT: Final = _Absent()


class Entry:
    """One key: `values[i]` is the value of the i-th state or ABSENT, bit i of `changed` says that it was set this
    epoch.
    """

    __slots__ = ("changed", "key", "key_bytes", "slot", "suffixes", "values")

    def __init__(self, key: Any, key_bytes: bytes, slot: int, suffixes: tuple[bytes, ...], values: list[Any]) -> None:
        self.key = key
        self.key_bytes = key_bytes
        self.slot = slot
        self.suffixes = suffixes
        self.values = values
        self.changed = 0


@dataclass(frozen=True, slots=True)
class StateColumn:
    """One declared state of an operator, as it is stored."""

    name: str
    state_id: int
    schema_id: int
    codec: Codec[Any]
    value_bytes_max: int


class ValueFault(Exception):  # noqa: N818 - it finds a culprit, it is not shown to anyone
    """A value that cannot be stored: it does not encode or is too large. Names state and key."""


class StateCache:
    """Entries of one shard; `changed` lists those with changes, in order of first change."""

    def __init__(self, prefix: bytes, columns: Sequence[StateColumn], decode_key: Callable[[bytes], Any]) -> None:
        self._prefix = prefix
        self._columns = columns
        self._decode_key = decode_key
        self._young: dict[bytes, Entry] = {}
        self._old: dict[bytes, Entry] = {}
        self._young_bytes = 0
        self.changed: list[Entry] = []

    @property
    def size_bytes(self) -> int:
        """Estimated memory of the young generation; the old one is at most as large as it was at its turn."""
        return self._young_bytes

    def entries(self, keys: Sequence[bytes], store: Store, admit: Callable[[bytes], None]) -> list[Entry]:
        """The entry of each key, loading in one read those that are not here; `admit` checks a key never seen before.

        Raises DecodeError when a key does not decode (nothing is loaded then), CorruptStateError from the store.
        """
        young = self._young
        try:
            return [young[key] for key in keys]
        except KeyError:
            self._load({key for key in keys if key not in young}, store, admit)
            return [young[key] for key in keys]

    def _load(self, missing: set[bytes], store: Store, admit: Callable[[bytes], None]) -> None:
        fresh: list[Entry] = []
        for key in missing:
            entry = self._old.pop(key, None)
            if entry is not None:
                self._young[key] = entry
                self._young_bytes += ENTRY_OVERHEAD_BYTES
                continue
            admit(key)
            slot = slot_of(key)
            suffixes = tuple(key_suffix(slot, column.state_id, key) for column in self._columns)
            fresh.append(Entry(self._decode_key(key), key, slot, suffixes, []))
        self._read(fresh, store)
        for entry in fresh:
            self._young[entry.key_bytes] = entry

    def _read(self, fresh: list[Entry], store: Store) -> None:
        """Fill the values of new entries, one multi-get per state."""
        for index, column in enumerate(self._columns):
            found = store.get_many([self._prefix + entry.suffixes[index] for entry in fresh])
            present = [i for i, data in enumerate(found) if data is not None]
            try:
                decoded = column.codec.decode_many([self._payload(column, found[i]) for i in present])
            except DecodeError as error:  # not the record's fault, and no reason to take it for a dead letter
                raise CorruptStateError(f"State {column.name!r} in the local store is damaged: {error}") from error
            for entry in fresh:
                entry.values.append(ABSENT)
            for i, value in zip(present, decoded, strict=True):
                fresh[i].values[index] = value
            self._young_bytes += DECODED_FACTOR * sum(len(found[i] or b"") for i in present)
        self._young_bytes += ENTRY_OVERHEAD_BYTES * len(fresh)

    @staticmethod
    def _payload(column: StateColumn, data: bytes | None) -> bytes:
        stored = split_value(data or b"")
        if stored.schema_id != column.schema_id:
            raise ConfigError(
                f"State {column.name!r} holds values of schema {stored.schema_id}, not {column.schema_id}.",
                hint="run the build that wrote them: evolving a state's schema is not supported yet.",
            )
        return stored.payload

    def changes(self, entries: Iterable[Entry] | None = None) -> Changes:
        """The changed values of these entries (default: all changed ones), encoded for the backup and the store.

        Raises ValueFault when a value does not encode or is over the limit.
        """
        entries = self.changed if entries is None else list(entries)
        suffixes: list[bytes] = []
        values: list[bytes | None] = []
        for index, column in enumerate(self._columns):
            bit = 1 << index
            mine = [entry for entry in entries if entry.changed & bit]
            put = [entry for entry in mine if entry.values[index] is not ABSENT]
            suffixes += [entry.suffixes[index] for entry in put]
            values += encode_column(column, put, index)
            gone = [entry.suffixes[index] for entry in mine if entry.values[index] is ABSENT]
            suffixes += gone
            values += [None] * len(gone)
        return Changes(suffixes, values)

    def settle(self, stored_bytes: int) -> None:
        """The epoch committed and is in the store: nothing is changed any more. `stored_bytes`: size of its values."""
        for entry in self.changed:
            entry.changed = 0
        self.changed.clear()
        self._young_bytes += stored_bytes

    def discard(self) -> None:
        """The epoch is rolled back: forget every changed entry, the store has the values that count."""
        for entry in self.changed:
            self._young.pop(entry.key_bytes, None)
        self.changed.clear()

    def turn(self) -> None:
        """Drop the old generation and start a young one; only between epochs, when nothing is changed."""
        assert not self.changed, "a generation with changes is never dropped"
        self._old = self._young
        self._young = {}
        self._young_bytes = 0


def encode_column(column: StateColumn, entries: Sequence[Entry], index: int) -> list[bytes]:
    """Stored values of one state of these entries, in order; ValueFault names the first that cannot be stored."""
    prefix = value_prefix(column.schema_id)
    try:
        payloads = column.codec.encode_many([entry.values[index] for entry in entries])
    except (ValueError, TypeError, DecodeError):
        for entry in entries:
            check_value(column, entry.key, entry.values[index])
        raise
    limit = column.value_bytes_max
    if payloads and max(map(len, payloads)) > limit:
        culprit = next(i for i, payload in enumerate(payloads) if len(payload) > limit)
        raise _too_large(column, entries[culprit].key, len(payloads[culprit]))
    return [prefix + payload for payload in payloads]


def check_value(column: StateColumn, key: Any, value: Any) -> None:
    """Raise ValueFault, naming state and key, when this value cannot be stored."""
    if value is ABSENT:
        return
    try:
        size = len(column.codec.encode(value))
    except (ValueError, TypeError) as error:
        raise ValueFault(f"state {column.name!r} of key {key!r} does not encode: {error}") from error
    if size > column.value_bytes_max:
        raise _too_large(column, key, size)


def _too_large(column: StateColumn, key: Any, size: int) -> ValueFault:
    return ValueFault(
        f"state {column.name!r} of key {key!r} is {size:,} bytes, the limit is {column.value_bytes_max:,}"
    )

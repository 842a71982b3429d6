"""The local store in memory, with the crash semantics of RocksDB without a write-ahead log.

What a crash keeps: everything up to the last flush, every ingested file since then, and of the other writes since then
only some prefix. So a deletion that was not flushed can be lost while a file ingested after it stays: old data comes
back under new data, as in the real store.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from random import Random
from typing import NamedTuple

Pairs = list[tuple[bytes, bytes | None]]


class _Change(NamedTuple):
    """One operation since the last flush: a range to delete, then pairs to put or delete."""

    deleted: tuple[bytes, bytes]
    pairs: Pairs
    ingested: bool


class MemoryStore:
    """`Store` in memory; see the module for what `crash` leaves."""

    def __init__(self) -> None:
        self._content: dict[bytes, bytes] = {}
        self._order: list[bytes] = []
        """The keys in order, empty when it must be made anew."""
        self._durable: dict[bytes, bytes] = {}
        self._changes: list[_Change] = []

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return [self._content.get(key) for key in keys]

    def write(self, keys: Sequence[bytes], values: Sequence[bytes | None]) -> None:
        self._do(_Change((b"", b""), list(zip(keys, values, strict=True)), ingested=False))

    def scan(self, lo: bytes, hi: bytes) -> Iterator[tuple[bytes, bytes]]:
        if not self._order:
            self._order = sorted(self._content)
        found = self._order[bisect_left(self._order, lo) : bisect_left(self._order, hi)]
        return iter([(key, self._content[key]) for key in found])

    def delete_range(self, lo: bytes, hi: bytes) -> None:
        self._do(_Change((lo, hi), [], ingested=False))

    def ingest(self, pairs: Iterable[tuple[bytes, bytes | None]]) -> None:
        run = list(pairs)
        for (before, _), (key, _) in pairwise(run):
            if before >= key:
                raise ValueError(f"ingest: key {key.hex()} follows {before.hex()}, expected ascending keys")
        self._do(_Change((b"", b""), run, ingested=True))

    def flush(self) -> None:
        for change in self._changes:
            _apply(self._durable, change)
        self._changes.clear()

    def close(self) -> None:
        """An orderly end: RocksDB flushes when it is closed."""
        self.flush()

    def crash(self, rng: Random) -> None:
        """Become what a killed process leaves behind: see the module."""
        kept = rng.randint(0, sum(not change.ingested for change in self._changes))
        for change in self._changes:
            if change.ingested or kept > 0:
                _apply(self._durable, change)
            kept -= not change.ingested
        self._changes.clear()
        self._content = dict(self._durable)
        self._order = []

    def _do(self, change: _Change) -> None:
        _apply(self._content, change)
        self._changes.append(change)
        self._order = []


def _apply(content: dict[bytes, bytes], change: _Change) -> None:
    lo, hi = change.deleted
    if lo < hi:
        for key in [key for key in content if lo <= key < hi]:
            del content[key]
    for key, value in change.pairs:
        if value is None:
            content.pop(key, None)
        else:
            content[key] = value

"""A RocksStore that can be killed: its folder is copied as it is, which is what a killed process leaves on the disk."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from random import Random

from kstate.adapters.rocksdb import RocksStore, open_store

STAMP = (b"\x00", b"mine")
"""Below every key of the tests; a real one is kstate.state.layout.identity_entry."""
MEMORY_BYTES = 8 << 20


class Unstamped(RocksStore):
    """A store that hides its stamp, so that it can be compared with a plain map."""

    def scan(self, lo: bytes, hi: bytes) -> Iterator[tuple[bytes, bytes]]:
        pairs = super().scan(lo, hi)
        return (pair for pair in pairs if pair != STAMP)


class RocksBench:
    """A store in a folder below `root`; every crash moves it to a new one."""

    def __init__(self, root: Path) -> None:
        self._folders = (root / str(i) for i in count())
        self.folder = next(self._folders)
        self.store = self._open()

    def crash(self, rng: Random) -> None:
        """Go on with a copy of the folder as it is now; the process that had it never gets to close."""
        left = next(self._folders)
        while not _copied(self.folder, left):
            shutil.rmtree(left, ignore_errors=True)
        self.store.close()
        self.folder = left
        self.store = self._open()

    def reopen(self) -> None:
        """Close and open."""
        self.store.close()
        self.store = self._open()

    def _open(self) -> RocksStore:
        return Unstamped(self.folder, STAMP, MEMORY_BYTES)


@contextmanager
def opened(folder: Path, stamp: tuple[bytes, bytes] = STAMP) -> Iterator[tuple[RocksStore, str | None]]:
    """The store of a folder and why it was wiped, closed at the end."""
    found = open_store(folder, stamp, MEMORY_BYTES)
    try:
        yield found.store, found.wiped
    finally:
        found.store.close()


def _copied(source: Path, target: Path) -> bool:
    """Copy a folder; False when something moved meanwhile (RocksDB's background threads), so that it is no instant."""
    try:
        before = _listing(source)
        shutil.copytree(source, target)
        return _listing(source) == before
    except (OSError, shutil.Error):  # a file was removed between being seen and being read
        return False


def _listing(folder: Path) -> list[tuple[str, int, int]]:
    paths = [path for path in sorted(folder.rglob("*")) if path.name != "LOG"]
    return [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]

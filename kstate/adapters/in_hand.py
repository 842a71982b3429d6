"""Notes that outlive a process that is killed: a small file in the worker's data folder, mapped into memory.

    <folder>/in-hand    note, padded to 1 KiB, then the ledger (layouts: kstate.worker.in_hand)

A store to mapped memory belongs to the kernel's page cache at once, so what was written before a SIGKILL is there for
the next process, without a system call. The ledger is replaced by renaming a whole new file over the old one. Nothing
is synced to the disk: a machine that loses power has killed its processes by itself, and nobody's record did.
"""

from __future__ import annotations

import logging
import mmap
from pathlib import Path

from kstate.errors import ConfigError

_logger = logging.getLogger(__name__)

NOTE_BYTES = 1024
"""Room for a note: two names of at most 249 bytes (Kafka's limit for topics, which bear them) and some numbers."""


class FileNotes:
    """`Notes` in a file; one process at a time uses the folder. Raises ConfigError when it cannot be written."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "in-hand"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            data = self._path.read_bytes() if self._path.exists() else b""
            self._left = data[:NOTE_BYTES], data[NOTE_BYTES:]
            if len(data) < NOTE_BYTES:
                self._replace(data.ljust(NOTE_BYTES, b"\0"))
            self._map = self._mapped()
        except OSError as error:
            hint = "mend the data folder, or change it"
            raise ConfigError(f"{self._path} cannot be used: {error.strerror}.", hint=hint) from error

    def read(self) -> tuple[bytes, bytes]:
        return self._left

    def note(self, data: bytes) -> None:
        self._map[: len(data)] = data

    def keep(self, ledger: bytes) -> None:
        try:
            self._replace(bytes(NOTE_BYTES) + ledger)
            stale, self._map = self._map, self._mapped()
            stale.close()
        except OSError as error:  # the old one says too much, for which no worker should end: a later one mends it
            _logger.warning("%s was not written: %s", self._path, error.strerror)

    def close(self) -> None:
        """Done with; what stands there stays."""
        self._map.close()

    def _replace(self, data: bytes) -> None:
        draft = self._path.with_suffix(".draft")
        draft.write_bytes(data)
        draft.replace(self._path)

    def _mapped(self) -> mmap.mmap:
        with self._path.open("r+b") as file:
            return mmap.mmap(file.fileno(), NOTE_BYTES)

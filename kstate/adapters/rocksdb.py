"""The local store: one RocksDB per worker, without a write-ahead log, in raw mode, one column family.

    <path>/owner.lock       held (flock) by the process that has the store open; its pid stands in it
    <path>/db/              RocksDB's files
    <path>/ingest.sst       a sorted run on its way in
    <path>/DAMAGED          why the next start must wipe: damage may show only when a block is read

The store is a copy: everything in it can be restored from the backup topic. So damage, a foreign owner and an old
format all end the same way: wipe, create, restore. What RocksDB gives without a log is what `Store` promises: after a
crash a prefix of the writes, because memtables are flushed in order and the MANIFEST is written in order.

Two limits of the binding: `WriteBatch` holds the interpreter lock while it is applied, 1.4 µs per record (flush, sorted
files and compaction do not), and a write must be atomic, hence one batch. An epoch of 100,000 changed keys therefore
stops the heartbeat thread for 0.15 s, which detection (1.6 s) has room for; larger runs belong into `ingest`.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from rocksdict import (
    BlockBasedOptions,
    Cache,
    ChecksumType,
    DBCompressionType,
    IngestExternalFileOptions,
    Options,
    Rdict,
    ReadOptions,
    SstFileWriter,
    WriteBatch,
    WriteBufferManager,
    WriteOptions,
)

from kstate.adapters.rocksdb_manifest import manifest_fault
from kstate.config import MIB
from kstate.errors import ConfigError, CorruptStateError, RetryableError

_MEMTABLE_BYTES_MAX = 64 * MIB
_BLOOM_BITS_PER_KEY = 10
"""1 % of look-ups of absent keys read a block in vain."""


@dataclass(frozen=True, slots=True)
class OpenedStore:
    """A store ready for use; `wiped` says why its former content was dropped, None when it was kept or it is new."""

    store: RocksStore
    wiped: str | None


def open_store(path: Path, stamp: tuple[bytes, bytes], memory_bytes: int) -> OpenedStore:
    """Open the worker's store; content that is damaged, foreign or of another format is wiped first.

    `stamp` is the entry (key, value) that says whose store it is and in which format (kstate.state.layout). Raises
    ConfigError when another process has the folder open or the folder cannot be used.
    """
    try:
        return OpenedStore(RocksStore(path, stamp, memory_bytes), None)
    except CorruptStateError as error:
        wipe(path)
        return OpenedStore(RocksStore(path, stamp, memory_bytes), str(error))


def wipe(path: Path) -> None:
    """Remove the content of a store that no process has open; ConfigError when one has."""
    with _FolderLock(path):
        shutil.rmtree(path / "db", ignore_errors=True)
        for name in ("ingest.sst", "DAMAGED"):
            (path / name).unlink(missing_ok=True)


class RocksStore:
    """`Store` in RocksDB. Raises CorruptStateError when it is damaged, which the next `open_store` then mends."""

    def __init__(self, path: Path, stamp: tuple[bytes, bytes], memory_bytes: int) -> None:
        self._path = path
        self._lock = _FolderLock(path)
        try:
            self._options = _options(memory_bytes)
            self._db = self._open()
            self._write_options = _without_log()
            self._claim(stamp)
        except BaseException:
            self._lock.release()
            raise

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        with self._guarded():
            found: list[bytes | None] = self._db.get(list(keys), None, _checked())  # type: ignore[assignment]
            return found

    def write(self, keys: Sequence[bytes], values: Sequence[bytes | None]) -> None:
        batch = WriteBatch(raw_mode=True)
        put, delete = batch.put, batch.delete
        for key, value in zip(keys, values, strict=True):
            if value is None:
                delete(key)
            else:
                put(key, value)
        with self._guarded():
            self._db.write(batch, self._write_options)

    def scan(self, lo: bytes, hi: bytes) -> Iterator[tuple[bytes, bytes]]:
        with self._guarded():
            iterator = self._db.iter(_checked())  # it sees the store as of now, not of its first use
            iterator.seek(lo)
        return self._pairs(iterator, hi)

    def delete_range(self, lo: bytes, hi: bytes) -> None:
        with self._guarded():
            self._db.delete_range(lo, hi, self._write_options)

    def ingest(self, pairs: Iterable[tuple[bytes, bytes | None]]) -> None:
        file = self._path / "ingest.sst"
        with self._guarded():
            if self._build(file, pairs):
                options = IngestExternalFileOptions()
                options.set_move_files(True)
                self._db.ingest_external_file([str(file)], options)

    def flush(self) -> None:
        with self._guarded():
            self._db.flush()

    def condemn(self, reason: str) -> None:
        """What was read makes no sense, though RocksDB found nothing wrong with it: the next start wipes."""
        (self._path / "DAMAGED").write_text(reason)

    def close(self) -> None:
        """Flush and close; the folder is free for others afterwards.

        Damage that shows only now is noted for the next start, which wipes; it hides no error before it.
        """
        try:
            with suppress(CorruptStateError):
                self.flush()
            with suppress(CorruptStateError), self._guarded():
                self._db.close()  # flushes once more
        finally:
            self._lock.release()

    def _open(self) -> Rdict:
        folder = self._path / "db"
        if (note := self._path / "DAMAGED").exists():
            raise CorruptStateError(f"Local store {self._path} was found damaged: {note.read_text()}")
        (self._path / "ingest.sst").unlink(missing_ok=True)
        new = not folder.exists()
        if not new and (fault := manifest_fault(folder)):
            raise CorruptStateError(f"Local store {self._path} is damaged: {fault}.")
        self._options.create_if_missing(new)
        with self._guarded():
            # Named column families, or the binding would take the options from the files of the last run.
            return Rdict(str(folder), self._options, {"default": self._options})

    def _claim(self, stamp: tuple[bytes, bytes]) -> None:
        """Stamp an empty store; any other must carry the stamp."""
        key, mine = stamp
        try:
            (found,) = self.get_many([key])
            if found is None and next(self.scan(b"", b"\xff"), None) is None:
                self.write([key], [mine])
                self.flush()
            elif found != mine:
                raise CorruptStateError(
                    f"Local store {self._path} is not of this worker or format: found {found!r}, expected {mine!r}."
                )
        except BaseException:
            self._db.close()
            raise

    def _build(self, file: Path, pairs: Iterable[tuple[bytes, bytes | None]]) -> bool:
        """Write a sorted file; False when there is nothing to write."""
        ascending = iter(pairs)
        first = next(ascending, None)
        if first is None:
            return False
        writer = SstFileWriter(self._options)
        writer.open(str(file))
        for key, value in chain((first,), ascending):
            if value is None:
                del writer[key]
            else:
                writer[key] = value
        writer.finish()
        return True

    def _pairs(self, iterator: Any, hi: bytes) -> Iterator[tuple[bytes, bytes]]:
        # The end is looked for here: of a native upper bound the binding keeps only a pointer into the Python object,
        # and once that is freed and its memory used again, the scan ends early, without an error (seen).
        while iterator.valid() and (key := iterator.key()) < hi:
            yield key, iterator.value()
            iterator.next()
        with self._guarded():
            iterator.status()  # an iterator on a corrupt block ends like one at its end

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """RocksDB's errors as ours; damage is noted, so that the next start wipes."""
        try:
            yield
        except Exception as error:
            if type(error) is not Exception:  # the binding's own class for a status of RocksDB; others are not its
                raise
            translated = self._translated(error)
            if isinstance(translated, CorruptStateError):
                self.condemn(str(error))
            raise translated from error

    def _translated(self, error: Exception) -> Exception:
        """By RocksDB's status texts; what is none of them may be damage of a kind not seen yet, and a wipe mends it."""
        text = str(error)
        if text.startswith("Invalid argument"):
            return ValueError(text)
        if "No space left" in text or "quota exceeded" in text:
            return RetryableError(f"Local store {self._path} is full: {text}.", hint="free space on its disk")
        if any(cause in text for cause in ("Permission denied", "Read-only file system", "Too many open files")):
            return ConfigError(f"Local store {self._path} cannot be used: {text}.", hint="mend the folder or the limit")
        return CorruptStateError(f"Local store {self._path} is damaged: {text}", hint="the next start restores it")


class _FolderLock:
    """An advisory lock on a folder, free again when its process ends, however it ends."""

    def __init__(self, path: Path) -> None:
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path / "owner.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise ConfigError(
                f"Data folder {path} cannot be used: {error.strerror}.", hint="mend or change it"
            ) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.pread(self._file, 32, 0).decode(errors="replace").strip()
            os.close(self._file)
            hint = "stop that process, or give this worker another name or data folder"
            raise ConfigError(f"Data folder {path} is in use by process {owner}.", hint=hint) from error
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Let others have the folder; a second call does nothing."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> None: ...

    def __exit__(self, *exc_info: object) -> None:
        self.release()


def _options(memory_bytes: int) -> Options:
    """How RocksDB is to run, within this memory for block cache and memtables together."""
    cache = Cache(memory_bytes)
    options = Options(raw_mode=True)
    options.set_paranoid_checks(True)  # missing and short files fail the open, a bad block stops compactions
    options.set_block_based_table_factory(_table_options(cache))
    # Memtables are charged to the cache, so that one number bounds both. Waiting for memory would hold the interpreter
    # lock: rather over the bound for the time of a flush.
    options.set_write_buffer_manager(
        WriteBufferManager.new_write_buffer_manager_with_cache(memory_bytes // 2, allow_stall=False, cache=cache)
    )
    options.set_write_buffer_size(min(_MEMTABLE_BYTES_MAX, memory_bytes // 4))
    options.set_max_write_buffer_number(4)
    options.set_max_background_jobs(2)
    options.set_level_compaction_dynamic_level_bytes(True)  # space amplification of about 1.1
    # A stalled write holds the interpreter lock too, and every restored run is a file of level 0.
    options.set_level_zero_slowdown_writes_trigger(60)
    options.set_level_zero_stop_writes_trigger(120)
    options.set_compression_type(DBCompressionType.lz4())
    options.set_bytes_per_sync(MIB)  # no bursts of writing at the end of a file
    options.set_max_manifest_file_size(MIB)  # it is checked in Python at each start
    options.set_skip_stats_update_on_db_open(True)  # a start need not read the properties of every file
    options.set_stats_dump_period_sec(0)
    options.set_max_log_file_size(MIB)
    options.set_keep_log_file_num(3)
    return options


def _table_options(cache: Cache) -> BlockBasedOptions:
    table = BlockBasedOptions()
    table.set_block_cache(cache)
    table.set_cache_index_and_filter_blocks(True)  # or they would grow beside the bound
    table.set_pin_l0_filter_and_index_blocks_in_cache(True)
    table.set_bloom_filter(_BLOOM_BITS_PER_KEY, block_based=False)
    table.set_checksum_type(ChecksumType.xxh3())
    table.set_format_version(5)
    return table


def _without_log() -> WriteOptions:
    options = WriteOptions()
    options.disable_wal = True  # type: ignore[method-assign, assignment] # a property, whatever the stub says
    return options


def _checked() -> ReadOptions:
    options = ReadOptions()
    options.set_verify_checksums(True)
    return options

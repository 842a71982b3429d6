"""restore-state: bring a key range of one shard back from its backup log into the local store.

Paper: SEEP, section 3.2, restore-state(o, θ, τ, β). The protocol is rule S1: the caller has read the plan that names
this worker, whose leader has fenced every earlier owner; H is taken here, first; then the log is read to H.

    a local copy stands between log start and H    warm: only the tail behind it is read
    none, or below the log start,
    or it is a copy of another log                 cold: dropped durably, then read from the log start
    beyond H                                       refused: what was committed is gone from the log

Whether the log is the one that was copied is asked of the log: the record before the copy's offset is a marker, and of
the incarnation that the copy names. A topic that was deleted and made anew may have grown beyond the old offset, and
where epochs are alike in size its chain of epochs even fits: without this the copy would be a mix of two histories.

Who may crash where, and what is then true. The lineage entry in the store says up to which offset the store holds the
state of which slots, and a slot without entry counts as not there. So the entry

- goes *before* the data when a copy is dropped, and both are flushed before anything new is ingested: an ingested file
  is durable at once, an older deletion in memory is not, and the old data would come back under the new entry;
- arrives *with* the data, in one write or one ingested file. A file is ingested only after a flush: the entry speaks
  for the shard's other key ranges too, whose last epochs may not be durable yet;
- takes the time index along: what is written or ingested holds the index entries of its values. Those of older
  values stay, also when a range is dropped: stale entries do no harm;
- is left out for slots whose chain of markers still lacks its base (rule S5).

Interrupted anywhere, the restore starts over from what the entry says.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from kstate.clock import Clock, Step, Steps
from kstate.config import MIB, Settings
from kstate.errors import DataLossError, DecodeError
from kstate.interfaces import Log, Reader, Store
from kstate.keyspace import KeyRange
from kstate.plan import TopicPartition
from kstate.state.backup import Applied, BackupReader
from kstate.state.blocks import decode_frame
from kstate.state.freshness import fresh_end
from kstate.state.layout import Item, Timeline, index_key, parse_suffix, shard_bounds, shard_prefix
from kstate.state.lineage import Lineage, lineage_entry, stored_lineage
from kstate.state.markers import Marker
from kstate.state.values import split_value

DROPPED = Step("dropped")
READ = Step("restore-read")
AWAIT_RECORDS = Step("await-records", wait=0.01)
INGESTED = Step("ingested")
RESTORED = Step("restored")

_POLL_RECORDS = 16
"""Records hold up to 512 KiB each: at most 8 MiB at once."""
_STEP_POLLS = 32
_STEP_BYTES = 4 * MIB
"""A step ends at whichever comes first, after some 0.1 s: other key ranges may be running between the steps."""
_RUN_FRACTION = 4
"""A sorted run in memory is at most this fraction of `state.store_bytes`."""
_ENTRY_OVERHEAD_BYTES = 200
"""Two bytes objects and a dictionary slot beside the bytes themselves."""
_INDEX_ENTRY_BYTES = 250
"""What the time index of a run takes in memory for each value, at most, while the run is written."""
_HAS_EXPIRY = 1
"""First byte of a stored value with an expiry (kstate.state.values)."""

_logger = logging.getLogger(__name__)


class TimedState(NamedTuple):
    """A state whose values expire: its name, and the timeline that its expiries are on."""

    name: str
    timeline: Timeline


@dataclass(frozen=True, slots=True)
class RestoreTarget:
    """What to restore: the slots of one operator in one partition of its backup topic, which is also the shard's."""

    source: TopicPartition
    operator_id: int
    key_range: KeyRange
    timed: Mapping[int, TimedState] = field(default_factory=dict)
    """State id → what of it goes into the time index (kstate.state.layout)."""

    def __str__(self) -> str:
        return f"{self.key_range} of {self.source}"


def restore(
    log: Log,
    store: Store,
    target: RestoreTarget,
    clock: Clock,
    settings: Settings,
    report: Callable[[str], None] = _logger.warning,
) -> Steps[Lineage]:
    """Make the store hold the target's state as of a fresh end, and return the lineage of its slots.

    A gap in the result is a slot that no marker covers: its state is empty and its inputs start where the plan says.
    Slots outside the target are not touched; they may be running in the same store. Raises BackupLogError (rule S5),
    CorruptStateError, DataLossError (the log lost what was committed), and RetryableError: then it may start over.
    """
    while True:
        end = yield from fresh_end(log, target.source, clock, settings.failure.stuck_log_ms, report)
        log_start = log.start_offsets([target.source])[target.source]
        copy = _LocalCopy(store, target, settings.state.store_bytes // _RUN_FRACTION)
        try:
            return (yield from _bring_forward(log, copy, log_start, end, report))
        except DataLossError:
            # Trimmed behind our back: whoever falls below the log start starts over, never goes on with a gap.
            if log.start_offsets([target.source])[target.source] == log_start:
                raise


def _bring_forward(
    log: Log, copy: _LocalCopy, log_start: int, end: int, report: Callable[[str], None]
) -> Steps[Lineage]:
    """Drop what is of no use, read the rest of the log up to H."""
    target = copy.target
    kept = copy.usable(log_start, end, report)
    yield from _drop_foreign(log, target.source, kept, report)
    missing = kept.gaps(target.key_range)
    if copy.drop(missing):
        yield DROPPED
    start = log_start if missing else min(position.offset for position in kept.values())
    proof = BackupReader(target.source, target.operator_id, target.key_range, kept, log_start)
    yield from _read(log, copy, proof, start, end)
    lineage = proof.finish()
    copy.write(lineage)
    yield RESTORED
    return lineage


def _drop_foreign(log: Log, source: TopicPartition, kept: Lineage, report: Callable[[str], None]) -> Steps[None]:
    """Clear the slots whose copy was not made from this log."""
    if not len(kept):
        return
    reader, writers = log.reader(), dict[int, str | None]()
    try:
        for key_range, position in list(kept):
            at = position.offset - 1
            if at not in writers:
                writers[at] = yield from _writer_at(reader, source, at)
            if writers[at] != position.incarnation:
                kept.clear(key_range)
                found = f"a marker of {writers[at]}" if writers[at] else "no marker"
                report(
                    f"Local copy of {key_range} follows a marker of {position.incarnation} at {source}@{at}, where "
                    f"{found} stands: it was made from another log and is dropped."
                )
    finally:
        reader.close()


def _writer_at(reader: Reader, source: TopicPartition, offset: int) -> Steps[str | None]:
    """The incarnation that wrote the marker at an offset; None when no committed marker stands there."""
    reader.assign({source: offset})
    while not (batches := reader.poll(1, 0.0)):
        yield AWAIT_RECORDS
    batch = batches[0]
    if batch.offsets[:1] != [offset]:
        return None
    try:
        frame = decode_frame(batch.values[0] or b"")
    except DecodeError:  # whoever reads the whole log says what is wrong with it
        return None
    return frame.incarnation if isinstance(frame, Marker) else None


def _read(log: Log, copy: _LocalCopy, proof: BackupReader, position: int, end: int) -> Steps[None]:
    """Apply the log from a position to H: full runs are ingested, the last one is left to be written."""
    if position >= end:
        return
    reader = log.reader()
    try:
        reader.assign({copy.target.source: position})
        while position < end:
            before = position
            position = _read_some(reader, copy, proof, position, end)
            if copy.full:
                copy.ingest(proof.proven())
                yield INGESTED
            yield READ if position > before else AWAIT_RECORDS
    finally:
        reader.close()


def _read_some(reader: Reader, copy: _LocalCopy, proof: BackupReader, position: int, end: int) -> int:
    """Collect one step's worth of what is there; the position behind it."""
    enough = copy.collected_bytes + _STEP_BYTES
    for _ in range(_STEP_POLLS):
        batches = reader.poll(_POLL_RECORDS, 0.0)
        for batch in batches:
            for applied in proof.feed(batch):
                copy.collect(applied)
            position = batch.next_offset
        if not batches or position >= end or copy.full or copy.collected_bytes >= enough:
            break
    return position


class _LocalCopy:
    """The target's part of the local store, and the run of changes that is collected for it in memory."""

    def __init__(self, store: Store, target: RestoreTarget, run_bytes: int) -> None:
        self.target = target
        self._store = store
        self._run_bytes = run_bytes
        self._run: dict[bytes, bytes | None] = {}
        self.collected_bytes = 0
        """Estimated memory of the run."""

    @property
    def full(self) -> bool:
        """The run has reached its limit."""
        return self.collected_bytes >= self._run_bytes

    def usable(self, log_start: int, end: int, report: Callable[[str], None]) -> Lineage:
        """Where the target's slots stand, without those whose last marker was trimmed.

        Raises DataLossError for a copy that stands beyond the end: it was committed, and the log has lost it.
        """
        kept = self._stored().slice(self.target.key_range)
        for key_range, position in list(kept):
            if position.offset > end:
                raise _lost(self.target, position.offset, end)
            if position.offset <= log_start:  # the marker before it must be there, to show whose copy this is
                kept.clear(key_range)
                log_says = f"the backup log {self.target.source} goes from {log_start} to {end}"
                report(f"Local copy of {key_range} stands at {position.offset}, {log_says}: it is dropped.")
        return kept

    def drop(self, ranges: list[KeyRange]) -> bool:
        """Durably remove what the store holds of these slots; False when it holds nothing."""
        bounds = [self._bounds(key_range) for key_range in ranges]
        known = any(len(self._stored().slice(key_range)) for key_range in ranges)
        if not known and not any(self._holds(lo, hi) for lo, hi in bounds):
            return False
        key, value = self._entry(Lineage(), ranges)
        self._store.write([key], [value])
        for lo, hi in bounds:
            self._store.delete_range(lo, hi)
        self._store.flush()
        return True

    def collect(self, applied: Applied) -> None:
        """Add a proven marker's changes to the run."""
        for key_range in applied.replaced():
            self._empty(key_range)
        prefix = self._prefix
        self._run.update((prefix + suffix, value) for suffix, value in applied.entries())
        overhead = _ENTRY_OVERHEAD_BYTES + (_INDEX_ENTRY_BYTES if self.target.timed else 0)
        self.collected_bytes += sum(len(block.frame) + overhead * block.count for block in applied.blocks)

    def ingest(self, lineage: Lineage) -> None:
        """Add the run to the store as one sorted file, together with the lineage entry that it makes true."""
        self._store.flush()
        key, value = self._entry(lineage)
        run = self._indexed_run()
        run[key] = value
        self._store.ingest(sorted(run.items()))
        self._run.clear()
        self.collected_bytes = 0

    def write(self, lineage: Lineage) -> None:
        """Add the rest of the run and the lineage entry in one write."""
        if not self._run and lineage == self._stored().slice(self.target.key_range):
            return
        key, value = self._entry(lineage)
        run = self._indexed_run()
        self._store.write([key, *run], [value, *run.values()])

    def _indexed_run(self) -> dict[bytes, bytes | None]:
        """The run together with the time index of its values; only the last value of each key counts."""
        target, timed = self.target, self.target.timed
        if not timed:
            return self._run
        index: dict[bytes, bytes | None] = {}
        suffix_at = len(self._prefix)
        for stored_key, value in self._run.items():
            if not value or value[0] != _HAS_EXPIRY:  # most have none
                continue
            _, state_id, key, subkey = parse_suffix(stored_key[suffix_at:])
            at = split_value(value).expiry
            if at is not None and (state := timed.get(state_id)) is not None:
                item = Item(at, state.name, key, subkey)
                index[index_key(target.operator_id, target.source.partition, state.timeline, item)] = b""
        return self._run | index

    @property
    def _prefix(self) -> bytes:
        return shard_prefix(self.target.operator_id, self.target.source.partition)

    def _empty(self, key_range: KeyRange) -> None:
        """Delete all keys of these slots, in the store and in the run."""
        lo, hi = self._bounds(key_range)
        there = [key for key in self._run if lo <= key < hi] + [key for key, _ in self._store.scan(lo, hi)]
        self._run.update((key, None) for key in there)

    def _holds(self, lo: bytes, hi: bytes) -> bool:
        return next(iter(self._store.scan(lo, hi)), None) is not None

    def _bounds(self, key_range: KeyRange) -> tuple[bytes, bytes]:
        return shard_bounds(self.target.operator_id, self.target.source.partition, key_range)

    def _stored(self) -> Lineage:
        return stored_lineage(self._store, self.target.operator_id, self.target.source.partition)

    def _entry(self, lineage: Lineage, dropped: list[KeyRange] | None = None) -> tuple[bytes, bytes]:
        return lineage_entry(self._store, self.target.operator_id, self.target.source.partition, lineage, dropped or ())


def _lost(target: RestoreTarget, offset: int, end: int) -> DataLossError:
    return DataLossError(
        f"Backup log {target.source} ends at {end}, but this worker's local copy of {target.key_range} was committed "
        f"up to {offset}: the topic was deleted and made anew, or has lost records.",
        hint="bring the topic back; to give the job's state up and begin anew, delete its topics and data folders.",
    )

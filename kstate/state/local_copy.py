"""The local copy of a key range: what the store holds of it, and the changes on their way there.

What a crash may leave is told in kstate.state.restore: the lineage entry goes before the data, arrives with the data,
and the time index comes along.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from kstate.errors import DataLossError
from kstate.interfaces import Store
from kstate.keyspace import KeyRange
from kstate.plan import TopicPartition
from kstate.state.backup import Applied
from kstate.state.layout import Item, Timeline, index_key, parse_suffix, shard_bounds, shard_prefix
from kstate.state.lineage import Lineage, lineage_entry, stored_lineage
from kstate.state.partial_cells import PartialCells, is_cell
from kstate.state.values import split_value

_ENTRY_OVERHEAD_BYTES = 200
"""Two bytes objects and a dictionary slot beside the bytes themselves."""
_INDEX_ENTRY_BYTES = 250
"""What the time index of a run takes in memory for each value, at most, while the run is written."""
_HAS_EXPIRY = 1
"""First byte of a stored value with an expiry (kstate.state.values)."""


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
    partial: frozenset[int] = frozenset()
    """The ids of the operator's partial states (kstate.state.partial_cells)."""

    def __str__(self) -> str:
        return f"{self.key_range} of {self.source}"


class LocalCopy:
    """The target's part of the local store, and the run of changes that is collected for it in memory."""

    def __init__(self, store: Store, target: RestoreTarget, run_bytes: int) -> None:
        self.target = target
        self._store = store
        self._run_bytes = run_bytes
        self._run: dict[bytes, bytes | None] = {}
        self._by_slot: dict[bytes, list[bytes]] | None = None
        """Slot → the run's keys, some of them twice; made where a run replaces slots, which it does again and again."""
        self.collected_bytes = 0
        """Estimated memory of the run."""
        self._cells = PartialCells(store, self._prefix, target.partial)

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
            if self.target.partial and position.marked is None:
                kept.clear(key_range)
                report(f"Local copy of {key_range} is of an earlier release: it is dropped.")
            elif position.offset <= log_start:  # the marker before it must be there, to show whose copy this is
                kept.clear(key_range)
                log_says = f"the backup log {self.target.source} goes from {log_start} to {end}"
                report(f"Local copy of {key_range} stands at {position.offset}, {log_says}: it is dropped.")
        return kept

    def drop_all_but(self, kept: Lineage) -> bool:
        """Durably remove what the store holds of the slots that are not kept; True when it held any of it."""
        target = self.target
        if target.partial and (run := self._cells.cut(self._stored(), target.key_range)):
            self._store.write(list(run), list(run.values()))
        dropped = self._drop(kept.gaps(target.key_range))
        self._cells.load(kept)
        return dropped

    def _drop(self, ranges: list[KeyRange]) -> bool:
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
        for _ in self.collecting(applied):
            pass

    def collecting(self, applied: Applied) -> Iterator[None]:
        """The same, with a step between any two of its blocks."""
        for key_range in applied.replaced():
            self._empty(key_range)
        partial = self.target.partial
        if partial:
            self._cells.apply(applied, self._run)
        for number, block in enumerate(applied.blocks):
            if number:
                yield
            entries = applied.entries_of(block)
            self._put((pair for pair in entries if not is_cell(pair[0], partial)) if partial else entries)
            self.collected_bytes += len(block.frame) + self._overhead * block.count

    def _put(self, entries: Iterable[tuple[bytes, bytes | None]]) -> None:
        prefix = self._prefix
        if self._by_slot is None:
            self._run.update((prefix + suffix, value) for suffix, value in entries)
            return
        for suffix, value in entries:
            self._run[key := prefix + suffix] = value
            self._by_slot.setdefault(suffix[:2], []).append(key)

    def take(self, stored_key: bytes, value: bytes) -> None:
        """Add a pair of another copy to the run."""
        self._run[stored_key] = value
        self._by_slot = None
        self.collected_bytes += len(stored_key) + len(value) + self._overhead

    def ingest(self, lineage: Lineage) -> None:
        """Add the run to the store as one sorted file, together with the lineage entry that it makes true."""
        self._store.flush()
        key, value = self._entry(lineage)
        run = self._indexed_run()
        run[key] = value
        self._store.ingest(sorted(run.items()))
        self.forget_run()

    def write(self, lineage: Lineage) -> None:
        """Add the rest of the run and the lineage entry in one write."""
        if not self._run and lineage == self._stored().slice(self.target.key_range):
            return
        key, value = self._entry(lineage)
        run = self._indexed_run()
        self._store.write([key, *run], [value, *run.values()])
        self.forget_run()

    @property
    def may_spill(self) -> bool:
        """Whether changes may be written before all of their marker are: objects of partial states may not.

        Which of these are in force is told by markers alone.
        """
        return not self.target.partial

    def spill(self) -> None:
        """Write the run, in the middle of a marker; the slots count as not there until `write` or `ingest` says more.

        A crash before that costs the copy: it is dropped, and read anew from the log start.
        """
        key, value = self._entry(Lineage(), [self.target.key_range])
        run = self._indexed_run()
        self._store.write([key, *run], [value, *run.values()])
        self.forget_run()

    def forget_run(self) -> None:
        """Begin a new run: what was collected is in the store, or is to be read again."""
        self._run = {}
        self._by_slot = None
        self.collected_bytes = 0

    def _indexed_run(self) -> dict[bytes, bytes | None]:
        """The run together with the time index of its values; only the last value of each key counts."""
        target, timed = self.target, self.target.timed
        if not timed:
            return dict(self._run)
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
    def _overhead(self) -> int:
        return _ENTRY_OVERHEAD_BYTES + (_INDEX_ENTRY_BYTES if self.target.timed else 0)

    @property
    def _prefix(self) -> bytes:
        return shard_prefix(self.target.operator_id, self.target.source.partition)

    def _empty(self, key_range: KeyRange) -> None:
        """Delete all keys of these slots, in the store and in the run; but cells may stand for others, too."""
        (lo, hi), suffix_at, partial = self._bounds(key_range), len(self._prefix), self.target.partial
        there = self._collected(key_range) + [key for key, _ in self._store.scan(lo, hi)]
        self._run.update((key, None) for key in there if not (partial and is_cell(key[suffix_at:], partial)))

    def _collected(self, key_range: KeyRange) -> list[bytes]:
        """The run's keys in these slots."""
        at = slice(len(self._prefix), len(self._prefix) + 2)
        if self._by_slot is None:
            self._by_slot = {}
            for key in self._run:
                self._by_slot.setdefault(key[at], []).append(key)
        lo, hi = key_range.lo.to_bytes(2, "big"), (key_range.hi - 1).to_bytes(2, "big")
        return [key for slot, keys in self._by_slot.items() if lo <= slot <= hi for key in keys]

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

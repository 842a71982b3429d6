"""Rolling re-base: a worker writes the state of its pieces anew, slice by slice, so that older backup can be trimmed.

    grown ── changes since the last cycle began outweigh the state ──▶ cycle: a slice of slots with each epoch
      ▲                                                                   │ the last slot is written
      └──────────────── the marker's base is where the cycle began ◀──────┘

DESIGN, section 3. A slice holds the committed state of its slots, as it was before the epoch that carries it; what the
epoch changes comes behind it in the same marker. So from the first record behind a finished cycle's beginning on the
log holds the whole state of the piece, and all before is history.

A running cycle is known to nobody but its worker: what is cut, joined, released or lost begins anew, and its base stays
where the last *finished* cycle began (story P9).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from kstate.clock import Clock
from kstate.config import RebaseSettings
from kstate.errors import RetryableError
from kstate.interfaces import Log, Store
from kstate.keyspace import KeyRange
from kstate.plan import Plan, Shard, TopicPartition, backup_topic
from kstate.state.checkpoint import BaseSlice, Changes, Checkpoint
from kstate.state.layout import shard_bounds, shard_prefix
from kstate.state.partial_cells import is_cell
from kstate.worker.ownership import OwnedShard, Piece
from kstate.worker.state_size import estimate

LOOK_S = 10.0
"""How often the log is asked how far it has grown behind the bases of all pieces."""
LOG_FACTOR = 4
"""A cycle begins at the latest when the log since the base is so many times the state in the partition, and `log_bytes`
more."""

MARKER_BYTES = 256
RECORD_BYTES = 4096
"""Taken for the size of a record of the backup log until this worker has written some."""


@dataclass(slots=True)
class _Cycle:
    start: int
    """Offset in the backup partition: all of the cycle stands at or behind it."""
    done: int
    """Slots below are written."""
    since_bytes: int = 0
    """Changes that were written since it began."""


@dataclass(slots=True)
class _Course:
    """Of one piece, as long as it is neither cut nor joined; it advances only with what is committed."""

    grown_bytes: int = 0
    """Changes since the last cycle began, as far as this worker has written them."""
    look_at: int = 0
    """The state is measured again when so much has come together."""
    cycle: _Cycle | None = None
    urged: bool = False
    """The log has grown behind it: a cycle is to begin whatever its own changes are."""


class Rebasing:
    """Which slots each epoch of this worker writes anew."""

    def __init__(self, log: Log, store: Store, clock: Clock, app: str, settings: RebaseSettings) -> None:
        self._log = log
        self._store = store
        self._clock = clock
        self._app = app
        self._settings = settings
        self._courses: dict[tuple[Shard, KeyRange], _Course] = {}
        self._looked_at = clock.monotonic()
        self._written: dict[Shard, tuple[int, int]] = {}
        """Records of the backup log, and their bytes, as far as this worker has written them."""

    def tick(self, shards: Iterable[OwnedShard], plan: Plan | None = None) -> bool:
        """Touch the pieces that have nothing else to write and whose cycle runs, or is due; whether there are any."""
        shards = list(shards)
        self._forget(shards)
        if self._clock.monotonic() - self._looked_at >= LOOK_S:
            self._looked_at = self._clock.monotonic()
            self._look(shards, Counter(tile.shard for tile in plan.tiles) if plan else Counter())
        wanted = False
        for shard in shards:
            for piece in shard.pieces:
                course = self._courses.get((shard.shard, piece.key_range))
                if course is not None and (course.cycle is not None or course.urged) and not piece.touched:
                    piece.touched = wanted = True
        return wanted

    def slice(self, shard: OwnedShard, piece: Piece, changes: Changes) -> BaseSlice | None:
        """What an epoch with these changes writes anew of a piece.

        Ask before the changes of partial states are collected: a cycle that begins has them written as a whole.
        """
        course = self._courses.setdefault((shard.shard, piece.key_range), _Course())
        cycle = course.cycle
        if cycle is None:
            if shard.lineage.gaps(piece.key_range) or not self._due(course, shard, piece):
                return None
            start = min(position.offset for position in shard.lineage.slice(piece.key_range).values())
            cycle = _Cycle(start, piece.key_range.lo)
        if cycle.done == piece.key_range.lo:
            piece.partials.rewrite()
        return self._read(shard, piece.key_range, cycle, max(changes.size_bytes, self._settings.slice_bytes))

    def settled(self, shard: OwnedShard, checkpoint: Checkpoint, base: BaseSlice | None) -> None:
        """The epoch that `slice` was for is committed and in the store."""
        key_range = checkpoint.marker.key_range
        records, size = self._written.get(shard.shard, (0, 0))
        block_bytes = sum(map(len, checkpoint.blocks))
        self._written[shard.shard] = records + 1 + len(checkpoint.blocks), size + MARKER_BYTES + block_bytes
        changed_bytes = block_bytes - (base.size_bytes if base else 0)
        course = self._courses.setdefault((shard.shard, key_range), _Course())
        course.grown_bytes += changed_bytes
        if base is None:
            return
        cycle = course.cycle = course.cycle or _Cycle(base.start, key_range.lo)
        cycle.done, course.urged = base.key_range.hi, False
        cycle.since_bytes += changed_bytes
        if base.finishes:
            self._courses[shard.shard, key_range] = _Course(grown_bytes=cycle.since_bytes)

    def _due(self, course: _Course, shard: OwnedShard, piece: Piece) -> bool:
        if course.urged:
            return True
        if course.grown_bytes < max(course.look_at, self._settings.grown_bytes):
            return False
        course.look_at = estimate(self._store, shard, piece)
        return course.grown_bytes >= course.look_at

    def _read(self, shard: OwnedShard, key_range: KeyRange, cycle: _Cycle, budget: int) -> BaseSlice:
        """Whole slots, until there are so many bytes."""
        prefix, partial = shard_prefix(shard.operator_id, shard.shard.partition), shard.partial
        suffixes: list[bytes] = []
        values: list[bytes | None] = []
        lo, hi = shard_bounds(shard.operator_id, shard.shard.partition, KeyRange(cycle.done, key_range.hi))
        at, size, end, last = len(prefix), 0, key_range.hi, b""
        for key, value in self._store.scan(lo, hi):
            suffix = key[at:]
            if size >= budget and suffix[:2] != last:
                end = int.from_bytes(suffix[:2], "big")
                break
            last = suffix[:2]
            size += len(suffix) + len(value)
            if not (partial and is_cell(suffix, partial)):
                suffixes.append(suffix)
                values.append(value)
        return BaseSlice(KeyRange(cycle.done, end), suffixes, values, cycle.start, finishes=end == key_range.hi)

    def _look(self, shards: list[OwnedShard], tiles: Counter[Shard]) -> None:
        """Urge the pieces whose base holds back more of the log than the state in the partition is worth.

        That log is of all `tiles` of the partition, whoever has them: they are taken to be as large as this one. By its
        own size alone, large neighbours that are written anew would urge each other for ever.
        """
        places = {TopicPartition(backup_topic(self._app, s.shard.operator), s.shard.partition): s for s in shards}
        try:
            ends = self._log.end_offsets(list(places), committed=True) if places else {}
        except RetryableError:
            return  # the next look is soon enough
        for place, shard in places.items():
            for piece in shard.pieces:
                course = self._courses.setdefault((shard.shard, piece.key_range), _Course())
                positions = shard.lineage.slice(piece.key_range).values()
                if course.cycle is None and positions and not shard.lineage.gaps(piece.key_range):
                    since = ends[place] - min(position.base for position in positions)
                    records, written_bytes = self._written.get(shard.shard, (1, RECORD_BYTES))
                    log_bytes = since * written_bytes // records
                    if log_bytes > self._settings.log_bytes:
                        state_bytes = estimate(self._store, shard, piece) * max(tiles[shard.shard], 1)
                        course.urged = log_bytes > LOG_FACTOR * state_bytes + self._settings.log_bytes

    def _forget(self, shards: Iterable[OwnedShard]) -> None:
        here = {(shard.shard, piece.key_range) for shard in shards for piece in shard.pieces}
        if gone := self._courses.keys() - here:
            for place in gone:
                del self._courses[place]

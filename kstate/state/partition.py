"""partition-processing-state: a shard's state as that of several key ranges, and back.

Paper: SEEP, section 3.3, partition-processing-state(o, π), which works on the backup, not on the operator. Here the
backup is a log: `split_backup` makes a copy for each key range out of it, `merge_copies` one out of several. Keyed
state needs no work: entries are ordered by slot, lineage and progress are maps over slots, the time index is derived
anew. Partial state is cut and merged by its own class when it is loaded (`object_within`). Where to cut is a matter of
load (`cut_points`).

An operator that runs notices nothing. Moves need no copies made like this: the target of a move, and each heir of a
parallel recovery, follows the log for its own range (kstate.state.follow).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from kstate.clock import Clock, Steps
from kstate.config import Settings
from kstate.interfaces import Log, Store
from kstate.keyspace import KeyRange
from kstate.plan import TopicPartition
from kstate.state.backup import BackupReader
from kstate.state.follow import INGESTED, POLL_RECORDS, READ, RESTORED, RUN_FRACTION
from kstate.state.freshness import fresh_end
from kstate.state.layout import shard_bounds, shard_prefix
from kstate.state.lineage import Lineage, stored_lineage
from kstate.state.local_copy import LocalCopy, RestoreTarget
from kstate.state.origin import AWAIT_RECORDS
from kstate.state.partial_cells import PartialCells

_logger = logging.getLogger(__name__)


class Part(NamedTuple):
    """A copy of a key range, and the store that holds it."""

    target: RestoreTarget
    store: Store


def cut_points(key_range: KeyRange, n: int, weights: Mapping[int, float] | None = None) -> list[int]:
    """The n - 1 slots, ascending, at which n parts of about equal weight begin, the first one left out; none is empty.

    `weights`: slot → its load; without it, or where it says nothing, every slot counts alike. For n = 2 the weighted
    median. Raises ValueError for more parts than slots.
    """
    if not 1 <= n <= key_range.width:
        raise ValueError(f"key range {key_range} of {key_range.width} slots cannot be cut into {n} parts")
    loads = [weights.get(slot, 0.0) for slot in range(key_range.lo, key_range.hi)] if weights else []
    total = sum(loads)
    if not total:
        return [part.lo for part in key_range.parts(n)[1:]]
    cuts: list[int] = []
    below, slot = 0.0, key_range.lo
    for part in range(1, n):
        first = 1 + (cuts[-1] if cuts else key_range.lo)
        last = key_range.hi - (n - part)  # a slot is left for each part to come
        while slot < first or (slot < last and below + loads[slot - key_range.lo] / 2 < total * part / n):
            below += loads[slot - key_range.lo]
            slot += 1
        cuts.append(slot)
    return cuts


def cut_range(key_range: KeyRange, cuts: Sequence[int]) -> list[KeyRange]:
    """The parts of a range between ascending cuts within it."""
    return [KeyRange(lo, hi) for lo, hi in pairwise([key_range.lo, *cuts, key_range.hi])]


def object_within(
    value: Any,
    made_for: KeyRange,
    wanted: KeyRange,
    split: Callable[[Any, float], tuple[Any, Any]] = lambda value, fraction: value.split(fraction),
    merge: Callable[[Any, Any], Any] = lambda lower, upper: lower.merge(upper),
) -> Any:
    """What of a partial state's object stands for a part of its range.

    It is cut into halves, and these again, and what lies within the part is merged. So whoever wants another part of
    the same object cuts it at the same slots, without knowing of the others: together all parts are the object, however
    its class rounds.
    """
    if wanted == made_for:
        return value
    middle = (made_for.lo + made_for.hi) // 2
    lower, upper = split(value, (middle - made_for.lo) / made_for.width)
    halves = [(KeyRange(made_for.lo, middle), lower), (KeyRange(middle, made_for.hi), upper)]
    found = [
        object_within(half, its_range, part, split, merge)
        for its_range, half in halves
        if (part := its_range.overlap(wanted))
    ]
    return found[0] if len(found) == 1 else merge(*found)


def split_backup(
    log: Log, parts: Sequence[Part], clock: Clock, settings: Settings, report: Callable[[str], None] = _logger.warning
) -> Steps[list[Lineage]]:
    """Fill a copy for each key range from one backup log, read once: all as of the same fresh end. Their lineages.

    What the stores hold of the parts is dropped. Raises ValueError for parts that are not of one shard or overlap, and
    as `restore` does; then, after a DataLossError too, it may be begun anew.
    """
    source, _ = _shard_of(parts)
    end = yield from fresh_end(log, source, clock, settings.failure.stuck_log_ms, report)
    log_start = log.start_offsets([source])[source]
    run_bytes = settings.state.store_bytes // RUN_FRACTION // len(parts)
    copies = [_Copying(LocalCopy(store, target, run_bytes), log_start) for target, store in parts]
    yield from _read(log, source, copies, log_start, end)
    lineages = [copying.proof.finish() for copying in copies]
    for copying, lineage in zip(copies, lineages, strict=True):
        copying.copy.write(lineage)
    yield RESTORED
    return lineages


class _Copying:
    """A copy that is made from the log's start on."""

    def __init__(self, copy: LocalCopy, log_start: int) -> None:
        target, nothing = copy.target, Lineage()
        self.copy = copy
        self.proof = BackupReader(target.source, target.operator_id, target.key_range, nothing, log_start)
        copy.drop_all_but(nothing)


def _read(log: Log, source: TopicPartition, copies: Sequence[_Copying], position: int, end: int) -> Steps[None]:
    """Feed all copies from one reader."""
    reader = log.reader()
    try:
        reader.assign({source: position})
        while position < end:
            batches = reader.poll(POLL_RECORDS, 0.0)
            for copying in copies:
                for applied in (applied for batch in batches for applied in copying.proof.feed(batch)):
                    copying.copy.collect(applied)
                if copying.copy.full:
                    copying.copy.ingest(copying.proof.proven())
            position = batches[-1].next_offset if batches else position
            yield READ if batches else AWAIT_RECORDS
    finally:
        reader.close()


def merge_copies(parts: Sequence[Part], into: Part, settings: Settings) -> Steps[Lineage]:
    """Make one copy out of copies that tile its range; they stay as they are. The lineage is that of all of them.

    Slots may stand behind different markers: the map over slots says so, and they run as pieces of their own (S8).
    Raises ValueError for parts that do not tile the range.
    """
    ordered = sorted(parts, key=lambda part: part.target.key_range)
    ranges = [part.target.key_range for part in ordered]
    whole = into.target.key_range
    same = _shard_of(parts) == _shard_of([into])
    if not same or ranges != cut_range(whole, [key_range.lo for key_range in ranges[1:]]):
        raise ValueError(f"copies of {', '.join(str(part.target) for part in ordered)} do not tile {into.target}")
    copy = LocalCopy(into.store, into.target, settings.state.store_bytes // RUN_FRACTION)
    copy.drop_all_but(Lineage())
    done = Lineage()
    for part in ordered:
        lineage = _lineage_of(part).slice(part.target.key_range)
        for stored_key, value in _pairs_of(part):
            copy.take(stored_key, value)
            if copy.full:
                copy.ingest(done)
                yield INGESTED
        for key_range, position in lineage:
            done.assign(key_range, position)
    copy.write(done)
    yield RESTORED
    return done


def _shard_of(parts: Sequence[Part]) -> tuple[TopicPartition, int]:
    """The backup partition and the operator of parts of one shard that do not overlap."""
    shards = {(part.target.source, part.target.operator_id) for part in parts}
    ranges = sorted(part.target.key_range for part in parts)
    if len(shards) != 1 or any(lower.hi > upper.lo for lower, upper in pairwise(ranges)):
        named = ", ".join(str(part.target) for part in parts) or "nothing"
        raise ValueError(f"{named}: expected parts of one shard, without overlap")
    return shards.pop()


def _lineage_of(part: Part) -> Lineage:
    target = part.target
    return stored_lineage(part.store, target.operator_id, target.source.partition)


def _pairs_of(part: Part) -> Iterator[tuple[bytes, bytes]]:
    """The entries of a copy, its cells cut to its range."""
    target, partition = part.target, part.target.source.partition
    lo, hi = shard_bounds(target.operator_id, partition, target.key_range)
    cells = PartialCells(part.store, shard_prefix(target.operator_id, partition), target.partial)
    cut = cells.cut(_lineage_of(part), target.key_range)
    yield from ((key, value) for key, value in part.store.scan(lo, hi) if key not in cut)
    yield from ((key, value) for key, value in cut.items() if value is not None and lo <= key < hi)

"""restore-state: bring a key range of one shard back from its backup log into the local store.

Paper: SEEP, section 3.2, restore-state(o, θ, τ, β). The protocol is rule S1: the caller has read the plan that names
this worker, whose leader has fenced every earlier owner; H is taken here, first; then the log is read to H.

    a local copy stands between log start and H    warm: only the tail behind it is read
    none, or below the log start,
    or it is a copy of another log                 cold: dropped durably, then read from the log start
    beyond H                                       refused: what was committed is gone from the log

Who may crash where, and what is then true. The lineage entry in the store says up to which offset the store holds the
state of which slots, and a slot without entry counts as not there. So the entry

- goes *before* the data when a copy is dropped, and both are flushed before anything new is ingested: an ingested file
  is durable at once, an older deletion in memory is not, and the old data would come back under the new entry;
- arrives *with* the data, in one write or one ingested file. A file is ingested only after a flush: the entry speaks
  for the shard's other key ranges too, whose last epochs may not be durable yet;
- leaves *with* the first part of an epoch that is too large for one step beside running ranges (`LocalCopy.spill`), and
  comes back with the last one;
- takes the time index along: what is written or ingested holds the index entries of its values. Those of older
  values stay, also when a range is dropped: stale entries do no harm;
- is left out for slots whose chain of markers still lacks its base (rule S5).

Interrupted anywhere, the restore starts over from what the entry says. It is a `Follower` that adopts at once
(kstate.state.follow); the copy itself is a `LocalCopy` (kstate.state.local_copy).
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from kstate.clock import Clock, Steps
from kstate.config import Settings
from kstate.interfaces import Log, Store
from kstate.keyspace import KeyRange
from kstate.state.follow import Follower
from kstate.state.layout import shard_bounds, shard_prefix
from kstate.state.lineage import Lineage, lineage_entry, stored_lineage
from kstate.state.local_copy import RestoreTarget, TimedState
from kstate.state.partial_cells import PartialCells

__all__ = ["RestoreTarget", "TimedState", "restore", "forget"]

_logger = logging.getLogger(__name__)


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
    follower = Follower(log, store, target, clock, settings, report)
    try:
        return (yield from follower.adopt())
    finally:
        follower.close()


def forget(
    store: Store, operator_id: int, partition: int, key_range: KeyRange, partial: frozenset[int] = frozenset()
) -> None:
    """Remove the local copy of slots that belong to somebody else now; `partial`: the operator's partial states.

    Nothing is flushed: a crash may leave some of the data, but no lineage entry that speaks for it.
    """
    cells = PartialCells(store, shard_prefix(operator_id, partition), partial)
    run = cells.cut(stored_lineage(store, operator_id, partition), key_range)
    key, value = lineage_entry(store, operator_id, partition, Lineage(), [key_range])
    store.write([*run, key], [*run.values(), value])
    store.delete_range(*shard_bounds(operator_id, partition, key_range))

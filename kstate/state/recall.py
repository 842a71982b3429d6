"""The state of a key range as of an earlier moment, from its backup log alone: nobody is asked, nothing is changed.

A moment is an offset of the backup partition: what was committed before it counts, an epoch whose marker stands behind
it does not. Each slot is brought back as of its last marker before the moment; as long as its base is retained, that
is exactly what its owner had committed then (rule S5 proves it, as in a restore).
"""

from __future__ import annotations

from bisect import bisect_left

from kstate.clock import Step, Steps
from kstate.errors import BackupLogError, ConfigError, DataLossError
from kstate.interfaces import Batch, Log, Store
from kstate.state.backup import BackupReader
from kstate.state.lineage import Lineage
from kstate.state.local_copy import LocalCopy, RestoreTarget
from kstate.state.origin import AWAIT_RECORDS

NEWEST = 1 << 63
"""The moment of whoever asks: all that is committed."""
POLL_RECORDS = 16
"""Records hold up to 512 KiB each: at most 8 MiB at once."""
RECALLED = Step("recalled")


def recall(log: Log, store: Store, target: RestoreTarget, until: int, run_bytes: int) -> Steps[Lineage]:
    """Make an empty store hold the target's state as of the offset `until`; the lineage says which epochs that is.

    A slot without a position had no state then. `run_bytes`: how much is collected in memory before it is written.
    Raises ConfigError when that moment is not retained any more, BackupLogError (rule S5), RetryableError.
    """
    while True:
        start = log.start_offsets([target.source])[target.source]
        try:
            return (yield from _recalled(log, LocalCopy(store, target, run_bytes), start, until))
        except DataLossError:
            if log.start_offsets([target.source])[target.source] == start:
                raise  # else it was trimmed while we read: from the new start on, if that is enough


def _recalled(log: Log, copy: LocalCopy, start: int, until: int) -> Steps[Lineage]:
    target = copy.target
    source = target.source
    committed = log.end_offsets([source], committed=True)[source]
    end = min(until, committed)
    proof = BackupReader(source, target.operator_id, target.key_range, Lineage(), start)
    copy.drop_all_but(Lineage())
    reader, position = log.reader(), start
    try:
        reader.assign({source: start})
        while position < end:
            batches = reader.poll(POLL_RECORDS, 0.0)
            for batch in batches:
                for applied in proof.feed(_before(batch, end)):
                    copy.collect(applied)
                position = batch.next_offset
            if copy.full:
                copy.ingest(proof.proven())
            yield RECALLED if batches else AWAIT_RECORDS
    finally:
        reader.close()
    lineage = _complete(proof, target, start, late=end == committed)
    copy.write(lineage)
    return lineage


def _before(batch: Batch, end: int) -> Batch:
    """The part of a batch before an offset."""
    return batch if batch.next_offset <= end else batch.head(bisect_left(batch.offsets, end), end)


def _complete(proof: BackupReader, target: RestoreTarget, start: int, *, late: bool) -> Lineage:
    """The lineage as of the end that was read to; `late`: that is the end of what is committed."""
    try:
        return proof.complete()
    except BackupLogError as error:
        if late:
            raise
        raise ConfigError(
            f"The state of {target} at that moment is not retained any more: its backup log begins at offset {start}.",
            hint="ask for a later moment; `rebase.history_ms` says for how long moments are kept.",
        ) from error

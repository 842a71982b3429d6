"""After a taint: did the epoch commit? The backup topic knows (rule S4)."""

from __future__ import annotations

from kstate.clock import Clock, Step, Steps
from kstate.errors import BackupLogError, DecodeError, FencedError
from kstate.interfaces import Batch, Log
from kstate.plan import TopicPartition, backup_topic
from kstate.state.backup import HINT
from kstate.state.blocks import decode_frame
from kstate.state.freshness import fresh_end
from kstate.state.markers import Marker
from kstate.worker.epoch import MarkerOffsets, PieceEpoch, Prepared

LOOKED = Step("looked")
POLL_RECORDS = 64
"""Records hold up to 512 KiB each."""
POLL_S = 0.05


def look_for_epoch(log: Log, clock: Clock, app: str, prepared: Prepared) -> Steps[MarkerOffsets | None]:
    """Search each touched backup partition, to a fresh end, for the epoch's own markers.

    Returns where they stand when the epoch committed, None when it did not. All pieces are one transaction: some but
    not all of them found is a BackupLogError. FencedError when the log was trimmed past the epoch.
    """
    offsets: dict[TopicPartition, list[int]] = {}
    missing: list[PieceEpoch] = []
    for shard in prepared.shards():
        partition = TopicPartition(backup_topic(app, shard.shard.operator), shard.shard.partition)
        pieces = [piece for piece in prepared.pieces if piece.shard is shard]
        found = yield from _own_markers(log, clock, partition, min(map(_stands_at, pieces)))
        for piece in pieces:
            marker = piece.checkpoint.marker
            offset = found.get((marker.incarnation, marker.key_range.lo, marker.key_range.hi, marker.epoch))
            if offset is None:
                missing.append(piece)
            else:
                offsets.setdefault(partition, []).append(offset)
    if missing and offsets:
        raise BackupLogError(
            f"Of one epoch markers stand in {sorted(map(str, offsets))} but not for {missing[0].shard.shard}.",
            hint=HINT,
        )
    return None if missing else offsets


def _stands_at(piece: PieceEpoch) -> int:
    """The least backup offset that a marker of the piece's next epoch can have; 0 before its first."""
    key_range = piece.checkpoint.marker.key_range
    if piece.shard.lineage.gaps(key_range):
        return 0
    return min(position.offset for position in piece.shard.lineage.slice(key_range).values())


def _own_markers(
    log: Log, clock: Clock, partition: TopicPartition, position: int
) -> Steps[dict[tuple[str, int, int, int], int]]:
    """Every marker from a position to a fresh end: (incarnation, lo, hi, epoch) → offset."""
    end = yield from fresh_end(log, partition, clock)
    start = log.start_offsets([partition])[partition]
    if start > position:  # asking again would never end: the markers may have stood in what is gone
        raise FencedError(
            f"{partition} was trimmed to {start}, past {position} where this worker stands: whether its last epoch "
            "committed cannot be seen any more, and it gives its tiles up.",
            hint="nothing is lost; start the worker again and it restores what is committed.",
        )
    reader = log.reader()
    found: dict[tuple[str, int, int, int], int] = {}
    try:
        reader.assign({partition: position})
        while position < end:
            for batch in reader.poll(POLL_RECORDS, POLL_S):
                position = batch.next_offset
                found |= _markers(batch)
            yield LOOKED
    finally:
        reader.close()
    return found


def _markers(batch: Batch) -> dict[tuple[str, int, int, int], int]:
    found: dict[tuple[str, int, int, int], int] = {}
    for offset, value in zip(batch.offsets, batch.values, strict=True):
        try:
            frame = decode_frame(value or b"")
        except DecodeError as error:
            raise BackupLogError(f"Backup log {batch.source} at offset {offset}: {error}", hint=HINT) from error
        if isinstance(frame, Marker):
            found[(frame.incarnation, frame.key_range.lo, frame.key_range.hi, frame.epoch)] = offset
    return found

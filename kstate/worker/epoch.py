"""The epoch: what a worker commits at once (rules S8 and S11).

`prepare` turns what was collected into outputs, blocks and markers; `write` sends them in one transaction that is
opened, filled and committed without a pause between; `settle` brings the local store up to what was committed. The
store is written only after the commit, so local state never runs ahead of the backup.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from kstate.clock import Step, Steps
from kstate.interfaces import OutMessage, Producer, Store
from kstate.plan import TopicPartition, backup_topic, dlq_topic
from kstate.state.backup import backup_messages
from kstate.state.checkpoint import BaseSlice, Changes, Checkpoint, EpochEnd, PieceId, advance, checkpoint
from kstate.state.layout import lineage_key, shard_prefix
from kstate.state.lineage import encode_lineage, stored_lineage
from kstate.worker.ownership import OwnedShard, Piece
from kstate.worker.process import Processor
from kstate.worker.rebasing import Rebasing
from kstate.worker.stream_frames import WatermarkFrame, frames_of

CHUNK = 10_000
"""Messages handed over between two named steps: an outgoing batch is never unbounded."""

BEGUN = Step("begun")
OUTPUTS_PART = Step("outputs-part")
OUTPUTS_SENT = Step("outputs-sent")
BLOCKS_SENT = Step("blocks-sent")
MARKERS_SENT = Step("markers-sent")
FLUSHED = Step("flushed")
COMMITTED = Step("committed")
STORED = Step("stored")


@dataclass(frozen=True, slots=True)
class PieceEpoch:
    """One piece's part of an epoch."""

    shard: OwnedShard
    piece: Piece
    changes: Changes
    checkpoint: Checkpoint
    base: BaseSlice | None = None
    """What it writes anew."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """Everything one transaction will contain."""

    outputs: Sequence[tuple[str, list[OutMessage]]]
    pieces: Sequence[PieceEpoch]

    def shards(self) -> list[OwnedShard]:
        """The shards whose backup partitions are written, each once."""
        return list({piece.shard.shard: piece.shard for piece in self.pieces}.values())


def prepare(
    app: str,
    incarnation: str,
    processors: Mapping[str, Processor],
    shards: Collection[OwnedShard],
    partitions: Mapping[str, int],
    rebasing: Rebasing,
) -> Prepared:
    """Encode the running epoch. Raises ValueFault when a state value cannot be stored; nothing has been sent then.

    Processors go by operator uid. Watermark frames come last: behind the records that they speak of.
    """
    outputs: list[tuple[str, list[OutMessage]]] = []
    for processor in processors.values():
        outputs += [(output.topic, output.messages) for output in processor.outputs.values() if output.messages]
        if processor.rejects.letters:
            outputs.append((dlq_topic(app, processor.spec.uid), processor.rejects.messages()))
    pieces = [piece for shard in shards for piece in _pieces(incarnation, shard, rebasing)]
    for prepared in pieces:
        outputs += _frames(processors[prepared.shard.shard.operator], prepared, partitions)
    return Prepared(outputs, pieces)


def _pieces(incarnation: str, shard: OwnedShard, rebasing: Rebasing) -> Iterable[PieceEpoch]:
    shard.coalesce()
    for piece in shard.pieces:
        release = shard.releasing(piece.key_range)
        if piece.touched or release is not None:
            changes = shard.cache.changes(shard.changed_in(piece))
            base = rebasing.slice(shard, piece, changes) if release is None else None
            changes = changes.joined(piece.partials.changes())
            name = PieceId(shard.operator_id, shard.shard.partition, piece.key_range)
            end = EpochEnd(incarnation, piece.grant, piece.progress, piece.times, release)
            yield PieceEpoch(shard, piece, changes, checkpoint(name, changes, shard.lineage, end, base), base)


def _frames(
    processor: Processor, prepared: PieceEpoch, partitions: Mapping[str, int]
) -> list[tuple[str, list[OutMessage]]]:
    """The piece's watermark for every partition of every stream that carries it, where it is news."""
    piece, shard = prepared.piece, prepared.shard.shard
    timed = [output.topic for output in processor.spec.outputs if output.timed]
    if not timed or not piece.has_news:
        return []
    of = partitions[processor.spec.inputs[0].topic]
    frame = WatermarkFrame(shard.operator, shard.partition, of, piece.key_range, piece.grant, *piece.tells)
    return frames_of(frame, {topic: partitions[topic] for topic in timed})


MarkerOffsets: TypeAlias = Mapping[TopicPartition, Sequence[int]]
"""Where an epoch's markers stand in each backup partition, in the order of the pieces."""


def write(app: str, producer: Producer, prepared: Prepared) -> Steps[MarkerOffsets]:
    """Begin, outputs, blocks, markers, flush, commit.

    Raises FencedError, or TaintedError/RetryableError: then nobody knows what was committed (S4).
    """
    producer.begin()
    yield BEGUN
    for topic, messages in prepared.outputs:
        for start in range(0, len(messages), CHUNK):
            producer.send(topic, messages[start : start + CHUNK])
            yield OUTPUTS_PART
    yield OUTPUTS_SENT
    for piece in prepared.pieces:
        topic = backup_topic(app, piece.shard.shard.operator)
        blocks, marker = backup_messages(piece.checkpoint, piece.shard.shard.partition)
        producer.send(topic, blocks)
        yield BLOCKS_SENT
        producer.send(topic, [marker], tracked=True)
        yield MARKERS_SENT
    offsets = producer.flush()
    yield FLUSHED
    producer.commit()
    yield COMMITTED
    return offsets


def settle(prepared: Prepared, app: str, offsets: MarkerOffsets, store: Store, rebasing: Rebasing) -> None:
    """Bring lineage, local store and cache up to a committed epoch, in one atomic write."""
    keys: list[bytes] = []
    values: list[bytes | None] = []
    sizes: list[int] = []
    for shard in prepared.shards():
        operator_id, partition = shard.operator_id, shard.shard.partition
        pieces = [piece for piece in prepared.pieces if piece.shard is shard]
        marked_at = offsets[TopicPartition(backup_topic(app, shard.shard.operator), partition)]
        prefix = shard_prefix(operator_id, partition)
        written = len(keys)
        stored = stored_lineage(store, operator_id, partition)  # another range of the shard may be on its way in
        for piece, offset in zip(pieces, marked_at, strict=True):
            keys += [prefix + suffix for suffix in piece.changes.suffixes]
            values += piece.changes.values
            index_keys, index_values = piece.piece.agendas.changes(shard.cache.columns, piece.changes.times)
            keys += index_keys
            values += index_values
            if piece.piece.has_news:
                piece.piece.sent = piece.piece.tells
            advance(shard.lineage, piece.checkpoint.marker, offset)
            advance(stored, piece.checkpoint.marker, offset)
        sizes.append(sum(map(len, filter(None, values[written:]))))
        keys.append(lineage_key(operator_id, partition))
        values.append(encode_lineage(stored))
    store.write(keys, values)
    for shard, size in zip(prepared.shards(), sizes, strict=True):
        shard.settled(size)  # agendas read the time index anew: by now it must be in the store
    for piece in prepared.pieces:
        rebasing.settled(piece.shard, piece.checkpoint, piece.base)

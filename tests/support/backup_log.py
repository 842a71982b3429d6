"""A backup log in memory, filled by the real writer's side, beside what the restored state has to be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from kstate.interfaces import Batch, Producer, Store, TopicSpec
from kstate.keyspace import FULL_RANGE, KeyRange
from kstate.plan import TopicPartition
from kstate.state.backup import backup_messages
from kstate.state.blocks import Block, BlockHeader, BlockKind, decode_frame, encode_blocks
from kstate.state.checkpoint import Changes, Checkpoint, EpochEnd, PieceId, advance, checkpoint
from kstate.state.layout import key_suffix, shard_bounds, shard_prefix
from kstate.state.lineage import Lineage, stored_lineage
from kstate.state.markers import Marker, joint_checksum
from kstate.testing.memory_log import MemoryLog
from kstate.testing.virtual_time import VirtualClock

OPERATOR = 1
SOURCE = TopicPartition("app.count.backup", 3)
LOW, HIGH = KeyRange(0, 0x8000), KeyRange(0x8000, 0x10000)

Entries = Mapping[bytes, bytes | None]


def entry(slot: int, name: bytes = b"k") -> bytes:
    """The key suffix of an entry of state 1 in a slot."""
    return key_suffix(slot, 1, name)


class BackupLog:
    """The backup log of one shard; `state` and `lineage` are what a restore must bring back.

    `history` keeps the state after each committed marker, by the offset of the position behind it.
    """

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.log = MemoryLog(self.clock)
        self.log.create_topics([TopicSpec(SOURCE.topic, SOURCE.partition + 1)])
        self.lineage = Lineage()
        self.state: dict[bytes, bytes] = {}
        self.history: dict[int, dict[bytes, bytes]] = {}
        self._producers: dict[str, Producer] = {}

    def commit(
        self, entries: Entries, key_range: KeyRange = FULL_RANGE, *, writer: str = "w-1", read: int = 0
    ) -> Marker:
        """One epoch of a piece, committed; `read` is its progress on the input `words`."""
        return self.commit_frames(self.checkpoint(entries, key_range, writer=writer, read=read))

    def release(
        self, entries: Entries, key_range: KeyRange, move: int, *, writer: str = "w-1", grant: int = 7
    ) -> Marker:
        """The writer's last epoch of a range, by a move (S6)."""
        return self.commit_frames(self.checkpoint(entries, key_range, writer=writer, grant=grant, move=move))

    def checkpoint(
        self,
        entries: Entries,
        key_range: KeyRange = FULL_RANGE,
        *,
        writer: str = "w-1",
        read: int = 0,
        grant: int = 7,
        move: int | None = None,
    ) -> Checkpoint:
        """The next epoch of a piece, not written yet."""
        piece = PieceId(OPERATOR, SOURCE.partition, key_range)
        standing = EpochEnd(writer, grant, {"words": read or len(self.history)}, release=move)
        return checkpoint(piece, Changes(list(entries), list(entries.values())), self.lineage, standing)

    def rebase(self, key_range: KeyRange, base: int) -> Marker:
        """An epoch that changes nothing and finishes a re-base cycle begun at `base`: all slots as base blocks."""
        plain = self.checkpoint({}, key_range)
        lo, hi = shard_bounds(OPERATOR, SOURCE.partition, key_range)
        kept = sorted((key[6:], value) for key, value in self.state.items() if lo <= key < hi)
        header = BlockHeader(OPERATOR, key_range, BlockKind.BASE, plain.marker.epoch, plain.marker.writer)
        blocks = encode_blocks(header, [suffix for suffix, _ in kept], [value for _, value in kept])
        checksum = joint_checksum(frame[8:16] for frame in blocks)
        marker = replace(plain.marker, base=base, blocks=len(blocks), entries=len(kept), checksum=checksum)
        return self.commit_frames(Checkpoint(blocks, marker))

    def commit_frames(self, made: Checkpoint, between: Callable[[], object] = lambda: None) -> Marker:
        """Write a checkpoint in a transaction of its own and remember what it means.

        `between` is called once the blocks are written and the marker is not.
        """
        producer = self.producer(made.marker.incarnation)
        blocks, marker = backup_messages(made, SOURCE.partition)
        producer.begin()
        producer.send(SOURCE.topic, blocks, tracked=True)
        producer.flush()
        between()
        producer.send(SOURCE.topic, [marker], tracked=True)
        offset = producer.flush()[SOURCE][-1]
        producer.commit()
        self._remember(made, offset)
        return made.marker

    def producer(self, writer: str) -> Producer:
        """The open producer of a writer."""
        if writer not in self._producers:
            self._producers[writer] = self.log.producer(writer)
            self._producers[writer].open()
        return self._producers[writer]

    def read(self, start: int = 0) -> Batch:
        """All that is committed from an offset on."""
        reader = self.log.reader()
        reader.assign({SOURCE: start})
        batches = reader.poll(1_000_000, 0.0)
        return batches[0] if batches else Batch(SOURCE, start)

    def trim(self, offset: int) -> None:
        """DeleteRecords."""
        self.log.delete_records({SOURCE: offset})

    def part(self, key_range: KeyRange, state: Mapping[bytes, bytes] | None = None) -> list[tuple[bytes, bytes]]:
        """The entries of a key range that a store must hold, in order."""
        lo, hi = shard_bounds(OPERATOR, SOURCE.partition, key_range)
        return sorted((k, v) for k, v in (self.state if state is None else state).items() if lo <= k < hi)

    def _remember(self, made: Checkpoint, offset: int) -> None:
        prefix = shard_prefix(OPERATOR, SOURCE.partition)
        for frame in made.blocks:
            block = decode_frame(frame)
            assert isinstance(block, Block)
            for suffix, value in zip(*block.entries(), strict=True):
                if value is None:
                    self.state.pop(prefix + suffix, None)
                else:
                    self.state[prefix + suffix] = value
        advance(self.lineage, made.marker, offset)
        self.history[offset + 1] = dict(self.state)


def held(store: Store, key_range: KeyRange = FULL_RANGE) -> list[tuple[bytes, bytes]]:
    """The entries of the shard's key range in a store."""
    return list(store.scan(*shard_bounds(OPERATOR, SOURCE.partition, key_range)))


def lineage_of(store: Store, key_range: KeyRange = FULL_RANGE) -> Lineage:
    """The shard's lineage in a store."""
    return stored_lineage(store, OPERATOR, SOURCE.partition).slice(key_range)

"""backup-state: both sides of the backup topic (paper: SEEP, section 3.2; here the upstream is the Kafka log).

The writer's side makes the messages of an epoch. The reader's side proves what it reads before anybody applies it (rule
S5): every marker has all its blocks, with the right counts and checksum, and follows the marker that its slots stand
at. The chain is checked from the first complete base on, the very start of the log being one. It detects holes and
torn epochs, not a lost tail, and replaces no other rule.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from operator import attrgetter

from kstate.errors import BackupLogError, DecodeError
from kstate.interfaces import Batch, OutMessage
from kstate.keyspace import KeyRange
from kstate.plan import TopicPartition
from kstate.progress import SlotMap
from kstate.state.blocks import Block, BlockKind, decode_frame
from kstate.state.checkpoint import Checkpoint, position_after
from kstate.state.lineage import Lineage
from kstate.state.markers import Marker, encode_marker, joint_checksum

HINT = "restore the topic from a copy of your own, or start the job anew under another application name"


def backup_messages(checkpoint: Checkpoint, partition: int) -> tuple[list[OutMessage], OutMessage]:
    """The blocks and the marker as messages of one backup partition; in a transaction all blocks go first."""
    blocks = [_message(frame, partition) for frame in checkpoint.blocks]
    return blocks, _message(encode_marker(checkpoint.marker), partition)


@dataclass(frozen=True, slots=True)
class Applied:
    """A proven marker: what it changes in the slots `ranges`, which are those that did not stand behind it already."""

    marker: Marker
    offset: int
    ranges: tuple[KeyRange, ...]
    blocks: tuple[Block, ...]

    def replaced(self) -> Iterator[KeyRange]:
        """The slots to empty before the entries are applied: those of base blocks."""
        written = [block.header.key_range for block in self.blocks if block.header.kind is BlockKind.BASE]
        for base in dict.fromkeys(written):  # a slice has many blocks, all of the same range
            yield from (cut for key_range in self.ranges if (cut := key_range.overlap(base)))

    def entries(self) -> Iterator[tuple[bytes, bytes | None]]:
        """Changed entries within the ranges as (key suffix, stored value or None = deleted), in order."""
        return chain.from_iterable(map(self.entries_of, self.blocks))

    def entries_of(self, block: Block) -> Iterator[tuple[bytes, bytes | None]]:
        """Those of one of its blocks."""
        pairs = zip(*block.entries(), strict=True)
        whole = self.ranges == (self.marker.key_range,)
        return pairs if whole else (pair for pair in pairs if self._covers(pair[0]))

    def _covers(self, suffix: bytes) -> bool:
        slot = int.from_bytes(suffix[:2], "big")
        return any(slot in key_range for key_range in self.ranges)


class BackupReader:
    """Reads one backup partition for one key range and proves it (rule S5).

    Start it at the smallest offset of the lineage's positions in the key range, at the log start if a slot has none:
    the blocks of a marker lie behind the marker before it. Every BackupLogError names topic-partition and offset.
    """

    def __init__(
        self, source: TopicPartition, operator_id: int, key_range: KeyRange, lineage: Lineage, log_start: int
    ) -> None:
        self.lineage: Lineage = lineage.slice(key_range)
        """Where the slots of the key range stand, after what was fed."""
        self._source = source
        self._operator_id = operator_id
        self._key_range = key_range
        self._log_start = log_start
        self._waiting: dict[tuple[int, int], list[tuple[int, Block]]] = defaultdict(list)
        """Blocks that have no marker yet, with their offsets, by writer and epoch."""
        self._unproven: SlotMap[int] = SlotMap()
        """Slots whose chain was entered in the middle → offset of that marker: a base must follow."""

    def feed(self, batch: Batch) -> list[Applied]:
        """The proven markers of the batch that change the key range, in order, with their blocks."""
        applied = []
        for offset, value in zip(batch.offsets, batch.values, strict=True):
            frame = self._frame(offset, value)
            if isinstance(frame, Block):
                self._keep(offset, frame)
            elif done := self._apply(offset, frame):
                applied.append(done)
        return applied

    def proven(self) -> Lineage:
        """The lineage without the slots whose chain still lacks a base: what may be kept as a valid copy so far."""
        proven = self.lineage.copy()
        for key_range, _ in self._unproven:
            proven.clear(key_range)
        return proven

    @property
    def whole(self) -> bool:
        """No block lacks its marker so far: what was read last ends an epoch."""
        return not self._waiting

    def finish(self) -> Lineage:
        """The lineage at a fresh end (S1), where no block may lack its marker and every chain must have a base."""
        torn = [offset for blocks in self._waiting.values() for offset, _ in blocks]
        if torn:
            raise self._error(min(torn), "a block whose marker is missing: the epoch is torn")
        return self.complete()

    def complete(self) -> Lineage:
        """The lineage as of the last marker that was read, where every chain must have a base."""
        for key_range, offset in self._unproven:
            raise self._error(offset, f"the chain of {key_range} begins in the middle and {self._no_base}")
        for gap in self.lineage.gaps(self._key_range) if self._log_start else ():
            raise self._error(self._log_start, f"no marker covers {gap} and {self._no_base}")
        return self.lineage

    @property
    def _no_base(self) -> str:
        return f"no base follows the log start {self._log_start}: records that were still needed are gone"

    def _frame(self, offset: int, value: bytes | None) -> Block | Marker:
        if value is None:
            raise self._error(offset, "a record without value")
        try:
            frame = decode_frame(value)
        except DecodeError as error:
            raise self._error(offset, str(error)) from error
        operator_id = frame.header.operator_id if isinstance(frame, Block) else frame.operator_id
        if operator_id != self._operator_id:
            raise self._error(offset, f"a record of operator id {operator_id}, expected {self._operator_id}")
        return frame

    def _keep(self, offset: int, block: Block) -> None:
        # A base block is of a slice of its marker's range; elsewhere it still counts towards the marker's proof.
        if block.header.kind is BlockKind.BASE or block.header.key_range.overlap(self._key_range):
            self._waiting[block.header.writer, block.header.epoch].append((offset, block))

    def _apply(self, offset: int, marker: Marker) -> Applied | None:
        overlap = marker.key_range.overlap(self._key_range)
        blocks = self._take(marker)
        if overlap is None:
            return None
        ranges = self._behind(offset, overlap)
        if not ranges:
            return None
        if self._is_cut(marker, blocks, ranges):
            blocks = []
        else:
            self._check_blocks(offset, marker, blocks)
        for key_range in ranges:
            self._check_chain(offset, marker, key_range)
            self._note_proof(offset, marker, key_range)
            self.lineage.assign(key_range, position_after(marker, offset))
        return Applied(marker, offset, tuple(ranges), tuple(blocks))

    def _take(self, marker: Marker) -> list[Block]:
        """The waiting blocks of a marker: same writer and epoch, within its key range."""
        name = marker.writer, marker.epoch
        waiting = self._waiting.pop(name, [])
        taken = [block for _, block in waiting if marker.key_range.covers(block.header.key_range)]
        if len(taken) < len(waiting):
            left = [pair for pair in waiting if not marker.key_range.covers(pair[1].header.key_range)]
            self._waiting[name] = left
        return taken

    def _behind(self, offset: int, overlap: KeyRange) -> list[KeyRange]:
        """The slots that stand before this marker; a local copy may stand behind it already (warm restart)."""
        pieces = self.lineage.slice(overlap)
        ahead = SlotMap((key_range, True) for key_range, position in pieces if offset < position.offset)
        return ahead.gaps(overlap)

    def _is_cut(self, marker: Marker, blocks: list[Block], ranges: list[KeyRange]) -> bool:
        """Whether some of its blocks lie before the log start: epochs of two workers in one partition interleave.

        Only of a marker behind which a base must follow anyhow, which makes good what is missing.
        """
        entered = not any(len(self.lineage.slice(key_range)) for key_range in ranges)
        return entered and marker.base < self._log_start and len(blocks) < marker.blocks

    def _check_blocks(self, offset: int, marker: Marker, blocks: list[Block]) -> None:
        found = [block.index for block in blocks]
        if found != list(range(marker.blocks)):
            raise self._error(offset, f"a marker of {marker.blocks} blocks, read were those with index {found}")
        if (entries := sum(block.count for block in blocks)) != marker.entries:
            raise self._error(offset, f"a marker of {marker.entries} entries, its blocks hold {entries}")
        if joint_checksum(map(attrgetter("checksum"), blocks)) != marker.checksum:
            raise self._error(offset, "a marker whose checksum is not that of its blocks")

    def _check_chain(self, offset: int, marker: Marker, key_range: KeyRange) -> None:
        """The marker's previous epochs are those that the slots stand at, and progress does not go back (S8).

        Behind a RELEASE only the grants from its move on may write (S6): the owner that released is out until it is
        given the slots again, and plan versions, of which move ids and grants are made, only grow.
        """
        before = SlotMap(marker.previous)
        for piece, position in self.lineage.slice(key_range):
            if before.slice(piece) != SlotMap([(piece, position.epoch)]):
                claim = f"follows {before.slice(piece)!r}, the last one read is epoch {position.epoch}"
                raise self._error(offset, f"the marker of epoch {marker.epoch} for {piece} {claim}")
            if position.move is not None and marker.grant < position.move:
                claim = f"is under grant {marker.grant}, but move {position.move} had released it"
                raise self._error(offset, f"the marker of epoch {marker.epoch} for {piece} {claim}")
            if back := [topic for topic, at in position.progress.items() if marker.progress.get(topic, at) < at]:
                raise self._error(offset, f"the progress of {piece} goes back on {', '.join(back)}")

    def _note_proof(self, offset: int, marker: Marker, key_range: KeyRange) -> None:
        """A chain entered in the middle is proven once a base cycle that began within the log is finished."""
        before = SlotMap(marker.previous)
        for gap in self.lineage.gaps(key_range):
            for piece, epoch in before.slice(gap):
                if self._log_start == 0:
                    reason = f"the marker of epoch {marker.epoch} for {piece} follows epoch {epoch}, which is not there"
                    raise self._error(offset, reason)
                self._unproven.assign(piece, offset)
        if marker.base >= self._log_start:
            self._unproven.clear(key_range)

    def _error(self, offset: int, reason: str) -> BackupLogError:
        return BackupLogError(f"Backup log {self._source} at offset {offset}: {reason}.", hint=HINT)


def _message(frame: bytes, partition: int) -> OutMessage:
    return OutMessage(key=None, value=frame, partition=partition)

"""checkpoint-state: what one piece changed in an epoch, as blocks and the marker that proves them.

Paper: SEEP, section 3.2, checkpoint-state(o) → (θ, τ, β). Here θ are the changed entries, τ is the progress in the
marker, β is the Kafka log itself. Pure: nothing is written here.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import NamedTuple

from kstate.keyspace import KeyRange
from kstate.progress import Progress
from kstate.state.blocks import BlockHeader, BlockKind, encode_blocks
from kstate.state.frames import FRAME_HEADER_BYTES
from kstate.state.lineage import Lineage, Position
from kstate.state.markers import Marker, MarkerKind, joint_checksum, writer_id
from kstate.times import Times


class TimeChange(NamedTuple):
    """An expiry that an epoch moved, set (old_at None) or took away (new_at None); `state` is its index."""

    state: int
    key: bytes
    subkey: bytes
    old_at: int | None
    new_at: int | None


@dataclass(frozen=True, slots=True)
class Changes:
    """Changed entries of one piece as columns of equal length: key suffixes, and stored values or None = deleted."""

    suffixes: list[bytes]
    values: list[bytes | None]
    times: list[TimeChange] = field(default_factory=list)
    """What the local time index must add and drop; it is not backed up."""

    @property
    def size_bytes(self) -> int:
        """Of keys and values, as they are stored."""
        return _size(self.suffixes, self.values)

    def joined(self, other: Changes) -> Changes:
        """Both together; they concern different entries."""
        return Changes(self.suffixes + other.suffixes, self.values + other.values, self.times + other.times)

    def __len__(self) -> int:
        return len(self.suffixes)


@dataclass(frozen=True, slots=True)
class BaseSlice:
    """Slots of a piece whose state an epoch writes anew, as it was before the epoch; columns of equal length."""

    key_range: KeyRange
    suffixes: list[bytes]
    values: list[bytes | None]
    start: int
    """Offset in the backup partition where the re-base cycle began that it is part of."""
    finishes: bool
    """It is the cycle's last one."""

    @property
    def size_bytes(self) -> int:
        """Of keys and values, as they are stored."""
        return _size(self.suffixes, self.values)


@dataclass(frozen=True, slots=True)
class PieceId:
    """A key range of one shard with one progress and one chain of markers: what an epoch's marker covers."""

    operator_id: int
    partition: int
    key_range: KeyRange


@dataclass(frozen=True, slots=True)
class EpochEnd:
    """Who writes a piece's epoch, under which grant, and where the piece stands at its end."""

    incarnation: str
    grant: int
    progress: Progress
    times: Times = field(default_factory=Times)
    release: int | None = None
    """The move id when this is the writer's last epoch of the range (rule S6)."""
    fingerprint: bytes = bytes(8)
    """Of the state schemas in force, for the block headers."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Frames of the blocks in index order, and the marker that ends them."""

    blocks: list[bytes]
    marker: Marker


def checkpoint(
    piece: PieceId, changes: Changes, lineage: Lineage, end: EpochEnd, base: BaseSlice | None = None
) -> Checkpoint:
    """Blocks and marker of the piece's next epoch: the base blocks of a slice, then the delta blocks.

    `lineage` is what the piece's slots stand at: its pieces become the marker's `previous`, and the base is inherited,
    the minimum where several meet, unless a re-base cycle ends here. Raises ValueError for an entry that fits into no
    block.
    """
    behind = lineage.slice(piece.key_range)
    previous = tuple((key_range, position.epoch) for key_range, position in behind)
    epoch = 1 + max((epoch for _, epoch in previous), default=0)
    writer = writer_id(end.incarnation)
    header = BlockHeader(piece.operator_id, piece.key_range, BlockKind.DELTA, epoch, writer, end.fingerprint)
    blocks: list[bytes] = []
    if base is not None:
        anew = replace(header, key_range=base.key_range, kind=BlockKind.BASE)
        blocks += encode_blocks(anew, base.suffixes, base.values)
    blocks += encode_blocks(header, changes.suffixes, changes.values, first_index=len(blocks))
    marker = Marker(
        operator_id=piece.operator_id,
        key_range=piece.key_range,
        kind=MarkerKind.EPOCH if end.release is None else MarkerKind.RELEASE,
        epoch=epoch,
        incarnation=end.incarnation,
        grant=end.grant,
        progress=dict(end.progress),
        times=end.times,
        previous=previous,
        base=_base(behind, base),
        blocks=len(blocks),
        entries=len(changes) + (len(base.suffixes) if base else 0),
        checksum=joint_checksum(frame[8:FRAME_HEADER_BYTES] for frame in blocks),
        move=end.release,
    )
    return Checkpoint(blocks, marker)


def _size(suffixes: list[bytes], values: list[bytes | None]) -> int:
    return sum(map(len, suffixes)) + sum(map(len, filter(None, values)))


def _base(behind: Lineage, written: BaseSlice | None) -> int:
    inherited = min((position.base for position in behind.values()), default=0)
    return max(inherited, written.start) if written is not None and written.finishes else inherited


def advance(lineage: Lineage, marker: Marker, marker_offset: int) -> None:
    """Put the marker's slots where the committed marker at this offset of the backup partition leaves them."""
    lineage.assign(marker.key_range, position_after(marker, marker_offset))


def position_after(marker: Marker, marker_offset: int) -> Position:
    """Where slots stand once a committed marker is applied to them."""
    return Position(
        offset=marker_offset + 1,
        epoch=marker.epoch,
        grant=marker.grant,
        incarnation=marker.incarnation,
        progress=marker.progress,
        times=marker.times,
        base=marker.base,
        move=marker.move,
        marked=marker.key_range,
    )

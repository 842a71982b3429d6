"""checkpoint-state: blocks and marker of one piece's epoch."""

from __future__ import annotations

import time
from collections.abc import Callable

from kstate.keyspace import FULL_RANGE, KeyRange
from kstate.progress import SlotMap
from kstate.state.blocks import Block, BlockKind, decode_frame
from kstate.state.checkpoint import Changes, EpochEnd, PieceId, advance, checkpoint, position_after
from kstate.state.lineage import Lineage, Position
from kstate.state.markers import MarkerKind, joint_checksum, writer_id
from kstate.times import Times
from tests.support.backup_log import HIGH, LOW, entry

PIECE = PieceId(5, 0, FULL_RANGE)
TIMES = Times(99, 7, {"words": 99})
STANDING = EpochEnd("w-1", 4, {"words": 10}, TIMES)
NOTHING = Changes([], [])


def position(epoch: int, base: int = 0) -> Position:
    """Where some earlier marker left some slots."""
    return Position(17, epoch, 1, "w-0", {"words": 3}, Times(), base)


def test_the_first_epoch_of_a_piece_follows_nothing() -> None:
    """Epochs count from 1."""
    marker = checkpoint(PIECE, NOTHING, Lineage(), STANDING).marker
    assert (marker.epoch, marker.previous, marker.base, marker.blocks, marker.entries) == (1, (), 0, 0, 0)
    assert (marker.incarnation, marker.grant, marker.progress, marker.times) == (
        "w-1",
        4,
        {"words": 10},
        TIMES,
    )
    assert (marker.kind, marker.move) == (MarkerKind.EPOCH, None)


def test_a_piece_that_was_several_follows_each_of_them() -> None:
    """A merge joins chains: the epoch exceeds all of them, the base is the least."""
    lineage = SlotMap([(LOW, position(7, base=40)), (KeyRange(0x8000, 0x9000), position(3, base=30))])
    marker = checkpoint(PIECE, NOTHING, lineage, STANDING).marker
    assert (marker.epoch, marker.base) == (8, 30)
    assert marker.previous == ((LOW, 7), (KeyRange(0x8000, 0x9000), 3))


def test_a_part_of_a_piece_follows_the_whole() -> None:
    """A split forks the chain, and only what lies within the piece counts."""
    lineage = SlotMap([(LOW, position(7)), (HIGH, position(9))])
    marker = checkpoint(PieceId(5, 0, KeyRange(0x1000, 0x2000)), NOTHING, lineage, STANDING).marker
    assert (marker.epoch, marker.previous) == (8, ((KeyRange(0x1000, 0x2000), 7),))


def test_the_marker_proves_its_blocks() -> None:
    """Counts and checksum are those of the frames, which hold the changes in their order."""
    changes = Changes([entry(i, bytes(200)) for i in range(4_000)], [bytes(100)] * 3_999 + [None])
    made = checkpoint(PIECE, changes, Lineage(), STANDING)
    blocks = [block for frame in made.blocks if isinstance(block := decode_frame(frame), Block)]
    assert len(blocks) > 1
    assert (made.marker.blocks, made.marker.entries) == (len(blocks), 4_000)
    assert made.marker.checksum == joint_checksum(block.checksum for block in blocks)
    assert [suffix for block in blocks for suffix in block.entries()[0]] == changes.suffixes
    for block in blocks:
        header = block.header
        assert (header.operator_id, header.key_range, header.kind) == (5, FULL_RANGE, BlockKind.DELTA)
        assert (header.epoch, header.writer) == (1, writer_id("w-1"))


def test_a_checkpoint_costs_half_a_microsecond_per_entry_at_most(
    record_property: Callable[[str, object], None],
) -> None:
    """At most 0.5 µs of CPU beyond the encoding of the values, the best of ten; 0.1 where it was written."""
    changes = Changes([entry(i, b"account-%d" % i) for i in range(10_000)], [bytes(15)] * 10_000)
    costs = []
    for _ in range(10):
        start = time.process_time()
        checkpoint(PIECE, changes, Lineage(), STANDING)
        costs.append((time.process_time() - start) / len(changes) * 1e6)
    record_property("microseconds per entry of a checkpoint", round(min(costs), 3))
    assert min(costs) <= 0.5


def test_a_release_names_its_move() -> None:
    """The last epoch of the range under this grant (S6)."""
    marker = checkpoint(PIECE, NOTHING, Lineage(), EpochEnd("w-1", 4, {}, release=12)).marker
    assert (marker.kind, marker.move) == (MarkerKind.RELEASE, 12)
    assert position_after(marker, 3).move == 12


def test_a_committed_marker_moves_its_slots_and_no_others() -> None:
    """The next offset to apply is the one behind the marker."""
    lineage = SlotMap([(FULL_RANGE, position(7, base=5))])
    marker = checkpoint(PieceId(5, 0, LOW), NOTHING, lineage, STANDING).marker
    advance(lineage, marker, 41)
    moved = Position(42, 8, 4, "w-1", {"words": 10}, TIMES, 5, marked=LOW)
    assert lineage == SlotMap([(LOW, moved), (HIGH, position(7, base=5))])

"""backup-state: the reader proves what it reads (rule S5)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

import pytest

from kstate.errors import BackupLogError
from kstate.interfaces import Batch
from kstate.keyspace import FULL_RANGE, KeyRange
from kstate.state.backup import BackupReader, backup_messages
from kstate.state.blocks import decode_frame
from kstate.state.checkpoint import Checkpoint
from kstate.state.lineage import Lineage
from kstate.state.markers import encode_marker
from tests.support.backup_log import HIGH, LOW, OPERATOR, SOURCE, BackupLog, entry


@pytest.fixture
def backup() -> BackupLog:
    """A log with an epoch of each half, one of the whole, and one of the upper half by another worker."""
    made = BackupLog()
    made.commit({entry(1): b"a1", entry(2): b"a2"}, LOW)
    made.commit({entry(0x9000): b"b1"}, HIGH)
    made.commit({entry(2): None, entry(0x9000): b"b2"})
    made.commit({entry(0xA000): b"c"}, HIGH, writer="w-2")
    return made


def reader_of(backup: BackupLog, key_range: KeyRange = FULL_RANGE, lineage: Lineage | None = None) -> BackupReader:
    """A reader at the present log start."""
    start = backup.log.start_offsets([SOURCE])[SOURCE]
    return BackupReader(SOURCE, OPERATOR, key_range, lineage or Lineage(), start)


def rows(batch: Batch, kept: Iterable[int]) -> Batch:
    """Some records of a batch."""
    at = list(kept)
    offsets, values = [batch.offsets[i] for i in at], [batch.values[i] for i in at]
    return Batch(batch.source, batch.next_offset, offsets, [None] * len(at), values, [0] * len(at))


def without(batch: Batch, *offsets: int) -> Batch:
    """The batch with holes."""
    return rows(batch, (i for i, offset in enumerate(batch.offsets) if offset not in offsets))


def changed(batch: Batch, offset: int, value: bytes | None) -> Batch:
    """The batch with another value at an offset."""
    values = [value if at == offset else was for at, was in zip(batch.offsets, batch.values, strict=True)]
    return replace(batch, values=values)


def refusal(reason: str, offset: int) -> str:
    """The error names topic-partition and offset."""
    return rf"{re.escape(str(SOURCE))} at offset {offset}: .*{reason}"


def test_blocks_come_first_and_the_marker_last(backup: BackupLog) -> None:
    """All in the partition that is backed up."""
    made = backup.checkpoint({entry(1): b"x"})
    blocks, marker = backup_messages(made, 3)
    assert [message["value"] for message in blocks] == made.blocks
    assert decode_frame(marker["value"] or b"") == made.marker
    assert {message["partition"] for message in [*blocks, marker]} == {3}


def test_what_was_committed_is_given_out_once_in_order_with_its_entries(backup: BackupLog) -> None:
    """And the lineage is the writers'."""
    reader = reader_of(backup)
    applied = reader.feed(backup.read())
    assert [list(a.entries()) for a in applied] == [
        [(entry(1), b"a1"), (entry(2), b"a2")],
        [(entry(0x9000), b"b1")],
        [(entry(2), None), (entry(0x9000), b"b2")],
        [(entry(0xA000), b"c")],
    ]
    assert [a.ranges for a in applied] == [(LOW,), (HIGH,), (FULL_RANGE,), (HIGH,)]
    assert reader.finish() == backup.lineage


def test_batches_may_be_cut_anywhere(backup: BackupLog) -> None:
    """Blocks wait for their marker."""
    whole, reader = backup.read(), reader_of(backup)
    applied = [done for i in range(len(whole)) for done in reader.feed(rows(whole, [i]))]
    assert len(applied) == 4
    assert reader.finish() == backup.lineage


def test_a_reader_of_a_part_gets_its_slots_only(backup: BackupLog) -> None:
    """A marker may cover more than the target; what it says of other slots is somebody else's."""
    reader = reader_of(backup, LOW)
    applied = reader.feed(backup.read())
    assert [list(a.entries()) for a in applied] == [[(entry(1), b"a1"), (entry(2), b"a2")], [(entry(2), None)]]
    assert [a.ranges for a in applied] == [(LOW,), (LOW,)]
    assert reader.finish() == backup.lineage.slice(LOW)


def test_slots_that_stand_behind_a_marker_already_are_left_alone(backup: BackupLog) -> None:
    """A warm copy of one half is at the end, the other half is read from the start."""
    reader = reader_of(backup, FULL_RANGE, backup.lineage.slice(HIGH))
    applied = reader.feed(backup.read())
    assert [a.ranges for a in applied] == [(LOW,), (LOW,)]
    assert [suffix for a in applied for suffix, _ in a.entries()] == [entry(1), entry(2), entry(2)]
    assert reader.finish() == backup.lineage


def test_a_warm_reader_that_begins_between_marker_and_marker_misses_nothing(backup: BackupLog) -> None:
    """It begins at the least offset of its positions, behind the blocks of what is applied already."""
    stood = backup.lineage.copy()
    backup.commit({entry(7): b"new"}, LOW)
    start = min(position.offset for position in stood.values())
    reader = reader_of(backup, FULL_RANGE, stood)
    (applied,) = reader.feed(backup.read(start))
    assert list(applied.entries()) == [(entry(7), b"new")]
    assert reader.finish() == backup.lineage


def test_a_lost_block_is_noticed_at_its_marker(backup: BackupLog) -> None:
    """The marker counts its blocks."""
    with pytest.raises(BackupLogError, match=refusal(r"a marker of 1 blocks, read were those with index \[\]", 1)):
        reader_of(backup).feed(without(backup.read(), 0))


def test_a_lost_marker_is_noticed_at_the_next_one(backup: BackupLog) -> None:
    """The chain of epochs has a hole."""
    batch = backup.read()
    lost, following = batch.offsets[5], batch.offsets[7]
    with pytest.raises(BackupLogError, match=refusal("follows .*, the last one read is epoch 1", following)):
        reader_of(backup).feed(without(batch, lost))


def test_a_lost_first_epoch_is_noticed(backup: BackupLog) -> None:
    """The log begins at 0, so what the second epoch follows must be there."""
    with pytest.raises(BackupLogError, match=refusal("follows epoch 1, which is not there", backup.read().offsets[5])):
        reader_of(backup).feed(without(backup.read(), 0, 1))


def test_a_torn_last_epoch_is_noticed_at_the_end(backup: BackupLog) -> None:
    """At a fresh end no transaction is half visible."""
    batch = backup.read()
    reader = reader_of(backup)
    reader.feed(without(batch, batch.offsets[-1]))
    with pytest.raises(BackupLogError, match=refusal("torn", batch.offsets[-2])):
        reader.finish()


def test_a_torn_epoch_of_other_slots_is_not_the_readers_business(backup: BackupLog) -> None:
    """Its writer may be alive, its transaction under way."""
    batch = backup.read()
    reader = reader_of(backup, LOW)
    reader.feed(without(batch, batch.offsets[-1]))
    assert reader.finish() == backup.lineage.slice(LOW)


@pytest.mark.parametrize("at", [0, 1, 20, 70, -1])
def test_a_damaged_record_is_named(backup: BackupLog, at: int) -> None:
    """Whatever bit of block or marker it is."""
    batch = backup.read()
    for offset, value in zip(batch.offsets, batch.values, strict=True):
        damaged = bytearray(value or b"")
        damaged[at] ^= 4
        with pytest.raises(BackupLogError, match=refusal("Frame", offset)):
            reader_of(backup).feed(changed(batch, offset, bytes(damaged)))


def test_a_record_without_value_or_of_another_operator_is_refused(backup: BackupLog) -> None:
    """Nobody else writes to this topic."""
    batch = backup.read()
    with pytest.raises(BackupLogError, match=refusal("without value", 3)):
        reader_of(backup).feed(changed(batch, 3, None))
    with pytest.raises(BackupLogError, match=refusal("operator id 1, expected 2", 0)):
        BackupReader(SOURCE, 2, FULL_RANGE, Lineage(), 0).feed(batch)


def test_blocks_of_a_forged_marker_are_refused(backup: BackupLog) -> None:
    """Counts and checksum must be those of the blocks that were read."""
    made = backup.checkpoint({entry(1): b"x"})
    cases = {
        "a marker of 5 entries": replace(made.marker, entries=5),
        "checksum is not that of its blocks": replace(made.marker, checksum=1),
    }
    for reason, marker in cases.items():
        forged = backup_messages(Checkpoint(made.blocks, marker), 3)
        batch = backup.read()
        end = batch.next_offset
        batch.offsets += [end, end + 1]
        batch.values += [forged[0][0]["value"], forged[1]["value"]]
        with pytest.raises(BackupLogError, match=refusal(reason, end + 1)):
            reader_of(backup).feed(batch)


def test_a_repeated_block_is_refused(backup: BackupLog) -> None:
    """The indexes of a marker's blocks are 0, 1, 2 and so on."""
    batch = backup.read()
    doubled = replace(batch, offsets=[0, *batch.offsets], values=[batch.values[0], *batch.values])
    with pytest.raises(BackupLogError, match=refusal(r"those with index \[0, 0\]", 1)):
        reader_of(backup).feed(doubled)


def test_progress_that_goes_back_is_refused(backup: BackupLog) -> None:
    """Records would be applied twice (S8)."""
    backup.commit({}, LOW, read=100)
    backup.commit({}, LOW, read=99)
    with pytest.raises(BackupLogError, match="goes back on words"):
        reader_of(backup).feed(backup.read())


def test_two_writers_of_one_epoch_are_refused(backup: BackupLog) -> None:
    """Somebody wrote under a grant that was no longer his."""
    second = backup.checkpoint({entry(1): b"zombie"}, LOW, writer="w-0")
    backup.commit({entry(1): b"heir"}, LOW)
    backup.commit_frames(second)
    with pytest.raises(BackupLogError, match="the last one read is epoch 3"):
        reader_of(backup).feed(backup.read())


def test_a_trimmed_log_is_complete_from_its_first_base_on(backup: BackupLog) -> None:
    """Base blocks replace the slots, whatever the deltas before them said."""
    cut = backup.read().next_offset
    backup.commit({entry(1): b"late"}, LOW)
    backup.rebase(FULL_RANGE, cut)
    backup.trim(cut)
    reader = reader_of(backup)
    applied = reader.feed(backup.read(cut))
    assert [list(a.replaced()) for a in applied] == [[], [FULL_RANGE]]
    assert dict(applied[-1].entries()) == {key[6:]: value for key, value in backup.state.items()}
    assert reader.finish() == reader.proven() == backup.lineage


def test_a_trimmed_log_without_a_base_is_refused(backup: BackupLog) -> None:
    """What its deltas change is gone; the slots are proven for nobody."""
    cut = backup.read().next_offset
    backup.commit({entry(1): b"late"})
    backup.trim(cut)
    reader = reader_of(backup)
    reader.feed(backup.read(cut))
    assert len(reader.proven()) == 0
    with pytest.raises(BackupLogError, match=refusal("begins in the middle and no base follows", cut + 1)):
        reader.finish()


def test_a_base_from_before_the_log_start_proves_nothing(backup: BackupLog) -> None:
    """Its first blocks are trimmed away."""
    backup.rebase(FULL_RANGE, 4)
    cut = backup.read().next_offset
    backup.commit({entry(1): b"late"})
    backup.trim(cut)
    reader = reader_of(backup)
    reader.feed(backup.read(cut))
    with pytest.raises(BackupLogError, match="no base follows"):
        reader.finish()


def test_a_slice_of_many_blocks_empties_its_slots_once(backup: BackupLog) -> None:
    """All its blocks name the same slots; to look for what is there takes as long as they are many."""
    big = {entry(slot, b"%d" % part): b"x" * 200_000 for slot in range(3) for part in range(3)}
    backup.commit(big, LOW)
    backup.rebase(LOW, backup.read().next_offset)
    *_, written = reader_of(backup).feed(backup.read())
    assert len(written.blocks) > 3
    assert list(written.replaced()) == [LOW]


@pytest.mark.parametrize("base_follows", [True, False])
def test_a_marker_cut_from_its_blocks_by_the_log_start_needs_a_base_behind_it(
    backup: BackupLog, base_follows: bool
) -> None:
    """Epochs of two workers interleave in a partition: the start that one's base allows lies within the other's."""
    late = backup.checkpoint({entry(1): b"late"}, LOW, writer="w-1")
    backup.commit_frames(late, between=lambda: backup.commit({entry(0x9000): b"b3"}, HIGH, writer="w-2"))
    cut = backup.read().next_offset
    ((_, standing),) = backup.lineage.slice(LOW)
    marker = standing.offset - 1
    backup.rebase(HIGH, marker)
    if base_follows:
        backup.rebase(LOW, cut)
    backup.trim(marker)
    reader = reader_of(backup)
    reader.feed(backup.read(marker))
    if not base_follows:
        with pytest.raises(BackupLogError, match=refusal("begins in the middle and no base follows", marker)):
            reader.finish()
        return
    assert reader.finish() == backup.lineage


def test_slots_without_any_marker_in_a_trimmed_log_are_refused(backup: BackupLog) -> None:
    """Retention has eaten the log: an empty state would be a lie."""
    end = backup.read().next_offset
    backup.trim(end)
    with pytest.raises(BackupLogError, match=refusal(r"no marker covers \[0x0000, 0x10000\)", end)):
        reader_of(backup).finish()
    warm = reader_of(backup, FULL_RANGE, backup.lineage)
    assert warm.finish() == backup.lineage


def test_a_split_forks_the_chain_and_a_merge_joins_it() -> None:
    """Each slot has one chain, whatever pieces it belonged to."""
    backup = BackupLog()
    backup.commit({entry(1): b"1"})
    for key_range, epochs in ((LOW, 3), (HIGH, 1)):
        for i in range(epochs):
            backup.commit({entry(key_range.lo + i): b"x"}, key_range)
    joint = backup.commit({entry(0x7FFF): b"y", entry(0x8000): b"y"})
    assert (joint.epoch, joint.previous) == (5, ((LOW, 4), (HIGH, 2)))
    for target in (FULL_RANGE, LOW, HIGH, KeyRange(0x7000, 0x9000)):
        reader = reader_of(backup, target)
        reader.feed(backup.read())
        assert reader.finish() == backup.lineage.slice(target)


def test_a_marker_is_only_a_frame() -> None:
    """An epoch that changed nothing has no blocks."""
    backup = BackupLog()
    marker = backup.commit({})
    assert backup.read().values == [encode_marker(marker)]
    (applied,) = reader_of(backup).feed(backup.read())
    assert (applied.blocks, list(applied.entries())) == ((), [])

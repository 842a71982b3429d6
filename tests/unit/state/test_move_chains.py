"""Rule S5 over moves: chains that fork, join and change hands; and S6: who may write behind a RELEASE."""

from __future__ import annotations

import pytest

from kstate.errors import BackupLogError
from kstate.keyspace import FULL_RANGE, KeyRange
from kstate.state.backup import BackupReader
from kstate.state.lineage import Lineage, Position, released
from tests.support.backup_log import HIGH, LOW, OPERATOR, SOURCE, BackupLog, Entries, entry

MIDDLE = KeyRange(0x4000, 0xC000)


def write(log: BackupLog, key_range: KeyRange, writer: str, grant: int, move: int | None = None) -> None:
    """An epoch of a piece that changes its first slot."""
    entries: Entries = {entry(key_range.lo): f"{writer} {len(log.history)}".encode()}
    log.commit_frames(log.checkpoint(entries, key_range, writer=writer, grant=grant, move=move))


def read(log: BackupLog, key_range: KeyRange = FULL_RANGE, start: Lineage | None = None) -> Lineage:
    """Prove the whole log for a key range."""
    reader = BackupReader(SOURCE, OPERATOR, key_range, start or Lineage(), 0)
    reader.feed(log.read())
    return reader.finish()


@pytest.fixture
def moved() -> BackupLog:
    """A splits, the middle is released to B by move 5; B works, gives the upper half of it to C by move 8; C takes the
    top as well, after its owner died, and joins.
    """
    log = BackupLog()
    write(log, FULL_RANGE, "a", 1)
    for part in (KeyRange(0, MIDDLE.lo), MIDDLE, KeyRange(MIDDLE.hi, FULL_RANGE.hi)):
        write(log, part, "a", 1)
    write(log, KeyRange(0, MIDDLE.lo), "a", 1)
    write(log, MIDDLE, "a", 1, move=5)
    write(log, MIDDLE, "b", 5)
    write(log, KeyRange(0, MIDDLE.lo), "a", 1)
    write(log, KeyRange(MIDDLE.lo, 0x8000), "b", 5)
    write(log, KeyRange(0x8000, MIDDLE.hi), "b", 5, move=8)
    write(log, KeyRange(0x8000, MIDDLE.hi), "c", 8)
    write(log, KeyRange(MIDDLE.hi, FULL_RANGE.hi), "c", 11)
    write(log, HIGH, "c", 12)
    return log


@pytest.mark.parametrize(
    "key_range", [FULL_RANGE, LOW, HIGH, MIDDLE, KeyRange(0x3FFF, 0x4001), KeyRange(0xBFFF, 0xC001)]
)
def test_what_moves_write_is_proven_for_any_range(moved: BackupLog, key_range: KeyRange) -> None:
    """A marker of a part follows one of the whole, one of the whole several of its parts, an heir's the RELEASE."""
    assert read(moved, key_range) == moved.lineage.slice(key_range)


def test_a_reader_may_begin_at_any_marker(moved: BackupLog) -> None:
    """A copy stands behind some of them already."""
    lineage = Lineage()
    reader = BackupReader(SOURCE, OPERATOR, FULL_RANGE, Lineage(), 0)
    batch = moved.read()
    for at in range(1, len(batch) + 1):
        reader = BackupReader(SOURCE, OPERATOR, FULL_RANGE, Lineage(), 0)
        reader.feed(batch.head(at, batch.offsets[at - 1] + 1))
        lineage = reader.proven()
        assert read(moved, FULL_RANGE, lineage) == moved.lineage


def test_positions_say_behind_which_release_they_stand() -> None:
    """Until somebody else writes there."""
    log = BackupLog()
    write(log, FULL_RANGE, "a", 1)
    write(log, LOW, "a", 1, move=5)
    assert released(read(log), LOW, 5)
    assert not released(read(log), FULL_RANGE, 5)
    write(log, LOW, "b", 5)
    low, high = read(log).values()
    assert (low.move, low.grant, low.marked) == (None, 5, LOW)
    assert (high.move, high.grant, high.marked) == (None, 1, FULL_RANGE)
    assert released(read(log), LOW, 5)


@pytest.mark.parametrize("writer", ["a", "z"])
@pytest.mark.parametrize("grant", [1, 4])
def test_nobody_writes_behind_a_release_under_an_older_grant(writer: str, grant: int) -> None:
    """S6: the source is out, and so is whoever had the slots before it."""
    log = BackupLog()
    write(log, FULL_RANGE, "a", 1)
    write(log, MIDDLE, "a", 1, move=5)
    write(log, MIDDLE, writer, grant)
    with pytest.raises(
        BackupLogError, match=rf"for \[0x4000, 0xc000\) is under grant {grant}, but move 5 had released"
    ):
        read(log)
    assert read(log, KeyRange(0, 0x4000)) == log.lineage.slice(KeyRange(0, 0x4000))


@pytest.mark.parametrize("grant", [5, 6])
@pytest.mark.parametrize("writer", ["a", "b"])
def test_the_heir_of_a_move_writes_under_its_grant_or_a_newer_one(writer: str, grant: int) -> None:
    """Also when that heir is the source itself again: the target died before it began (S7)."""
    log = BackupLog()
    write(log, FULL_RANGE, "a", 1)
    write(log, FULL_RANGE, "a", 1, move=5)
    write(log, FULL_RANGE, writer, grant)
    assert [position.grant for position in read(log).values()] == [grant]


def test_a_release_is_followed_by_the_next_one_without_an_epoch_between() -> None:
    """The heir gives the range on at once."""
    log = BackupLog()
    write(log, FULL_RANGE, "a", 1)
    write(log, FULL_RANGE, "a", 1, move=5)
    write(log, FULL_RANGE, "b", 5, move=7)
    (position,) = read(log).values()
    assert isinstance(position, Position)
    assert (position.move, position.grant) == (7, 5)
    assert released(read(log), FULL_RANGE, 5)
    assert released(read(log), FULL_RANGE, 7)

"""What a process has in hand, and how the next ones count the deaths that it explains."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from kstate.adapters.in_hand import FileNotes
from kstate.keyspace import FULL_RANGE, KeyRange
from kstate.messages import Fatality, TilePhase, TileReport
from kstate.plan import Parked, Shard
from kstate.progress import SlotMap
from kstate.state.lineage import Position
from kstate.testing.memory_notes import MemoryNotes
from kstate.times import Times
from kstate.worker.in_hand import (
    DEATHS_KEPT,
    Deaths,
    InHand,
    Notes,
    Place,
    counted,
    decode_ledger,
    decode_note,
    encode_ledger,
    encode_note,
    outstanding,
)
from kstate.worker.ownership import OwnedShard, Piece

SHARD = Shard("count", 3)
LOW, HIGH = KeyRange(0, 0x8000), KeyRange(0x8000, 0x10000)
PLACE = Place(SHARD, FULL_RANGE, "lines", 1_000)


class FakeShard:
    """A shard as far as a note needs it: committed up to an offset, from epoch 7."""

    def __init__(self, committed: int | None = 1_000) -> None:
        self.shard = SHARD
        self.starts = {"lines": 5, "words": 6}
        self.lineage: SlotMap[Position] = SlotMap()
        if committed is not None:
            self.lineage.assign(FULL_RANGE, Position(9, 7, 1, "w", {"lines": committed}, Times(), 0))


class FakePiece:
    """A piece as far as a note needs it."""

    def __init__(self, key_range: KeyRange = FULL_RANGE) -> None:
        self.key_range = key_range


def note(in_hand: InHand, topic: str = "lines", *, shard: FakeShard | None = None, at: KeyRange = FULL_RANGE) -> None:
    """A part is handed to the operator."""
    in_hand.note(cast(OwnedShard, shard or FakeShard()), cast(Piece, FakePiece(at)), topic, lambda: (0, 0))


def running(progress: int, *, epoch: int = 7, at: KeyRange = FULL_RANGE, shard: Shard = SHARD) -> TileReport:
    """A piece that runs, as the worker reports it."""
    return TileReport(shard, at, 1, TilePhase.RUNNING, epoch, {"lines": progress})


@pytest.fixture(params=["memory", "file"])
def notes(request: pytest.FixtureRequest, tmp_path: Path) -> Notes:
    """Nothing was noted before."""
    return MemoryNotes() if request.param == "memory" else FileNotes(tmp_path / "app" / "worker-1")


def successor(notes: Notes, build: str = "b1") -> InHand:
    """The next process of the same worker, which opens the file anew."""
    if isinstance(notes, FileNotes):
        notes = FileNotes(notes._path.parent)
    return InHand(notes, build)


# -- bytes


@pytest.mark.parametrize("place", [PLACE, Place(Shard("ü", 65_535), HIGH, "x" * 249, 1 << 62, 12)])
def test_a_note_reads_back_whatever_stands_behind_it(place: Place) -> None:
    """Names of any length, offsets of any size; an older, longer note leaves its end behind the new one."""
    data = encode_note(place)
    assert decode_note(data) == place
    assert decode_note(data + encode_note(PLACE)) == place
    assert len(data) < 1024


def test_a_torn_note_is_no_note() -> None:
    """Killed while it was written: some first bytes are new, the others are those of the note before."""
    old = encode_note(Place(Shard("another", 1), LOW, "words", 77))
    new = encode_note(PLACE)
    for written in range(1, len(new)):
        torn = new[:written] + old[written:]
        assert decode_note(torn) in (None, PLACE), written
        if written < min(len(new), len(old)) - 1:
            assert decode_note(torn) is None, written


@pytest.mark.parametrize("data", [b"", b"\0" * 1024, b"\xff" * 1024, encode_note(PLACE)[:-1]])
def test_what_is_no_note_says_nothing(data: bytes) -> None:
    """A new file, rubbish, an end that is missing."""
    assert decode_note(data) is None


def test_the_layouts_are_as_documented() -> None:
    """The bytes of a note and of a ledger, field by field."""
    place = "00000003000000000001000000000000000003e8ffffffffffffffff0005636f756e7400056c696e6573"
    assert encode_note(PLACE)[4:].hex() == "002a" + place
    assert encode_ledger("b1", (Deaths(PLACE, 2),))[4:].hex() == "0100010002623100000002" + place


def test_a_ledger_reads_back_and_rubbish_is_an_empty_one() -> None:
    """With the build it belongs to."""
    deaths = (Deaths(PLACE, 2), Deaths(Place(SHARD, LOW, "words", 3, 4), 1))
    assert decode_ledger(encode_ledger("b1", deaths)) == ("b1", deaths)
    damaged = bytearray(encode_ledger("b1", deaths))
    damaged[9] ^= 1
    for data in (b"", bytes(damaged), encode_ledger("b1", deaths)[:-1], encode_ledger("b1", deaths) + b"\0"):
        assert decode_ledger(data) == ("", ())


# -- counting


def test_deaths_at_the_same_place_are_counted_in_a_row() -> None:
    """Another place does not interrupt: each is counted until its slots have passed it."""
    other = Place(Shard("count", 4), FULL_RANGE, "lines", 1_000)
    deaths = counted(counted(counted((), PLACE), other), PLACE)
    assert deaths == (Deaths(other, 1), Deaths(PLACE, 2))


@pytest.mark.parametrize(
    "other",
    [
        PLACE._replace(offset=1_001),
        PLACE._replace(topic="words"),
        PLACE._replace(shard=Shard("split", 3)),
        PLACE._replace(epoch=7),
    ],
)
def test_another_offset_topic_shard_or_timers_are_another_place(other: Place) -> None:
    """The count begins at one."""
    assert counted((Deaths(PLACE, 2),), other)[-1] == Deaths(other, 1)


def test_where_ranges_were_cut_the_count_goes_on_with_the_part_that_kills() -> None:
    """The whole died once, then its upper half: two in a row, and the lower half is suspected no more."""
    upper, lower = PLACE._replace(key_range=HIGH), PLACE._replace(key_range=LOW)
    deaths = counted(counted((), PLACE), upper)
    assert deaths == (Deaths(upper, 2),)
    assert counted(deaths, lower) == (Deaths(upper, 2), Deaths(lower, 1))


def test_only_so_many_places_are_kept() -> None:
    """The newest."""
    deaths: tuple[Deaths, ...] = ()
    for offset in range(DEATHS_KEPT + 5):
        deaths = counted(deaths, PLACE._replace(offset=offset))
    assert [each.place.offset for each in deaths] == list(range(5, DEATHS_KEPT + 5))


# -- forgetting


def test_deaths_are_outstanding_until_committed_progress_is_beyond_them() -> None:
    """At the same offset it is still in front of us; another shard's, or a copy's, progress says nothing."""
    deaths = (Deaths(PLACE, 2),)
    copy = TileReport(SHARD, FULL_RANGE, 1, TilePhase.WARM, 9, {"lines": 5_000})
    untold = TileReport(SHARD, FULL_RANGE, 1, TilePhase.RUNNING, 9, {})
    assert (
        outstanding(deaths, [running(1_000, epoch=9), running(5_000, shard=Shard("count", 4)), copy, untold]) == deaths
    )
    assert outstanding(deaths, [running(1_001)]) == ()


def test_slots_that_have_passed_are_suspected_no_more() -> None:
    """Of two pieces one went on: what killed is in the other one."""
    (left,) = outstanding((Deaths(PLACE, 2),), [running(2_000, at=LOW), running(1_000, at=HIGH)])
    assert left == Deaths(PLACE._replace(key_range=HIGH), 2)


def test_deaths_by_timers_are_passed_by_the_next_epoch() -> None:
    """Their input may have nothing to read, so that its progress never moves."""
    deaths = (Deaths(PLACE._replace(epoch=7), 1),)
    assert outstanding(deaths, [running(1_000, epoch=7)]) == deaths
    assert outstanding(deaths, [running(1_000, epoch=8)]) == ()


def test_what_the_plan_parks_was_heard() -> None:
    """So a person, or a new build, may give it out again without being overruled by what was counted before."""
    deaths = (Deaths(PLACE, 3),)
    assert outstanding(deaths, [], [Parked(Shard("count", 4), FULL_RANGE, "")]) == deaths
    assert outstanding(deaths, [], [Parked(SHARD, FULL_RANGE, "")]) == ()
    (left,) = outstanding(deaths, [], [Parked(SHARD, LOW, "")])
    assert left.place.key_range == HIGH


# -- over the lives of processes


def test_each_killed_process_is_one_death_more_and_the_count_ends_with_progress(notes: Notes) -> None:
    """Three die in the handler; the fourth commits, and the fifth knows of nothing."""
    for number in (1, 2, 3):
        note(successor(notes))
        assert successor(notes).fatalities == (Fatality(SHARD, FULL_RANGE, "lines", 1_000, number),)
    fourth = successor(notes)
    note(fourth)
    fourth.settled()
    fourth.passed([running(1_400)])
    assert fourth.fatalities == ()
    assert successor(notes).fatalities == ()


def test_a_start_that_has_nothing_in_hand_counts_no_death(notes: Notes) -> None:
    """It repeats what was counted, whatever becomes of it."""
    note(successor(notes))
    assert [successor(notes).fatalities[0].deaths for _ in range(3)] == [1, 1, 1]


def test_an_end_that_is_no_accident_leaves_nothing(notes: Notes) -> None:
    """A stop, a commit, an undone epoch: `settled` every time."""
    process = successor(notes)
    note(process)
    process.settled()
    assert successor(notes).fatalities == ()


def test_a_note_says_from_where_its_part_is_read_again(notes: Notes) -> None:
    """Committed progress, however far the epoch is; without a marker, and for a new input, where the plan starts."""
    for shard, topic, offset in ((None, "lines", 1_000), (FakeShard(None), "lines", 5), (None, "words", 6)):
        process = successor(notes)
        note(process, topic, shard=shard, at=HIGH)
        assert successor(notes).fatalities[-1] == Fatality(SHARD, HIGH, topic, offset, 1)


def test_timers_are_noted_with_the_epoch_before_them(notes: Notes) -> None:
    """And with the progress of an input, to say about when it happened."""
    process = successor(notes)
    note(process, "")
    assert process.held is not None
    assert process.held.place == Place(SHARD, FULL_RANGE, "lines", 1_000, 7)
    assert successor(notes).fatalities == (Fatality(SHARD, FULL_RANGE, "lines", 1_000, 1),)


def test_deaths_of_another_build_do_not_count(notes: Notes) -> None:
    """A new version may be the mend; what killed the old one, and how often, is forgotten."""
    note(successor(notes))
    note(successor(notes))
    assert successor(notes, "b2").fatalities == ()
    note(successor(notes, "b2"))
    assert successor(notes, "b2").fatalities[0].deaths == 1


def test_without_notes_nothing_is_kept() -> None:
    """As in a debugger, where being killed means nothing."""
    process = InHand()
    note(process)
    process.settled()
    process.passed([running(1)])
    assert (process.held, process.fatalities) == (None, ())

"""replay-buffer-state: where the inputs start again (rule S8)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kstate.keyspace import FULL_RANGE, KeyRange
from kstate.plan import Plan, Registry, Shard
from kstate.progress import SlotMap
from kstate.state.lineage import Lineage, Position
from kstate.state.replay import ReplayPiece, plan_starts, replay_pieces
from kstate.times import Times
from tests.support.backup_log import HIGH, LOW

STARTS = {"words": 5}


def position(words: int, epoch: int = 1) -> Position:
    """A position that read up to an offset of `words`."""
    return Position(epoch, epoch, 1, "w", {"words": words}, Times(), 0)


def test_slots_without_a_marker_start_where_the_plan_says() -> None:
    """Never at the end, never at 0."""
    pieces = replay_pieces(Lineage(), LOW, STARTS)
    assert pieces == [ReplayPiece(LOW, STARTS, Times())]


def test_each_slot_starts_at_its_own_marker() -> None:
    """One progress per tile would lose records of the slower piece."""
    lineage = SlotMap([(KeyRange(0, 100), position(9)), (KeyRange(100, 200), position(7, epoch=30))])
    pieces = replay_pieces(lineage, KeyRange(0, 300), STARTS)
    assert [(piece.key_range, piece.progress["words"]) for piece in pieces] == [
        (KeyRange(0, 100), 9),
        (KeyRange(100, 200), 7),
        (KeyRange(200, 300), 5),
    ]


def test_neighbours_at_equal_progress_are_one_piece_whatever_their_chains() -> None:
    """They go on together; the next marker follows both."""
    lineage = SlotMap([(LOW, position(9, epoch=3)), (HIGH, position(9, epoch=8))])
    assert replay_pieces(lineage, FULL_RANGE, STARTS) == [ReplayPiece(FULL_RANGE, {"words": 9}, Times())]


def test_a_new_input_starts_where_the_plan_says_and_an_old_one_is_forgotten() -> None:
    """A newer version of the job reads other inputs."""
    (piece,) = replay_pieces(SlotMap([(LOW, position(9))]), LOW, {"more": 77})
    assert piece.progress == {"more": 77}
    (piece,) = replay_pieces(SlotMap([(LOW, position(9))]), LOW, {"words": 5, "more": 77})
    assert piece.progress == {"words": 9, "more": 77}


@given(st.lists(st.tuples(st.integers(0, 99), st.integers(1, 100), st.integers(5, 50)), max_size=6))
def test_the_pieces_cover_the_range_once_and_say_what_each_slot_says(markers: list[tuple[int, int, int]]) -> None:
    """Against the lineage, slot by slot."""
    lineage = Lineage()
    for lo, width, words in markers:
        lineage.assign(KeyRange(lo, lo + width), position(words))
    target = KeyRange(20, 120)
    pieces = replay_pieces(lineage, target, STARTS)
    assert [piece.key_range.lo for piece in pieces] == [target.lo, *(piece.key_range.hi for piece in pieces[:-1])]
    assert pieces[-1].key_range.hi == target.hi
    for piece in pieces:
        for slot in range(piece.key_range.lo, piece.key_range.hi):
            at = lineage.get(slot)
            assert piece.progress == (at.progress if at else STARTS)


def test_the_plans_starts_are_those_of_operator_and_partition() -> None:
    """Other operators may read the same topic."""
    starts = {("count", "words", 1): 3, ("count", "more", 1): 4, ("count", "words", 2): 5, ("sum", "words", 1): 6}
    plan = Plan("app", 1, 1, (), (), (), Registry(), {}, starts)
    assert plan_starts(plan, Shard("count", 1)) == {"words": 3, "more": 4}

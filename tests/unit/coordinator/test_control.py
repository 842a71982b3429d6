"""The control topic as a fold over its messages."""

from dataclasses import replace

import pytest

from kstate.coordinator.control import ANSWERS_KEPT, DECISIONS_KEPT, ControlView, take
from kstate.errors import KstateError
from kstate.keyspace import FULL_RANGE
from kstate.messages import OrderAnswered, PlanPublished, TermStarted, WorkerDied
from kstate.plan import Move, MovePhase, Plan, Registry, Shard, Tile


def test_a_plan_that_goes_back_or_does_not_tile_is_refused() -> None:
    """Nobody may act on such a plan: the reader stops, naming the rule."""
    tile = Tile(Shard("count", 0), FULL_RANGE, "a", 1)
    first = Plan("app", 2, 1, (), (), (tile,), Registry(), {}, {})
    view = take(ControlView(), PlanPublished(first))
    with pytest.raises(KstateError, match="plan 2 follows plan 2"):
        take(view, PlanPublished(first))
    with pytest.raises(KstateError, match="covered twice in plan 3"):
        take(view, PlanPublished(replace(first, version=3, tiles=(tile, tile))))
    with pytest.raises(KstateError, match="term 1 of x follows term 1"):
        take(take(view, TermStarted(1, "x")), TermStarted(1, "x"))


def test_the_newest_decisions_are_kept_with_their_reasons() -> None:
    """Twenty of them, the newest last."""
    view = ControlView()
    for number in range(30):
        view = take(view, WorkerDied(1, f"w{number}", f"reason {number}"))
    assert len(view.decisions) == DECISIONS_KEPT
    assert (view.decisions[-1].what, view.decisions[-1].reason) == ("w29 is dead", "reason 29")


def test_undelivered_deaths_of_a_plan_are_known_without_the_decision() -> None:
    """Control may be trimmed behind a plan: the deaths stand in it (S3)."""
    plan = Plan("app", 5, 1, (), ("a",), (Tile(Shard("x", 0), FULL_RANGE, "a", 1),), Registry(), {}, {})
    view = take(ControlView(), PlanPublished(plan))
    assert view.lost() == ("a",)
    assert not view.is_live_member("a")


def test_a_plan_tells_the_term_whose_start_was_trimmed() -> None:
    """A later one of the same term changes nothing; the leader of a trimmed term is not known."""
    plan = Plan("app", 5, 7, (), (), (), Registry(), {}, {})
    view = take(ControlView(), PlanPublished(plan))
    assert (view.term, view.leader) == (7, "")
    view = take(take(view, TermStarted(8, "b")), PlanPublished(replace(plan, version=6, term=8)))
    assert (view.term, view.leader) == (8, "b")
    jumped = take(view, PlanPublished(replace(plan, version=9, term=9)))
    assert (jumped.term, jumped.leader) == (9, "")


def test_a_plan_whose_moves_overlap_or_hang_in_the_air_is_refused() -> None:
    """Each lies within a tile of its source, under a grant that some plan gave."""
    shard = Shard("x", 0)
    plan = Plan("app", 5, 1, (), (), (Tile(shard, FULL_RANGE, "a", 1),), Registry(), {}, {})
    move = Move(5, shard, FULL_RANGE, "a", "b", 5, MovePhase.WARM)
    assert take(ControlView(), PlanPublished(replace(plan, moves=(move,)))).plan is not None
    for moves, fault in (
        ((move, move), "overlaps another one"),
        ((replace(move, source="c"),), "is not within a tile of its source c"),
        ((replace(move, grant=6),), "has grant 6 in plan 5"),
    ):
        with pytest.raises(KstateError, match=fault):
            take(ControlView(), PlanPublished(replace(plan, moves=moves)))


def test_a_dead_target_is_lost_only_under_release() -> None:
    """Before, nobody but the source has touched the range (S7)."""
    shard = Shard("x", 0)
    move = Move(5, shard, FULL_RANGE, "a", "b", 5, MovePhase.WARM)
    plan = Plan("app", 5, 1, (), (), (Tile(shard, FULL_RANGE, "a", 1),), Registry(), {}, {}, moves=(move,))
    view = take(take(ControlView(), PlanPublished(plan)), WorkerDied(1, "b", "gone"))
    assert view.lost() == ()
    released = replace(plan, version=6, moves=(replace(move, phase=MovePhase.RELEASE),))
    assert take(view, PlanPublished(released)).lost() == ("b",)


def test_answered_orders_are_known_by_plan_or_message() -> None:
    """A thousand of them, the newest last."""
    plan = Plan("app", 1, 1, (), (), (), Registry(), {}, {})
    view = take(ControlView(), PlanPublished(plan, "why", "o1"))
    view = take(take(view, OrderAnswered(1, "o2", False, "no")), PlanPublished(replace(plan, version=2)))
    assert view.answered == ("o1", "o2")
    assert [(d.what, d.reason) for d in view.decisions][:2] == [("plan 1", "why"), ("order o2 is refused", "no")]
    for number in range(ANSWERS_KEPT):
        view = take(view, OrderAnswered(1, f"n{number}", True, ""))
    assert (len(view.answered), view.answered[0]) == (ANSWERS_KEPT, "n0")

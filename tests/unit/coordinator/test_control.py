"""The control topic as a fold over its messages."""

from dataclasses import replace

import pytest

from kstate.coordinator.control import DECISIONS_KEPT, ControlView, take
from kstate.errors import KstateError
from kstate.keyspace import FULL_RANGE
from kstate.messages import PlanPublished, TermStarted, WorkerDied
from kstate.plan import Plan, Registry, Shard, Tile


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

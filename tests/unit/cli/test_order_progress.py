"""What becomes of an order, read from the control topic alone."""

from __future__ import annotations

from dataclasses import replace

from kstate.cli.order_progress import LegState, Outcome, Progress, after
from kstate.cli.order_report import as_json, changed_lines, verdict
from kstate.messages import Control, JobHalted, Order, OrderAnswered, OrderKind, PlanPublished
from kstate.plan import MovePhase
from tests.support.onlookers import COUNT, HIGH, LOW, A, B, move, plan, tile

NAMES = {A.incarnation: "worker-1", B.incarnation: "worker-2"}
SPLIT = Progress(Order("o1", OrderKind.SPLIT, COUNT))
MOVE = move(order="o1")
WARM = PlanPublished(plan(2, tile(A), moves=(MOVE,)), "a split was ordered", "o1")
RELEASE = PlanPublished(plan(3, tile(A), moves=(replace(MOVE, phase=MovePhase.RELEASE),)), "the copy is warm")
DONE = PlanPublished(plan(4, tile(A, LOW), tile(B, HIGH, grant=2)), "worker-2 runs it")


def followed(*messages: Control, start: Progress = SPLIT) -> Progress:
    """One message a second."""
    for second, message in enumerate(messages):
        start = after(start, message, float(second))
    return start


def test_a_split_is_done_when_its_move_is_gone_and_the_target_has_the_range() -> None:
    """Each phase is kept with its time."""
    progress = followed(WARM, RELEASE, DONE)
    (leg,) = progress.legs.values()
    assert leg.times == ((LegState.WARM, 0.0), (LegState.RELEASE, 1.0), (LegState.DONE, 2.0))
    assert progress.outcome is Outcome.DONE
    assert verdict(progress, 2.0) == "done in 2.0 s, 1 move"


def test_until_then_it_is_under_way() -> None:
    """Answered, and not over."""
    progress = followed(WARM, RELEASE)
    assert progress.is_answered
    assert not progress.is_over
    assert progress.outcome is Outcome.UNDER_WAY


def test_plans_before_its_own_do_not_count() -> None:
    """Neither do other people's orders."""
    other = PlanPublished(plan(1), "first", "o0")
    assert followed(other, OrderAnswered(1, "o0", accepted=False, reason="no")) == SPLIT
    assert not followed(other).is_answered


def test_moves_of_others_in_the_same_plans_do_not_count() -> None:
    """Only those that bear its id."""
    others = move(1, LOW, order="o0")
    progress = followed(replace(WARM, plan=replace(WARM.plan, moves=(others, MOVE))))
    assert [leg.move for leg in progress.legs.values()] == [MOVE]


def test_a_cancelled_move_is_told_with_the_leaders_reason() -> None:
    """The target died while its copy was read: the source still has the range."""
    progress = followed(WARM, PlanPublished(plan(3, tile(A)), "worker-2 is dead"))
    (leg,) = progress.missed
    assert (leg.state, leg.reason, leg.owners) == (LegState.CANCELLED, "worker-2 is dead", (A.incarnation,))
    assert progress.outcome is Outcome.MISSED
    assert "1 of 1 move came to another end" in verdict(progress, 1.0)


def test_a_range_that_came_back_to_its_source_is_no_success() -> None:
    """The target died after the release: the same move goes to the source, under a new grant, and ends there."""
    back = replace(MOVE, phase=MovePhase.RELEASE, target=A.incarnation, grant=4)
    returned = PlanPublished(plan(4, tile(A), moves=(back,)), "worker-2 is dead")
    progress = followed(WARM, RELEASE, returned)
    before = followed(WARM, RELEASE)
    assert list(changed_lines(before, progress, NAMES)) == [
        "count[0] [0x8000, 0x10000)  worker-1 → worker-2  goes to worker-1 instead: worker-2 is dead"
    ]
    progress = followed(WARM, RELEASE, returned, PlanPublished(plan(5, tile(A)), "worker-1 runs it"))
    (leg,) = progress.missed
    assert (leg.state, leg.reason, leg.owners) == (LegState.ELSEWHERE, "worker-2 is dead", (A.incarnation,))
    assert progress.outcome is Outcome.MISSED


def test_a_source_that_dies_after_the_release_changes_nothing() -> None:
    """The range is the target's."""
    progress = followed(
        WARM, RELEASE, PlanPublished(plan(4, tile(None, LOW), tile(B, HIGH, grant=2)), "worker-1 is dead")
    )
    assert progress.outcome is Outcome.DONE


def test_a_refused_order_has_its_reason() -> None:
    """And is over."""
    progress = followed(OrderAnswered(1, "o1", accepted=False, reason="it is under way already"))
    assert progress.is_over
    assert progress.outcome is Outcome.REFUSED
    assert verdict(progress, 0.1) == "refused: it is under way already"


def test_nothing_to_do_is_a_success() -> None:
    """Say a merge of what is one already."""
    progress = followed(OrderAnswered(1, "o1", accepted=True, reason="nothing to do: it is one already"))
    assert progress.outcome is Outcome.NOTHING
    assert verdict(progress, 0.1) == "nothing to do: it is one already"


def test_a_plan_that_carries_an_order_out_at_once_ends_it() -> None:
    """A parked range is given without a move, touching ranges of one worker are joined."""
    assert followed(PlanPublished(plan(2, tile(A)), "joined", "o1")).outcome is Outcome.DONE


def test_a_drain_is_over_when_the_worker_has_nothing_left() -> None:
    """Also when a later plan makes further moves for it."""
    drain = Progress(Order("o1", OrderKind.DRAIN, worker="worker-1"))
    first = PlanPublished(plan(2, tile(A), drained=(A.incarnation,)), "a drain was ordered", "o1")
    assert not followed(first, start=drain).is_over
    later = replace(MOVE, id=3, grant=3, key_range=tile(A).key_range)
    moving = PlanPublished(plan(3, tile(A), moves=(later,), drained=(A.incarnation,)), "worker-1 is drained")
    gone = PlanPublished(plan(4, tile(B, grant=3), drained=(A.incarnation,)), "worker-2 runs it")
    progress = followed(first, moving, gone, start=drain)
    assert progress.outcome is Outcome.DONE
    assert verdict(progress, 2.0) == "done in 2.0 s, 1 move; worker-1 has nothing left and may be stopped"


def test_a_drain_whose_target_dies_goes_on_with_another_one() -> None:
    """The leader moves again what stayed, so nothing has failed yet."""
    drain = Progress(Order("o1", OrderKind.DRAIN, worker="worker-1"))
    first = PlanPublished(plan(2, tile(A), moves=(MOVE,), drained=(A.incarnation,)), "a drain was ordered", "o1")
    cancelled = PlanPublished(plan(3, tile(A), drained=(A.incarnation,)), "worker-2 is dead")
    progress = followed(first, cancelled, start=drain)
    assert progress.outcome is Outcome.UNDER_WAY
    elsewhere = PlanPublished(plan(4, tile(None, grant=4), drained=(A.incarnation,)), "taken")
    assert followed(elsewhere, start=progress).outcome is Outcome.DONE


def test_a_halt_ends_the_wait() -> None:
    """Nobody carries anything out any more."""
    progress = followed(WARM, JobHalted(1, "an operator failed", 3))
    assert progress.outcome is Outcome.HALTED
    assert "an operator failed" in verdict(progress, 1.0)


def test_the_json_names_every_move_with_its_times() -> None:
    """Workers by name, ranges in slots."""
    found = as_json(followed(WARM, RELEASE, DONE), NAMES, 2.5)
    assert found == {
        "order": "o1",
        "kind": "split",
        "outcome": "done",
        "reason": "a split was ordered",
        "plan_version": 4,
        "seconds": 2.5,
        "moves": [
            {
                "id": 2,
                "operator": "count",
                "partition": 0,
                "lo": 0x8000,
                "hi": 0x10000,
                "source": "worker-1",
                "target": "worker-2",
                "state": "done",
                "reason": "",
                "workers": ["worker-2"],
                "plan_version": 4,
                "times": {"warm": 0.0, "release": 1.0, "done": 2.0},
            }
        ],
    }

"""Orders and moves as the core decides them, plan by plan."""

from dataclasses import replace

import pytest

from kstate.coordinator import planning
from kstate.coordinator.commands import Answer, Declare, Fence, Publish
from kstate.coordinator.core import decide, waiting
from kstate.keyspace import FULL_RANGE, SLOTS, KeyRange
from kstate.messages import (
    Heartbeat,
    Order,
    OrderKind,
    ProcessExited,
    TilePhase,
    TileReport,
)
from kstate.plan import MovePhase, Shard
from tests.support.leading import Leading, beat, started


def running_at(incarnation: str, *pieces: tuple[Shard, KeyRange, int, str], start: int = 1) -> Heartbeat:
    """A heartbeat of a worker with these pieces: place, grant, phase."""
    tiles = tuple(
        TileReport(shard, key_range, grant, TilePhase(phase), 1, {}) for shard, key_range, grant, phase in pieces
    )
    return beat(incarnation, start, tiles=tiles)


COUNT_1 = Shard("count", 1)
UPPER = KeyRange(SLOTS // 2, SLOTS)
SPLIT = Order("1f3a", OrderKind.SPLIT, COUNT_1, target="a")


def test_an_order_becomes_a_move_and_the_move_a_cut_tile() -> None:
    """Warm, release, done: three plans, the first of which answers the order; heard again it changes nothing."""
    lead = started(check=False)
    lead.see(SPLIT)
    (command,) = lead.run()
    assert isinstance(command, Publish)
    assert command.order == "1f3a"
    assert command.reason == "split count[1] [0x0000, 0x10000): [0x8000, 0x10000) to a (order 1f3a)"
    lead.see(SPLIT)
    assert (lead.run(), lead.state.orders) == ([], ())
    lead.see(running_at("a", (COUNT_1, UPPER, 2, "warm")), running_at("b", (COUNT_1, FULL_RANGE, 1, "running")))
    lead.run()
    assert [m.phase for m in lead.plans()[-1].moves] == [MovePhase.RELEASE]
    lead.see(running_at("a", (COUNT_1, UPPER, 2, "running")))
    lead.run()
    assert [(t.worker, t.grant) for t in lead.plans()[-1].tiles if t.shard == COUNT_1] == [("b-1", 1), ("a-1", 2)]
    assert lead.plans()[-1].moves == ()


def test_a_new_leader_goes_on_with_every_phase() -> None:
    """From the plan and one heartbeat of each; an order that was answered stays so."""
    lead = started(check=False)
    lead.see(SPLIT)
    lead.run()
    lead.take_over()
    lead.see(SPLIT, running_at("a", (COUNT_1, UPPER, 2, "warm")), running_at("b", (COUNT_1, FULL_RANGE, 1, "running")))
    assert [type(c) for c in lead.run()] == [Publish]
    lead.take_over()
    lead.see(SPLIT, beat("b"))
    assert lead.run() == []
    lead.see(running_at("a", (COUNT_1, UPPER, 2, "running")))
    assert [type(c) for c in lead.run()] == [Publish]
    assert lead.plans()[-1].moves == ()


def test_a_refused_order_is_answered_once() -> None:
    """By a message of its own, with the reason; a new leader knows that it was answered."""
    lead = started()
    wrong = Order("1f3b", OrderKind.MOVE, COUNT_1, target="zoe")
    lead.see(wrong, wrong)
    assert lead.run() == [Answer("1f3b", False, "there is no worker 'zoe'; there are: a, b")]
    lead.see(wrong)
    lead.take_over()
    lead.see(wrong, beat("a"), beat("b"))
    assert lead.run() == []


def test_orders_are_refused_while_nothing_can_be_moved() -> None:
    """Before the first plan, in a bounded run, and in a job that is halted or complete."""
    early = Leading()
    early.see(SPLIT)
    (answer,) = early.run()
    assert isinstance(answer, Answer)
    assert "there is no plan yet" in answer.reason
    bounded = started(ends={("split", "lines", 0): 10})
    bounded.see(SPLIT)
    assert bounded.run() == [Answer("1f3a", False, "this is a bounded run: nothing is moved, it ends by itself")]
    halted = started()
    halted.see(beat("a", fatal="broken", exit_code=3))
    halted.run()
    halted.see(SPLIT)
    assert decide(halted.state) == Answer("1f3a", False, "the job is halted")


def test_one_order_after_the_other_is_carried_out() -> None:
    """Each by a plan of its own; the second of the same range is refused, because the first is under way."""
    lead = started(check=False)
    lead.see(SPLIT, replace(SPLIT, id="1f3b"))
    assert [type(c) for c in lead.run()] == [Publish, Answer]


def test_a_dead_target_under_release_is_fenced_like_an_owner() -> None:
    """S2: declared, fenced, and only then the range goes back to its source."""
    lead = started(check=False)
    lead.see(SPLIT)
    lead.run()
    lead.see(running_at("a", (COUNT_1, UPPER, 2, "warm")), running_at("b", (COUNT_1, FULL_RANGE, 1, "running")))
    lead.run()
    lead.see(ProcessExited("a-1", -9))
    declared = decide(lead.state)
    assert isinstance(declared, Declare)
    lead.carry_out(declared)
    assert decide(lead.state) == Fence("a-1")
    assert lead.state.control.lost() == ("a-1",)
    lead.run()
    (move,) = lead.plans()[-1].moves
    assert (move.id, move.target, move.source, move.phase) == (2, "b-1", "b-1", MovePhase.RELEASE)
    assert "move 2 of count[1] [0x8000, 0x10000): a is dead, back to b" in lead.log[-1].reason  # type: ignore[union-attr]


def test_a_plan_that_breaks_a_rule_is_not_published(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistake in a rule stops the leader; no worker sees what came of it."""
    lead = started()
    taken = tuple(replace(tile, worker="a-1", grant=2) for tile in lead.plans()[-1].tiles)
    monkeypatch.setattr(planning, "_RULES", (lambda now, _: replace(now, tiles=taken),))
    with pytest.raises(AssertionError, match=r"plan 2: count\[1\] .* is taken from b-1, who is not fenced"):
        decide(lead.state)


def test_what_somebody_waits_for_is_said() -> None:
    """As long as it lasts, in the same words."""
    lead = started(check=False)
    lead.see(SPLIT)
    lead.run()
    assert waiting(lead.state) == ("move 2 of count[1] [0x8000, 0x10000) waits for a to be warm",)

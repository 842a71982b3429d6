from dataclasses import replace

import pytest

from benchmarks.demo.orders import course, why
from kstate.cli.order_progress import Progress, after
from kstate.keyspace import FULL_RANGE, SLOTS, KeyRange
from kstate.messages import JobHalted, Order, OrderAnswered, OrderKind, PlanPublished
from kstate.plan import Member, Move, MovePhase, Plan, Registry, Shard, Tile

SHARD = Shard("count", 0)
LOW, HIGH = KeyRange(0, SLOTS // 2), KeyRange(SLOTS // 2, SLOTS)
ORDER = Order("o-1", OrderKind.SPLIT, SHARD, target="w2", at=SLOTS // 2)
MEMBERS = (Member("w1", "i1"), Member("w2", "i2"))
MOVE = Move(2, SHARD, HIGH, "i1", "i2", 2, MovePhase.WARM, ORDER.id)
WARM = Plan("app", 2, 1, MEMBERS, (), (Tile(SHARD, FULL_RANGE, "i1", 1),), Registry(), {}, {}, moves=(MOVE,))
RELEASE = replace(WARM, version=3, moves=(replace(MOVE, phase=MovePhase.RELEASE),))
DONE = replace(WARM, version=4, moves=(), tiles=(Tile(SHARD, LOW, "i1", 1), Tile(SHARD, HIGH, "i2", 2)))


def test_the_course_of_an_order_says_when_it_came_how_far() -> None:
    """From the control topic alone, in seconds since the order."""
    progress = after(Progress(ORDER), PlanPublished(WARM, "split", ORDER.id), 0.1)
    for plan, at in ((RELEASE, 0.35), (DONE, 0.8)):
        progress = after(progress, PlanPublished(plan, ""), at)
    assert course(progress) == "warm 0.10, release 0.35, done 0.80 s"


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([], "nobody answered"),
        ([OrderAnswered(1, "o-1", False, "w2 is draining")], "w2 is draining"),
        ([PlanPublished(WARM, "split", "o-1"), JobHalted(1, "a topic is gone", 3)], "a topic is gone"),
        ([PlanPublished(WARM, "split", "o-1")], "move 2 of count[0] [0x8000, 0x10000): warm"),
    ],
)
def test_an_order_that_is_not_carried_out_says_why(
    messages: list[OrderAnswered | PlanPublished | JobHalted], reason: str
) -> None:
    """Silence, a refusal, a halted job, or a move that hangs: the demo shows which."""
    progress = Progress(ORDER)
    for message in messages:
        progress = after(progress, message, 1.0)
    assert why(progress) == reason

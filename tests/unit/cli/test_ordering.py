"""An order on its way: sent until somebody answers, followed to its end, in virtual time over topics in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from kstate.cli.moves import interrupted
from kstate.cli.order_progress import Outcome, Progress
from kstate.cli.order_request import Request
from kstate.cli.ordering import Ordering, Patience
from kstate.clock import Steps
from kstate.errors import ConfigError, RetryableError
from kstate.keyspace import KeyRange
from kstate.messages import OrderAnswered, OrderKind, PlanPublished
from kstate.plan import MovePhase
from kstate.testing.memory_log import Fault
from tests.support.onlookers import COUNT, HIGH, LOW, A, B, Topics, beat, move, piece, plan, tile

SPLIT = Request(OrderKind.SPLIT, COUNT, at=0.5)
MOVE = move(order="o1")
WARM = PlanPublished(plan(2, tile(A), moves=(MOVE,)), "a split was ordered", "o1")
RELEASE = PlanPublished(plan(3, tile(A), moves=(replace(MOVE, phase=MovePhase.RELEASE),)), "the copy is warm")
DONE = PlanPublished(plan(4, tile(A, LOW), tile(B, HIGH, grant=2)), "worker-2 runs it")


class Desk:
    """A person who orders a split, and what they are told."""

    def __init__(self, topics: Topics, request: Request = SPLIT) -> None:
        self.topics = topics
        self.told: list[str] = []
        self.ordering = Ordering(request, "o1", topics.edges, "app", self.told.append)

    def order(self, timeout_s: float = 60.0, *, until_done: bool = True) -> Steps[Progress]:
        return self.ordering.run(Patience(timeout_s, until_done))


@pytest.fixture
def desk() -> Iterator[Desk]:
    """A job with a leader and two workers."""
    desk = Desk(Topics().led())
    yield desk
    desk.ordering.close()


def test_an_order_is_repeated_every_second_until_it_is_answered(desk: Desk) -> None:
    """A report may be lost; the leader tells copies by their id."""
    steps = desk.order()
    desk.topics.let(steps, 3.5)
    orders = desk.topics.orders()
    assert len(orders) == 4
    assert len({order.id for order in orders}) == 1
    assert orders[0].at == 0x8000
    desk.topics.say(WARM)
    desk.topics.let(steps, 3.0)
    assert len(desk.topics.orders()) == 4


def test_each_phase_is_told_with_its_age(desk: Desk) -> None:
    """From the order to the plan without the move."""
    steps = desk.order()
    desk.topics.let(steps, 0.2)
    for message, seconds in ((WARM, 1.0), (RELEASE, 0.3)):
        desk.topics.say(message)
        assert desk.topics.let(steps, seconds) is None
    desk.topics.say(DONE)
    assert desk.topics.run(steps).outcome is Outcome.DONE
    way = "count[0] [0x8000, 0x10000)  worker-1 → worker-2"
    assert desk.told == [
        "order o1: split count[0]",
        "  0.2 s  plan 2: a split was ordered",
        f"  0.2 s  {way}  warm",
        f"  1.2 s  {way}  release",
        f"  1.5 s  {way}  done with plan 4",
    ]


def test_a_copy_that_takes_long_is_told_with_its_distance(desk: Desk) -> None:
    """From the heartbeats of the target."""
    steps = desk.order()
    desk.topics.let(steps, 0.2)
    desk.topics.say(WARM)
    desk.topics.report(beat(B, piece(HIGH, "warming", grant=2, behind=1234)))
    desk.topics.let(steps, 6.0)
    assert desk.told[-1].endswith("still in phase warm: the copy is warming, 1,234 records to read")


def test_without_waiting_it_ends_with_the_answer(desk: Desk) -> None:
    """The moves go on."""
    steps = desk.order(until_done=False)
    desk.topics.let(steps, 0.2)
    desk.topics.say(WARM)
    assert desk.topics.run(steps).outcome is Outcome.UNDER_WAY


def test_a_refusal_ends_it(desk: Desk) -> None:
    """A second move of a range that is under way, say; only the leader knows for sure."""
    steps = desk.order()
    desk.topics.let(steps, 0.2)
    desk.topics.say(OrderAnswered(1, "o1", accepted=False, reason="it is under way already"))
    assert desk.topics.run(steps).outcome is Outcome.REFUSED


def test_a_leader_that_does_not_answer_is_named(desk: Desk) -> None:
    """It is heard, so starting another one would not help."""
    steps = desk.order(8.0)
    for _ in range(20):
        desk.topics.alive()
        if desk.topics.let(steps, 0.39) is not None:
            break
    assert "no answer yet: leader.a leads, and has not answered" in desk.told
    with pytest.raises(RetryableError, match=r"leader.a leads, and has not answered.*see its log"):
        desk.topics.run(steps)


def test_without_a_leader_it_says_how_to_start_one(desk: Desk) -> None:
    """After the time that was given, and no sooner."""
    began = desk.topics.clock.now
    desk.topics.clock.sleep(10)
    with pytest.raises(RetryableError, match=r"no coordinator is heard.*kstate coordinator JOB"):
        desk.topics.run(desk.order(20.0))
    assert 30 <= desk.topics.clock.now - began < 31


def test_moves_that_take_longer_than_the_time_that_was_given_go_on(desk: Desk) -> None:
    """The progress says how far they are."""
    steps = desk.order(2.0)
    desk.topics.let(steps, 0.2)
    desk.topics.say(WARM)
    assert desk.topics.run(steps).outcome is Outcome.UNDER_WAY


def test_what_the_plan_refuses_is_never_sent(desk: Desk) -> None:
    """The leader is not bothered with it."""
    wrong = Desk(desk.topics, Request(OrderKind.SPLIT, COUNT, KeyRange(7, 8)))
    with pytest.raises(ConfigError, match="cannot be cut"):
        desk.topics.run(wrong.order())
    assert desk.topics.orders() == []


def test_a_job_that_never_ran_is_named() -> None:
    """There is nobody to order from."""
    topics = Topics()
    topics.log.delete_topic("app.control")
    with pytest.raises(ConfigError, match=r"Job 'app' never ran on this cluster: there is no topic app.control"):
        topics.run(Desk(topics).order())


def test_a_broker_that_is_away_is_waited_for(desk: Desk) -> None:
    """At first, and in between."""
    for _ in range(3):
        desk.topics.log.inject("partitions", Fault.RETRYABLE)
    steps = desk.order()
    desk.topics.let(steps, 1.0)
    for _ in range(3):
        desk.topics.log.inject("poll", Fault.RETRYABLE)
    desk.topics.say(WARM, RELEASE, DONE)
    assert desk.topics.run(steps).outcome is Outcome.DONE


def test_a_broker_that_stays_away_ends_it(desk: Desk) -> None:
    """With the client's own words."""
    desk.topics.log.faults = lambda call: Fault.RETRYABLE
    with pytest.raises(RetryableError, match="the broker does not answer"):
        desk.topics.run(desk.order(5.0))


def test_an_interrupted_command_says_what_it_leaves_behind(desk: Desk) -> None:
    """Nothing, perhaps something, or an order that goes on."""
    assert interrupted(desk.ordering) == "interrupted, nothing was ordered"
    steps = desk.order()
    desk.topics.let(steps, 0.2)
    assert "order o1 was sent and may still be carried out" in interrupted(desk.ordering)
    desk.topics.say(WARM)
    desk.topics.let(steps, 0.2)
    assert "order o1 goes on without this command" in interrupted(desk.ordering)

"""Orders as people type them: what is refused before the leader is asked names the thing and the mend."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kstate.cli.order_request import Request, checked_order, read_cut, read_range, read_shard
from kstate.coordinator.observed import Observed, control_read, report_read
from kstate.errors import ConfigError
from kstate.keyspace import KeyRange
from kstate.messages import Control, JobHalted, Order, OrderKind, PlanPublished, TermStarted, WorkerDied
from kstate.plan import Member, Shard
from tests.support.onlookers import COUNT, HIGH, LEADER, LOW, A, B, beat, plan, tile


def seen(*messages: Control) -> Observed:
    """What an onlooker has read by now."""
    observed = Observed()
    for message in (TermStarted(1, LEADER), *messages):
        observed = control_read(observed, message, 0)
    return observed


WHOLE = seen(PlanPublished(plan()))
CUT = seen(PlanPublished(plan(1, tile(A, LOW), tile(B, HIGH))))


def checked(request: Request, observed: Observed = WHOLE) -> Order:
    """Checked against what was seen."""
    return checked_order(request, "id", observed, "app")


@pytest.mark.parametrize(
    ("text", "read"),
    [("0:0x8000", LOW), ("0x8000:", HIGH), (":32768", LOW), (":", KeyRange(0, 65536)), (None, None)],
)
def test_a_range_is_two_slots_and_a_side_may_be_left_out(text: str | None, read: KeyRange | None) -> None:
    """In decimal or hexadecimal, half-open as everywhere."""
    assert read_range(text) == read


@pytest.mark.parametrize("text", ["5", "5:5", "6:5", "0:65537", "a:b", "-1:5", "1.5:2"])
def test_what_is_no_range_is_refused(text: str) -> None:
    """With the form that is wanted."""
    with pytest.raises(ConfigError, match=r"Mend: (write LO:HI|slots are whole numbers)"):
        read_range(text)


@pytest.mark.parametrize(("text", "read"), [("0.25", 0.25), ("0x10", 16), ("16", 16), (None, None)])
def test_a_cut_is_a_slot_or_a_fraction(text: str | None, read: float | None) -> None:
    """Whole numbers are slots."""
    assert read_cut(text) == read


@pytest.mark.parametrize("text", ["0.0", "1.0", "1.5", "-0.1", "half", "nan"])
def test_a_cut_outside_of_the_range_is_refused(text: str) -> None:
    """Nothing would be left on one side."""
    with pytest.raises(ConfigError, match="--at"):
        read_cut(text)


@pytest.mark.parametrize("text", ["x", "-1", "1.0", ""])
def test_a_partition_is_a_number(text: str) -> None:
    """The message says what was typed."""
    with pytest.raises(ConfigError, match=f"Partition '{text}' of 'count' is no number"):
        read_shard("count", text)


@pytest.mark.parametrize(
    ("request_", "fault"),
    [
        (Request(OrderKind.MOVE, Shard("cuont", 0), target="worker-2"), "no operator 'cuont'. Mend: .*'count'"),
        (
            Request(OrderKind.MOVE, Shard("count", 2), target="worker-2"),
            "no partition 2. Mend: it has partitions 0 to 1",
        ),
        (Request(OrderKind.MOVE, COUNT, target="worker-9"), "no worker 'worker-9'. Mend: .*'worker-1', 'worker-2'"),
        (Request(OrderKind.DRAIN, worker="worker-9"), "no worker 'worker-9'"),
        (Request(OrderKind.SPLIT, COUNT, at=0), "0x0000 leaves nothing on one side"),
        (Request(OrderKind.SPLIT, COUNT, at=65536), "0x10000 leaves nothing on one side"),
        (Request(OrderKind.SPLIT, COUNT, LOW, at=0x8000), "0x8000 leaves nothing on one side of .0x0000, 0x8000"),
        (Request(OrderKind.SPLIT, COUNT, KeyRange(7, 8)), "cannot be cut in 2: it has 1 slot"),
        (Request(OrderKind.SPLIT, COUNT, KeyRange(7, 9), parts=3), "cannot be cut in 3: it has 2 slots"),
    ],
)
def test_what_the_plan_does_not_know_is_refused(request_: Request, fault: str) -> None:
    """The thing is named, and what there is instead."""
    with pytest.raises(ConfigError, match=fault):
        checked(request_)


def test_a_fraction_becomes_a_slot_of_the_range_or_of_the_only_tile() -> None:
    """So that the leader, and whoever reads the order, sees a slot."""
    assert checked(Request(OrderKind.SPLIT, COUNT, at=0.25)).at == 0x4000
    assert checked(Request(OrderKind.SPLIT, COUNT, HIGH, at=0.25)).at == 0xA000
    assert checked(Request(OrderKind.SPLIT, COUNT)) == Order("id", OrderKind.SPLIT, COUNT)


def test_a_split_of_a_partition_that_is_cut_must_say_which_part() -> None:
    """The ranges are listed as they are typed."""
    with pytest.raises(ConfigError, match="--range 0x0000:0x8000 or 0x8000:0x10000"):
        checked(Request(OrderKind.SPLIT, COUNT), CUT)
    assert checked(Request(OrderKind.SPLIT, COUNT, HIGH), CUT).key_range == HIGH


def test_a_slot_says_by_itself_which_part_is_meant() -> None:
    """A fraction does not: of what?"""
    assert checked(Request(OrderKind.SPLIT, COUNT, at=0x9000), CUT).at == 0x9000
    with pytest.raises(ConfigError, match="0x8000 leaves nothing on one side"):
        checked(Request(OrderKind.SPLIT, COUNT, at=0x8000), CUT)
    with pytest.raises(ConfigError, match="say which to split"):
        checked(Request(OrderKind.SPLIT, COUNT, at=0.5), CUT)


def test_a_dead_worker_gets_nothing() -> None:
    """It is known by name, and named as dead."""
    observed = control_read(WHOLE, WorkerDied(1, B.incarnation, "silent"), 0)
    with pytest.raises(
        ConfigError, match=r"Worker 'worker-2' of job 'app' is dead. Mend: start it again, or .*'worker-1'"
    ):
        checked(Request(OrderKind.MOVE, COUNT, target="worker-2"), observed)


def test_a_worker_that_was_heard_but_is_no_member_yet_may_be_named() -> None:
    """The leader decides: it may join within the same second."""
    observed = report_read(WHOLE, beat(Member("worker-3", "worker-3.a", "b1")), 0)
    assert checked(Request(OrderKind.MOVE, COUNT, target="worker-3"), observed).target == "worker-3"


@pytest.mark.parametrize(
    ("observed", "fault"),
    [
        (seen(), "no plan yet"),
        (seen(PlanPublished(plan()), JobHalted(1, "the disk is full.", 2)), "is halted: the disk is full."),
        (seen(PlanPublished(replace(plan(), bounded=True, complete=True))), "bounded run of job 'app' is complete"),
    ],
)
def test_a_job_that_does_not_run_takes_no_orders(observed: Observed, fault: str) -> None:
    """It would wait for ever."""
    with pytest.raises(ConfigError, match=fault):
        checked(Request(OrderKind.REBALANCE), observed)

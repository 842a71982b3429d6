"""Payments once: repetitions stop, and a week later the id may be used again."""

from __future__ import annotations

import pytest

from kstate.testing import Driver
from operators.dedup import job
from operators.dedup.operators import MEMORY, Dedup
from operators.records import Payment

WEEK = MEMORY.total_seconds() * 1000


def payment(id_: str, ts: float, cents: int = 10) -> Payment:
    """A payment of account a-1."""
    return Payment(id_, "a-1", cents, 1_000 + round(ts))


def send(d: Driver, *payments: Payment) -> None:
    """Payments come keyed by account."""
    d.send(Dedup.payments, *payments, key="a-1")


def test_the_first_of_each_id_goes_on() -> None:
    """Whatever the repetitions say."""
    with Driver(job) as d:
        send(d, payment("p-1", 0), payment("p-2", 1), payment("p-1", 2), payment("p-2", 3, cents=99))
        assert sorted(d.read(Dedup.once), key=lambda p: p.id) == [payment("p-1", 0), payment("p-2", 1)]


def test_an_id_is_forgotten_a_week_after_its_first_record() -> None:
    """Repetitions do not prolong it, and one millisecond decides."""
    with Driver(job) as d:
        send(d, payment("p-1", 0), payment("p-1", WEEK / 2), payment("p-1", WEEK - 1))
        assert d.read(Dedup.once) == [payment("p-1", 0)]
        send(d, payment("p-1", WEEK))
        assert d.read(Dedup.once) == [payment("p-1", WEEK)]
        assert d.state(Dedup.seen, key="p-1") is True


def test_what_was_forgotten_takes_no_room() -> None:
    """State shrinks again when the watermark has passed."""
    with Driver(job) as d:
        send(d, payment("p-1", 0), payment("p-2", 2 * WEEK))
        assert d.state(Dedup.seen, key="p-1") is False
        assert d.state(Dedup.seen, key="p-2") is True


@pytest.mark.parametrize("point", ["before_commit", "after_commit"])
def test_a_crash_neither_loses_nor_doubles_a_payment(point: str) -> None:
    """A repetition that is read again after a crash is still one."""
    with Driver(job, workers=2) as d:
        send(d, *(payment(f"p-{number}", number) for number in range(10)))
        for worker in (0, 1):
            d.crash(worker, at=point)
        send(d, *(payment(f"p-{number}", 100 + number) for number in range(20)))
        found = d.read(Dedup.once)
        assert sorted(p.id for p in found) == sorted(f"p-{number}" for number in range(20))
        assert [p.ts for p in found if p.id == "p-3"] == [1_003]

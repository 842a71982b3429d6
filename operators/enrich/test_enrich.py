"""Orders meet customers: those that are known, those that come later, those that never come."""

from __future__ import annotations

import pytest

from kstate.testing import Driver
from operators.enrich import job
from operators.enrich.operators import Enrich
from operators.records import Customer, EnrichedOrder, Order

MINUTE = 60_000
ANN, BOB = Customer("Ann", "Aachen"), Customer("Bob", "Bonn")


def order(id_: str, customer: str, minute: float) -> Order:
    """An order of ten cents."""
    return Order(id_, customer, 10, round((1 + minute) * MINUTE))


def enriched(id_: str, customer: str, known: Customer | None) -> EnrichedOrder:
    """What must come of it."""
    return EnrichedOrder(id_, customer, 10, known.name if known else None, known.city if known else None)


def test_an_order_of_a_known_customer_goes_on_at_once() -> None:
    """The key of the order is its own id; it is read by its customer."""
    with Driver(job) as d:
        d.send(Enrich.customers, ANN, key="c-1")
        d.send(Enrich.customers, BOB, key="c-2")
        d.send(Enrich.orders, order("o-1", "c-1", 0), key="o-1")
        d.send(Enrich.orders, order("o-2", "c-2", 0), key="o-2")
        assert sorted(d.read(Enrich.enriched), key=lambda e: e.id) == [
            enriched("o-1", "c-1", ANN),
            enriched("o-2", "c-2", BOB),
        ]


def test_the_latest_record_of_a_customer_counts() -> None:
    """Orders that have gone on are not changed by it."""
    with Driver(job) as d:
        d.send(Enrich.customers, ANN, key="c-1")
        d.send(Enrich.orders, order("o-1", "c-1", 0), key="o-1")
        d.send(Enrich.customers, BOB, key="c-1")
        d.send(Enrich.orders, order("o-2", "c-1", 0), key="o-2")
        assert d.read(Enrich.enriched) == [enriched("o-1", "c-1", ANN), enriched("o-2", "c-1", BOB)]


def test_an_order_waits_for_its_customer() -> None:
    """Those of one customer go on in their order, when it comes."""
    with Driver(job) as d:
        d.send(Enrich.orders, order("o-1", "c-1", 0), key="o-1")
        d.send(Enrich.orders, order("o-2", "c-1", 0.2), key="o-2")
        assert d.read(Enrich.enriched) == []
        assert len(d.state(Enrich.waiting, key="c-1")) == 2
        d.send(Enrich.customers, ANN, key="c-1")
        assert d.read(Enrich.enriched) == [enriched("o-1", "c-1", ANN), enriched("o-2", "c-1", ANN)]
        d.send(Enrich.orders, order("late-1", "c-9", 5), key="late-1")
        assert d.read(Enrich.enriched) == []


def test_after_a_minute_it_goes_on_without_a_customer() -> None:
    """By event time, five seconds of lateness included."""
    with Driver(job) as d:
        d.send(Enrich.orders, order("o-1", "c-1", 0), key="o-1")
        d.send(Enrich.orders, order("o-2", "c-1", 0.5), key="o-2")
        d.send(Enrich.orders, order("o-3", "c-2", 1.05), key="o-3")
        assert d.read(Enrich.enriched) == []
        d.send(Enrich.orders, order("o-4", "c-2", 1.1), key="o-4")
        assert d.read(Enrich.enriched) == [enriched("o-1", "c-1", None), enriched("o-2", "c-1", None)]


def test_a_deleted_customer_is_not_known_until_it_is_there_again() -> None:
    """A record without value deletes; a later one makes it known again, and frees what waits."""
    with Driver(job) as d:
        d.send(Enrich.customers, ANN, key="c-1")
        d.delete(Enrich.customers, key="c-1")
        d.send(Enrich.orders, order("o-1", "c-1", 0), key="o-1")
        assert d.read(Enrich.enriched) == []
        d.send(Enrich.customers, BOB, key="c-1")
        assert d.read(Enrich.enriched) == [enriched("o-1", "c-1", BOB)]


@pytest.mark.parametrize("point", ["before_commit", "after_commit"])
def test_a_crash_neither_loses_nor_doubles_an_order(point: str) -> None:
    """Table, waiting orders and timers come back as they were committed."""
    with Driver(job, workers=2) as d:
        d.send(Enrich.customers, ANN, key="c-1")
        d.send(Enrich.orders, order("o-1", "c-1", 0), key="o-1")
        d.send(Enrich.orders, order("o-2", "c-2", 0), key="o-2")
        for worker in (0, 1):
            d.crash(worker, at=point)
        for number in range(10):
            d.send(Enrich.orders, order(f"x-{number}", "c-1", 0.1), key=f"x-{number}")
        d.send(Enrich.customers, BOB, key="c-2")
        found = d.read(Enrich.enriched)
        assert sorted(e.id for e in found) == sorted(["o-1", "o-2", *(f"x-{n}" for n in range(10))])
        assert enriched("o-2", "c-2", BOB) in found

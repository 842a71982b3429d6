"""The example jobs as one job, and random input for them in two phases, the same for memory and a real broker.

Records are placed explicitly, so that each partition holds the same records in the same order wherever the job runs.
Everything is arranged so that what comes out does not depend on how partitions interleave: disorder stays within the
lateness, or is so late that nothing is open any more; the table changes only between the phases; and before a phase
ends its time goes on so far that every order either has its customer, or was given up, or waits for the next phase.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random
from typing import Any

from kstate import Job
from kstate.adapters.avro import AvroCodecs
from kstate.keyspace import partition_of
from operators.dedup.operators import Dedup
from operators.enrich.operators import Enrich
from operators.records import Click, Customer, Line, Order, Payment
from operators.sessions.operators import Sessions
from operators.top_k.operators import CountVisits, RankPages
from operators.word_count.operators import Count, Split
from tests.support import sabotage

APP = os.environ.get("KSTATE_TEST_APP", "examples")
OPERATORS = (Split, Count, CountVisits, RankPages, Sessions, Dedup, Enrich)
job = Job(APP, OPERATORS, epoch=timedelta(milliseconds=300), idle=timedelta(hours=9))

PARTITIONS = 4
INPUTS = ("lines", "clicks", "payments", "orders")
TABLE = "customers"
OUTPUTS = ("word-counts", "top-pages", "sessions", "payments-once", "enriched-orders")

BASE = 1_740_000_000_000
"""The first event, ms since the epoch: fixed, and behind the clock of every broker."""
SECOND, MINUTE, HOUR, DAY = 1_000, 60_000, 3_600_000, 86_400_000
SHARES = {"lines": 0.15, "clicks": 0.25, "payments": 0.3, "orders": 0.25, TABLE: 0.05}
"""Of the events."""

_CODECS = AvroCodecs()


@dataclass(frozen=True, slots=True)
class Row:
    """A message and its place."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None


@dataclass(slots=True)
class Input:
    """The two phases; of each the table first, alone."""

    rng: Random
    events: int
    _now: dict[str, int] = field(default_factory=lambda: dict.fromkeys(INPUTS, BASE))
    _ids: list[tuple[str, str, int]] = field(default_factory=list)
    """Payments so far: id, account, when."""
    _orders: int = 0

    def table(self, phase: int) -> list[Row]:
        """Customers that are written, written again, deleted, and written again after that."""
        rows = []
        for number in range(round(self.events / 2 * SHARES[TABLE])):
            customer = self.rng.randrange(1_500)
            gone = self.rng.random() < 0.2
            record = None if gone else Customer(f"name {phase}/{number}", self.rng.choice(("Aachen", "Bonn", "Calw")))
            rows.append(_row(TABLE, f"c-{customer}", record))
        rows += [_row(TABLE, key, Customer(f"late {phase}", "Dresden")) for key in _waiting(phase - 1)]
        return rows

    def records(self, phase: int) -> list[Row]:
        """Of all inputs, in order within each; those of one input stand together."""
        half = {topic: round(self.events / 2 * SHARES[topic]) for topic in INPUTS}
        rows = [
            *(self._line() for _ in range(half["lines"])),
            *(self._click(phase) for _ in range(half["clicks"])),
            *(self._payment() for _ in range(half["payments"])),
            *(self._order(f"c-{self.rng.randrange(1_700)}") for _ in range(half["orders"])),
        ]
        for topic in INPUTS:
            self._now[topic] += 10 * HOUR
            rows += self._last(topic)
        return [*rows, *(self._order(key) for key in _waiting(phase))]

    def _time(self, topic: str, step_ms: int, disorder_ms: int) -> int:
        """The next event time of an input, out of order by no more than its lateness."""
        self._now[topic] += self.rng.randrange(2 * step_ms)
        return self._now[topic] - self.rng.randrange(disorder_ms)

    def _line(self) -> Row:
        words = " ".join(f"w{int(self.rng.paretovariate(0.7)) % 400}" for _ in range(3))
        author = self.rng.choice((None, "ann", "bob", "cat", "dan"))
        return _row("lines", author, Line(words, self._time("lines", 200, 2 * SECOND)), self.rng.randrange(PARTITIONS))

    def _click(self, phase: int) -> Row:
        user, ts = f"user-{int(self.rng.paretovariate(0.5)) % 2_000}", self._time("clicks", 300, 5 * SECOND)
        if phase and self.rng.random() < 0.02:
            ts = BASE + self.rng.randrange(HOUR)  # every window of then is closed
        page = f"page-{int(self.rng.paretovariate(0.8)) % 60}"
        return _row("clicks", user, Click(user, self.rng.choice(("de", "en", "fr")), page, ts))

    def _payment(self) -> Row:
        ts = self._time("payments", 20 * SECOND, MINUTE)
        id_, account = f"p-{len(self._ids)}", f"a-{self.rng.randrange(300)}"
        if self._ids and self.rng.random() < 0.3:
            back = self.rng.choice((10, 1_000, len(self._ids)))
            id_, account, _ = self.rng.choice(self._ids[-back:])
        self._ids.append((id_, account, ts))
        return _row("payments", account, Payment(id_, account, self.rng.randrange(10_000), ts))

    def _order(self, customer: str) -> Row:
        self._orders += 1
        id_ = f"o-{self._orders}"
        return _row("orders", id_, Order(id_, customer, self._orders, self._time("orders", 200, 5 * SECOND)))

    def _last(self, topic: str) -> Iterator[Row]:
        """One for each partition, long after all others.

        Its orders are of a customer of their own in each phase: an order that comes while another one of its customer
        is about to be given up leaves together with it or a minute later, as the watermark's frames happen to fall.
        """
        now = self._now[topic]
        for partition in range(PARTITIONS):
            key = next(key for n in range(1_000) if partition_of((key := f"end-{n}").encode(), PARTITIONS) == partition)
            record: Any = {
                "lines": Line("end", now),
                "clicks": Click(key, "end", key, now),
                "payments": Payment(f"{key}-{now}", key, 0, now),
                "orders": Order(key, f"c-end-{now}", 0, now),
            }[topic]
            yield _row(topic, key, record)


def _waiting(phase: int) -> list[str]:
    """Customers that are unknown until the table of the next phase, and order at the end of this one."""
    return [f"late-{phase}-{number % 50}" for number in range(150)] if phase >= 0 else []


def _row(topic: str, key: str | None, record: Any, partition: int = 0) -> Row:
    """Placed by its key where it has one."""
    key_bytes = None if key is None else key.encode()
    place = partition if key_bytes is None else partition_of(key_bytes, PARTITIONS)
    return Row(topic, place, key_bytes, None if record is None else _CODECS.value(type(record)).encode(record))


sabotage.install()

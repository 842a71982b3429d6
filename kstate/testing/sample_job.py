"""The small job that the simulation runs, and the records that it is given.

    lines ──▶ Split ──(internal stream, by word)──▶ Count ──▶ counts, closed
    payments ──▶ Totals ──▶ totals, closed

It has one of each thing that moves with a key range: values, windows, timers of both clocks, a partial state, and
watermarks, read from records and told downstream through a re-key. Every output record names the input record it was
made from, so that what is lost or doubled can be told from what came in another order. Counts of one word depend on how
the lines of two partitions interleave; nothing else may vary (kstate.testing.sample_results).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from random import Random
from typing import Self

from kstate.api.context import Context
from kstate.api.job import Job
from kstate.api.operator import Operator
from kstate.api.state import PartialState, ValueState
from kstate.api.streams import Input, Output
from kstate.api.timers import Timer
from kstate.api.windows import Tumbling, Window, WindowState
from kstate.interfaces import Codecs, OutMessage
from kstate.keyspace import partition_of

PARTITIONS = 2
WORDS = ("cat", "dog", "emu", "fox", "hen")
"""Few keys, in both partitions and in both halves of the slots."""
ACCOUNTS = ("x1", "x2", "x4", "x6")
PAUSE = timedelta(milliseconds=50)
"""How many of these there are depends on the schedule; that nothing else does is what counts."""
WINDOW_MS = 100
QUIET_MS = 40
"""An account without payments for so long, in event time, is quiet."""
LATENESS_MS = 20
FIRST_MS = 1_000_000
"""Event time of the first record."""
TICK_MS = 10
"""Between records, if they were in order."""


@dataclass(frozen=True, slots=True)
class Line:
    """A text; the message key, where there is one, is its author."""

    id: int
    text: str
    at: int = FIRST_MS


@dataclass(frozen=True, slots=True)
class Word:
    """A word and the line it stood in."""

    word: str
    line: int


@dataclass(frozen=True, slots=True)
class Counted:
    """The n-th time that a word was seen, in this line."""

    word: str
    line: int
    n: int


@dataclass(frozen=True, slots=True)
class Payment:
    """An amount for an account."""

    id: int
    amount: int
    at: int = FIRST_MS


@dataclass(frozen=True, slots=True)
class Balance:
    """The sum of an account's payments up to this one."""

    account: str
    payment: int
    total: int


@dataclass(frozen=True, slots=True)
class Closed:
    """A window of a word (how often it was seen) or of an account (the sum of its payments)."""

    what: str
    key: str
    end: int
    n: int


@dataclass(frozen=True, slots=True)
class Paid:
    """How many payments a key range has seen."""

    n: int = 0

    def split(self, fraction: float) -> tuple[Self, Self]:
        lower = int(self.n * fraction)
        return replace(self, n=lower), replace(self, n=self.n - lower)

    def merge(self, other: Self) -> Self:
        return replace(self, n=self.n + other.n)


class Split(Operator[None], uid="split"):
    """Stateless: lines to words."""

    lines = Input(Line, topic="lines", event_time="at", lateness=timedelta(milliseconds=LATENESS_MS))
    words = Output(Word, key="word")

    @lines.each
    def split(self, line: Line, _: Context) -> None:
        for word in line.text.split():
            self.words.emit(Word(word, line.id))


class Count(Operator[str], uid="count"):
    """Keyed, behind an internal stream."""

    words = Input(Split.words)
    counts = Output(Counted, topic="counts")
    closed = Output(Closed, topic="closed")
    seen = ValueState(int, default=0)
    lately = WindowState(int, Tumbling(timedelta(milliseconds=WINDOW_MS)), default=0)

    @words.each
    def add(self, word: Word, _: Context) -> None:
        n = self.seen.get() + 1
        self.seen.set(n)
        self.lately.update(lambda n: n + 1)
        self.counts.emit(Counted(self.key, word.line, n))

    @lately.closes
    def tell(self, n: int, window: Window, _: Context) -> None:
        self.closed.emit(Closed("word", self.key, window.end, n))


class Totals(Operator[str], uid="totals"):
    """Keyed, on a user's topic."""

    payments = Input(Payment, topic="payments", event_time="at", lateness=timedelta(milliseconds=LATENESS_MS))
    totals = Output(Balance, topic="totals")
    closed = Output(Closed, topic="closed")
    total = ValueState(int, default=0)
    lately = WindowState(int, Tumbling(timedelta(milliseconds=WINDOW_MS)), default=0)
    quiet = Timer()
    quiets = ValueState(int, default=0)
    pause = Timer(clock="processing")
    pauses = ValueState(int, default=0)
    paid = PartialState(Paid, initial=Paid)

    @payments.each
    def add(self, payment: Payment, _: Context) -> None:
        total = self.total.get() + payment.amount
        self.total.set(total)
        self.lately.update(lambda n: n + payment.amount)
        self.paid.set(Paid(self.paid.get().n + 1))
        self.totals.emit(Balance(self.key, payment.id, total))
        self.quiet.set(after=timedelta(milliseconds=QUIET_MS))
        self.pause.set(after=PAUSE)

    @lately.closes
    def tell(self, n: int, window: Window, _: Context) -> None:
        self.closed.emit(Closed("account", self.key, window.end, n))

    @quiet.fires
    def be_quiet(self, _: Context) -> None:
        self.quiets.set(self.quiets.get() + 1)

    @pause.fires
    def rest(self, _: Context) -> None:
        self.pauses.set(self.pauses.get() + 1)


JOB = Job("sim", [Split, Count, Totals], epoch=timedelta(milliseconds=20), idle=timedelta(hours=1))
"""Nothing is idle: that would move watermarks by the clock."""
TOPICS: Mapping[str, int] = dict.fromkeys(("lines", "payments", "counts", "totals", "closed"), PARTITIONS)
RECORDS: Mapping[str, type[Counted] | type[Balance] | type[Closed]] = {
    "counts": Counted,
    "totals": Balance,
    "closed": Closed,
}
"""What stands in the job's output topics."""


@dataclass(frozen=True, slots=True)
class Fed:
    """An input record: topic, message key, and what it says."""

    topic: str
    key: str | None
    record: Line | Payment

    @property
    def partition(self) -> int:
        """Where it goes; a record without key by its number."""
        return self.record.id % PARTITIONS if self.key is None else partition_of(self.key.encode(), PARTITIONS)

    def stamped(self, number: int) -> Fed:
        """The same with the event time of the n-th record that is sent: a little out of order, never late."""
        jitter = number * 7 % LATENESS_MS
        return replace(self, record=replace(self.record, at=FIRST_MS + number * TICK_MS - jitter))

    def message(self, codecs: Codecs) -> OutMessage:
        """As a message."""
        key = None if self.key is None else self.key.encode()
        value = codecs.value(type(self.record)).encode(self.record)
        return {"key": key, "value": value, "partition": self.partition}


def some_input(rng: Random, count: int, first: int = 0) -> list[Fed]:
    """Lines and payments mixed, `count` records in all, numbered in the order of sending from `first` on."""
    fed: list[Fed] = []
    for number in range(first, first + count):
        if rng.random() < 0.6:
            words = " ".join(rng.choices(WORDS, k=rng.randint(1, 3)))
            fed.append(Fed("lines", rng.choice(("ann", "bob", None)), Line(number, words)))
        else:
            fed.append(Fed("payments", rng.choice(ACCOUNTS), Payment(number, rng.randint(1, 9))))
    return fed

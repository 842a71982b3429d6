"""The small job that the simulation runs, its input, and what must come out whatever happens.

    lines ──▶ Split ──(internal stream, by word)──▶ Count ──▶ counts
    payments ──▶ Totals ──▶ totals

Every output record names the input record it was made from, so that what is lost or doubled can be told from what came
in another order. Counts of one word depend on how the lines of two partitions interleave; nothing else may vary.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from random import Random

from kstate.api.context import Context
from kstate.api.job import Job
from kstate.api.operator import Operator
from kstate.api.state import ValueState
from kstate.api.streams import Input, Output
from kstate.api.timers import Timer
from kstate.interfaces import Codecs, OutMessage
from kstate.keyspace import partition_of

PARTITIONS = 2
WORDS = ("cat", "dog", "emu", "fox", "hen")
"""Few keys, in both partitions and in both halves of the slots."""
PAUSE = timedelta(milliseconds=50)
"""How many of these there are depends on the schedule; that nothing else does is what counts."""
ACCOUNTS = ("x1", "x2", "x4", "x6")


@dataclass(frozen=True, slots=True)
class Line:
    """A text; the message key, where there is one, is its author."""

    id: int
    text: str


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


@dataclass(frozen=True, slots=True)
class Balance:
    """The sum of an account's payments up to this one."""

    account: str
    payment: int
    total: int


class Split(Operator[None], uid="split"):
    """Stateless: lines to words."""

    lines = Input(Line, topic="lines")
    words = Output(Word, key="word")

    @lines.each
    def split(self, line: Line, _: Context) -> None:
        for word in line.text.split():
            self.words.emit(Word(word, line.id))


class Count(Operator[str], uid="count"):
    """Keyed, behind an internal stream."""

    words = Input(Split.words)
    counts = Output(Counted, topic="counts")
    seen = ValueState(int, default=0)

    @words.each
    def add(self, word: Word, _: Context) -> None:
        n = self.seen.get() + 1
        self.seen.set(n)
        self.counts.emit(Counted(self.key, word.line, n))


class Totals(Operator[str], uid="totals"):
    """Keyed, on a user's topic."""

    payments = Input(Payment, topic="payments")
    totals = Output(Balance, topic="totals")
    total = ValueState(int, default=0)
    pause = Timer(clock="processing")
    pauses = ValueState(int, default=0)

    @payments.each
    def add(self, payment: Payment, _: Context) -> None:
        total = self.total.get() + payment.amount
        self.total.set(total)
        self.totals.emit(Balance(self.key, payment.id, total))
        self.pause.set(after=PAUSE)

    @pause.fires
    def rest(self, _: Context) -> None:
        self.pauses.set(self.pauses.get() + 1)


STATES: Mapping[str, str] = {"count": "seen", "totals": "total"}
"""Of each operator with state, the one whose value is known."""

JOB = Job("sim", [Split, Count, Totals], epoch=timedelta(milliseconds=20))
TOPICS: Mapping[str, int] = {"lines": PARTITIONS, "payments": PARTITIONS, "counts": PARTITIONS, "totals": PARTITIONS}


@dataclass(frozen=True, slots=True)
class Fed:
    """An input record: topic, message key, and what it says."""

    topic: str
    key: str | None
    record: Line | Payment

    def message(self, codecs: Codecs) -> OutMessage:
        """As a message; a record without key goes to a partition by its number."""
        key = None if self.key is None else self.key.encode()
        partition = self.record.id % PARTITIONS if key is None else partition_of(key, PARTITIONS)
        value = codecs.value(type(self.record)).encode(self.record)
        return {"key": key, "value": value, "partition": partition}


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


@dataclass(frozen=True, slots=True)
class Expected:
    """What the fed records must become."""

    lines_of: Mapping[str, Counter[int]]
    """Word → the lines it stands in, as often as it does."""
    authors: Mapping[int, str | None]
    """Line → its key, within which order is kept; in the order of sending."""
    balances: Mapping[str, Sequence[tuple[int, int]]]
    """Account → (payment, total) in order."""

    def states(self) -> Iterator[tuple[str, str, int]]:
        """(operator uid, key, value of its one state) for every key."""
        for word, lines in self.lines_of.items():
            yield "count", word, lines.total()
        for account, balances in self.balances.items():
            yield "totals", account, balances[-1][1]


def expected(fed: Sequence[Fed]) -> Expected:
    """The result of the job, computed offline."""
    lines_of: dict[str, Counter[int]] = defaultdict(Counter)
    authors: dict[int, str | None] = {}
    balances: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for each in fed:
        match each.record:
            case Line(number, text):
                authors[number] = each.key
                for word in text.split():
                    lines_of[word][number] += 1
            case Payment(number, amount):
                account = each.key or ""
                before = balances[account][-1][1] if balances[account] else 0
                balances[account].append((number, before + amount))
    return Expected(lines_of, authors, balances)

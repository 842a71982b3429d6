"""The jobs under test. Their application name, hence all their topics, comes from the environment of the test.

`count` has two operators with an internal stream between them, `tally` one keyed operator whose input is sensitive to
bad records: a note orders its handler to fail in the ways in which users' code fails. Importing this module in a
process with orders (see `sabotage`) puts that process under the test's control.
"""

from __future__ import annotations

import os
from datetime import timedelta

from kstate import Context, Input, Job, Operator, Output, Reject, ValueState
from tests.support import sabotage
from tests.support.records import Entry, Line, NamedSum, Sum, Tally, Word

APP = os.environ.get("KSTATE_TEST_APP", "under-test")
EPOCH = timedelta(milliseconds=int(os.environ.get("KSTATE_TEST_EPOCH_MS", "150")))

BIG = 1_100_000
"""Bytes of a record or value that no limit allows."""


class Split(Operator[None], uid="split"):
    """Lines to words."""

    lines = Input(Line, topic=f"{APP}-lines")
    words = Output(Word, key="word")

    @lines.each
    def split(self, line: Line, ctx: Context) -> None:
        for word in line.text.split():
            sabotage.in_handler()
            self.words.emit(Word(word, line.id))


class Count(Operator[str], uid="count"):
    """One result per word, numbered, with the sum of the ids so far."""

    words = Input(Split.words)
    counts = Output(Tally, topic=f"{APP}-counts")
    seen = ValueState(Sum, default=Sum(0, 0))

    @words.each
    def add(self, word: Word, ctx: Context) -> None:
        sabotage.in_handler()
        before = self.seen.get()
        after = Sum(before.n + 1, before.total + word.line)
        self.seen.set(after)
        self.counts.emit(Tally(self.key, after.n, after.total, word.line))


class Tallies(Operator[str], uid="tally"):
    """One result per entry, numbered per account; a note makes the call fail *after* it changed state and emitted."""

    entries = Input(Entry, topic=f"{APP}-entries", key="account")
    tallies = Output(Tally, topic=f"{APP}-tallies")
    seen = ValueState(Sum, default=Sum(0, 0))
    blob = ValueState(bytes)

    @entries.each
    def add(self, entry: Entry, ctx: Context) -> None:
        sabotage.in_handler()
        before = self.seen.get()
        after = Sum(before.n + 1, before.total + entry.id)
        self.seen.set(after)
        self.tallies.emit(Tally(self.key, after.n, after.total, entry.id))
        match entry.note:
            case "raise":
                raise RuntimeError(f"entry {entry.id} asked for it")
            case "reject":
                raise Reject(f"entry {entry.id} is not wanted")
            case "big-output":
                self.tallies.emit(Tally("x" * BIG, 0, 0, entry.id))
            case "big-state":
                self.blob.set(bytes(BIG))
            case _:
                pass


class Tallies2(Operator[str], uid="tally"):
    """The next version of `Tallies`: its state evolved under another attribute, another one dropped, one new."""

    entries = Input(Entry, topic=f"{APP}-entries", key="account")
    tallies = Output(Tally, topic=f"{APP}-tallies")
    sums = ValueState(NamedSum, default=NamedSum(), name="seen")
    newest = ValueState(int)

    @entries.each
    def add(self, entry: Entry, ctx: Context) -> None:
        sabotage.in_handler()
        before = self.sums.get()
        self.sums.set(NamedSum(before.total + entry.id, before.n + 1))
        self.newest.set(entry.id)
        self.tallies.emit(Tally(self.key, before.n + 1, before.total + entry.id, entry.id))


class Pair(Operator[str], uid="pair"):
    """Two inputs that are read together, so their partitions must match."""

    left = Input(Entry, topic=f"{APP}-left")
    right = Input(Entry, topic=f"{APP}-right")
    both = Output(Tally, topic=f"{APP}-both")

    @left.each
    def from_left(self, entry: Entry, ctx: Context) -> None:
        self.both.emit(Tally(self.key, 0, 0, entry.id))

    @right.each
    def from_right(self, entry: Entry, ctx: Context) -> None:
        self.both.emit(Tally(self.key, 1, 0, entry.id))


count = Job(APP, [Split, Count], epoch=EPOCH)
tally = Job(APP, [Tallies], epoch=EPOCH)
tally_2 = Job(APP, [Tallies2], epoch=EPOCH, dropped=["tally.blob"])
tally_refused = Job(APP, [Tallies2], epoch=EPOCH)
pair = Job(APP, [Pair], epoch=EPOCH)

sabotage.install()

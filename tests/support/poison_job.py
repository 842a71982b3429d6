"""Jobs with a record that kills the process that handles it, and their mended versions.

An entry's note orders it: "kill" is SIGKILL, as a crash of native code or the kernel's memory killer would be; "loop"
never comes back, and holds no lock; "freeze" never comes back and lets no other thread run.
"""

from __future__ import annotations

import os
import signal
from datetime import timedelta

from kstate import Context, Input, Job, Operator, Output, ValueState
from tests.support.records import Entry, Sum, Tally

APP = os.environ.get("KSTATE_TEST_APP", "under-test")
EPOCH = timedelta(milliseconds=150)


class Fragile(Operator[str], uid="tally"):
    """One result per entry, numbered per account, unless the entry kills."""

    entries = Input(Entry, topic=f"{APP}-entries", key="account")
    tallies = Output(Tally, topic=f"{APP}-tallies")
    seen = ValueState(Sum, default=Sum(0, 0))

    @entries.each
    def add(self, entry: Entry, ctx: Context) -> None:
        poisoned_by(entry.note)
        after = Sum(self.seen.get().n + 1, self.seen.get().total + entry.id)
        self.seen.set(after)
        self.tallies.emit(Tally(self.key, after.n, after.total, entry.id))


class Mended(Operator[str], uid="tally"):
    """The same without its weakness: other code, but no other build of the job."""

    entries = Input(Entry, topic=f"{APP}-entries", key="account")
    tallies = Output(Tally, topic=f"{APP}-tallies")
    seen = ValueState(Sum, default=Sum(0, 0))

    @entries.each
    def add(self, entry: Entry, ctx: Context) -> None:
        after = Sum(self.seen.get().n + 1, self.seen.get().total + entry.id)
        self.seen.set(after)
        self.tallies.emit(Tally(self.key, after.n, after.total, entry.id))


class Grown(Operator[str], uid="tally"):
    """Mended, and with one state more: another build."""

    entries = Input(Entry, topic=f"{APP}-entries", key="account")
    tallies = Output(Tally, topic=f"{APP}-tallies")
    seen = ValueState(Sum, default=Sum(0, 0))
    newest = ValueState(int)

    @entries.each
    def add(self, entry: Entry, ctx: Context) -> None:
        after = Sum(self.seen.get().n + 1, self.seen.get().total + entry.id)
        self.seen.set(after)
        self.newest.set(entry.id)
        self.tallies.emit(Tally(self.key, after.n, after.total, entry.id))


def poisoned_by(note: str) -> None:
    """Do what a note orders."""
    match note:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "loop":
            while True:
                pass
        case "freeze":
            sum(range(10**13))
        case _:
            pass


fragile = Job(APP, [Fragile], epoch=EPOCH)
mended = Job(APP, [Mended], epoch=EPOCH)
grown = Job(APP, [Grown], epoch=EPOCH)

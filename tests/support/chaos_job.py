"""The job of the chaos runs: its outputs tell everything that happened to each record.

Accounts keep a running count and sum, and windows by event time; each payment goes on to its group, by another key,
where the same is kept again. Importing this module in a process that a chaos run started puts it under the run's
control (see `chaos_hooks`).
"""

from __future__ import annotations

import os
from datetime import timedelta

from kstate import Context, Input, Job, Operator, Output, Tumbling, ValueState, Window, WindowState
from tests.support import chaos_hooks
from tests.support.chaos_records import LATENESS_MS, WINDOW_MS, Closed, Payment, Share, Sum, Tally

APP = os.environ.get("KSTATE_TEST_APP", "under-test")
NONE = Sum(0, 0)


class Accounts(Operator[int], uid="accounts"):
    """One result per payment, one per window."""

    payments = Input(Payment, topic=f"{APP}-payments", event_time="ts", lateness=timedelta(milliseconds=LATENESS_MS))
    running = Output(Tally, topic=f"{APP}-running", timestamp="now")
    windows = Output(Closed, topic=f"{APP}-windows", timestamp="now")
    to_group = Output(Share, key="group")
    seen = ValueState(Sum, default=NONE)
    window = WindowState(Sum, Tumbling(timedelta(milliseconds=WINDOW_MS)), default=NONE)

    @payments.each
    def pay(self, payment: Payment, ctx: Context) -> None:
        chaos_hooks.in_handler()
        before = self.seen.get()
        after = Sum(before.n + 1, before.total + payment.amount)
        self.seen.set(after)
        self.running.emit(Tally(after.n, after.total, payment.id))
        self.to_group.emit(Share(payment.id, payment.amount, payment.group))
        if not self.window.update(lambda w: Sum(w.n + 1, w.total + payment.amount)):
            self.windows.emit(Closed(ctx.event_time, 1, payment.amount, 1))

    @window.closes
    def close_window(self, known: Sum, window: Window, ctx: Context) -> None:
        self.windows.emit(Closed(window.start, known.n, known.total, 0))


class Groups(Operator[int], uid="groups"):
    """The same once more, by group."""

    shares = Input(Accounts.to_group)
    running = Output(Tally, topic=f"{APP}-groups", timestamp="now")
    windows = Output(Closed, topic=f"{APP}-group-windows", timestamp="now")
    seen = ValueState(Sum, default=NONE)
    window = WindowState(Sum, Tumbling(timedelta(milliseconds=WINDOW_MS)), default=NONE)

    @shares.each
    def add(self, share: Share, ctx: Context) -> None:
        chaos_hooks.in_handler()
        before = self.seen.get()
        after = Sum(before.n + 1, before.total + share.amount)
        self.seen.set(after)
        self.running.emit(Tally(after.n, after.total, share.id))
        if not self.window.update(lambda w: Sum(w.n + 1, w.total + share.amount)):
            self.windows.emit(Closed(ctx.event_time, 1, share.amount, 1))

    @window.closes
    def close_window(self, known: Sum, window: Window, ctx: Context) -> None:
        self.windows.emit(Closed(window.start, known.n, known.total, 0))


job = Job(APP, [Accounts, Groups], epoch=timedelta(milliseconds=600))

chaos_hooks.install()

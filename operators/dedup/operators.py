"""Senders repeat what was not confirmed: of records with the same id only the first goes on."""

from __future__ import annotations

from datetime import timedelta

from kstate import Context, Input, Operator, Output, ValueState
from operators.records import Payment

MEMORY = timedelta(days=7)


class Dedup(Operator[str], uid="dedup"):
    """Remembers each id for a week of event time, counted from its first record, then forgets it."""

    payments = Input(Payment, topic="payments", rekey="id", event_time="ts", lateness=timedelta(minutes=1))
    once = Output(Payment, topic="payments-once", key="account")
    seen = ValueState(bool, default=False, ttl=MEMORY)

    @payments.each
    def pass_first(self, payment: Payment, ctx: Context) -> None:
        if not self.seen.get():
            self.seen.set(True)
            self.once.emit(payment)

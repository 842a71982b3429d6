"""The running-average job: per account the mean of all amounts so far, an alert when one is far above it.

Each round of the benchmark runs it as a new application, with topics of its own, both named by the environment.

Txn{id, account, amount, ts} → state {n, total} per account; an alert when n > 3 and amount > 5 * mean.
"""

from __future__ import annotations

import os

from kstate import Context, Input, Job, Operator, Output, ValueState
from operators.records import Alert, Average, Txn


class RunningAverage(Operator[str], uid="running-average"):
    """Alerts on amounts far above the account's mean so far."""

    txns = Input(Txn, topic=os.environ.get("KSTATE_BENCH_INPUT", "txns"))
    alerts = Output(Alert, topic=os.environ.get("KSTATE_BENCH_OUTPUT", "alerts"))
    average = ValueState(Average, default=Average(0, 0.0))

    @txns.each
    def watch(self, txn: Txn, ctx: Context) -> None:  # noqa: ARG002 - handlers take both
        average = self.average.get()
        n, total = average.n + 1, average.total + txn.amount
        self.average.set(Average(n, total))
        mean = total / n
        if n > 3 and txn.amount > 5 * mean:
            self.alerts.emit(Alert(txn.id, txn.account, txn.amount, mean))


job = Job(os.environ.get("KSTATE_BENCH_APP", "running-average"), [RunningAverage])

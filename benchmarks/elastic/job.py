"""The job under load: a running mean per sensor, one result for every reading.

`at` goes through unchanged, so the latency of every single record can be seen in the results; `worker` is the process
that made it, so it can be seen who took over. Results are 24 bytes of three doubles, to be read by the column.

A reading may carry ballast, which is only stored: it makes the state of a worker as large as a test wants it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta

from kstate import Context, Input, Job, Operator, Output, ValueState

EPOCH_MS = 100
UID = "mean"


@dataclass(frozen=True, slots=True)
class Reading:
    """A sensor's value, handed to the producer at `at` (seconds since the Unix epoch)."""

    at: float
    value: float
    ballast: bytes


@dataclass(frozen=True, slots=True)
class Running:
    """State of a mean."""

    n: int
    total: float


@dataclass(frozen=True, slots=True)
class Mean:
    """The mean with the reading of `at`, by the process `worker`."""

    at: float
    mean: float
    worker: float


class RunningMean(Operator[str], uid=UID):
    """A mean per sensor."""

    readings = Input(Reading, topic=os.environ.get("KSTATE_BENCH_INPUT", "readings"))
    means = Output(Mean, topic=os.environ.get("KSTATE_BENCH_OUTPUT", "means"))
    running = ValueState(Running, default=Running(0, 0.0))
    ballast = ValueState(bytes, default=b"")

    def open(self) -> None:
        self.process = float(os.getpid())

    @readings.each
    def count(self, reading: Reading, ctx: Context) -> None:  # noqa: ARG002 - handlers take both
        running = self.running.get()
        n, total = running.n + 1, running.total + reading.value
        self.running.set(Running(n, total))
        if reading.ballast:
            self.ballast.set(reading.ballast)
        self.means.emit(Mean(reading.at, total / n, self.process))


job = Job(os.environ.get("KSTATE_BENCH_APP", "elastic"), [RunningMean], epoch=timedelta(milliseconds=EPOCH_MS))

"""How much an epoch has taken in, and how much more it should."""

from __future__ import annotations

from dataclasses import dataclass

from kstate.config import EpochSettings

POLL_RECORDS_MIN = 200
"""Fewer at once are not worth a poll, however long they take."""
_LEFT_FRACTION = 2
"""A poll takes a half of what is left of the epoch's time: the next one corrects what this one takes too long."""
_LEAST_FRACTION = 8
"""And never less than an eighth of an epoch: late in it polls would become too small to be worth their cost."""


@dataclass(slots=True)
class Intake:
    """Of the running epoch."""

    started: float | None = None
    """Since when (monotonic seconds); None: nothing yet."""
    records: int = 0
    bytes: int = 0
    cut: bool = False
    """It became full in the middle of a batch; the rest is to be read again."""

    def room(self, limits: EpochSettings, interval_s: float, record_s: float, now: float) -> int:
        """How many records to ask for next: what half of the rest of the epoch suffices for, at `record_s` for each.

        So an epoch ends in time where there is a backlog, too, and nobody else's keys wait for it. `record_s` 0: not
        known yet.
        """
        most = min(limits.poll_records, limits.records_max - self.records)
        if not record_s:
            return most
        left_s = interval_s - (0.0 if self.started is None else now - self.started)
        seconds = max(left_s / _LEFT_FRACTION, interval_s / _LEAST_FRACTION)
        return min(most, max(int(seconds / record_s), POLL_RECORDS_MIN))

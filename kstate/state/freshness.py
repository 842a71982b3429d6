"""The fresh end of a log: H of rule S1, and waiting until everything before it is decided.

Used before a restore, before control is trusted after an open (S3) and after a tainted transaction (S4). Never wait
here while holding an open transaction on the same partition: it would wait for itself.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from kstate.clock import Clock, Step, Steps
from kstate.config import FailureSettings
from kstate.interfaces import Log
from kstate.plan import TopicPartition

H_TAKEN = Step("h-taken")
AWAIT_STABLE = Step("await-stable", wait=0.01)

STUCK_MS = FailureSettings().stuck_log_ms

_logger = logging.getLogger(__name__)


def fresh_end(
    log: Log,
    source: TopicPartition,
    clock: Clock,
    stuck_ms: int = STUCK_MS,
    report: Callable[[str], object] = _logger.warning,
) -> Steps[int]:
    """The end offset of everything written up to now, once all of it is committed or aborted (rule S1).

    H is asked with read_uncommitted: the last stable offset alone may be held down by any other transaction, and would
    hide what the fenced owner committed behind it. A last stable offset that stands still for longer than `stuck_ms`
    is reported, again and again, and waited for: going on without it would lose state (rule S10).
    """
    end = log.end_offsets([source], committed=False)[source]
    yield H_TAKEN
    watch = StuckWatch(source, clock, stuck_ms / 1000, report)
    while (stable := log.end_offsets([source], committed=True)[source]) < end:
        watch.see(stable, end)
        yield AWAIT_STABLE
    return end


class StuckWatch:
    """Notices a last stable offset that stands still while the end is ahead, for longer than `patience` seconds."""

    def __init__(self, source: TopicPartition, clock: Clock, patience: float, report: Callable[[str], object]) -> None:
        self._source = source
        self._clock = clock
        self._patience = patience
        self._report = report
        self._stable = -1
        self._since = self._due = clock.monotonic()

    def see(self, stable: int, end: int) -> None:
        """A reading of the last stable offset, and the end that is waited for; reports when the patience is over."""
        now = self._clock.monotonic()
        if stable != self._stable or stable >= end:
            self._stable, self._since, self._due = stable, now, now + self._patience
        elif now >= self._due:
            self._due = now + self._patience
            self._report(self._message(now - self._since, end))

    def _message(self, seconds: float, end: int) -> str:
        return (
            f"Log {self._source} is stuck: its last stable offset stands at {self._stable} for {seconds:.0f} s, "
            f"{end} is needed; a transaction that began there is neither committed nor aborted. "
            "Mend: kafka-transactions.sh find-hanging --broker-id <id>, then kafka-transactions.sh abort "
            f"--topic {self._source.topic} --partition {self._source.partition} --start-offset {self._stable}. "
            "kstate keeps waiting."
        )

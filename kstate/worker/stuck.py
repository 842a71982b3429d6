"""Names an input whose last stable offset stands still while its end grows (rule S10)."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from kstate.clock import Clock
from kstate.config import FailureSettings
from kstate.errors import RetryableError
from kstate.interfaces import Log
from kstate.plan import TopicPartition
from kstate.state.freshness import StuckWatch

LOOKS_PER_PATIENCE = 4


class StuckInputs:
    """Looks at the ends of the inputs now and then; the reader alone cannot tell a stuck log from an idle one."""

    def __init__(self, log: Log, clock: Clock, limits: FailureSettings, report: Callable[[str], object]) -> None:
        self._log = log
        self._clock = clock
        self._patience = limits.stuck_log_ms / 1000
        self._report = report
        self._watches: dict[TopicPartition, StuckWatch] = {}
        self._due = clock.monotonic() + self._patience / LOOKS_PER_PATIENCE

    def look(self, sources: Iterable[TopicPartition]) -> None:
        """Called whenever the worker has nothing to do; asks the broker a few times per patience."""
        now = self._clock.monotonic()
        if now < self._due:
            return
        self._due = now + self._patience / LOOKS_PER_PATIENCE
        wanted = list(sources)
        try:
            ends = self._log.end_offsets(wanted, committed=False)
            stable = self._log.end_offsets(wanted, committed=True)
        except RetryableError:
            return  # nothing can be said of a broker that does not answer; the reader says that
        for source in wanted:
            if source not in self._watches:
                self._watches[source] = StuckWatch(source, self._clock, self._patience, self._report)
            self._watches[source].see(stable[source], ends[source])

"""Which inputs have had nothing to read for long, so that nobody waits for them (rules: ARCHITECTURE, event time).

    unknown ── at its end ──▶ quiet ── idle_ms, and nothing stands behind it ──▶ idle
       ▲                                                                        │
       └───────── records came, or the reader was placed anew ──────────────────┘

The reader's end is the last stable one: records of an open transaction may stand behind it. So before an input is
called idle the log is asked once for its real end; where there is more, the input is not idle until the reader has
come to an end further on.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from kstate.clock import Clock
from kstate.errors import RetryableError
from kstate.interfaces import Log
from kstate.plan import TopicPartition

LOOK_S = 0.1
"""At most one look in so many seconds; between two looks the answer is that of the last one."""
RETRY_S = 1.0
"""After the log did not answer it is asked again only so much later."""


@dataclass(slots=True)
class _Quiet:
    """An input at its end: since when (monotonic seconds), and at which position."""

    since: float
    position: int
    behind: int = -1
    """The position at which the log was asked and had more."""


class IdleInputs:
    """Tells apart inputs that are idle from those that are only slow. Costs nothing per record."""

    def __init__(self, clock: Clock, idle_ms: int, log: Log) -> None:
        self._clock = clock
        self._idle_s = idle_ms / 1000
        self._log = log
        self._quiet: dict[TopicPartition, _Quiet] = {}
        self._idle: dict[TopicPartition, float] = {}
        self._next_look = self._next_question = clock.monotonic()

    def told(self, at_end: Mapping[TopicPartition, int], delivered: Collection[TopicPartition]) -> None:
        """After a poll: what `Reader.at_end` says, and which inputs delivered records."""
        now = self._clock.monotonic()
        for source in [source for source in self._quiet if source not in at_end or source in delivered]:
            del self._quiet[source]
            self._idle.pop(source, None)
        for source, position in at_end.items():
            self._quiet.setdefault(source, _Quiet(now, position)).position = position

    def look(self) -> set[TopicPartition]:
        """The inputs that are idle now; whoever asks may keep the set."""
        now = self._clock.monotonic()
        if now >= self._next_look:
            self._next_look = now + LOOK_S
            due = {
                source: quiet
                for source, quiet in self._quiet.items()
                if source not in self._idle and now - quiet.since >= self._idle_s and quiet.behind != quiet.position
            }
            if due and now >= self._next_question:
                self._ask(due)
        return set(self._idle)

    def since(self, source: TopicPartition) -> float:
        """Since when an idle input is idle (monotonic seconds), however late somebody looked; KeyError unless it is."""
        return self._idle[source]

    def _ask(self, due: Mapping[TopicPartition, _Quiet]) -> None:
        """Call those idle behind whose position there is nothing."""
        try:
            ends = self._log.end_offsets(list(due), committed=False)
        except RetryableError:
            self._next_question = self._clock.monotonic() + RETRY_S
            return
        for source, quiet in due.items():
            if ends[source] <= quiet.position:
                due_at = quiet.since + self._idle_s
                self._idle[source] = due_at if quiet.behind < 0 else self._clock.monotonic()
            else:
                quiet.behind = quiet.position

"""What the main thread of a worker does, for those who look from outside: is it busy, does it go on at all?

Busy is what is no wait: for records, between two steps, or for a broker to come back. What is measured is the share of
time that the main thread does *not* wait, not its share of a processor: a handler that sleeps or calls another service
keeps its worker busy. Waits for a commit are work, too: nothing else is done meanwhile.

A handler that never comes back is noticed by the `Watchdog`, which another thread asks. It counts only while user code
runs: between the note of what is handed to an operator (kstate.worker.in_hand) and the next step. Whatever waits for a
broker lies outside of that, each call of it is bounded by a time of its own, and is no handler's fault.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import TypeVar

from kstate.clock import Clock, Steps
from kstate.worker.in_hand import Held, InHand

T = TypeVar("T")

WINDOW_S = 2.0
"""Of the share of time in which the main thread was busy."""
PAUSE_MAX_S = 1.0
"""Between two looks counts as no more: a process that was stopped as a whole was not in a loop."""


class Pulse:
    """How much of its time the main thread waits; without a clock nothing is measured.

    The main thread tells its waits by `with pulse:` and steps; another one may ask at any time.
    """

    def __init__(self, clock: Clock | None = None, cpu_s: Callable[[], float] = float) -> None:
        """`cpu_s`: processor time of the calling thread: what a wait needs of it, say to unpack what came, is work."""
        self._clock = clock
        self._cpu_s = cpu_s
        self._waited = 0.0
        self._began: tuple[float, float] | None = None
        """When the wait under way began, and the processor time at that moment."""
        self._samples: deque[tuple[float, float]] = deque()
        """(time, seconds waited until then) of the last questions, over the window."""

    def __enter__(self) -> None:
        """The main thread begins to wait."""
        if self._clock is not None:
            self._began = self._clock.monotonic(), self._cpu_s()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._clock is not None and self._began is not None:
            since, cpu = self._began
            self._waited += max(0.0, self._clock.monotonic() - since - (self._cpu_s() - cpu))
            self._began = None

    def watched(self, steps: Steps[T], in_hand: InHand) -> Steps[T]:
        """The same steps; what they ask to wait counts as waiting, and at each of them no user code runs."""
        while True:
            try:
                step = next(steps)
            except StopIteration as end:
                result: T = end.value
                return result
            in_hand.released()
            if step.wait:
                with self:
                    yield step
            else:
                yield step

    def busy_percent(self) -> int:
        """Since the question asked about `WINDOW_S` ago, or the first one: so 0 at first. One thread asks."""
        if self._clock is None:
            return 0
        now, began, waited = self._clock.monotonic(), self._began, self._waited
        if began is not None:
            waited += max(0.0, now - began[0])
        samples = self._samples
        samples.append((now, waited))
        while len(samples) > 2 and now - samples[1][0] >= WINDOW_S:
            samples.popleft()
        since, waited_before = samples[0]
        if now <= since:
            return 0
        share = 1 - (waited - waited_before) / (now - since)
        return round(100 * min(1.0, max(0.0, share)))


class Watchdog:
    """Asked every now and then by another thread whether user code still goes on; `clock` as that thread sees it."""

    def __init__(self, in_hand: InHand, limit_ms: int, clock: Clock) -> None:
        self._in_hand = in_hand
        self._limit_s = limit_ms / 1000
        self._clock = clock
        self._looked_at = clock.monotonic()
        self._last: object = None
        self._stood_s = 0.0

    def look(self) -> Held | None:
        """What the main thread has in hand, if it has come no further with it, by not even a record, for too long."""
        now = self._clock.monotonic()
        passed, self._looked_at = min(now - self._looked_at, PAUSE_MAX_S), now
        held = self._in_hand.held
        mark = None if held is None else (held.number, held.mark())
        if mark is None or mark != self._last:
            self._last, self._stood_s = mark, 0.0
            return None
        self._stood_s += passed
        return held if self._stood_s >= self._limit_s else None

"""Time as an interface, and the named steps at which an actor may be crashed, paused or overtaken.

Workers and leaders are written as generators of `Step`: a real process exhausts one and sleeps where a step asks for
it; the simulation runs many of them on one thread in virtual time and decides at each step who goes on. Clocks decide
when to suspect, never who owns (rule S9).
"""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import dataclass
from typing import Protocol, TypeVar

T = TypeVar("T")


class Clock(Protocol):
    """Where every reading of time comes from."""

    def monotonic(self) -> float:
        """Seconds from an arbitrary origin, never going back."""
        ...

    def time_ms(self) -> int:
        """Wall clock, milliseconds since the epoch."""
        ...

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        ...


class SystemClock:
    """The machine's own clock."""

    def monotonic(self) -> float:
        return time.monotonic()

    def time_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


@dataclass(frozen=True, slots=True)
class Step:
    """A named point of a protocol; `wait` > 0 says that there is nothing to do for that many seconds."""

    name: str
    wait: float = 0.0


Steps = Generator[Step, None, T]
"""A protocol as a sequence of named steps that ends in a T."""


def run_steps(steps: Steps[T], clock: Clock) -> T:
    """Exhaust a protocol in real time and return its result."""
    while True:
        try:
            step = next(steps)
        except StopIteration as end:
            result: T = end.value
            return result
        if step.wait:
            clock.sleep(step.wait)

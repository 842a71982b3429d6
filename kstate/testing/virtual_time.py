"""A clock that stands still until somebody moves it."""

from __future__ import annotations

START_MS = 1_750_000_000_000
"""Wall clock at the beginning of every virtual time: a fixed instant in 2025, so that results can be repeated."""


class VirtualClock:
    """`Clock` in virtual time; `now` is in seconds and never goes back."""

    def __init__(self) -> None:
        self.now = 0.0
        self.skew_ms = 0
        """By how much the wall clock is wrong: tests let it jump."""

    def monotonic(self) -> float:
        return self.now

    def time_ms(self) -> int:
        return START_MS + int(self.now * 1000) + self.skew_ms

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def move_to(self, instant: float) -> None:
        """Let time pass until an instant; one that is past already changes nothing."""
        self.now = max(self.now, instant)

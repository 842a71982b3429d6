"""What the demo shows while it runs: a live view in a terminal, one line per event anywhere else."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

EVENTS_SHOWN = 24
LINE_SECONDS = 2.0
"""Without a terminal: how often the figures are printed."""


@dataclass(frozen=True, slots=True)
class Figures:
    """How far the job is; `rate` is words counted per second, over the last moments."""

    written: int
    counted: int
    rate: float
    workers: Sequence[str]

    def __str__(self) -> str:
        return "; ".join([f"{self.written:,} words written, {self.behind:,} behind, {self.rate:,.0f}/s", *self.workers])

    @property
    def behind(self) -> int:
        """Words that are written and not yet seen counted."""
        return max(self.written - self.counted, 0)


class Rate:
    """Speed of a counter over a sliding window."""

    WINDOW_S = 2.0

    def __init__(self) -> None:
        self._points: deque[tuple[float, int]] = deque()

    def at(self, now: float, count: int) -> float:
        """Counts per second over the window that ends now."""
        self._points.append((now, count))
        while now - self._points[0][0] > self.WINDOW_S:
            self._points.popleft()
        since, before = self._points[0]
        return (count - before) / (now - since) if now > since else 0.0


class Screen:
    """Events and figures; `tell` may be called from any thread."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self.began = time.monotonic()
        """All times that are told count from here."""
        self._events: deque[str] = deque(maxlen=EVENTS_SHOWN)
        self._figures: Figures | None = None
        self._lock = threading.Lock()
        self._printed_at = 0.0
        self._live = Live(console=console, refresh_per_second=8, transient=False, get_renderable=self._view)

    def __enter__(self) -> Screen:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def tell(self, event: str) -> None:
        """Something happened."""
        line = f"{time.monotonic() - self.began:6.1f} s  {event}"
        with self._lock:
            self._events.append(line)
            if not self._console.is_terminal:
                self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def show(self, figures: Figures) -> None:
        """How far the job is now."""
        self._figures = figures
        if not self._console.is_terminal and time.monotonic() - self._printed_at >= LINE_SECONDS:
            self._printed_at = time.monotonic()
            self.tell(str(figures))

    def _view(self) -> RenderableType:
        with self._lock:
            events = Text("\n".join(self._events), overflow="ellipsis", no_wrap=True)
        return events if self._figures is None else Group(events, Text(""), _table(self._figures))


def _table(figures: Figures) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    table.add_row("words written", f"{figures.written:,}")
    table.add_row("counted", f"{figures.counted:,}, {figures.rate:,.0f}/s, {figures.behind:,} behind")
    for worker in figures.workers:
        table.add_row("", worker)
    return table

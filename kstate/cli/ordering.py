"""Giving an order to whoever leads: sent, repeated until the control topic answers, then followed to its end.

    begin ─▶ checked ─▶ asked, every second ─▶ answered ─▶ followed ─▶ over

Orders are reports: level-triggered, lost ones cost a second, and repeated ones nothing. Nothing depends on this process
once the order is answered: the leader carries it out, or the next one does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from kstate.cli.order_progress import Progress, after
from kstate.cli.order_report import changed_lines, still_lines
from kstate.cli.order_request import Request, checked_order
from kstate.cli.watching import WATCH, Watch, WatchEdges, patiently
from kstate.clock import Steps
from kstate.errors import RetryableError
from kstate.messages import Order
from kstate.plan import reports_topic
from kstate.wire import encode_report

REPEAT_S = 1.0
"""Pause between two copies of an order."""
UNHEARD_S = 3.0
"""After so long without an answer people are told why nothing happens."""
STILL_S = 5.0
"""How often people are told that a copy is still being read."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to look on."""

    timeout_s: float = 60.0
    until_done: bool = True
    """False: only until the leader has answered."""


class Ordering:
    """One order, from what was typed to what became of it."""

    def __init__(
        self, request: Request, order_id: str, edges: WatchEdges, app: str, tell: Callable[[str], None]
    ) -> None:
        self.progress: Progress | None = None
        """None until it is asked for the first time."""
        self.watch = Watch(edges, app)
        self._request = request
        self._order_id = order_id
        self._edges = edges
        self._tell = tell
        self._asked_s = 0.0
        self._told_s = 0.0

    def run(self, patience: Patience) -> Steps[Progress]:
        """Ask and follow; the progress is not over where patience ended first.

        Raises ConfigError for what cannot be ordered, RetryableError when no broker or no leader answers.
        """
        deadline = self._now() + patience.timeout_s
        yield from patiently(self.watch.begin, self._edges.clock, patience.timeout_s)
        order = checked_order(self._request, self._order_id, self.watch.observed, self.watch.app)
        self._asked_s = self._told_s = self._now()
        self.progress = Progress(order)
        self._tell(f"order {order.id}: {self._request}")
        yield from self._ask(order, deadline)
        while patience.until_done and not self.progress.is_over and self._now() < deadline:
            yield WATCH
            self._look()
            self._tell_still()
        return self.progress

    @property
    def elapsed_s(self) -> float:
        """Since it was asked for."""
        return self._now() - self._asked_s

    def close(self) -> None:
        """Give the readers up."""
        self.watch.close()

    def _ask(self, order: Order, deadline: float) -> Steps[None]:
        """Until the control topic answers."""
        assert self.progress is not None
        due, warned = self._now(), False
        while not (self.progress.is_answered or self.progress.is_over):
            now = self._now()
            if now >= deadline:
                raise self._unanswered()
            if now >= due:
                due = now + REPEAT_S
                self._send(order)
            if not warned and self.elapsed_s >= UNHEARD_S:
                warned = True
                self._tell(f"no answer yet: {self._who_leads()}")
            yield WATCH
            self._look()

    def _send(self, order: Order) -> None:
        self._edges.log.report(reports_topic(self.watch.app), {"value": encode_report(order), "partition": 0})

    def _look(self) -> None:
        """Take in what came; changes are told. A broker that is away for a while is waited for."""
        assert self.progress is not None
        try:
            messages = self.watch.look()
        except RetryableError:
            return
        for message in messages:
            before, self.progress = self.progress, after(self.progress, message, self.elapsed_s)
            for line in changed_lines(before, self.progress, self.watch.observed.control.names):
                self._told_s = self._now()
                self._tell(f"{self.elapsed_s:5.1f} s  {line}")

    def _tell_still(self) -> None:
        """A copy may take long to read."""
        assert self.progress is not None
        if self._now() - self._told_s >= STILL_S:
            self._told_s = self._now()
            for line in still_lines(self.progress, self.watch.observed):
                self._tell(f"{self.elapsed_s:5.1f} s  {line}")

    def _leader(self) -> str | None:
        """Who was heard to lead just now."""
        observed = self.watch.observed
        silent = observed.leader_ms is None or self._edges.clock.time_ms() - observed.leader_ms > UNHEARD_S * 1000
        return None if silent else observed.control.leader

    def _who_leads(self) -> str:
        leader = self._leader()
        return "no coordinator is heard" if leader is None else f"{leader} leads, and has not answered"

    def _unanswered(self) -> RetryableError:
        start = "start one with `kstate coordinator JOB` or `kstate run JOB`, then order again."
        stuck = "see its log, and that it is of this release; then order again."
        return RetryableError(
            f"Nobody answered the order in {self.elapsed_s:.0f} s: {self._who_leads()}. It is not repeated any more.",
            hint=start if self._leader() is None else stuck,
        )

    def _now(self) -> float:
        return self._edges.clock.monotonic()

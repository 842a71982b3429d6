"""Waiting to lead: a candidate stays quiet while the leader of the newest term is heard.

Only liveness depends on this: two leaders at once cost a restart of one, never a wrong plan, because opening the
leader's transactional id fences (S3).
"""

from __future__ import annotations

from dataclasses import dataclass

from kstate.clock import Step, Steps
from kstate.coordinator.control_log import ControlLog
from kstate.coordinator.edges import LeaderEdges
from kstate.coordinator.reports import ReportsReader
from kstate.messages import Control, JobHalted, LeaderBeat, PlanPublished, ProcessExited, Report

STANDING_BY = Step("standing-by", wait=0.1)


@dataclass(slots=True)
class _Heard:
    """Who was heard to lead last; beats of older terms are ignored."""

    term: int = 0
    leader: str | None = None
    at: float = 0.0


def stand_by(edges: LeaderEdges, app: str, patience_s: float) -> Steps[int | None]:
    """Return None once nobody leads; or the exit code when the job came to its end while this candidate waited.

    What stood in the control topic before does not count: whoever comes to a complete or halted job starts it anew. A
    leader whose process was seen to end is not waited for.
    """
    control, reports = ControlLog(edges.log, app, edges.clock), ReportsReader(edges, app)
    try:
        yield from control.visible()
        reports.start_since(edges.clock.time_ms() - round(patience_s * 1000))
        heard = _Heard()
        _listen(heard, (yield from reports.present()), edges.clock.monotonic())
        if heard.leader is not None:
            edges.logger.info("standing by", leader=heard.leader, term=heard.term)
        while heard.leader is not None and edges.clock.monotonic() - heard.at < patience_s:
            yield STANDING_BY
            if ends := [code for message in control.poll() if (code := _ending(message)) is not None]:
                return ends[-1]
            _listen(heard, reports.poll(), edges.clock.monotonic())
    finally:
        control.close()
        reports.close()
    return None


def _listen(heard: _Heard, reports: list[Report], now: float) -> None:
    for report in reports:
        match report:
            case LeaderBeat(term, leader) if term >= heard.term:
                heard.term, heard.leader, heard.at = term, leader, now
            case ProcessExited(incarnation, _) if incarnation == heard.leader:
                heard.leader = None
            case _:
                pass


def _ending(message: Control) -> int | None:
    """The exit code of a job that is over with this message."""
    match message:
        case JobHalted(exit_code=exit_code):
            return exit_code
        case PlanPublished(plan) if plan.complete:
            return 0
        case _:
            return None

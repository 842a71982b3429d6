"""What can be seen of a job from outside: a fold over its control topic and its reports, with the time of each record.

Whoever only looks on needs no part in any protocol: he reads both topics and asks nobody. Times are of the wall clock,
for people; nothing is decided by them (S9).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from kstate.coordinator.control import DECISIONS_KEPT, ControlView, Decision, take
from kstate.keyspace import KeyRange
from kstate.messages import Control, Heartbeat, LeaderBeat, Report
from kstate.plan import Move, MovePhase, Shard

FORGET_MS = 60_000
"""Heartbeats of those who are no members are kept for so long: an onlooker may look on for months."""

MoveName = tuple[int, Shard, KeyRange]
"""What names a move: its id is shared by all moves that one plan made."""


@dataclass(frozen=True, slots=True)
class Dated:
    """A decision and when it was written."""

    decision: Decision
    at_ms: int


@dataclass(frozen=True, slots=True)
class Heard:
    """The newest heartbeat of a worker and when it came."""

    beat: Heartbeat
    at_ms: int


@dataclass(frozen=True, slots=True)
class Course:
    """When a move was made, and when it came to its present phase."""

    began_ms: int
    phase: MovePhase
    phase_ms: int


@dataclass(frozen=True, slots=True)
class Observed:
    """Everything read so far."""

    control: ControlView = field(default_factory=ControlView)
    decisions: tuple[Dated, ...] = ()
    """The newest ones, the newest last."""
    courses: Mapping[MoveName, Course] = field(default_factory=dict)
    """Of the moves of the newest plan."""
    heard: Mapping[str, Heard] = field(default_factory=dict)
    """By incarnation."""
    leader_ms: int | None = None
    """When the leader of the newest term was heard last."""


def name_of(move: Move) -> MoveName:
    """What stays the same of a move while its phase and target change."""
    return move.id, move.shard, move.key_range


def control_read(observed: Observed, message: Control, at_ms: int) -> Observed:
    """One more message of the control topic. Raises KstateError as `take` does."""
    before, view = observed.control, take(observed.control, message)
    decisions = observed.decisions
    if view.decisions is not before.decisions:
        decisions = (*decisions, Dated(view.decisions[-1], at_ms))[-DECISIONS_KEPT:]
    courses = observed.courses
    if view.plan is not None and view.plan is not before.plan:
        courses = {name_of(move): _course(move, courses.get(name_of(move)), at_ms) for move in view.plan.moves}
    leader_ms = observed.leader_ms if view.term == before.term else None
    return replace(observed, control=view, decisions=decisions, courses=courses, leader_ms=leader_ms)


def report_read(observed: Observed, report: Report, at_ms: int) -> Observed:
    """One more report; what is older than the newest of its sender changes nothing."""
    match report:
        case Heartbeat(incarnation=incarnation):
            known = observed.heard.get(incarnation)
            if known is not None and known.beat.sequence > report.sequence:
                return observed
            return replace(observed, heard=_kept(observed, at_ms) | {incarnation: Heard(report, at_ms)})
        case LeaderBeat(term, leader) if term == observed.control.term:  # its start may have been trimmed
            return replace(observed, control=replace(observed.control, leader=leader), leader_ms=at_ms)
        case _:
            return observed


def _course(move: Move, known: Course | None, at_ms: int) -> Course:
    if known is None:
        return Course(at_ms, move.phase, at_ms)
    return known if known.phase is move.phase else Course(known.began_ms, move.phase, at_ms)


def _kept(observed: Observed, now_ms: int) -> dict[str, Heard]:
    """The heartbeats that are still of interest."""
    view = observed.control
    return {i: h for i, h in observed.heard.items() if view.is_live_member(i) or now_ms - h.at_ms < FORGET_MS}

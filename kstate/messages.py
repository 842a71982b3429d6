"""What leader and workers tell each other: decisions and plans on the control topic, heartbeats on the reports topic.

Their form on the topics is written and read by kstate.wire.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kstate.keyspace import KeyRange
from kstate.plan import Plan, Shard


@dataclass(frozen=True, slots=True)
class TermStarted:
    """A leader opened the leader's id and goes on from here; terms only grow."""

    term: int
    leader: str


@dataclass(frozen=True, slots=True)
class WorkerDied:
    """The decision "this incarnation is dead" (S2): from the moment it is committed it never owns anything again."""

    term: int
    incarnation: str
    reason: str


@dataclass(frozen=True, slots=True)
class JobHalted:
    """The job stops for a reason that only people can mend; workers finish their epoch and exit with `exit_code`."""

    term: int
    reason: str
    exit_code: int


@dataclass(frozen=True, slots=True)
class PlanPublished:
    """A new plan, whole; `reason` is the decision behind it, for people."""

    plan: Plan
    reason: str = ""


Control = TermStarted | WorkerDied | JobHalted | PlanPublished


@dataclass(frozen=True, slots=True)
class TileReport:
    """Where a worker stands with one piece it was granted; `progress` is committed progress by topic."""

    shard: Shard
    key_range: KeyRange
    grant: int
    phase: str
    """"restoring" or "running"."""
    epoch: int
    progress: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The full present state of a worker, level-triggered: each one repeats everything."""

    incarnation: str
    name: str
    host: str
    pid: int
    sequence: int
    plan_version: int
    tiles: tuple[TileReport, ...]
    fatal: str | None = None
    """Why the worker stops; the leader halts the job with this reason if the exit code is final (kstate.errors)."""
    exit_code: int = 0
    leaving: bool = False
    """Stopped in an orderly way after its last epoch: it may be declared dead at once."""
    build: str = ""
    """Of the job that the worker runs (`JobDescription.build`)."""


@dataclass(frozen=True, slots=True)
class ProcessExited:
    """A supervisor saw the worker's process end: no need to wait for missed heartbeats."""

    incarnation: str
    exit_code: int
    restarts: bool = False
    """The supervisor starts a successor of the same name at once: its tiles wait for it longer."""


@dataclass(frozen=True, slots=True)
class LeaderBeat:
    """Heartbeat of the leader of a term; candidates stay quiet while it comes."""

    term: int
    leader: str


Report = Heartbeat | ProcessExited | LeaderBeat

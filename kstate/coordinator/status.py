"""How a job stands, as one value for people and programs: what `kstate status --json` prints, field by field.

Names of fields are part of the contract of the command line: new ones may come, none goes. The value is made by
`kstate.coordinator.overview`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LeaderStatus:
    """Who leads by the newest term."""

    name: str
    term: int
    state: str
    """"leading", or "silent": nobody leads at present."""
    beat_age_s: float | None
    """None: not heard of late."""


@dataclass(frozen=True, slots=True)
class Load:
    """How much a worker has to do."""

    busy_percent: int
    tiles: int
    """By the newest plan."""


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """A worker that the newest plan names, that owns a tile, or that was heard of late."""

    id: str
    """Its incarnation: one start of it."""
    name: str
    host: str
    pid: int
    state: str
    """"running", "restoring", "draining", "leaving", "silent", "dead" (declared so, its tiles not yet given away),
    "of another build", or "waiting" (not in the plan yet).
    """
    load: Load
    build: str
    plan_version: int
    """That it works by."""
    beat_age_s: float | None


@dataclass(frozen=True, slots=True)
class StandbyStatus:
    """A copy of (a part of) a shard that is kept for recovery."""

    worker: str
    phase: str
    """"warm", "warming", or "starting": it does not report it yet."""
    behind: int
    """Records of the backup log still to read."""


@dataclass(frozen=True, slots=True)
class ShardStatus:
    """A key range of an operator's partition: one tile of the newest plan."""

    operator: str
    partition: int
    lo: int
    hi: int
    worker: str | None
    """By name."""
    incarnation: str | None
    grant: int
    phase: str
    """"running", "restoring", "moving" (all of it is released to the target of a move), "waiting" (its worker does not
    report it yet), "lost" (its worker is dead), "unowned", "parked".
    """
    epoch: int
    progress: Mapping[str, int]
    """Next offset by input topic, of the part that is least far; empty while it is not known."""
    lag: int | None
    """Records of its input partitions behind its progress, foreign keys included; None: not known."""
    state_bytes: int
    """An estimate."""
    parked: str | None
    """Why nobody gets it."""
    deaths: int
    """How many processes in a row died of what it has to read next."""
    standbys: tuple[StandbyStatus, ...]


@dataclass(frozen=True, slots=True)
class MoveStatus:
    """A key range on its way."""

    id: int
    phase: str
    age_s: float | None
    """Since it was decided."""
    phase_age_s: float | None
    operator: str
    partition: int
    lo: int
    hi: int
    source: str
    target: str
    grant: int
    order: str
    """Id of the order that asked for it, "" for the leader's own."""
    copy: str
    """How the target's copy stands: "starting", "warming", "warm", "restoring" (it takes over), "running"."""
    behind: int


@dataclass(frozen=True, slots=True)
class DecisionStatus:
    """Something a leader decided, and why."""

    term: int
    what: str
    reason: str
    age_s: float | None


@dataclass(frozen=True, slots=True)
class Overview:
    """A whole job."""

    app: str
    state: str
    """"running", "starting" (no plan yet), "complete", "halted", "no leader", "no workers"."""
    reason: str
    """Of the halt; "" otherwise."""
    plan_version: int | None
    build: str
    leader: LeaderStatus | None
    workers: tuple[WorkerStatus, ...]
    shards: tuple[ShardStatus, ...]
    moves: tuple[MoveStatus, ...]
    decisions: tuple[DecisionStatus, ...]
    """The last 20, the newest last."""

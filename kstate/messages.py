"""What is told over the topics of the control plane: decisions and plans on control, heartbeats and orders on reports.

Their form on the topics is written and read by kstate.wire.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

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
    order: str = ""
    """Id of the order that this plan begins to carry out."""


@dataclass(frozen=True, slots=True)
class OrderAnswered:
    """An order that no plan carries out: refused, or there was nothing to do."""

    term: int
    order: str
    accepted: bool
    reason: str


Control = TermStarted | WorkerDied | JobHalted | PlanPublished | OrderAnswered


class TilePhase(StrEnum):
    """How a worker stands with a key range; the values are those of the wire and of `kstate status`."""

    RESTORING = "restoring"
    """On its way to run."""
    WARMING = "warming"
    """A copy that is behind."""
    WARM = "warm"
    """A copy that stands within an epoch of the end of the backup log."""
    RUNNING = "running"


@dataclass(frozen=True, slots=True)
class TileReport:
    """Where a worker stands with one piece it was granted; `progress` is committed progress by topic."""

    shard: Shard
    key_range: KeyRange
    grant: int
    phase: TilePhase
    epoch: int
    progress: Mapping[str, int]
    """Empty for copies, and while it is not known."""
    behind: int = 0
    """Records of the backup log that a copy, or a restore, has still to read, as far as it knows."""
    state_bytes: int = 0
    """Stored bytes of its state, keys and values, as far as they are known: an estimate."""
    marked_at: int | None = None
    """Offset in the backup partition of the newest marker of a running piece; None while there is none for all of it.
    """
    base: int = 0
    """Of that marker."""


@dataclass(frozen=True, slots=True)
class Fatality:
    """Where earlier processes of this worker died: what they had in hand, and how many in a row died of it."""

    shard: Shard
    key_range: KeyRange
    topic: str
    offset: int
    """Committed progress of the piece: the record that kills stands there or soon after it."""
    deaths: int


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
    busy_percent: int = 0
    """Share of the last seconds in which the main thread did not wait."""
    fatalities: tuple[Fatality, ...] = ()
    queries: str = ""
    """HOST:PORT where it answers queries of its state; empty: nowhere."""


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


class OrderKind(StrEnum):
    """What a person may ask of the leader."""

    SPLIT = "split"
    """Cut a tile into `parts` of about equal width, or in two at slot `at`; the parts but the first go elsewhere."""
    MERGE = "merge"
    """Bring all tiles of the shard that overlap the key range to one worker: `target`, or who has most of it."""
    MOVE = "move"
    """Hand the key range to `target`."""
    DRAIN = "drain"
    """Hand all that `worker` has to others, and give it nothing more."""
    REBALANCE = "rebalance"
    """Even out the number of tiles of all workers."""


@dataclass(frozen=True, slots=True)
class Order:
    """What a person asks of the leader, repeated until the control topic answers it. Workers go by name."""

    id: str
    kind: OrderKind
    shard: Shard | None = None
    key_range: KeyRange | None = None
    """None: the whole shard, or, of a split, its only tile."""
    worker: str | None = None
    """Of a drain."""
    target: str | None = None
    """None: the leader chooses."""
    at: int | None = None
    """Of a split: the slot to cut at."""
    parts: int = 2
    """Of a split that names no slot."""


Report = Heartbeat | ProcessExited | LeaderBeat | Order

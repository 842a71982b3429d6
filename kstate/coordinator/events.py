"""What the leader learns, one value per thing; together with the reports all events of the core."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kstate.messages import Control, Heartbeat, Order, ProcessExited
from kstate.plan import InputPartition, Registry


@dataclass(frozen=True, slots=True)
class Draft:
    """What the job needs of the next plan besides ownership, as surveyed when this leader's term began."""

    registry: Registry
    partitions: Mapping[str, int]
    shards: Mapping[str, int]
    """Operator uid → number of partitions."""
    starts: Mapping[InputPartition, int]
    ends: Mapping[InputPartition, int]
    bounded: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Tick:
    """The leader's monotonic clock."""

    now_ms: int


@dataclass(frozen=True, slots=True)
class OwnBeat:
    """The leader read its own heartbeat on the reports topic: it could hear all that was sent before."""


@dataclass(frozen=True, slots=True)
class ControlRead:
    """A message of the control topic was read."""

    message: Control


@dataclass(frozen=True, slots=True)
class Fenced:
    """init_transactions on a dead worker's id succeeded."""

    incarnation: str


@dataclass(frozen=True, slots=True)
class EndsTaken:
    """H of partitions of internal streams whose source is finished."""

    ends: Mapping[InputPartition, int]


@dataclass(frozen=True, slots=True)
class Surveyed:
    """The job was compared with the cluster; `draft` is None when the newest plan already says it all."""

    draft: Draft | None


@dataclass(frozen=True, slots=True)
class TopicsCounted:
    """Partition counts as they are now."""

    found: Mapping[str, int | None]


Event = Tick | OwnBeat | Heartbeat | ProcessExited | Order | ControlRead | Fenced | EndsTaken | Surveyed | TopicsCounted

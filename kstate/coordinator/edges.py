"""What connects the control plane to the world."""

from __future__ import annotations

from dataclasses import dataclass

from kstate.clock import Clock
from kstate.interfaces import EventLog, Log


@dataclass(frozen=True, slots=True)
class LeaderEdges:
    """Kafka, time, and where decisions are told."""

    log: Log
    clock: Clock
    logger: EventLog

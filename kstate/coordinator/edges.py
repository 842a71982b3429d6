"""What connects the control plane to the world."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from kstate.clock import Clock
from kstate.interfaces import Log


class EventLog(Protocol):
    """A structured logger for people: what happened, with fields."""

    def info(self, event: str, **fields: object) -> object: ...

    def warning(self, event: str, **fields: object) -> object: ...


@dataclass(frozen=True, slots=True)
class Edges:
    """Kafka, time, and where decisions are told."""

    log: Log
    clock: Clock
    events: EventLog

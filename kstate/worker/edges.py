"""What connects the data plane to the world."""

from __future__ import annotations

from dataclasses import dataclass

from kstate.clock import Clock
from kstate.interfaces import Codecs, EventLog, Log, Store


@dataclass(frozen=True, slots=True)
class WorkerEdges:
    """Kafka, the local store, codecs, time, and where people are told what happens."""

    log: Log
    store: Store
    codecs: Codecs
    clock: Clock
    logger: EventLog

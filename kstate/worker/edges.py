"""What connects the data plane to the world."""

from __future__ import annotations

from dataclasses import dataclass, field

from kstate.clock import Clock
from kstate.interfaces import Codecs, EventLog, Log, Store
from kstate.worker.in_hand import InHand
from kstate.worker.pulse import Pulse


@dataclass(frozen=True, slots=True)
class WorkerEdges:
    """Kafka, the local store, codecs, time, and where people are told what happens."""

    log: Log
    store: Store
    codecs: Codecs
    clock: Clock
    logger: EventLog
    in_hand: InHand = field(default_factory=InHand)
    """What outlives the process: what it has in hand. By default nothing does."""
    pulse: Pulse = field(default_factory=Pulse)
    """How busy the main thread is. By default nothing is measured."""

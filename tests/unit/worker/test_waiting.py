"""A worker that has nothing to do waits, and does not ask again and again."""

from __future__ import annotations

from kstate import Job
from kstate.adapters.avro import AvroCodecs
from kstate.api.topology import resolve
from kstate.config import Settings
from kstate.plan import Member
from kstate.testing.memory_log import MemoryLog
from kstate.testing.memory_store import MemoryStore
from kstate.testing.virtual_time import VirtualClock
from kstate.worker.edges import WorkerEdges
from kstate.worker.load import Load
from kstate.worker.worker import Worker
from tests.support.leaders import Silent
from tests.unit.worker.test_processing import Sum


class Ticking(VirtualClock):
    """Like a real clock: later at every look."""

    def monotonic(self) -> float:
        self.move_to(self.now + 1e-6)
        return self.now


def test_a_member_without_tiles_waits_between_two_looks() -> None:
    """There is no input whose poll would wait for it."""
    clock = Ticking()
    edges = WorkerEdges(MemoryLog(clock), MemoryStore(), AvroCodecs(), clock, Silent())
    member = Member("w", "w-1")
    worker = Worker(resolve(Job("idle", [Sum])), Settings(), edges, Load("idle", member, "here", 1), member)
    steps = list(worker._epoch.process())
    assert [step.wait > 0 for step in steps] == [True]

"""The local copies of a worker: who brings one forward, and when it is dropped.

What a worker gave away it keeps until the move is done: if the target dies, the range comes back. Nothing else needs a
copy that the plan does not ask for.
"""

from __future__ import annotations

from collections.abc import Mapping

from kstate.plan import Plan, Shard, TopicPartition, backup_topic
from kstate.progress import SlotMap
from kstate.state.follow import Follower
from kstate.state.local_copy import RestoreTarget
from kstate.state.restore import forget
from kstate.worker.adoption import ShardRange
from kstate.worker.assembly import Assembly
from kstate.worker.duties import Duties, Role
from kstate.worker.edges import WorkerEdges
from kstate.worker.shared_reader import SharedReader


class LocalCopies:
    """Makes followers, and drops what was left; `own` is the newest plan of the worker's build: it has the ids."""

    def __init__(self, assembly: Assembly, edges: WorkerEdges, incarnation: str) -> None:
        self._assembly = assembly
        self._edges = edges
        self._incarnation = incarnation
        self._reader = SharedReader(edges.log.reader)
        self._left: dict[Shard, SlotMap[None]] = {}
        """Slots whose copy is not needed any more, as soon as nobody else needs it to come from here."""

    def follower(self, place: ShardRange, role: Role, own: Plan) -> Follower:
        """Of a key range that is to be copied or restored."""
        assembly, edges, operator = self._assembly, self._edges, place.shard.operator
        target = RestoreTarget(
            TopicPartition(backup_topic(assembly.topology.app, operator), place.shard.partition),
            own.registry.operators[operator],
            place.key_range,
            assembly.timed_states(operator, own),
            assembly.partial_states(operator, own),
        )
        follower = Follower(edges.log, edges.store, target, edges.clock, assembly.settings)
        if not role.runs:
            follower.make_reader = self._reader.reader
        return follower

    def leave(self, place: ShardRange) -> None:
        """It does not run here any more, nor is it copied."""
        self._left.setdefault(place.shard, SlotMap()).assign(place.key_range, None)

    def tidy(self, asked: Mapping[Shard, Duties], plan: Plan, own: Plan | None) -> None:
        """Drop what was left, but for what a plan asks for again or what is on its way to somebody."""
        for shard, left in self._left.items():
            duty = asked.get(shard, Duties())
            for key_range, _ in (*duty.runs, *duty.copies):
                left.clear(key_range)
            leaving = [m.key_range for m in plan.moves if m.shard == shard and m.source == self._incarnation]
            for key_range, _ in list(left):
                if not any(key_range.overlap(each) for each in leaving):
                    assert own is not None
                    partial = self._assembly.partial_states(shard.operator, own)
                    operator_id = own.registry.operators[shard.operator]
                    forget(self._edges.store, operator_id, shard.partition, key_range, partial)
                    left.clear(key_range)

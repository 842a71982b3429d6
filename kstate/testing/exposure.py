"""Which situations of a move were met: how far it was, and how its source, its target and the leader fared then.

Named steps say that a line of code was passed; whether the protocol was tried says the number of different situations.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from kstate.plan import Move, MovePhase
from kstate.testing.cluster import Cluster
from kstate.testing.handovers import Handovers
from kstate.testing.world import Process, Status

_DOUBT_ENDS = frozenset({"stored", "undone", "term-started"})
"""Steps by which a process in doubt knows what became of its transaction."""


class Combination(NamedTuple):
    """A move's stage, and how each of the three stood: well, held, in doubt, gone, dead (by decision), out (fenced)."""

    stage: str
    source: str
    target: str
    leader: str


class Exposure:
    """Counts the combinations of one run, by steps of the cluster that they lasted."""

    def __init__(self, cluster: Cluster, handovers: Handovers) -> None:
        self.seen: Counter[Combination] = Counter()
        self._cluster = cluster
        self._handovers = handovers
        self._doubt: set[str] = set()

    def look(self) -> None:
        """Note how all moves under way stand."""
        plans = self._cluster.plans
        if not plans or not plans[-1].moves:
            return
        leader = self._condition(self._cluster.leader)
        for move in plans[-1].moves:
            source, target = self._condition(move.source), self._condition(move.target)
            self.seen[Combination(self._stage(move), source, target, leader)] += 1

    def _stage(self, move: Move) -> str:
        if move.phase is MovePhase.WARM:
            return "warm"
        runner = self._handovers.runner(move.shard, move.key_range.lo)
        if runner is not None and runner.grant == move.grant:
            return "adopted"
        return "released" if self._handovers.has_released(move.shard, move.key_range, move.id) else "ordered"

    def _condition(self, incarnation: str) -> str:
        process = self._cluster.processes.get(incarnation)
        if process is None or self._handovers.is_out(incarnation):
            return "out"
        if incarnation in self._cluster.dead:
            return "dead"
        if process.status is not Status.RUNNING:
            return "gone"
        if process.held_until > self._cluster.world.clock.now:
            return "held"
        return "in doubt" if self._is_in_doubt(process) else "well"

    def _is_in_doubt(self, process: Process) -> bool:
        if process.main.at == "tainted":
            self._doubt.add(process.incarnation)
        elif process.main.at in _DOUBT_ENDS:
            self._doubt.discard(process.incarnation)
        return process.incarnation in self._doubt

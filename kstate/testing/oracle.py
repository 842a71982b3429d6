"""The oracle of the simulation: it watches what is committed, and knows what must come out in the end.

*While it runs* it looks at each transaction when it is decided, before its markers are visible anywhere, because who
owned what at that moment is known only then:

- an incarnation that commits a marker for slots which another one runs under a newer grant, or which it has released
  itself, is one of two owners; so is one that runs what another one still owns (kstate.testing.handovers);
- a marker that follows an older epoch than the newest one does that epoch again: doubled; one that follows an epoch
  which was never committed stands on a loss;
- progress that goes back doubles; every plan tiles, its moves lie within their sources' tiles, and versions only grow
  (S8); what becomes of a range under release is checked from plan to plan (S7); an order is carried out once.

*In the end* the outputs that a read_committed reader has seen, and the state, local and as restored from the backup,
are compared with the result computed offline (kstate.testing.results).
"""

from __future__ import annotations

from typing import NamedTuple

from kstate.keyspace import KeyRange
from kstate.messages import Heartbeat, TilePhase
from kstate.plan import Shard, backup_topic, moves_fault, tiling_fault
from kstate.progress import Progress, SlotMap
from kstate.state.blocks import decode_frame
from kstate.state.markers import Marker
from kstate.testing.cluster import Cluster
from kstate.testing.handovers import Handovers
from kstate.testing.memory_broker import PartitionLog, Transaction
from kstate.testing.violations import Kind, Violation

VIOLATIONS_MAX = 20
"""One break shows in many ways; the first ones tell the story."""


class _Standing(NamedTuple):
    """The newest decided marker of some slots."""

    epoch: int
    incarnation: str
    progress: Progress


class Oracle:
    """Watches one cluster; `violations` is empty as long as all is well."""

    def __init__(self, cluster: Cluster) -> None:
        self.violations: list[Violation] = []
        self.handovers = Handovers(self.report, cluster.dead)
        self._cluster = cluster
        self._backups: list[tuple[Shard, PartitionLog]] = []
        self._scanned: list[int] = []
        self._written = 0
        self._undecided: dict[Transaction, list[tuple[Shard, Marker]]] = {}
        self._standing: dict[Shard, SlotMap[_Standing]] = {}
        self._heard: dict[str, Heartbeat] = {}
        self._opened = 0
        self._plans = 0

    def watch(self) -> None:
        """Look at what has happened since; cheap when nothing has."""
        if not self._backups:
            self._find_backups()
        self._scan()
        for transaction in [t for t in self._undecided if t.committed is not None]:
            markers = self._undecided.pop(transaction)
            if transaction.committed:
                for shard, marker in markers:
                    self._judge(shard, marker)
        self._cluster.plan()
        self._note_opens()
        self._check_plans()
        self._note_owners()

    def undecided(self, incarnation: str) -> list[tuple[Shard, Marker]]:
        """The markers that stand in the log in a transaction of this incarnation that is not decided."""
        return [each for t, markers in self._undecided.items() if t.owner == incarnation for each in markers]

    def newest_epoch(self, shard: Shard, slot: int) -> int:
        """Of the decided markers of a slot, 0 when there is none."""
        standing = self._standing.get(shard, SlotMap()).get(slot)
        return 0 if standing is None else standing.epoch

    def report(self, kind: Kind, text: str) -> None:
        """Add a finding."""
        if len(self.violations) < VIOLATIONS_MAX:
            self.violations.append(Violation(kind, text))
            self._cluster.world.tell("oracle", f"{kind}: {text}")

    def _find_backups(self) -> None:
        topics = self._cluster.world.log.broker.topics
        topology = self._cluster.blueprint.topology
        for spec in topology.operators:
            for log in topics.get(backup_topic(topology.app, spec.uid), []):
                self._backups.append((Shard(spec.uid, log.source.partition), log))
        self._scanned = [0] * len(self._backups)

    def _scan(self) -> None:
        """Note the markers that were written, with the transactions whose decision they wait for."""
        if self._written == self._cluster.world.log.broker.written:
            return
        self._written = self._cluster.world.log.broker.written
        for index, (shard, log) in enumerate(self._backups):
            if self._scanned[index] == log.end:
                continue
            for record in log.entries[self._scanned[index] - log.start :]:
                if record is None or record.transaction is None:
                    continue
                frame = decode_frame(record.value or b"")
                if isinstance(frame, Marker):
                    self._undecided.setdefault(record.transaction, []).append((shard, frame))
            self._scanned[index] = log.end

    def _judge(self, shard: Shard, marker: Marker) -> None:
        """A marker is committed."""
        name = f"{marker.incarnation}, grant {marker.grant}, epoch {marker.epoch} of {shard} {marker.key_range}"
        self.handovers.committed(name, shard, marker)
        standing = self._standing.setdefault(shard, SlotMap())
        before = SlotMap(marker.previous)
        for piece, newest in standing.slice(marker.key_range):
            self._judge_piece(name, marker, before.slice(piece), piece, newest)
        for gap in standing.gaps(marker.key_range):
            if len(before.slice(gap)):
                self.report(Kind.LOST, f"{name} follows {before.slice(gap)!r}, which was never committed")
        standing.assign(marker.key_range, _Standing(marker.epoch, marker.incarnation, marker.progress))

    def _judge_piece(self, name: str, marker: Marker, before: SlotMap[int], piece: KeyRange, newest: _Standing) -> None:
        followed = max(before.values(), default=0)
        if before != SlotMap([(piece, newest.epoch)]):
            kind = Kind.DOUBLED if followed < newest.epoch else Kind.LOST
            self.report(kind, f"{name} follows {before!r}, {newest.incarnation} committed {newest.epoch} before")
        elif back := [topic for topic, at in newest.progress.items() if marker.progress.get(topic, at) < at]:
            self.report(Kind.DOUBLED, f"{name}: progress of {piece} goes back on {', '.join(back)}")

    def _note_opens(self) -> None:
        """Who opened which transactional id; a death that is committed by then is known by now."""
        opens = self._cluster.world.log.opens
        for index in range(self._opened, len(opens)):
            self.handovers.opened(opens[index].transactional_id, by_owner=opens[index].by_owner)
        self._opened = len(opens)

    def _note_owners(self) -> None:
        """Who runs what, as each worker says itself."""
        for incarnation, worker in self._cluster.live.items():
            beat = worker.load.snapshot
            if self._heard.get(incarnation) is beat:
                continue
            self._heard[incarnation] = beat
            for tile in beat.tiles:
                if tile.phase == TilePhase.RUNNING:
                    self.handovers.runs(incarnation, tile)

    def _check_plans(self) -> None:
        plans = self._cluster.plans
        for index in range(self._plans, len(plans)):
            plan, before = plans[index], plans[index - 1] if index else None
            if fault := tiling_fault(plan) or moves_fault(plan):
                self.report(Kind.PLAN, fault)
            if before and plan.version <= before.version:
                self.report(Kind.PLAN, f"plan {plan.version} follows plan {before.version}")
            self.handovers.planned(before, plan)
        if self._plans < len(plans):
            for order, answers in self._cluster.verdicts.items():
                if len(answers) > 1:
                    self.report(Kind.PLAN, f"order {order} is answered {len(answers)} times")
        self._plans = len(plans)

"""The tiles of a worker, by the newest plan.

    granted ──▶ being restored (kstate.worker.adoption) ──▶ running, as part of a shard (kstate.worker.ownership)

Tiles are restored beside those that run already, and run from where their markers say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias

from kstate.clock import Step, Steps
from kstate.errors import FencedError, RetryableError
from kstate.interfaces import Batch
from kstate.plan import Plan, Shard, Tile, TopicPartition, backup_topic
from kstate.state.lineage import Lineage
from kstate.state.restore import RestoreTarget, restore
from kstate.worker.adoption import Adopted, Adoptions
from kstate.worker.assembly import Assembly
from kstate.worker.edges import WorkerEdges
from kstate.worker.lifecycle import RETRY
from kstate.worker.load import Load
from kstate.worker.ownership import OwnedShard, Piece
from kstate.worker.process import Processor
from kstate.worker.source import Inputs
from kstate.worker.surroundings import Surroundings

POLL_TIMEOUT_S = 0.05
ADOPT_S = 0.05
"""How long tiles that run wait, per turn, for tiles that are being restored."""

Routed: TypeAlias = list[tuple[OwnedShard, Batch]]
"""Batches with the shard that consumes them."""


class Tiles:
    """What one incarnation owns by the newest plan it has taken in: what it runs it on, and what it reads for it.

    Invariant: a tile runs only after it was restored to a fresh end taken after the plan that grants it was read (S1).
    """

    def __init__(self, assembly: Assembly, edges: WorkerEdges, load: Load, incarnation: str) -> None:
        self.plan: Plan | None = None
        self._own_plan: Plan | None = None
        """The newest of this worker's build: the ids, counts and start offsets that its code stands for."""
        self.shards: dict[Shard, OwnedShard] = {}
        """Those with a tile that runs."""
        self.processors: dict[str, Processor] = {}
        """By operator uid; every operator of the job, from the first plan on."""
        self.around = Surroundings(edges.store)
        self._assembly = assembly
        self._edges = edges
        self._load = load
        self._incarnation = incarnation
        self._inputs = Inputs(edges.log.reader())
        self._adoptions = Adoptions(self._restore)
        self._ends: dict[tuple[str, TopicPartition], int] = {}
        self._reading_tables: list[OwnedShard] = []

    def take(self, plan: Plan, own: Plan | None) -> None:
        """Queue what a newer plan grants; FencedError when it takes a tile away (S6 and S7 are not built yet).

        `own` is the newest plan of this worker's build: every tile it has was granted in one of those, and a plan of
        another build may know other operators, states and inputs.
        """
        self._take_ids(own)
        granted = set(plan.owned_by(self._incarnation))
        held = {tile for shard in self.shards.values() for tile in shard.tiles.values()} | set(self._adoptions.tiles())
        if taken := held - granted:
            raise FencedError(
                f"Plan {plan.version} takes {min(map(str, taken))} from this worker without a release: it stops.",
                hint="nothing is lost; start the worker again and it joins as a new incarnation.",
            )
        if granted and own is None:
            raise FencedError(
                f"Plan {plan.version} is of build {plan.build}, and the one that granted {min(map(str, granted))} to "
                "this worker is gone: it stops.",
                hint="nothing is lost; start the worker again and it joins as a new incarnation.",
            )
        for tile in sorted(granted - held, key=lambda t: (t.shard, t.key_range)):
            self._adoptions.add(tile)
        self.plan = plan
        ends = {(uid, TopicPartition(topic, p)): end for (uid, topic, p), end in plan.ends.items()}
        if ends != self._ends:
            self._ends = ends
            self.rewind()  # the reader went on beyond the old ends: what was cut off there is to be read after all
        self.publish()

    def adopt(self, stopped: Callable[[], bool]) -> Steps[None]:
        """Go on restoring: for a short while and without waiting when tiles run already, else until one does."""
        until = self._edges.clock.monotonic() + ADOPT_S
        ready: list[Adopted] = []
        while not stopped():
            try:
                step = self._adoptions.step()
            except RetryableError as error:
                self._edges.logger.warning("broker-away", doing="restoring", reason=str(error))
                yield RETRY
                break
            if step is None:
                break
            if isinstance(step, Adopted):
                ready.append(step)
                continue
            waiting = self._adoptions.waiting
            yield step if waiting and not self.shards and not ready else Step(step.name)
            if waiting or ((self.shards or ready) and self._edges.clock.monotonic() >= until):
                break
        if ready:
            self._own(ready)

    def poll(self, max_records: int) -> Routed:
        """At most so many records of the inputs, each batch with its shard, cut at the ends of a bounded run."""
        if not self.shards:
            return []
        if self._reading_tables and not any(shard.reads_tables for shard in self._reading_tables):
            self.rewind()  # now the other inputs, too
        return self._inputs.poll(max_records, POLL_TIMEOUT_S, self._ends)

    def rewind(self) -> None:
        """Read on from where the pieces stand: something new is owned, an epoch was undone, or other ends hold."""
        self._inputs.place(self.shards.values())
        self._reading_tables = [shard for shard in self.shards.values() if shard.reads_tables]

    def sources(self) -> Iterable[TopicPartition]:
        """The input partitions that are read."""
        return self._inputs.partitions()

    def at_end(self) -> Mapping[TopicPartition, int]:
        """The input partitions that are read to their ends, with the position."""
        return self._inputs.at_end()

    def partitions(self) -> Mapping[str, int]:
        """Partition count by topic, as in the plan."""
        return self._own_plan.partitions if self._own_plan else {}

    def publish(self) -> None:
        """Let the next heartbeat tell how all tiles stand."""
        unfinished = self._unfinished() if self.bounded else frozenset()
        version = self.plan.version if self.plan else 0
        self._load.publish(version, self.shards.values(), self._adoptions.tiles(), unfinished)

    @property
    def bounded(self) -> bool:
        """The run ends at the ends that the plan names."""
        return self.plan is not None and self.plan.bounded

    def _unfinished(self) -> frozenset[Piece]:
        """The pieces of a bounded run that have more to do than to read: what is due, what is to be told downstream.

        An input that was empty up to its end holds nobody up: nothing will come that could tell its time.
        """
        unfinished = set()
        for shard in self.shards.values():
            processor = self.processors[shard.shard.operator]
            for piece in shard.pieces:
                piece.watermarks.set_idle(
                    *(t for t in processor.external_topics if self._told_nothing(shard, piece, t))
                )
                due = piece.agendas.event.next_at <= piece.watermarks.current
                if due or (processor.tells_time and piece.has_news):
                    unfinished.add(piece)
        return frozenset(unfinished)

    def _told_nothing(self, shard: OwnedShard, piece: Piece, topic: str) -> bool:
        end = self._ends.get((shard.shard.operator, TopicPartition(topic, shard.shard.partition)))
        return end is not None and piece.progress[topic] >= end and not piece.watermarks.knows(topic)

    def close(self) -> None:
        """An orderly stop: the operators may clean up."""
        for processor in self.processors.values():
            processor.instance.close()

    def _take_ids(self, own: Plan | None) -> None:
        """Assemble the operators by the first plan of this build; later ones must give them the same ids."""
        if own is None or own is self._own_plan:
            return
        if self._own_plan is None:
            self.processors = self._assembly.processors(own, self.around)
            for processor in self.processors.values():
                processor.instance.open()
        elif self._assembly.ids(own) != self._assembly.ids(self._own_plan):
            raise FencedError(
                f"Plan {own.version} gives other ids to this worker's state than plan {self._own_plan.version}: "
                "a version between them dropped some of it. It stops.",
                hint="start the worker again; what was dropped begins anew.",
            )
        self._own_plan = own
        self.around.partitions = own.partitions

    def _restore(self, tile: Tile) -> Steps[Lineage]:
        assert self._own_plan is not None
        app, edges = self._assembly.topology.app, self._edges
        partition = TopicPartition(backup_topic(app, tile.shard.operator), tile.shard.partition)
        operator_id = self._own_plan.registry.operators[tile.shard.operator]
        timed = self._assembly.timed_states(tile.shard.operator, self._own_plan)
        target = RestoreTarget(partition, operator_id, tile.key_range, timed)
        return restore(edges.log, edges.store, target, edges.clock, self._assembly.settings)

    def _table_ends(self, shard: Shard) -> Mapping[str, int]:
        """How far the tables of a shard are to be read before anything else: in a bounded run not beyond its ends."""
        spec = self._assembly.topology.operator(shard.operator)
        tables = [TopicPartition(given.topic, shard.partition) for given in spec.inputs if given.table is not None]
        ends = self._edges.log.end_offsets(tables, committed=True) if tables else {}
        return {table.topic: min(end, self._ends.get((shard.operator, table), end)) for table, end in ends.items()}

    def _own(self, ready: Iterable[Adopted]) -> None:
        """Run restored tiles from where their markers say."""
        assert self._own_plan is not None
        for adopted in ready:
            name = adopted.tile.shard
            if name not in self.shards:
                self.shards[name] = self._assembly.shard(name, self._own_plan, self._edges.store)
                self.shards[name].table_ends = self._table_ends(name)
            self.shards[name].adopt(adopted.tile, adopted.lineage)
            self._edges.logger.info("adopted", tile=str(adopted.tile), grant=adopted.tile.grant)
        self.rewind()
        self.publish()

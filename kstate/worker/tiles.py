"""The tiles of a worker, by the newest plan.

    granted ──▶ being restored (kstate.worker.adoption) ──▶ running, as part of a shard (kstate.worker.ownership)
                    ▲                                          │
    copied ─────────┘                        released ◀────────┘ the epoch that ends with RELEASE is committed

What a plan asks is read by kstate.worker.duties. Key ranges are restored beside those that run already, and run from
where their markers say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias

from kstate.clock import Step, Steps
from kstate.errors import FencedError, RetryableError
from kstate.interfaces import Batch
from kstate.plan import Plan, Shard, TopicPartition
from kstate.progress import SlotMap
from kstate.state.follow import Follower
from kstate.worker.adoption import Adopted, Adoptions, ShardRange
from kstate.worker.assembly import Assembly
from kstate.worker.copies import LocalCopies
from kstate.worker.duties import Duties, Role, duties
from kstate.worker.edges import WorkerEdges
from kstate.worker.epoch import Prepared
from kstate.worker.fair_reader import FairReader
from kstate.worker.lifecycle import RETRY
from kstate.worker.load import Load
from kstate.worker.ownership import OwnedShard, Piece
from kstate.worker.process import Processor
from kstate.worker.source import Inputs
from kstate.worker.surroundings import Surroundings

POLL_TIMEOUT_S = 0.05
ADOPT_S = 0.02
"""How long tiles that run wait, per turn, for tiles that are being restored."""
PUBLISH_S = 0.1
"""While there are copies, heartbeats tell how they stood at most so long ago."""

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
        self._inputs = Inputs(self._reader())
        self._adoptions = Adoptions(self._follower, edges.clock)
        self._copies = LocalCopies(assembly, edges, incarnation)
        self._given: dict[Shard, SlotMap[int]] = {}
        """Slot → the newest grant under which this incarnation released it."""
        self._ends: dict[tuple[str, TopicPartition], int] = {}
        self._reading_tables: list[OwnedShard] = []
        self._published_at = float("-inf")

    def take(self, plan: Plan, own: Plan | None) -> None:
        """Do what a newer plan asks; FencedError when it takes a key range away that was not released (S6).

        `own` is the newest plan of this worker's build: every tile it has was granted in one of those, and a plan of
        another build may know other operators, states and inputs.
        """
        self._take_ids(own)
        asked = duties(plan, self._incarnation, self._given)
        for name, shard in self.shards.items():
            self._keep(shard, asked.get(name, Duties()), plan)
        wanted = {place: role for name, duty in asked.items() for place, role in self._missing(name, duty)}
        if wanted and own is None:
            raise FencedError(
                f"Plan {plan.version} is of build {plan.build}, and the one that granted {min(wanted)} to this worker "
                "is gone: it stops.",
                hint="nothing is lost; start the worker again and it joins as a new incarnation.",
            )
        self.plan = plan
        for place in self._adoptions.want(wanted):
            self._copies.leave(place)
        self._copies.tidy(asked, plan, self._own_plan)
        ends = {(uid, TopicPartition(topic, p)): end for (uid, topic, p), end in plan.ends.items()}
        if ends != self._ends:
            self._ends = ends
            self.rewind()  # the reader went on beyond the old ends: what was cut off there is to be read after all
        self.publish()

    def arrange(self) -> None:
        """Between two epochs: let the pieces be as the plan wants them."""
        changed = False
        for shard in self.shards.values():
            changed = shard.arrange() or changed
        if changed:
            self.publish()

    @property
    def releasing(self) -> bool:
        """The next epoch's end releases something."""
        shards = [shard for shard in self.shards.values() if len(shard.releases)]
        return any(shard.releasing(piece.key_range) is not None for shard in shards for piece in shard.pieces)

    def settled(self, prepared: Prepared) -> None:
        """An epoch is committed and stored: what it released is not owned any more (S6)."""
        released = [piece for piece in prepared.pieces if piece.checkpoint.marker.move is not None]
        for piece in released:
            shard, key_range = piece.shard, piece.piece.key_range
            given = self._given.setdefault(shard.shard, SlotMap())
            for part, grant in shard.grants.slice(key_range):  # of the plan; the piece may not have taken it on yet
                given.assign(part, grant)
            shard.give(key_range)
            self._copies.leave(ShardRange(shard.shard, key_range))
            self._edges.logger.info(
                "released",
                tile=f"{shard.shard} {key_range}",
                move=piece.checkpoint.marker.move,
                grant=piece.piece.grant,
            )
        if emptied := [name for name, shard in self.shards.items() if not shard.pieces]:
            for name in emptied:
                del self.shards[name]
            self.rewind()
        if released and self.plan is not None:
            self.take(self.plan, self._own_plan)  # it may ask to have back, under a newer grant, what was released

    def adopt(self, stopped: Callable[[], bool]) -> Steps[None]:
        """Go on restoring: for a short while and without waiting when tiles run already, else until one does."""
        until = self._edges.clock.monotonic() + ADOPT_S
        ready: list[Adopted] = []
        while not stopped():
            try:
                step = self._adoptions.step(gentle=bool(self.shards))
            except RetryableError as error:
                self._edges.logger.warning("broker-away", doing="restoring", reason=str(error))
                if not (self.shards or ready or self._adoptions.busy):
                    yield RETRY
                continue
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
            self._own(ready, (yield from self._tables_of(ready)))
        elif self._adoptions.places() and self._edges.clock.monotonic() - self._published_at >= PUBLISH_S:
            self.publish()  # copies come closer to the log's end without any epoch of this worker

    def poll(self, max_records: int) -> Routed:
        """At most so many records of the inputs, each batch with its shard, cut at the ends of a bounded run."""
        if not self.shards:
            return []
        if self._reading_tables and not any(shard.reads_tables for shard in self._reading_tables):
            self.rewind()  # now the other inputs, too
        timeout = POLL_TIMEOUT_S if self._adoptions.waiting else 0.0
        return self._inputs.poll(max_records, timeout, self._ends)

    def rewind(self) -> None:
        """Read on from where the pieces stand: something new is owned, an epoch was undone, or other ends hold."""
        self._inputs.place(self.shards.values())
        self._reading_tables = [shard for shard in self.shards.values() if shard.reads_tables]

    def read_anew(self) -> None:
        """As `rewind`, with a client that has seen no trouble."""
        self._inputs.renew(self._reader())
        self.rewind()

    def _reader(self) -> FairReader:
        return FairReader(self._edges.log.reader(), self._assembly.settings.epoch.poll_records)

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
        parked = self.plan.parked if self.plan else ()
        self._load.publish(version, self.shards.values(), self._adoptions.reports(), unfinished, parked)
        self._published_at = self._edges.clock.monotonic()

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

    def _keep(self, shard: OwnedShard, duty: Duties, plan: Plan) -> None:
        """What runs goes on, under newer grants where the plan says so, and learns what of it is to move."""
        for key_range, _ in list(shard.grants):
            if gaps := duty.runs.gaps(key_range):
                raise FencedError(
                    f"Plan {plan.version} takes {shard.shard} {gaps[0]} from this worker without a release: it stops.",
                    hint="nothing is lost; start the worker again and it joins as a new incarnation.",
                )
            for part, role in duty.runs.slice(key_range):
                shard.grants.assign(part, role.grant)
        shard.ordered(duty)

    def _missing(self, name: Shard, duty: Duties) -> list[tuple[ShardRange, Role]]:
        """What is to run and does not, and what is to be copied."""
        roles = duty.runs.copy()
        for key_range, _ in self.shards[name].grants if name in self.shards else ():
            roles.clear(key_range)
        return [(ShardRange(name, key_range), role) for key_range, role in [*roles, *duty.copies]]

    def _follower(self, place: ShardRange, role: Role) -> Follower:
        assert self._own_plan is not None
        return self._copies.follower(place, role, self._own_plan)

    def _tables_of(self, ready: Iterable[Adopted]) -> Steps[dict[Shard, Mapping[str, int]]]:
        """How far the tables of the shards that are new here are to be read, asked until the broker answers."""
        new = {adopted.place.shard for adopted in ready} - self.shards.keys()
        while True:
            try:
                return {shard: self._table_ends(shard) for shard in new}
            except RetryableError as error:
                self._edges.logger.warning("broker-away", doing="looking for the ends of tables", reason=str(error))
                yield RETRY

    def _table_ends(self, shard: Shard) -> Mapping[str, int]:
        """How far the tables of a shard are to be read before anything else: in a bounded run not beyond its ends."""
        spec = self._assembly.topology.operator(shard.operator)
        tables = [TopicPartition(given.topic, shard.partition) for given in spec.inputs if given.table is not None]
        ends = self._edges.log.end_offsets(tables, committed=True) if tables else {}
        return {table.topic: min(end, self._ends.get((shard.operator, table), end)) for table, end in ends.items()}

    def _own(self, ready: Iterable[Adopted], tables: Mapping[Shard, Mapping[str, int]]) -> None:
        """Run restored tiles from where their markers say; `tables`: where those of new shards end."""
        assert self._own_plan is not None
        assert self.plan is not None
        asked = duties(self.plan, self._incarnation, self._given)
        for adopted in ready:
            name, key_range = adopted.place
            if name not in self.shards:
                self.shards[name] = self._assembly.shard(name, self._own_plan, self._edges.store)
                self.shards[name].table_ends = tables[name]
                self.shards[name].ordered(asked.get(name, Duties()))
            self.shards[name].adopt(key_range, adopted.grant, adopted.lineage)
            self._edges.logger.info("adopted", tile=str(adopted.place), grant=adopted.grant)
        self.rewind()
        self.publish()

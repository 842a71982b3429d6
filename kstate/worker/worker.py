"""The worker: one process of the data plane, as a sequence of named steps.

    opening ──▶ waiting ──▶ working ──▶ stopped
       ▲  (S3)    named       │
       └──────────────────────┘ a tainted transaction: open anew and look (S4)

It opens its transactional id, reads the control topic to a fresh end, heartbeats until a plan names it, restores the
tiles it was granted, and then repeats: poll bounded batches, process them, commit the epoch. Being declared dead, or
fenced, ends it; its successor starts where its last marker says.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from kstate.api.topology import Topology
from kstate.clock import Clock, Step, Steps
from kstate.config import Settings
from kstate.errors import CorruptStateError, FencedError, KstateError, OperatorError, RetryableError
from kstate.interfaces import Batch, Codecs, Log, Store
from kstate.plan import Member, Plan, Shard, Tile, TopicPartition, backup_topic
from kstate.state.cache import ValueFault
from kstate.state.lineage import Lineage
from kstate.state.restore import RestoreTarget, restore
from kstate.worker.adoption import Adopted, Adoptions
from kstate.worker.assembly import Assembly
from kstate.worker.control import ControlFollower
from kstate.worker.epoch import STORED, Prepared, prepare, settle, write
from kstate.worker.lifecycle import RETRY, Session
from kstate.worker.load import Load
from kstate.worker.ownership import OwnedShard
from kstate.worker.process import Processor
from kstate.worker.recovery import look_for_epoch
from kstate.worker.source import Source
from kstate.worker.stuck import StuckInputs

POLLED = Step("polled")
IDLE = Step("idle", wait=0.01)
TAINTED = Step("tainted")
UNDONE = Step("undone")
POLL_TIMEOUT_S = 0.05
ADOPT_S = 0.05
"""How long tiles that run wait, per turn, for tiles that are being restored."""


@dataclass(frozen=True, slots=True)
class Edges:
    """What connects a worker to the world."""

    log: Log
    store: Store
    codecs: Codecs
    clock: Clock
    logger: Any


@dataclass(slots=True)
class Epoch:
    """How much the running epoch has taken in, and since when (monotonic seconds, None: nothing yet)."""

    started: float | None = None
    records: int = 0
    bytes: int = 0


class Worker:
    """Runs the tiles that plans grant to one incarnation.

    Invariants: a tile runs only after it was restored to a fresh end taken after its plan was read (S1); plan changes
    are applied between epochs; the local store is written only after a commit is certain (S4).
    """

    def __init__(self, topology: Topology, settings: Settings, edges: Edges, load: Load, member: Member) -> None:
        self.load = load
        self._app = topology.app
        self._settings = settings
        self._edges = edges
        self._assembly = Assembly(topology, edges.codecs, settings, edges.logger)
        control = ControlFollower(edges.log, topology.app, edges.clock)
        self._session = Session(edges.log, control, member, edges.clock, edges.logger)
        self._source = Source(edges.log.reader())
        self._adoptions = Adoptions(self._restore)
        self._stuck = StuckInputs(edges.log, edges.clock, settings.failure, edges.logger.warning)
        self._plan: Plan | None = None
        self._ends: dict[tuple[str, TopicPartition], int] = {}
        self._processors: dict[str, Processor] = {}
        self._shards: dict[Shard, OwnedShard] = {}
        self._epoch = Epoch()
        self._interval_s = topology.epoch_ms / 1000
        self._stopping = False
        self._exit_code = 0

    def stop(self) -> None:
        """Finish the running epoch, then end (SIGTERM)."""
        self._stopping = True

    def run(self) -> Steps[int]:
        """The whole life; the result is the exit code (kstate.errors). Only damage of the local store is raised."""
        try:
            yield from self._until_stopped(self._session.open())
            self.load.opened()
            yield from self._until_stopped(self._session.await_membership())
            yield from self._work()
            self._close_operators()
            self.load.leaving()
        except CorruptStateError:
            raise
        except FencedError as error:
            self._edges.logger.warning("stopped", reason=str(error))
            self._exit_code = error.exit_code
        except KstateError as error:
            self._edges.logger.error("stopped", reason=str(error))
            self.load.fatal(error)
            self._exit_code = error.exit_code
        return self._exit_code

    def _until_stopped(self, steps: Steps[None]) -> Steps[None]:
        """What comes before there is anything to finish may be left at any step."""
        for step in steps:
            if self._stopping:
                return
            yield step

    def _work(self) -> Steps[None]:
        """The loop of DESIGN §4."""
        while not self._stopping:
            yield from self._session.follow()
            self._apply_plan()
            yield from self._adopt()
            yield from self._process()
            if self._epoch_due():
                yield from self._commit()
        yield from self._commit()

    # Plans and tiles

    def _apply_plan(self) -> None:
        """Adopt what a new plan grants; stop when the job is halted or complete."""
        control = self._session.control
        if control.halted is not None:
            self._stopping, self._exit_code = True, control.halted.exit_code
        plan = control.plan
        if plan is None or plan is self._plan:
            return
        if self._plan is None:
            self._processors = self._assembly.processors(plan)
            for processor in self._processors.values():
                processor.instance.open()
        granted = set(plan.owned_by(self._session.member.incarnation))
        held = {tile for shard in self._shards.values() for tile in shard.tiles.values()} | set(self._adoptions.tiles())
        if taken := held - granted:
            raise FencedError(
                f"Plan {plan.version} takes {min(map(str, taken))} from this worker without a release: it stops."
            )
        for tile in sorted(granted - held, key=lambda t: (t.shard, t.key_range)):
            self._adoptions.add(tile)
        self._plan = plan
        self._ends = {(uid, TopicPartition(topic, p)): end for (uid, topic, p), end in plan.ends.items()}
        self._stopping = self._stopping or plan.complete
        self._publish()

    def _restore(self, tile: Tile) -> Steps[Lineage]:
        assert self._plan is not None
        partition = TopicPartition(backup_topic(self._app, tile.shard.operator), tile.shard.partition)
        operator_id = self._plan.registry.operators[tile.shard.operator]
        target = RestoreTarget(partition, operator_id, tile.key_range)
        return restore(self._edges.log, self._edges.store, target, self._edges.clock, self._settings)

    def _adopt(self) -> Steps[None]:
        """Go on restoring: for a short while and without waiting when tiles run already, else until one does."""
        until = self._edges.clock.monotonic() + ADOPT_S
        ready: list[Adopted] = []
        while not self._stopping:
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
            yield step if waiting and not self._shards and not ready else Step(step.name)
            if waiting or ((self._shards or ready) and self._edges.clock.monotonic() >= until):
                break
        if ready:
            self._own(ready)

    def _own(self, ready: Iterable[Adopted]) -> None:
        """Run restored tiles from where their markers say."""
        assert self._plan is not None
        for adopted in ready:
            name = adopted.tile.shard
            if name not in self._shards:
                self._shards[name] = self._assembly.shard(name, self._plan)
            self._shards[name].adopt(adopted.tile, adopted.lineage)
            self._edges.logger.info("adopted", tile=str(adopted.tile), grant=adopted.tile.grant)
        self._source.place(self._shards.values())
        self._publish()

    # The epoch

    def _process(self) -> Steps[None]:
        """Poll bounded batches and hand them to the operators; a full epoch polls no more."""
        clock, limits = self._edges.clock, self._settings.epoch
        before = clock.monotonic()
        room = limits.records_max - self._epoch.records
        try:
            routed = (
                self._source.poll(min(limits.poll_records, room), POLL_TIMEOUT_S, self._ends) if self._shards else []
            )
        except RetryableError as error:
            self._edges.logger.warning("broker-away", doing="reading", reason=str(error))
            routed = []
            yield RETRY
        records = sum(len(batch) for _, batch in routed)
        if records:
            yield POLLED
        for shard, batch in routed:
            processor = self._processors[shard.shard.operator]
            yield from processor.process(shard, batch, self._edges.store, self._partitions)
            self._epoch.bytes += sum(map(len, filter(None, batch.values)))
            self._tell_handled(shard, batch)
        if records:
            self._epoch.records += records
            self._epoch.started = before if self._epoch.started is None else self._epoch.started
        else:
            if routed:  # only control records were passed: that too is progress, and the end of a bounded run
                self._publish()
            self._stuck.look(self._source.partitions())
            if clock.monotonic() == before:
                yield IDLE

    def _tell_handled(self, shard: OwnedShard, batch: Batch) -> None:
        """A line per batch, for whoever must know afterwards what a worker that was killed had in hand."""
        self._edges.logger.debug(
            "handled",
            incarnation=self._session.member.incarnation,
            operator=shard.shard.operator,
            topic=batch.source.topic,
            partition=batch.source.partition,
            next_offset=batch.next_offset,
            records=len(batch),
        )

    @property
    def _partitions(self) -> Mapping[str, int]:
        return self._plan.partitions if self._plan else {}

    def _epoch_due(self) -> bool:
        epoch, limits = self._epoch, self._settings.epoch
        if epoch.started is None:
            return False
        collected = epoch.bytes + sum(processor.collected_bytes() for processor in self._processors.values())
        age = self._edges.clock.monotonic() - epoch.started
        return age >= self._interval_s or epoch.records >= limits.records_max or collected >= limits.bytes_max

    def _commit(self) -> Steps[None]:
        """Commit the running epoch, or undo it so that it is done again."""
        if self._epoch.started is None:
            return
        for processor in self._processors.values():
            processor.rejects.check(self._settings.failure)
        try:
            prepared = prepare(
                self._app, self._session.member.incarnation, self._processors.values(), self._shards.values()
            )
        except ValueFault as fault:
            self._redo_carefully(fault)
            yield UNDONE
            return
        if not prepared.pieces:
            self._start_epoch()  # everything that was read had been done before
            return
        offsets: Mapping[TopicPartition, int] | None
        try:
            offsets = yield from write(self._app, self._session.producer, prepared)
        except RetryableError as error:
            self._edges.logger.warning("tainted", reason=str(error))
            yield TAINTED
            offsets = yield from self._look(prepared)
        if offsets is None:
            self._undo()
            yield UNDONE
            return
        settle(prepared, self._app, offsets, self._edges.store)
        self._edges.logger.debug("committed", incarnation=self._session.member.incarnation, records=self._epoch.records)
        self._start_epoch()
        yield STORED

    def _look(self, prepared: Prepared) -> Steps[Mapping[TopicPartition, int] | None]:
        """After a tainted transaction: open anew, then see whether the epoch committed (S4)."""
        while True:
            yield from self._session.reopen()
            try:
                return (yield from look_for_epoch(self._edges.log, self._edges.clock, self._app, prepared))
            except RetryableError as error:
                self._edges.logger.warning("broker-away", doing="looking for an epoch", reason=str(error))
                yield RETRY

    def _redo_carefully(self, fault: ValueFault) -> None:
        """A state value cannot be stored: do the epoch again with a check after every call, which finds the culprit."""
        if any(processor.careful for processor in self._processors.values()):
            raise OperatorError(f"A value that passed its check cannot be stored: {fault}")
        self._undo()
        for processor in self._processors.values():
            processor.careful = True

    def _undo(self) -> None:
        """Roll back to what is committed: cache, progress, outputs, dead letters, and the reader's position."""
        self._edges.logger.debug("undone", incarnation=self._session.member.incarnation, records=self._epoch.records)
        for shard in self._shards.values():
            shard.rollback()
        for processor in self._processors.values():
            processor.start_epoch()
        self._epoch = Epoch()
        self._source.place(self._shards.values())

    def _start_epoch(self) -> None:
        """The epoch is committed and stored: everything collected is done with."""
        for processor in self._processors.values():
            processor.start_epoch()
            processor.careful = False
        self._epoch = Epoch()
        caches = [shard.cache for shard in self._shards.values()]
        if sum(cache.size_bytes for cache in caches) > self._settings.state.cache_bytes / 2:
            for cache in caches:
                cache.turn()
        self._publish()

    def _publish(self) -> None:
        version = self._plan.version if self._plan else 0
        self.load.publish(version, self._shards.values(), self._adoptions.tiles())

    def _close_operators(self) -> None:
        for processor in self._processors.values():
            processor.instance.close()

"""The epoch under way: what was read and handled since the last commit, until it is committed or undone.

    empty ── process ──▶ under way ── commit ──▶ committed ──▶ stored ──▶ empty
      ▲                      │  in doubt (S4): ──▶ markers found ──▶ stored
      └────── undone ◀───────┘  no markers, or a state value that cannot be stored

What is undone is read and done again.
"""

from __future__ import annotations

from kstate.clock import Step, Steps
from kstate.config import Settings
from kstate.errors import DataLossError, OperatorError, RetryableError
from kstate.interfaces import Batch
from kstate.plan import dlq_topic
from kstate.state.cache import ValueFault
from kstate.worker.assembly import Assembly
from kstate.worker.edges import WorkerEdges
from kstate.worker.epoch import STORED, MarkerOffsets, Prepared, prepare, settle, write
from kstate.worker.intake import Intake
from kstate.worker.lifecycle import RETRY, Session
from kstate.worker.ownership import OwnedShard
from kstate.worker.passing import Passing
from kstate.worker.rebasing import Rebasing
from kstate.worker.stuck import StuckInputs
from kstate.worker.taint import look_for_epoch
from kstate.worker.tiles import Routed, Tiles

POLLED = Step("polled")
FIRED = Step("fired")
REBASED = Step("rebase-due")
IDLE = Step("idle", wait=0.01)
TAINTED = Step("tainted")
UNDONE = Step("undone")


class RunningEpoch:
    """Processes what the tiles read, and commits it at once.

    Invariant: the local store is written only after a commit is certain (S4).
    """

    def __init__(self, tiles: Tiles, session: Session, edges: WorkerEdges, assembly: Assembly) -> None:
        self._tiles = tiles
        self._session = session
        self._edges = edges
        self._app = assembly.topology.app
        self._interval_s = assembly.topology.epoch_ms / 1000
        self._settings: Settings = assembly.settings
        self._stuck = StuckInputs(edges.log, edges.clock, assembly.settings.failure, edges.logger.warning)
        self._rebasing = Rebasing(edges.log, edges.store, edges.clock, self._app, assembly.settings.rebase)
        self._passing = Passing(tiles, edges, assembly.topology.idle_ms)
        tiles.around.full = self.full
        tiles.around.in_hand = edges.in_hand
        self._intake = Intake()
        self._record_s = 0.0
        """Seconds that each of the last records took to be handled."""
        self.in_doubt = False
        """A transaction of unknown outcome is being looked for: what is left now, the next incarnation finds out."""

    def process(self) -> Steps[None]:
        """Poll bounded batches and hand them to the operators; a full epoch polls no more."""
        before = self._edges.clock.monotonic()
        fresh = self.empty
        if fresh:
            self._tiles.arrange()
            self._passing.read_clock()
        self._begin(before)  # what fires may fill the epoch
        passed, writes_anew = self._passing.tick(), self._rebasing.tick(self._tiles.shards.values(), self._tiles.plan)
        if passed:
            yield FIRED
        elif writes_anew:
            yield REBASED
        elif fresh and not self._tiles.releasing:
            self._intake.started = None
        routed = yield from self._poll()
        records = sum(len(batch) for _, batch in routed)
        self._passing.polled({batch.source for _, batch in routed if len(batch)})
        if records:
            self._begin(before)
            yield POLLED
        began = self._edges.clock.monotonic()
        yield from self._handle(routed)
        if records:
            self._intake.records += records
            self._record_s = (self._edges.clock.monotonic() - began) / records
            return
        if routed:  # only control records were passed: that too is progress, and the end of a bounded run
            self._tiles.publish()
        self._stuck.look(self._tiles.sources())
        if not self._tiles.shards or self._edges.clock.monotonic() == before:  # the poll did not wait
            yield IDLE

    def _handle(self, routed: Routed) -> Steps[None]:
        """Hand batches to their operators until the epoch is full; what is left then is read again."""
        for shard, batch in routed:
            processor = self._tiles.processors[shard.shard.operator]
            complete = yield from processor.process(shard, batch)
            self._intake.bytes += sum(map(len, filter(None, batch.values)))
            self._tell_handled(shard, batch)
            if not complete:
                self._intake.cut = True
                return

    @property
    def empty(self) -> bool:
        """Nothing was done yet that a commit must record."""
        return self._intake.started is None

    def due(self) -> bool:
        """Whether it ends now: it is full, or all that it is for is a release."""
        intake = self._intake
        return self.full() or (intake.started is not None and not intake.records and self._tiles.releasing)

    def full(self) -> bool:
        """Whether it takes in no more: by time, records or bytes."""
        intake, limits = self._intake, self._settings.epoch
        if intake.started is None:
            return False
        if intake.cut:
            return True
        collected = intake.bytes + sum(processor.collected_bytes() for processor in self._tiles.processors.values())
        age = self._edges.clock.monotonic() - intake.started
        return age >= self._interval_s or intake.records >= limits.records_max or collected >= limits.bytes_max

    def _begin(self, now: float) -> None:
        """Something is under way that a commit must record."""
        if self._intake.started is None:
            self._intake.started = now

    def commit(self) -> Steps[None]:
        """Commit it, or undo it so that it is done again. Raises OperatorError when too many records failed."""
        if self._intake.started is None:
            return
        tiles = self._tiles
        for processor in tiles.processors.values():
            processor.rejects.check(self._settings.failure)
        try:
            incarnation = self._session.member.incarnation
            shards = tiles.shards.values()
            prepared = prepare(self._app, incarnation, tiles.processors, shards, tiles.partitions(), self._rebasing)
        except ValueFault as fault:
            self._redo_carefully(fault)
            yield UNDONE
            return
        if not prepared.pieces:
            self._start()  # everything that was read had been done before
            return
        offsets = yield from self._write(prepared)
        if offsets is None:
            self._undo()
            yield UNDONE
            return
        settle(prepared, self._app, offsets, self._edges.store, self._rebasing)
        tiles.settled(prepared)
        late = sum(processor.late for processor in tiles.processors.values())
        self._tell_failed()
        self._edges.logger.debug("committed", incarnation=incarnation, records=self._intake.records, late=late)
        self._start()
        yield STORED

    def _poll(self) -> Steps[Routed]:
        limits = self._settings.epoch
        try:
            room = self._intake.room(limits, self._interval_s, self._record_s, self._edges.clock.monotonic())
            with self._edges.pulse:
                routed = self._tiles.poll(room)
        except RetryableError as error:
            self._edges.logger.warning("broker-away", doing="reading", reason=str(error))
            yield RETRY
            return []
        except DataLossError:
            yield from self._see_whether_dead()
            raise
        return (yield from self._received(routed))

    def _see_whether_dead(self) -> Steps[None]:
        """One that was declared dead, and does not know it yet, finds what its heirs have done with trimmed.

        Raises FencedError.
        """
        while True:
            try:
                return (yield from self._session.look())
            except RetryableError as error:
                self._edges.logger.warning("broker-away", doing="reading control", reason=str(error))
                yield RETRY

    def _received(self, routed: Routed) -> Steps[Routed]:
        """The batches with what it takes to decode them; none, to be read again, while the schema registry is away."""
        processors = self._tiles.processors
        try:
            return [(shard, processors[shard.shard.operator].receive(batch)) for shard, batch in routed]
        except RetryableError as error:
            self._edges.logger.warning("registry-away", doing="reading", reason=str(error))
            self._tiles.rewind()
            yield RETRY
            return []

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

    def _write(self, prepared: Prepared) -> Steps[MarkerOffsets | None]:
        """Where the markers stand; None when the epoch did not commit."""
        try:
            return (yield from write(self._app, self._session.producer, prepared))
        except RetryableError as error:
            self._edges.logger.warning("tainted", reason=str(error))
            self.in_doubt = True
            yield TAINTED
            offsets = yield from self._look(prepared)
            self._tiles.read_anew()
            self.in_doubt = False
            return offsets

    def _look(self, prepared: Prepared) -> Steps[MarkerOffsets | None]:
        """After a tainted transaction: open anew, then see whether the epoch committed (S4)."""
        while True:
            yield from self._session.reopen()
            try:
                return (yield from look_for_epoch(self._edges.log, self._edges.clock, self._app, prepared))
            except RetryableError as error:
                self._edges.logger.warning("broker-away", doing="looking for an epoch", reason=str(error))
                yield RETRY

    def _tell_failed(self) -> None:
        """A line per operator and epoch for what was committed and is no result: dead letters, late records."""
        for uid, processor in self._tiles.processors.items():
            if letters := processor.rejects.letters:
                first, topic = letters[0], dlq_topic(self._app, uid)
                reason = f"the first: {first.place}, {first.error}: {first.reason}"
                self._edges.logger.warning("dead-letters", operator=uid, count=len(letters), topic=topic, reason=reason)
            if processor.late:
                self._edges.logger.info("late-records", operator=uid, count=processor.late)

    def _redo_carefully(self, fault: ValueFault) -> None:
        """A state value cannot be stored: do the epoch again with a check after every call, which finds the culprit."""
        processors = self._tiles.processors.values()
        if any(processor.careful for processor in processors):
            raise OperatorError(
                f"A value that passed its check after the call cannot be stored at the epoch's end: {fault}",
                hint="do not change an object after it was set: set a new one.",
            )
        self._undo()
        for processor in processors:
            processor.careful = True

    def _undo(self) -> None:
        """Roll back to what is committed: cache, progress, outputs, dead letters, and the reader's position."""
        incarnation = self._session.member.incarnation
        self._edges.logger.debug("undone", incarnation=incarnation, records=self._intake.records)
        self._edges.in_hand.settled()
        for shard in self._tiles.shards.values():
            shard.rollback()
        for processor in self._tiles.processors.values():
            processor.start_epoch()
        self._intake = Intake()
        self._tiles.rewind()

    def _start(self) -> None:
        """The epoch is committed and stored: everything collected is done with."""
        self._edges.in_hand.settled()
        for processor in self._tiles.processors.values():
            processor.start_epoch()
            processor.careful = False
        if self._intake.cut:
            self._tiles.rewind()
        self._intake = Intake()
        caches = [shard.cache for shard in self._tiles.shards.values()]
        if sum(cache.size_bytes for cache in caches) > self._settings.state.cache_bytes / 2:
            for cache in caches:
                cache.turn()
        self._tiles.publish()

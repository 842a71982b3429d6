"""One shard under random treatment, below the log: batches, epochs, full epochs, undone ones, crashes, cuts and joins.

An *owner* is what a worker process has of the shard: a processor, pieces, a cache. All owners share one store, as if
each had restored its key ranges. Whatever happens, what is committed must be what the model says (event_model).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from random import Random
from typing import Any
from unittest.mock import patch

from kstate import UNKNOWN_TIME, Job, Operator
from kstate.adapters.avro import AvroCodecs
from kstate.api.specs import Topology
from kstate.api.topology import resolve
from kstate.config import RebaseSettings, Settings
from kstate.interfaces import Batch
from kstate.keyspace import SLOTS, KeyRange
from kstate.plan import Member, Plan, Registry, Shard, TopicPartition, backup_topic
from kstate.state.agenda import Agendas
from kstate.state.lineage import stored_lineage
from kstate.testing.memory_log import MemoryLog
from kstate.testing.memory_store import MemoryStore
from kstate.testing.virtual_time import START_MS, VirtualClock
from kstate.worker import firing
from kstate.worker.assembly import Assembly
from kstate.worker.epoch import prepare, settle
from kstate.worker.ownership import OwnedShard
from kstate.worker.process import Processor
from kstate.worker.rebasing import Rebasing
from kstate.worker.surroundings import Surroundings
from tests.support.event_jobs import FAR_AHEAD, LATENESS_MS, Given
from tests.support.event_model import Outcome, rows
from tests.support.leaders import Silent

APP = "bench"
_CODECS = AvroCodecs()


@dataclass(frozen=True, slots=True)
class Treatment:
    """How the shard is treated; probabilities are per batch."""

    batch_max: int = 1
    commit: float = 0.0
    undo: float = 0.0
    crash: float = 0.0
    recut: float = 0.0
    full: float = 0.0
    """That an epoch is full, per chunk of due items."""
    cuts: tuple[int, ...] = ()
    """Slots at which the shard is cut from the start; each part has an owner of its own."""
    agenda_items: int = 100_000
    forget: float = 0.0
    """That cached values are forgotten, per commit."""
    chunk: int = 1_000
    """Due items that are fired before anybody asks whether the epoch is full."""
    distinct_keys: bool = False
    """No batch has a key twice."""


PLAIN = Treatment()
"""One piece, record by record, one epoch."""

TURNS_MAX = 4_000
"""A bench that is not done after so many turns never will be."""


def some_treatment(rng: Random) -> Treatment:
    """Anything that may happen to a shard."""
    return Treatment(
        batch_max=rng.choice((1, 5, 40)),
        commit=0.05 + rng.random() * 0.4,
        undo=rng.random() * 0.1,
        crash=rng.random() * 0.1,
        recut=rng.choice((0, 0.02, 0.1)),
        full=rng.choice((0, 0.1, 0.5)),
        cuts=tuple(sorted(rng.sample(range(1, SLOTS), rng.randint(0, 2)))),
        agenda_items=rng.choice((3, 30, 100_000)),
        forget=rng.random(),
        chunk=rng.choice((1, 2, 1_000)),
    )


@dataclass(slots=True)
class Owner:
    """One worker's part of the shard."""

    processor: Processor
    shard: OwnedShard
    rebasing: Rebasing
    position: int = 0
    started: bool = False
    """The running epoch has taken something in."""


@dataclass(slots=True)
class Bench:
    """One operator, one shard, one input; `run` works the input off."""

    operator: type[Operator[Any]]
    given: Sequence[Given]
    treatment: Treatment
    rng: Random
    store: MemoryStore = field(default_factory=MemoryStore)
    outcome: Outcome = field(default_factory=Outcome)
    owners: list[Owner] = field(default_factory=list)
    checked: bool = True
    """Committed watermarks are compared with the input."""
    pieces_max: int = 0
    """The largest number of pieces that one owner had at the same time."""
    full_epochs: int = 0
    """How often firing was cut short."""
    grant: int = 0
    _topology: Topology = field(init=False)
    _rows: Sequence[tuple[bytes | None, bytes | None]] = ()
    _watermarks: Sequence[int] = ()
    """After so many records of the partition."""

    def __post_init__(self) -> None:
        self._topology = resolve(Job(APP, [self.operator]))
        self._rows = rows(self.given)
        self._watermarks = watermarks_of(self.given)
        self._place(self.treatment.cuts)

    def run(self) -> Outcome:
        """To the end of the input."""
        with patch.object(firing, "CHUNK", self.treatment.chunk):
            for _ in range(TURNS_MAX):
                behind = [owner for owner in self.owners if self._behind(owner)]
                if not behind:
                    break
                self._turn(self.rng.choice(behind))
            for owner in self.owners:
                owner.processor.tick(owner.shard)
                self._commit(owner)
        return self.outcome

    def _behind(self, owner: Owner) -> bool:
        return any(progress < len(self._rows) for progress in owner.shard.positions().values())

    def _turn(self, owner: Owner) -> None:
        rng, treatment = self.rng, self.treatment
        if rng.random() < treatment.recut:
            self._recut()
            return
        if rng.random() < treatment.crash:
            self._restart(owner)
            return
        owner.started = owner.processor.tick(owner.shard) or owner.started
        complete = self._batch(owner)
        if rng.random() < treatment.undo:
            owner.shard.rollback()
            owner.processor.start_epoch()
            self._rewind(owner)
        elif not complete or rng.random() < treatment.commit:
            self.full_epochs += not complete
            self._commit(owner)
            if not complete:
                self._rewind(owner)

    def _batch(self, owner: Owner) -> bool:
        """Process the next records; False when the epoch was full before all were done."""
        first = owner.position
        stop = min(len(self._rows), first + self.rng.randint(1, self.treatment.batch_max))
        if self.treatment.distinct_keys:
            keys = [key for key, _ in self._rows[first:stop]]
            stop = first + next((n for n, key in enumerate(keys) if key in keys[:n]), len(keys))
        batch = self._read(owner, first, stop)
        owner.position, owner.started = stop, True
        steps = owner.processor.process(owner.shard, owner.processor.receive(batch))
        while True:
            try:
                next(steps)
            except StopIteration as end:
                return bool(end.value)

    def _read(self, owner: Owner, first: int, stop: int) -> Batch:
        topic = owner.processor.spec.inputs[0].topic
        keys, values = [key for key, _ in self._rows[first:stop]], [value for _, value in self._rows[first:stop]]
        return Batch(TopicPartition(topic, 0), stop, list(range(first, stop)), keys, values, [1] * (stop - first))

    def _commit(self, owner: Owner) -> None:
        processor, shard = owner.processor, owner.shard
        prepared = prepare(APP, "w", {processor.spec.uid: processor}, [shard], self._plan().partitions, owner.rebasing)
        self.pieces_max = max(self.pieces_max, len(shard.pieces))
        self._check_times(shard)
        record = processor.spec.outputs[0].record
        for message in processor.outputs[processor.spec.outputs[0].name].messages:
            (decoded,) = _CODECS.value(record).decode_many([message["value"] or b""])
            self.outcome.answers.append(((message["key"] or b"").decode(), message["timestamp"], decoded))
        self.outcome.letters += [
            (letter.key and letter.key.decode(), letter.reason)  # type: ignore[misc]  # no key is empty
            for letter in processor.rejects.letters
            if letter.error == "ValueError"
        ]
        self.outcome.late += processor.late
        marked_at = {TopicPartition(backup_topic(APP, processor.spec.uid), 0): [1] * len(prepared.pieces)}
        settle(prepared, APP, marked_at, self.store, owner.rebasing)
        processor.start_epoch()
        owner.started = False
        if self.rng.random() < self.treatment.forget:
            shard.cache.turn()
            shard.cache.turn()

    def _check_times(self, shard: OwnedShard) -> None:
        """A piece's watermark is that of all records behind its progress, whoever owns their keys.

        Where firing was cut short, the record that is met again counts already.
        """
        for piece in shard.pieces if self.checked else ():
            (progress,) = piece.progress.values()
            allowed = self._watermarks[progress : progress + (2 if self.full_epochs else 1)]
            assert piece.watermarks.current in allowed, f"{piece.key_range} at {progress}"

    # -- owners come and go

    def _restart(self, owner: Owner) -> None:
        """Kill -9: another process begins with what is committed."""
        tiles = [key_range for key_range, _ in owner.shard.grants]
        self.owners[self.owners.index(owner)] = self._owner(tiles)

    def _recut(self) -> None:
        """Everybody stops where it stands, and the slots are given anew: some joined, some cut."""
        cuts = sorted(self.rng.sample(range(1, SLOTS), self.rng.randint(0, 3)))
        self._place(tuple(cuts))

    def _place(self, cuts: tuple[int, ...]) -> None:
        self.grant += 1
        bounds = [0, *cuts, SLOTS]
        self.owners = [self._owner([KeyRange(lo, hi)]) for lo, hi in pairwise(bounds)]

    def _owner(self, tiles: Sequence[KeyRange]) -> Owner:
        topology, plan = self._topology, self._plan()
        spec = topology.operators[0]
        assembly = Assembly(topology, _CODECS, Settings(), Silent())
        around = Surroundings(self.store, plan.partitions)
        processor = assembly.processors(plan, around)[spec.uid]
        processor.cursor.clock_ms = START_MS
        name = Shard(spec.uid, 0)
        shard = assembly.shard(name, plan, self.store)
        items = self.treatment.agenda_items
        shard.maker = replace(shard.maker, agendas=lambda key_range: Agendas(self.store, 1, 0, key_range, items))
        for key_range in tiles:
            shard.adopt(key_range, self.grant, stored_lineage(self.store, 1, 0))
        clock = VirtualClock()
        owner = Owner(processor, shard, Rebasing(MemoryLog(clock), self.store, clock, APP, RebaseSettings()))
        around.full = lambda: owner.started and self.rng.random() < self.treatment.full
        self._rewind(owner)
        return owner

    def _rewind(self, owner: Owner) -> None:
        (owner.position,) = owner.shard.positions().values()
        owner.started = False

    def _plan(self) -> Plan:
        (spec,) = self._topology.operators
        topics = [*(each.topic for each in spec.inputs), *(each.topic for each in spec.outputs)]
        return Plan(
            app=APP,
            version=1,
            term=1,
            members=(Member("w", "w"),),
            dead=(),
            tiles=(),
            registry=Registry(
                {spec.uid: 1},
                {(spec.uid, state.name): number for number, state in enumerate(spec.states, 1)},
                {number: _CODECS.value(state.type).schema for number, state in enumerate(spec.states, 1)},
            ),
            partitions=dict.fromkeys(topics, 1),
            starts={(spec.uid, spec.inputs[0].topic, 0): 0},
        )


def watermarks_of(given: Sequence[Given]) -> list[int]:
    """The watermark before the first record, and after each."""
    found = [UNKNOWN_TIME]
    for each in given:
        counts = each.event is not None and each.key is not None and 0 < each.event.ts < FAR_AHEAD
        found.append(max(found[-1], each.event.ts - LATENESS_MS) if counts and each.event else found[-1])
    return found

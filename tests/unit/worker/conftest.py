"""A bench for the worker's parts: one operator, one shard, a memory store; no log, no plan of a leader."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from kstate import Job, Operator
from kstate.adapters.avro import AvroCodecs
from kstate.api.topology import resolve
from kstate.config import RebaseSettings, Settings, StateSettings
from kstate.interfaces import Batch
from kstate.keyspace import FULL_RANGE, KeyRange, partition_of
from kstate.plan import Member, Plan, Registry, Shard, TopicPartition, backup_topic
from kstate.progress import SlotMap
from kstate.state.replay import ReplayPiece
from kstate.testing.memory_log import MemoryLog
from kstate.testing.memory_store import MemoryStore
from kstate.testing.virtual_time import VirtualClock
from kstate.times import Times
from kstate.worker.assembly import Assembly
from kstate.worker.epoch import Prepared, prepare, settle
from kstate.worker.ownership import OwnedShard, Piece
from kstate.worker.process import Processor
from kstate.worker.rebasing import Rebasing
from kstate.worker.surroundings import Surroundings
from tests.support.leaders import Silent

APP = "bench"


@dataclass
class Bench:
    """One operator with one shard; `feed` processes rows, `commit` ends the epoch."""

    operator: type[Operator[Any]]
    ranges: Sequence[KeyRange] = (FULL_RANGE,)
    partitions: int = 1
    value_bytes_max: int = 10_000
    store: MemoryStore = field(default_factory=MemoryStore)
    rebase: RebaseSettings = field(default_factory=RebaseSettings)
    clock: VirtualClock = field(default_factory=VirtualClock)

    def __post_init__(self) -> None:
        self.log = MemoryLog(self.clock)
        topology = resolve(Job(APP, [self.operator]))
        spec = topology.operators[0]
        self.codecs = AvroCodecs()
        schemas = {i: self.codecs.value(state.type).schema for i, state in enumerate(spec.states, 1)}
        states = {(spec.uid, state.name): i for i, state in enumerate(spec.states, 1)}
        topics = dict.fromkeys([*(i.topic for i in spec.inputs), *(o.topic for o in spec.outputs)], self.partitions)
        self.topic = spec.inputs[0].topic
        self.plan = Plan(
            app=APP,
            version=1,
            term=1,
            members=(Member("w", "w-1"),),
            dead=(),
            tiles=(),
            registry=Registry({spec.uid: 1}, states, schemas),
            partitions=topics,
            starts={(spec.uid, self.topic, 0): 0},
        )
        settings = Settings(state=StateSettings(value_bytes_max=self.value_bytes_max, output_bytes_max=1_000))
        assembly = Assembly(topology, self.codecs, settings, Silent())
        self.around = Surroundings(self.store, self.plan.partitions)
        self.processor: Processor = assembly.processors(self.plan, self.around)[spec.uid]
        self.shard: OwnedShard = assembly.shard(Shard(spec.uid, 0), self.plan, self.store)
        for grant, key_range in enumerate(self.ranges, 1):
            self.shard.adopt(key_range, grant, SlotMap())
        self.next_offset = 0
        self.rebasing = Rebasing(self.log, self.store, self.clock, APP, self.rebase)

    def piece(self, key_range: KeyRange, progress: int) -> Piece:
        """A piece as if its markers said so."""
        return self.shard.maker.piece(ReplayPiece(key_range, {self.topic: progress}, Times()), 1, self.shard.lineage)

    def batch(self, rows: Sequence[tuple[bytes | None, bytes | None]], first: int | None = None) -> Batch:
        """Rows (key, value) as they come from the input, from the next offset on."""
        first = self.next_offset if first is None else first
        offsets = list(range(first, first + len(rows)))
        self.next_offset = max(self.next_offset, first + len(rows))
        source = TopicPartition(self.topic, 0)
        keys, values = [key for key, _ in rows], [value for _, value in rows]
        return Batch(source, first + len(rows), offsets, keys, values, [1_000 + offset for offset in offsets])

    def row(self, record: Any, key: bytes | None = None) -> tuple[bytes | None, bytes | None]:
        """A record as a row."""
        return key, self.codecs.value(type(record)).encode(record)

    def feed(self, *rows: tuple[bytes | None, bytes | None], first: int | None = None) -> None:
        """Process rows as one batch."""
        for _ in self.processor.process(self.shard, self.processor.receive(self.batch(rows, first))):
            pass

    def prepare(self) -> Prepared:
        """The running epoch as it would be committed."""
        processors = {self.processor.spec.uid: self.processor}
        return prepare(APP, "w-1", processors, [self.shard], self.plan.partitions, self.rebasing)

    def commit(self, offset: int = 0) -> Prepared:
        """End the epoch as if all its markers stood at this offset of the backup."""
        prepared = self.prepare()
        backup = TopicPartition(backup_topic(APP, self.shard.shard.operator), 0)
        settle(prepared, APP, {backup: [offset] * len(prepared.pieces)}, self.store, self.rebasing)
        self.processor.start_epoch()
        return prepared

    def emitted(self, name: str) -> list[Any]:
        """Records collected by an output, decoded."""
        spec = next(output for output in self.processor.spec.outputs if output.name == name)
        values = [message["value"] or b"" for message in self.processor.outputs[name].messages]
        return self.codecs.value(spec.record).decode_many(values)


@pytest.fixture
def bench() -> Callable[..., Bench]:
    """Makes a bench for an operator class."""
    return Bench


def key_in(partition: int, partitions: int, prefix: str = "k") -> bytes:
    """Some key that belongs to a partition."""
    return next(k for i in range(10_000) if partition_of(k := f"{prefix}{i}".encode(), partitions) == partition)

"""What a simulated cluster works on, and the work of the sample job."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from random import Random
from typing import Protocol

from kstate.adapters.avro import AvroCodecs
from kstate.api.describe import describe
from kstate.api.specs import Topology
from kstate.api.topology import resolve
from kstate.clock import Step, Steps
from kstate.description import JobDescription
from kstate.interfaces import Codecs, Producer
from kstate.plan import TopicPartition
from kstate.testing.cluster import Cluster
from kstate.testing.memory_log import MemoryLog, MemoryReader
from kstate.testing.results import output_violations, state_violations
from kstate.testing.sample_job import (
    JOB,
    PARTITIONS,
    RECORDS,
    TOPICS,
    WORDS,
    Balance,
    Closed,
    Counted,
    Fed,
    Line,
    some_input,
)
from kstate.testing.sample_results import expected
from kstate.testing.violations import Violation

FED = Step("fed", wait=0.06)
COUNT = 36
"""Records that the source of the sample job sends."""


class Work(Protocol):
    """A job with its input, and how to tell whether all of it was done right.

    `source` sends the input; all of it must have been sent when it ends. `look` is called every now and then, and when
    everything is over.
    """

    topology: Topology
    description: JobDescription
    codecs: Codecs
    topics: Mapping[str, int]
    """Users' topics with their partition counts."""

    def source(self, log: MemoryLog) -> Steps[None]: ...

    def look(self, log: MemoryLog) -> None: ...

    def violations(self, cluster: Cluster) -> Iterator[Violation]:
        """What is wrong with outputs and state in the end."""
        ...


class SampleWork:
    """Plain records, transactions, and now and then one that is aborted and must never count."""

    def __init__(self, rng: Random) -> None:
        self.topology, self.description = sample_topology()
        self.codecs: Codecs = sample_codecs()
        self.topics: Mapping[str, int] = TOPICS
        self.fed: list[Fed] = []
        """What was sent so far, as it was sent."""
        self.seen: list[Counted | Balance | Closed] = []
        """What a read_committed reader has seen of the outputs, in order within each partition."""
        self._rng = rng
        everywhere = [Fed("lines", None, Line(number, rng.choice(WORDS))) for number in range(PARTITIONS)]
        self._waiting = [*everywhere, *some_input(rng, COUNT - PARTITIONS, first=PARTITIONS)]
        self._stamps = 0
        self._reader: MemoryReader | None = None

    def source(self, log: MemoryLog) -> Steps[None]:
        rng, waiting = self._rng, self._waiting
        producer = log.producer("source")
        producer.open()
        while waiting:
            batch, waiting = waiting[: (size := rng.randint(1, 8))], waiting[size:]
            if rng.random() < 0.2:
                producer.begin()
                self._send(producer, some_input(rng, 2))
                yield FED
                producer.abort()
            if rng.random() < 0.4:
                producer.begin()
                self.fed += self._send(producer, batch)
                yield FED
                producer.commit()
            else:
                self.feed(log, batch)
            yield FED

    def feed(self, log: MemoryLog, more: Sequence[Fed]) -> None:
        """Further records, beyond what the source sends."""
        for fed in map(self._stamped, more):
            self.fed.append(fed)
            log.report(fed.topic, fed.message(self.codecs))

    def look(self, log: MemoryLog) -> None:
        if self._reader is None:
            self._reader = log.reader()
            self._reader.assign({TopicPartition(topic, p): 0 for topic in RECORDS for p in range(PARTITIONS)})
        for batch in self._reader.poll(1_000, 0.0):
            values = [value or b"" for value in batch.values]
            self.seen += self.codecs.value(RECORDS[batch.source.topic]).decode_many(values)

    def violations(self, cluster: Cluster) -> Iterator[Violation]:
        wanted = expected(self.fed)
        found = list(output_violations(self.seen, wanted))
        yield from found
        if not found:
            yield from state_violations(cluster, wanted)

    def _send(self, producer: Producer, batch: Sequence[Fed]) -> list[Fed]:
        stamped = [self._stamped(fed) for fed in batch]
        for fed in stamped:
            producer.send(fed.topic, [fed.message(self.codecs)])
        return stamped

    def _stamped(self, fed: Fed) -> Fed:
        self._stamps += 1
        return fed.stamped(self._stamps)


@cache
def sample_codecs() -> AvroCodecs:
    """Codecs are made once per type and process."""
    return AvroCodecs()


@cache
def sample_topology() -> tuple[Topology, JobDescription]:
    """Resolved once per process."""
    topology, codecs = resolve(JOB), sample_codecs()
    return topology, describe(topology, lambda type_: codecs.value(type_).schema)

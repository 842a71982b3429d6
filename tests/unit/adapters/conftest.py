"""A consumer that hands out what a test wants, for the readers over it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from kstate.adapters.kafka_reader import Event, KafkaReader, Run
from kstate.adapters.kafka_watch import ClientWatch
from kstate.config import Settings
from kstate.errors import ConfigError, RetryableError
from kstate.plan import TopicPartition

A, B, C = TopicPartition("a", 0), TopicPartition("b", 1), TopicPartition("c", 2)


@dataclass
class FakeConsumer:
    """Hands out one list per call, then nothing."""

    answers: list[list[Run | Event]] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    assigned: dict[TopicPartition, int] = field(default_factory=dict)
    """Where each partition was put last."""
    anew: int = 0
    """How often the whole assignment was replaced."""
    renewed: int = 0
    """How often it began as a new client."""

    def assign(self, positions: Mapping[TopicPartition, int]) -> None:
        self.answers.clear()
        self.assigned = dict(positions)
        self.anew += 1

    def reassign(self, positions: Mapping[TopicPartition, int], gone: Collection[TopicPartition]) -> None:
        for source in gone:
            del self.assigned[source]
        assert not positions.keys() & self.assigned.keys()
        self.assigned |= positions

    def consume(self, count_max: int, seconds: float) -> list[Run | Event]:
        self.waits.append(seconds)
        return self.answers.pop(0) if self.answers else []

    def renew(self) -> None:
        self.answers.clear()
        self.assigned = {}
        self.renewed += 1

    def discard(self) -> None:
        self.answers.clear()


@dataclass
class Surroundings:
    """The clock, and the log that is asked when something is wrong."""

    now: float = 0.0
    reachable: bool = True
    missing: TopicPartition | None = None
    end: int = 1_000
    """Of every partition."""

    def monotonic(self) -> float:
        return self.now

    def time_ms(self) -> int:
        return 0

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def offsets_now(self, source: TopicPartition) -> tuple[int | None, int | None]:
        return (10, 20) if self.reachable else (None, None)

    def check_existence(self, sources: list[TopicPartition]) -> None:
        if self.missing in sources:
            raise ConfigError(f"{self.missing}: the topic does not exist.")

    def start_offsets(self, partitions: list[TopicPartition]) -> Any:
        if not self.reachable:
            raise RetryableError("nobody answers")

    def end_offsets(self, partitions: list[TopicPartition], *, committed: bool) -> dict[TopicPartition, int]:
        assert committed, "what stands behind an open transaction is nobody's to read"
        self.start_offsets(partitions)
        return dict.fromkeys(partitions, self.end)


@pytest.fixture
def client() -> FakeConsumer:
    """Without anything to read."""
    return FakeConsumer()


@pytest.fixture
def around() -> Surroundings:
    """All is well."""
    return Surroundings()


@pytest.fixture
def watch() -> ClientWatch:
    """What the client says."""
    return ClientWatch(Settings())


@pytest.fixture
def reader(client: FakeConsumer, around: Surroundings, watch: ClientWatch) -> KafkaReader:
    """Reads a[0] from 10 and b[1] from 0."""
    reader = KafkaReader(client, watch, around, around)
    reader.assign({A: 10, B: 0})
    return reader


def run(source: TopicPartition, *offsets: int) -> Run:
    """Records at these offsets."""
    return Run(source, list(offsets), [None] * len(offsets), [b"%d" % o for o in offsets], [0] * len(offsets))


def eof(source: TopicPartition, offset: int) -> Event:
    """The end is reached."""
    return Event(source, "_PARTITION_EOF", "end", offset)

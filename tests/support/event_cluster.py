"""Jobs that go by event time on a whole cluster in memory, under a seed's faults: workers, leader, log, restores.

As the simulator (kstate.testing.simulator), but for any job, any input and random epoch settings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any
from unittest.mock import patch

from kstate import Job
from kstate.adapters.avro import AvroCodecs
from kstate.api.describe import describe
from kstate.api.topology import resolve
from kstate.clock import Step, Steps
from kstate.config import EpochSettings, RecoverySettings, Settings
from kstate.coordinator.core import Rules
from kstate.interfaces import OutMessage, TopicSpec
from kstate.plan import TopicPartition
from kstate.testing.cluster import Blueprint, Cluster
from kstate.testing.oracle import Oracle
from kstate.testing.orders import Person
from kstate.testing.schedule import HostileDirector, some_triggers
from kstate.testing.simulation import FAILURE
from kstate.testing.world import Status, World
from kstate.worker import firing

CODECS = AvroCodecs()
FED = Step("fed", wait=0.02)
FAULTS_S = 3.0
"""Virtual seconds after which faults end."""
REST_TURNS_MAX = 60_000


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What may differ from run to run, without any difference in the results."""

    workers: int = 1
    orders: int = 0
    """Splits, moves and merges that somebody orders, most of them at random slots."""
    recovery: RecoverySettings = field(default_factory=RecoverySettings)
    triggers: int = 0
    """Faults at named steps."""
    epoch: EpochSettings = field(default_factory=EpochSettings)
    feed_max: int = 1_000
    """Records that are sent at once."""
    until_end: bool = False
    """A bounded run: all input is there when it starts, and it ends by itself."""
    chunk: int = 1_000
    """Due items that are fired before anybody asks whether the epoch is full."""


def some_circumstances(rng: Random) -> Circumstances:
    """Small epochs, tiny and large polls, and epochs that are full while timers fire."""
    epoch = EpochSettings(
        records_max=rng.choice((3, 20, 500)),
        poll_records=rng.choice((1, 4, 50, 500)),
        bytes_max=rng.choice((200, 2_000, 1 << 20)),
    )
    return Circumstances(
        workers=rng.randint(1, 3),
        orders=rng.randint(1, 6) if rng.random() < 0.7 else 0,
        recovery=RecoverySettings(standbys=rng.choice((0, 0, 1)), parallelism=rng.randint(1, 3)),
        triggers=rng.randint(2, 8),
        epoch=epoch,
        feed_max=rng.choice((3, 20, 1_000)),
        chunk=rng.choice((1, 2, 1_000)),
    )


@dataclass(frozen=True, slots=True)
class Message:
    """An input record in the order of sending."""

    topic: str
    message: OutMessage


class Run:
    """One job, worked off under some circumstances; `read` what it wrote afterwards."""

    def __init__(
        self, job: Job, topics: Mapping[str, int], messages: Sequence[Message], how: Circumstances, rng: Random
    ) -> None:
        """`topics`: users' topics with their partition counts."""
        self.world = World(transaction_timeout_ms=FAILURE.transaction_timeout_ms, auto_deliver=False)
        director = HostileDirector(rng, some_triggers(rng, how.triggers) if how.triggers else (), uniform=0.0)
        director.calm = not how.triggers
        self.world.director = self.director = director
        topology = resolve(job)
        settings = Settings(stream_partitions=2, epoch=how.epoch, failure=FAILURE, recovery=how.recovery)
        rules = Rules(FAILURE, how.workers, settle_ms=100, start_wait_ms=300, linger_ms=200, recovery=how.recovery)
        description = describe(topology, lambda type_: CODECS.value(type_).schema)
        blueprint = Blueprint(topology, description, settings, CODECS, rules, until_end=how.until_end)
        self._how = how
        self._open_s = 0.0 if how.until_end else 1.0  # virtual seconds that a run is open to faults
        self.logger = _Lines()
        self.cluster = director.cluster = Cluster(self.world, blueprint, director, self.logger)
        self.oracle = Oracle(self.cluster)
        self.world.watch = self.oracle.watch
        self.world.log.create_topics([TopicSpec(topic, count) for topic, count in topics.items()])
        if how.until_end:
            self.feed(messages)
            messages = ()
        person = Person(self.cluster, rng, how.orders)
        self._outside = [
            self.world.start("outside", "feeder", "feeder", self._feed(messages, how.feed_max, rng)),
            self.world.start("outside", "person", "person", person.orders()),
        ]
        self.cluster.start_leader("l0")
        for number in range(how.workers):
            self.cluster.start_worker(f"w{number}")

    def feed(self, messages: Sequence[Message]) -> None:
        """Further records, all at once."""
        for each in messages:
            self.world.log.report(each.topic, each.message)

    def work_off(self) -> None:
        """Until everything that was sent is processed; faults end after a while."""
        world = self.world
        with patch.object(firing, "CHUNK", self._how.chunk):
            while world.clock.now < FAULTS_S and not (world.clock.now > self._open_s and self._at_rest()):
                world.turn()
            self.director.end()
            assert world.run(self._at_rest, REST_TURNS_MAX), f"it does not come to rest\n{world.told()}"
        assert not self.oracle.violations, f"{self.oracle.violations[0]}\n{world.told()}"

    def read(self, topic: str) -> list[tuple[bytes | None, bytes | None, int]]:
        """The committed records of a topic, in order within each partition: key, value, timestamp."""
        logs = self.world.log.broker.topics.get(topic, [])
        found = [r for log in logs for r in self.world.log.records(TopicPartition(topic, log.source.partition))]
        return [(record.key, record.value, record.timestamp) for record in found]

    def late(self) -> int:
        """Updates that found no open window, as the workers tell of each epoch; a crash may swallow what it had to
        tell of the last one.
        """
        return sum(fields["late"] for event, fields in self.logger.lines if event == "committed")

    def _at_rest(self) -> bool:
        if self._how.until_end:
            return self.world.quiet and all(process.role == "outside" for process in self.world.running())
        return all(each.status is not Status.RUNNING for each in self._outside) and self.cluster.settled()

    def _feed(self, messages: Sequence[Message], at_once: int, rng: Random) -> Steps[None]:
        waiting = list(messages)
        while waiting:
            now, waiting = waiting[: (count := rng.randint(1, at_once))], waiting[count:]
            for each in now:
                self.world.log.report(each.topic, each.message)
            yield FED


class _Lines:
    """A logger that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, Any]]] = []

    def debug(self, event: str, **fields: object) -> None:
        self.lines.append((event, dict(fields)))

    info = warning = error = debug

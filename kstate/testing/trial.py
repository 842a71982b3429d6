"""Users' own jobs in the simulated cluster: the same input, with faults and moves, and without.

What a job must make of its input nobody knows but the job itself: it is run without faults, on one worker. Where two
such runs differ already, the job is no function of its input, and there is nothing to compare with: that is told, and
the rest is compared all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from random import Random

from kstate.adapters.avro import AvroCodecs
from kstate.api.describe import describe
from kstate.api.job import Job
from kstate.api.specs import PartialSpec, Topology
from kstate.api.topology import resolve
from kstate.clock import Steps
from kstate.errors import ConfigError
from kstate.interfaces import Codecs
from kstate.keyspace import SLOTS
from kstate.messages import Order, OrderKind
from kstate.testing.cluster import Cluster
from kstate.testing.job_input import JobInput, Message, interleaved
from kstate.testing.job_results import Made, Place, differences, is_ordered, made_by
from kstate.testing.memory_log import MemoryLog
from kstate.testing.memory_registry import MemoryRegistry
from kstate.testing.orders import send_order
from kstate.testing.schedule import SeededDirector
from kstate.testing.simulation import REST_TURNS_MAX, Outcome, Scenario, Simulation
from kstate.testing.simulator import expose, some_run, some_scenario
from kstate.testing.violations import Violation
from kstate.testing.work import FED

PARTITIONS = 2
EPOCH_MS = 20
IDLE_MS = 36_000_000
"""Nothing is idle: that would move watermarks by the clock."""
SEEDS_PER_INPUT = 25
"""Runs with one input that is made up; each input costs four runs without faults."""
MESSAGES_MAX = 8
"""That are sent at once."""
ONE, SPREAD = Scenario(workers=1, leaders=1), Scenario(workers=3, leaders=1)
ORDERS_MAX, ORDER_TURNS = 100, 100
"""An order is repeated after so many turns, so often."""
VARIANTS_MAX = 12
"""Runs without faults that a difference must not be found in to count as one."""

CHANCE = "two runs on one worker, without faults, differ: it is no function of the input, but of chance or the clock"
MEETING = "it depends on how the records of several inputs, or of several partitions, meet"
PARTS = "a range that is split and merged does not become what it was: its class loses, doubles, or approximates"


class JobWork:
    """Work of a user's job; `violations` are the differences to what was made without faults."""

    def __init__(self, job: _Prepared, messages: Sequence[Message], rng: Random, wanted: _Wanted | None = None) -> None:
        """Without `wanted` everything is right."""
        self.topology, self.description = job.topology, job.description
        self.codecs: Codecs = job.codecs
        self.topics: Mapping[str, int] = job.topics
        self.messages = messages
        self._rng = rng
        self._wanted = wanted

    def source(self, log: MemoryLog) -> Steps[None]:
        """In transactions and without, now and then one that is aborted."""
        producer, waiting, rng = log.producer("source"), list(self.messages), self._rng
        producer.open()
        while waiting:
            batch, waiting = waiting[: (size := rng.randint(1, MESSAGES_MAX))], waiting[size:]
            for committed in (False, True) if rng.random() < 0.2 else (True,):
                producer.begin()
                for each in batch:
                    producer.send(each.topic, [each.message])
                yield FED
                if committed:
                    producer.commit()
                else:
                    producer.abort()
            yield FED

    def look(self, log: MemoryLog) -> None:
        """Everything is looked at in the end."""

    def violations(self, cluster: Cluster) -> Iterator[Violation]:
        if self._wanted is not None:
            made = made_by(cluster)
            for place, violation in differences(self.topology, self._wanted.made, made):
                if not self._wanted.is_open(place):
                    yield violation


class _Prepared:
    """A job as the simulation runs it."""

    def __init__(self, job: Job) -> None:
        self.topology: Topology = replace(resolve(job), epoch_ms=EPOCH_MS, idle_ms=IDLE_MS)
        self.codecs = AvroCodecs(MemoryRegistry())
        self.description = describe(self.topology, lambda type_: self.codecs.value(type_).schema)
        self.input = JobInput(self.topology, self.codecs, PARTITIONS)
        written = {o.topic for spec in self.topology.operators for o in spec.outputs if not o.internal}
        self.topics = dict.fromkeys(sorted({*self.input.entrances, *written}), PARTITIONS)

    def is_ordered(self, place: Place) -> bool:
        """Whether order per key is part of the contract there."""
        return is_ordered(self.topology, self.topology.operator(place[0]))

    @property
    def partial(self) -> list[str]:
        """Operators with partial states."""
        return [spec.uid for spec in self.topology.operators if spec.states_of(PartialSpec)]

    def is_partial(self, place: Place) -> bool:
        """Whether it is a partial state."""
        return any(state.name == place[1] for state in self.topology.operator(place[0]).states_of(PartialSpec))


class _Wanted:
    """What must become of an input: what becomes of it without faults, on one worker; and what of that is open."""

    def __init__(self, job: _Prepared, messages: Sequence[Message]) -> None:
        """Raises ConfigError when the job does not work it off."""
        self.open: dict[Place, str] = {}
        """Why it is not compared."""
        self._job = job
        self._messages = messages
        self._variants = self._runs = 0
        self.made = self._without_faults(messages, ONE)
        again = self._without_faults(messages, ONE)
        self._note(again, CHANCE, job.is_ordered)
        self._note(again, MEETING)
        self._vary()
        if job.partial:
            self._note(self._without_faults(messages, SPREAD, job.partial), PARTS, job.is_partial)

    def is_open(self, place: Place) -> bool:
        """Whether a difference there is no fault: where order is open, further runs without faults must differ, too."""
        while place not in self.open and not self._job.is_ordered(place) and self._variants < VARIANTS_MAX:
            self._vary()
        return place in self.open

    def _vary(self) -> None:
        """Partitions have an order, what comes in between from others has none."""
        self._variants += 1
        mixed = interleaved(self._messages, Random(self._variants))
        self._note(self._without_faults(mixed, SPREAD), MEETING, lambda place: not self._job.is_ordered(place))

    def _note(self, made: Made, why: str, concerns: Callable[[Place], bool] = lambda _: True) -> None:
        for place, _ in differences(self._job.topology, self.made, made):
            if concerns(place):
                self.open.setdefault(place, why)

    def _without_faults(self, messages: Sequence[Message], scenario: Scenario, split: Collection[str] = ()) -> Made:
        """`split`: operators all of whose key ranges are cut in two in the end."""
        self._runs += 1
        rng = Random(self._runs)
        run = Simulation(scenario, JobWork(self._job, messages, rng), SeededDirector(rng), rng)
        _split(run, split)
        if violations := run.finish():
            what = f"Job {self._job.topology.app!r} does not work off this input even without faults"
            raise ConfigError(
                f"{what}: {violations[0].text}.",
                hint="test its operators with kstate.testing.Driver first, or give other records.",
            )
        return made_by(run.cluster)


def _split(run: Simulation, operators: Collection[str]) -> None:
    """Cut all key ranges of these operators in two, once everything is worked off."""
    if not operators or not run.world.run(run.at_rest, REST_TURNS_MAX):
        return
    plan = run.cluster.plan()
    assert plan is not None, "a cluster at rest has a plan"
    for tile in plan.tiles:
        if tile.shard.operator in operators:
            _carry_out(run, Order(f"split {tile.shard}", OrderKind.SPLIT, tile.shard, at=SLOTS // 2))


def _carry_out(run: Simulation, order: Order) -> None:
    for _ in range(ORDERS_MAX):
        send_order(run.cluster, order)
        if run.world.run(lambda: order.id in run.cluster.verdicts and run.at_rest(), ORDER_TURNS):
            return


@dataclass(slots=True)
class Trial:
    """Runs one job under many seeds. Raises ConfigError for a job, or an input, that does not even run without faults.

    `files`: input topic → JSON lines; without any, `records` are made up.
    """

    job: Job
    files: Mapping[str, Sequence[str]] = field(default_factory=dict)
    records: int = 60
    notices: dict[str, None] = field(default_factory=dict)
    """What people should know, in order of appearance."""
    _prepared: _Prepared = field(init=False)
    _inputs: dict[int, tuple[list[Message], _Wanted]] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self._prepared = _Prepared(self.job)

    def run(self, seed: int) -> Outcome:
        """One seed from end to end."""
        messages, wanted = self._given(seed)
        rng = Random(seed)
        run = some_run(some_scenario(rng), JobWork(self._prepared, messages, rng, wanted), rng)
        expose(run)
        run.finish()
        self.notices |= {f"{'.'.join(place)} is not compared: {why}": None for place, why in wanted.open.items()}
        return run.outcome(seed)

    def _given(self, seed: int) -> tuple[list[Message], _Wanted]:
        """The input of a seed, and what must become of it."""
        number = 0 if self.files else seed // SEEDS_PER_INPUT
        if number not in self._inputs:
            given = self._prepared.input
            if self.files:
                messages = [each for topic, lines in self.files.items() for each in given.read(topic, lines)]
            else:
                messages = given.made_up(Random(number), self.records)
            wanted = _Wanted(self._prepared, messages)
            self._inputs = {number: (messages, wanted)}
            if letters := wanted.made.dead_letters:
                self.notices[f"{letters} of {len(messages)} records become dead letters"] = None
        return self._inputs[number]

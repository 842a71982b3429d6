"""The simulation: a whole cluster on one thread, in virtual time, under a seed's faults, watched by an oracle.

    python -m kstate.testing.simulator --seeds 500 --first 1 --until-failure

A run has two parts. First a job of three operators works off a few dozen records while faults hit workers, leaders and
the log at their named steps. Then all faults end, and the cluster must come to rest with the result that a run without
faults has; not coming to rest is a violation too. The same seed makes the same run.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from random import Random
from time import monotonic

from kstate.adapters.avro import AvroCodecs
from kstate.api.describe import describe
from kstate.api.topology import resolve
from kstate.clock import Step, Steps, run_steps
from kstate.config import EpochSettings, FailureSettings, Settings, StateSettings
from kstate.coordinator.core import Rules
from kstate.coordinator.leader import Leader
from kstate.errors import CorruptStateError, FencedError
from kstate.interfaces import Producer, TopicSpec
from kstate.plan import TopicPartition
from kstate.testing.cluster import Blueprint, Cluster
from kstate.testing.cutting import CuttingLeader
from kstate.testing.memory_log import MemoryReader
from kstate.testing.named_steps import leader_steps, worker_steps
from kstate.testing.oracle import Oracle
from kstate.testing.results import output_violations, state_violations
from kstate.testing.sample_job import JOB, PARTITIONS, TOPICS, Balance, Counted, Fed, expected, some_input
from kstate.testing.schedule import UNIFORM_BLOW, HostileDirector, SeededDirector, some_triggers
from kstate.testing.violations import Kind, Violation
from kstate.testing.world import Status, World

RECORDS = 36
FAULTS_S = 2.0
"""Virtual seconds after which faults end, if the schedule is not spent before."""
STEPS_MAX = 900
"""Steps after which faults end."""
REST_TURNS_MAX = 30_000
"""A cluster without faults that is not at rest after so many turns is wedged."""

FAULTS_MIN_S = 1.0
"""Virtual seconds that every run is open to faults."""
LINGER_TURNS = 300
"""Turns after the cluster came to rest, in which late requests and zombies may still act."""
UNIFORM_SHARE = 0.25
"""Of the seeds; the others are biased."""
BOUNDED_SHARE = 0.12
"""Of the seeds: bounded runs."""
HALTED_SHARE = 0.08
"""Of the others: in the end the job is made to halt."""
FED = Step("fed", wait=0.06)
OBSERVED = Step("observed", wait=0.05)

FAILURE = FailureSettings(
    heartbeat_ms=40, heartbeats_missed=4, transaction_timeout_ms=700, successor_wait_ms=150, stuck_log_ms=5_000
)
"""Real settings, about a tenth as long: the proportions are kept, the idle steps are not."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """What a run is made of, beside its seed."""

    workers: int
    leaders: int
    cutting: bool
    """The leader gives the tiles of the dead in two parts, and joins parts again (S8)."""
    run_bytes: int = 1 << 20
    """`state.store_bytes`: small ones make a restore ingest many files."""
    successor_wait_ms: int = 150
    until_end: bool = False
    """All input is there from the start, and the job ends by itself."""


@dataclass(slots=True)
class Outcome:
    """What became of a seed."""

    seed: int
    violations: list[Violation]
    steps: int
    seconds: float
    """Virtual time."""
    landed: Counter[str]
    coverage: Counter[tuple[str, str]]
    hit: Counter[tuple[str, str]]
    story: str

    def __str__(self) -> str:
        found = "\n".join(f"  {violation}" for violation in self.violations)
        return f"seed {self.seed}: {len(self.violations)} violations\n{found}\nthe story so far:\n{self.story}"


class Simulation:
    """One run, step by step: the tests of single stories drive it by hand, `simulate` from end to end."""

    def __init__(self, seed: int, scenario: Scenario, director: SeededDirector, rng: Random) -> None:
        self.seed = seed
        self.scenario = scenario
        self.director = director
        self.world = World(transaction_timeout_ms=FAILURE.transaction_timeout_ms, auto_deliver=False)
        self.world.director = director
        self.cluster = Cluster(self.world, _blueprint(scenario), director, _Teller(self.world))
        director.cluster = self.cluster
        self.oracle = Oracle(self.cluster)
        self.world.watch = self.oracle.watch
        self.fed = some_input(rng, RECORDS)
        self.world.log.create_topics([TopicSpec(topic, count) for topic, count in TOPICS.items()])
        self.seen: list[Counted | Balance] = []
        """What a read_committed reader has seen of the outputs, in order within each partition."""
        self._reader = MemoryReader(self.world.log)
        self._reader.assign({TopicPartition(topic, p): 0 for topic in ("counts", "totals") for p in range(PARTITIONS)})
        feeding = self._feed(rng)
        if scenario.until_end:
            run_steps(feeding, self.world.clock)
            feeding = _nothing()
        self._feeder = self.world.start("outside", "feeder", "feeder", feeding)
        self.world.start("outside", "observer", "observer", self._observe())
        for number in range(scenario.leaders):
            self.cluster.start_leader(f"l{number}")
        for number in range(scenario.workers):
            self.cluster.start_worker(f"w{number}")

    def at_rest(self) -> bool:
        """Everything was fed, processed and committed; a bounded run has ended."""
        if self.scenario.until_end:
            return self._is_over()
        return self._feeder.status is not Status.RUNNING and self.cluster.settled()

    def feed(self, more: Sequence[Fed]) -> None:
        """Further records, beyond what the source sends."""
        self.fed += more
        for fed in more:
            self.world.log.report(fed.topic, fed.message(self.cluster.blueprint.codecs))

    def finish(self) -> list[Violation]:
        """End all faults, come to rest, and compare; every violation of the run."""
        self.director.end()
        for _ in range(2):
            if not self.world.run(self.at_rest, REST_TURNS_MAX):
                self.oracle.report(Kind.WEDGED, "faults are over, but the cluster does not come to rest")
                break
            for _ in range(LINGER_TURNS):
                self.world.turn()
        self._look()
        self._check_ends()
        for violation in output_violations(self.seen, expected(self.fed)):
            self.oracle.report(*violation)
        if not self.oracle.violations:
            for violation in state_violations(self.cluster, expected(self.fed)):
                self.oracle.report(*violation)
        return self.oracle.violations

    def halt(self) -> None:
        """Something that only people can mend: an input is made anew, with another partition count. All must stop."""
        self.world.log.recreate_topic("lines", PARTITIONS + 1)
        if not self.world.run(self._is_over, REST_TURNS_MAX):
            self.oracle.report(Kind.WEDGED, "the job is to halt, but not everybody stops")

    def outcome(self) -> Outcome:
        """What became of it."""
        world, director = self.world, self.director
        return Outcome(
            self.seed,
            self.oracle.violations,
            world.steps,
            world.clock.now,
            director.landed,
            world.coverage,
            director.hit,
            world.told(),
        )

    def _is_over(self) -> bool:
        """No worker or leader is left, and none will be started."""
        return self.world.quiet and all(process.role == "outside" for process in self.world.running())

    def _check_ends(self) -> None:
        """No process may die of anything but what its contract names."""
        for process in self.world.processes:
            result = process.result
            if isinstance(result, Exception) and not isinstance(result, FencedError | CorruptStateError):
                self.oracle.report(Kind.ERROR, f"{process.incarnation} died of {result!r}")
            elif isinstance(result, int) and result not in (0, FencedError.exit_code):
                self.oracle.report(Kind.ERROR, f"{process.incarnation} ended with exit code {result}")

    def _feed(self, rng: Random) -> Steps[None]:
        """The source: plain records, transactions, and now and then one that is aborted and must never count."""
        producer = self.world.log.producer("source")
        producer.open()
        waiting = list(self.fed)
        self.fed = []
        while waiting:
            batch, waiting = waiting[: (size := rng.randint(1, 8))], waiting[size:]
            if rng.random() < 0.2:
                producer.begin()
                self._send(producer, some_input(rng, 2))
                yield FED
                producer.abort()
            if rng.random() < 0.4:
                producer.begin()
                self._send(producer, batch)
                self.fed += batch
                yield FED
                producer.commit()
            else:
                self.feed(batch)
            yield FED

    def _send(self, producer: Producer, batch: list[Fed]) -> None:
        for fed in batch:
            producer.send(fed.topic, [fed.message(self.cluster.blueprint.codecs)])

    def _observe(self) -> Steps[None]:
        while True:
            self._look()
            yield OBSERVED

    def _look(self) -> None:
        codecs = self.cluster.blueprint.codecs
        for batch in self._reader.poll(1_000, 0.0):
            record = Counted if batch.source.topic == "counts" else Balance
            self.seen += codecs.value(record).decode_many([value or b"" for value in batch.values])


class _Teller:
    """A logger that tells the story."""

    def __init__(self, world: World) -> None:
        self._world = world

    def debug(self, event: str, **fields: object) -> None:
        """Not worth telling."""

    def info(self, event: str, **fields: object) -> None:
        """Not worth telling either."""

    def warning(self, event: str, **fields: object) -> None:
        actor = self._world.current
        who = actor.process.incarnation if actor else "?"
        self._world.tell(who, f"{event} {' '.join(str(value) for value in fields.values())}")

    error = warning


def simulate(seed: int) -> Outcome:
    """Run one seed from end to end."""
    rng = Random(seed)
    scenario = some_scenario(rng)
    uniform = rng.random() < UNIFORM_SHARE
    triggers = () if uniform else some_triggers(rng, rng.randint(6, 12))
    director = HostileDirector(rng, triggers, uniform=UNIFORM_BLOW if uniform else 0.0)
    run = Simulation(seed, scenario, director, rng)
    world = run.world
    while world.clock.now < FAULTS_S and world.steps < STEPS_MAX and not run.oracle.violations:
        if world.clock.now > FAULTS_MIN_S and director.is_spent() and run.at_rest():
            break
        world.turn()
    if not run.finish() and not scenario.until_end and rng.random() < HALTED_SHARE:
        run.halt()
    return run.outcome()


def some_scenario(rng: Random) -> Scenario:
    """Two to four workers, one or two leaders."""
    return Scenario(
        workers=rng.randint(2, 4),
        leaders=rng.randint(1, 2),
        cutting=rng.random() < 0.5,
        run_bytes=rng.choice((256, 1 << 20)),
        until_end=rng.random() < BOUNDED_SHARE,
    )


@cache
def _codecs() -> AvroCodecs:
    return AvroCodecs()


@cache
def _blueprint(scenario: Scenario) -> Blueprint:
    topology, codecs = resolve(JOB), _codecs()
    failure = replace(FAILURE, successor_wait_ms=scenario.successor_wait_ms)
    settings = Settings(
        stream_partitions=PARTITIONS,
        epoch=EpochSettings(records_max=9, poll_records=4),
        state=StateSettings(store_bytes=scenario.run_bytes),
        failure=failure,
    )
    rules = Rules(failure, expected_workers=scenario.workers, settle_ms=100, start_wait_ms=300, linger_ms=200)
    description = describe(topology, lambda type_: codecs.value(type_).schema)
    leader = CuttingLeader if scenario.cutting else Leader
    return Blueprint(topology, description, settings, codecs, rules, leader, scenario.until_end)


def _nothing() -> Steps[None]:
    yield FED


@dataclass(slots=True)
class Summary:
    """The figures of many seeds."""

    seeds: int = 0
    steps: int = 0
    landed: Counter[str] = field(default_factory=Counter)
    coverage: Counter[tuple[str, str]] = field(default_factory=Counter)
    hit: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, outcome: Outcome) -> None:
        """One more seed."""
        self.seeds += 1
        self.steps += outcome.steps
        self.landed += outcome.landed
        self.coverage += outcome.coverage
        self.hit += outcome.hit

    def never_taken(self) -> list[tuple[str, str]]:
        """Steps that exist and were not taken in any seed, as (role, step)."""
        steps = [("worker", step) for step in worker_steps()] + [("leader", step) for step in leader_steps()]
        return sorted(step for step in steps if not self.coverage[step])

    def __str__(self) -> str:
        rows = [f"{'step':28}{'taken':>9}{'hit':>7}"]
        rows += [
            f"{role + ' ' + step:28}{taken:>9}{self.hit[role, step]:>7}"
            for (role, step), taken in sorted(self.coverage.items())
            if role != "outside" and step != "beat"
        ]
        landed = ", ".join(f"{name} {number}" for name, number in self.landed.most_common())
        mean = f"mean {self.steps / self.seeds:.0f} steps and {self.landed.total() / self.seeds:.1f} faults that landed"
        return "\n".join([*rows, f"faults: {landed}", f"{self.seeds} seeds, {mean} per seed"])


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; exit code 1 when a violation was found."""
    parser = ArgumentParser(prog="python -m kstate.testing.simulator", description="Simulate clusters under faults.")
    parser.add_argument("--first", type=int, default=1, help="the first seed")
    parser.add_argument("--seeds", type=int, default=500, help="how many seeds")
    parser.add_argument("--until-failure", action="store_true", help="stop at the first violation and tell its story")
    options = parser.parse_args(arguments)
    summary, failed, started = Summary(), 0, monotonic()
    for seed in range(options.first, options.first + options.seeds):
        outcome = simulate(seed)
        summary.add(outcome)
        if outcome.violations:
            failed += 1
            _say(outcome if options.until_failure else f"seed {seed}: {outcome.violations[0]}")
            if options.until_failure:
                break
    rate = summary.seeds / (monotonic() - started) * 60
    _say(summary)
    _say(f"{rate:.0f} seeds a minute, {failed} with violations; steps never taken: {summary.never_taken() or 'none'}")
    return 1 if failed else 0


def _say(what: object) -> None:
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())

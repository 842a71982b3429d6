"""One simulated run: a whole cluster on one thread, in virtual time, watched by an oracle.

`Simulation` is driven from outside: by hand in the tests of single stories (kstate.testing.story), by seed in
kstate.testing.simulator.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from random import Random

from kstate.clock import Step, Steps, run_steps
from kstate.config import EpochSettings, FailureSettings, RebaseSettings, RecoverySettings, Settings, StateSettings
from kstate.coordinator.core import Rules
from kstate.errors import CorruptStateError, FencedError
from kstate.interfaces import TopicSpec
from kstate.testing.cluster import Blueprint, Cluster
from kstate.testing.exposure import Combination, Exposure
from kstate.testing.oracle import Oracle
from kstate.testing.orders import Person
from kstate.testing.schedule import SeededDirector
from kstate.testing.violations import Kind, Violation
from kstate.testing.work import Work
from kstate.testing.world import Process, Status, World

REST_TURNS_MAX = 12_000
"""A cluster without faults that is not at rest after so many turns is wedged."""
LINGER_TURNS = 80
"""Turns after the cluster came to rest, in which late requests and zombies may still act."""
STREAM_PARTITIONS = 2
OBSERVED = Step("observed", wait=0.1)

FAILURE = FailureSettings(
    heartbeat_ms=50,
    heartbeats_missed=4,
    transaction_timeout_ms=700,
    successor_wait_ms=150,
    restart_wait_ms=1_500,
    stuck_log_ms=5_000,
)
"""Real settings, about a tenth as long: the proportions are kept, the idle steps are not."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """What a run is made of, beside its seed and its work."""

    workers: int
    leaders: int
    orders: int = 0
    """Moves that somebody orders."""
    recovery: RecoverySettings = field(default_factory=RecoverySettings)
    run_bytes: int = 1 << 20
    """`state.store_bytes`: small ones make a restore ingest many files."""
    rebase: RebaseSettings = field(default_factory=RebaseSettings)
    """Small ones: state is written anew and logs are trimmed all the time."""
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
    combinations: Counter[Combination]
    answers: Counter[str]
    """Orders, by what was answered."""
    story: str

    def __str__(self) -> str:
        found = "\n".join(f"  {violation}" for violation in self.violations)
        return f"seed {self.seed}: {len(self.violations)} violations\n{found}\nthe story so far:\n{self.story}"


class Simulation:
    """One run, step by step."""

    def __init__(self, scenario: Scenario, work: Work, director: SeededDirector, rng: Random) -> None:
        self.scenario = scenario
        self.work = work
        self.director = director
        self.world = World(transaction_timeout_ms=FAILURE.transaction_timeout_ms, auto_deliver=False)
        self.world.director = director
        self.cluster = Cluster(self.world, blueprint_of(scenario, work), director, _Teller(self.world))
        director.cluster = self.cluster
        self.oracle = Oracle(self.cluster)
        self.exposure = Exposure(self.cluster, self.oracle.handovers)
        self.world.watch = self._watch
        self.world.log.create_topics([TopicSpec(topic, count) for topic, count in work.topics.items()])
        self._outside = [self._source(), *self._people(rng)]
        self.world.start("outside", "observer", "observer", self._observe())
        for number in range(scenario.leaders):
            self.cluster.start_leader(f"l{number}")
        for number in range(scenario.workers):
            self.cluster.start_worker(f"w{number}")

    def at_rest(self) -> bool:
        """Everything was fed, ordered, processed and committed; a bounded run has ended."""
        if self.scenario.until_end:
            return self._is_over()
        return all(process.status is not Status.RUNNING for process in self._outside) and self.cluster.settled()

    def finish(self) -> list[Violation]:
        """End all faults, come to rest, and compare; every violation of the run."""
        self.director.end()
        for linger in (LINGER_TURNS, 0):
            if not self.world.run(lambda: self.at_rest() or self._is_over(), REST_TURNS_MAX):
                self.oracle.report(Kind.WEDGED, f"faults are over, but not all comes to rest: {self.unrest()}")
                self._check_ends()
                return self.oracle.violations
            for _ in range(linger):
                self.world.turn()
        self._check_ends()
        self.work.look(self.world.log)
        for violation in self.work.violations(self.cluster):
            self.oracle.report(*violation)
        return self.oracle.violations

    def halt(self, topic: str, partitions: int) -> None:
        """Something that only people can mend: an input is made anew, with another partition count. All must stop."""
        self.world.log.recreate_topic(topic, partitions)
        if not self.world.run(self._is_halted, REST_TURNS_MAX):
            self.oracle.report(Kind.WEDGED, "the job is to halt, but not everybody stops")

    def unrest(self) -> str:
        """What is still going on, for people."""
        busy = [process.name for process in self._outside if process.status is Status.RUNNING]
        return "; ".join([*(f"{name} is not done" for name in busy), *self.cluster.unrest()])

    def outcome(self, seed: int) -> Outcome:
        """What became of it."""
        world, director = self.world, self.director
        return Outcome(
            seed,
            self.oracle.violations,
            world.steps,
            world.clock.now,
            director.landed,
            world.coverage + director.taken,
            director.hit,
            self.exposure.seen,
            Counter(answers[0] for answers in self.cluster.verdicts.values()),
            world.told(),
        )

    def _watch(self) -> None:
        self.oracle.watch()
        self.exposure.look()

    def _source(self) -> Process:
        steps = self.work.source(self.world.log)
        if self.scenario.until_end:
            run_steps(steps, self.world.clock)
            steps = _nothing()
        return self.world.start("outside", "feeder", "feeder", steps)

    def _people(self, rng: Random) -> list[Process]:
        if not self.scenario.orders:
            return []
        person = Person(self.cluster, rng, self.scenario.orders)
        return [self.world.start("outside", "person", "person", person.orders())]

    def _is_over(self) -> bool:
        """No worker or leader is left, and none will be started."""
        return self.world.quiet and all(process.role == "outside" for process in self.world.running())

    def _is_halted(self) -> bool:
        """Nobody is left but workers whom no plan names: they wait for somebody who leads the job again."""
        plan = self.cluster.plan()
        members = {member.incarnation for member in plan.members} if plan else set()
        left = [process for process in self.world.running() if process.role != "outside"]
        return self.world.quiet and all(p.main.at == "waiting" and p.incarnation not in members for p in left)

    def _check_ends(self) -> None:
        """No process may die of anything but what its contract names."""
        for process in self.world.processes:
            result = process.result
            if isinstance(result, Exception) and not isinstance(result, FencedError | CorruptStateError):
                self.oracle.report(Kind.ERROR, f"{process.incarnation} died of {result!r}")
            elif isinstance(result, int) and result not in (0, FencedError.exit_code):
                self.oracle.report(Kind.ERROR, f"{process.incarnation} ended with exit code {result}")

    def _observe(self) -> Steps[None]:
        while True:
            self.work.look(self.world.log)
            yield OBSERVED


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


def blueprint_of(scenario: Scenario, work: Work) -> Blueprint:
    """What all processes are made from: small epochs, and everything about ten times as quick as in reality."""
    failure = replace(FAILURE, successor_wait_ms=scenario.successor_wait_ms)
    settings = Settings(
        stream_partitions=STREAM_PARTITIONS,
        epoch=EpochSettings(records_max=9, poll_records=4),
        state=StateSettings(store_bytes=scenario.run_bytes),
        rebase=scenario.rebase,
        failure=failure,
        recovery=scenario.recovery,
    )
    rules = Rules(failure, scenario.workers, 100, 300, linger_ms=200, recovery=scenario.recovery)
    return Blueprint(work.topology, work.description, settings, work.codecs, rules, until_end=scenario.until_end)


def _nothing() -> Steps[None]:
    yield OBSERVED

"""The simulation: a whole cluster on one thread, in virtual time, under a seed's faults, watched by an oracle.

    python -m kstate.testing.simulator --seeds 500 --first 1 --until-failure

A run has two parts. First a job of three operators works off a few dozen records while somebody orders moves, and
faults hit workers, leaders and the log at their named steps. Then all faults end, and the cluster must come to rest
with the result that a run without faults has; not coming to rest is a violation too. The same seed makes the same run.
"""

from __future__ import annotations

import gc
import sys
from argparse import ArgumentParser
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from random import Random
from time import monotonic

from kstate.config import RebaseSettings, RecoverySettings
from kstate.testing.sample_job import PARTITIONS
from kstate.testing.schedule import UNIFORM_BLOW, HostileDirector, some_triggers
from kstate.testing.simulation import Outcome, Scenario, Simulation
from kstate.testing.summary import Summary
from kstate.testing.work import SampleWork, Work

FAULTS_S = 1.7
"""Virtual seconds after which faults end, if the schedule is not spent before."""
STEPS_MAX = 750
"""Steps after which faults end."""
FAULTS_MIN_S = 1.0
"""Virtual seconds that every run is open to faults."""
UNIFORM_SHARE = 0.25
"""Of the seeds; the others are biased."""
BOUNDED_SHARE = 0.12
"""Of the seeds: bounded runs."""
HALTED_SHARE = 0.08
"""Of the others: in the end the job is made to halt."""
RESTLESS = RebaseSettings(grown_bytes=100, slice_bytes=50, log_bytes=500, trim_every_ms=150, plans_kept=2)
"""State is written anew all the time, a few keys with each epoch."""
REMEMBERING = replace(RESTLESS, history_ms=400)
"""And some of the past is kept."""
CHUNK = 8
"""Seeds that a process is given at once."""
QUIET_SHARE = 0.2
"""Of the seeds: nobody orders anything."""


def simulate(seed: int) -> Outcome:
    """Run one seed from end to end."""
    rng = Random(seed)
    scenario = some_scenario(rng)
    with no_collection():
        run = some_run(scenario, SampleWork(rng), rng)
        expose(run)
        if not run.finish() and not scenario.until_end and rng.random() < HALTED_SHARE:
            run.halt("lines", PARTITIONS + 1)
        return run.outcome(seed)


@contextmanager
def no_collection() -> Iterator[None]:
    """A run makes many objects and drops few cycles: looking for them would take a tenth of its time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def some_scenario(rng: Random) -> Scenario:
    """Two to four workers, one or two leaders, any way to recover."""
    return Scenario(
        workers=rng.randint(2, 4),
        leaders=rng.randint(1, 2),
        orders=0 if rng.random() < QUIET_SHARE else rng.randint(1, 5),
        recovery=RecoverySettings(standbys=rng.choice((0, 0, 1, 2)), parallelism=rng.randint(1, 3)),
        rebase=rng.choice((RebaseSettings(), RESTLESS, REMEMBERING)),
        run_bytes=rng.choice((256, 1 << 20)),
        until_end=rng.random() < BOUNDED_SHARE,
    )


def some_run(scenario: Scenario, work: Work, rng: Random) -> Simulation:
    """A run under a schedule of faults, uniform or biased."""
    uniform = rng.random() < UNIFORM_SHARE
    triggers = () if uniform else some_triggers(rng, rng.randint(6, 12), moves=scenario.orders > 0)
    director = HostileDirector(rng, triggers, uniform=UNIFORM_BLOW if uniform else 0.0)
    return Simulation(scenario, work, director, rng)


def expose(run: Simulation) -> None:
    """Let a run go on while faults hit it."""
    world, director = run.world, run.director
    while world.clock.now < FAULTS_S and world.steps < STEPS_MAX and not run.oracle.violations:
        if world.clock.now > FAULTS_MIN_S and director.is_spent() and run.at_rest():
            break
        world.turn()


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; exit code 1 when a violation was found."""
    parser = ArgumentParser(prog="python -m kstate.testing.simulator", description="Simulate clusters under faults.")
    parser.add_argument("--first", type=int, default=1, help="the first seed")
    parser.add_argument("--seeds", type=int, default=500, help="how many seeds")
    parser.add_argument("--until-failure", action="store_true", help="stop at the first violation and tell its story")
    parser.add_argument("--processes", type=int, default=1, help="so many at once")
    options = parser.parse_args(arguments)
    summary, failed, started = Summary(), 0, monotonic()
    seeds = range(options.first, options.first + options.seeds)
    with closing(_outcomes(seeds, options.processes)) as outcomes:
        for outcome in outcomes:
            summary.add(outcome)
            if outcome.violations:
                failed += 1
                _say(outcome if options.until_failure else f"seed {outcome.seed}: {outcome.violations[0]}")
                if options.until_failure:
                    break
    rate = summary.seeds / (monotonic() - started) * 60
    _say(summary)
    _say(f"{rate:.0f} seeds a minute, {failed} with violations; steps never taken: {summary.never_taken() or 'none'}")
    return 1 if failed else 0


def _outcomes(seeds: Sequence[int], processes: int) -> Generator[Outcome]:
    """In the order of the seeds."""
    if processes == 1:
        yield from map(simulate, seeds)
        return
    with ProcessPoolExecutor(processes) as pool:
        try:
            yield from pool.map(simulate, seeds, chunksize=CHUNK)
        finally:
            pool.shutdown(cancel_futures=True)


def _say(what: object) -> None:
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())

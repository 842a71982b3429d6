"""Whole clusters under faults, by seed: nothing is lost, doubled, or owned twice, and the faults were worth surviving.

A failure prints the seed and its story; to have it told again:
python -m kstate.testing.simulator --first SEED --seeds 1 --until-failure
"""

from __future__ import annotations

import sys
from collections import Counter
from random import Random
from time import process_time

import pytest

from kstate.config import RecoverySettings
from kstate.testing.schedule import HostileDirector
from kstate.testing.simulation import Outcome, Scenario, Simulation
from kstate.testing.simulator import simulate
from kstate.testing.summary import Summary
from kstate.testing.work import SampleWork

SEEDS = range(1, 301)
CPU_SEEDS_PER_MINUTE_MIN = 200
"""A quiet machine does some 600; below this the world has become too dear to be run often."""

pytestmark = [pytest.mark.simulation, pytest.mark.slow]


@pytest.fixture(scope="module")
def outcomes() -> tuple[Summary, list[Outcome], float]:
    """All seeds: their figures, those with violations, and seeds per minute of processor time."""
    summary, failed, started = Summary(), list[Outcome](), process_time()
    for seed in SEEDS:
        outcome = simulate(seed)
        summary.add(outcome)
        if outcome.violations:
            failed.append(outcome)
    rate = summary.seeds / (process_time() - started) * 60
    return summary, failed, rate


def test_no_seed_finds_a_violation(outcomes: tuple[Summary, list[Outcome], float]) -> None:
    """Outputs, order per key, state, single ownership, plans: all as in a run without faults."""
    _, failed, _ = outcomes
    assert not failed, str(failed[0])


def test_the_seeds_are_hard(outcomes: tuple[Summary, list[Outcome], float], capsys: pytest.CaptureFixture[str]) -> None:
    """On average at least 300 steps and 3 faults that landed, and every step that exists was taken."""
    summary, _, rate = outcomes
    with capsys.disabled():
        sys.stdout.write(f"\n{summary}; {rate:.0f} seeds per minute of processor time\n")
    assert summary.steps / summary.seeds >= 300
    assert summary.landed.total() / summary.seeds >= 3
    assert summary.never_taken() == []


def test_every_window_of_an_epoch_was_hit(outcomes: tuple[Summary, list[Outcome], float]) -> None:
    """From the begin of a transaction to the write to the local store, and while a range is restored."""
    summary, _, _ = outcomes
    windows = "begun outputs-sent blocks-sent markers-sent flushed committed stored tainted restore-read restored"
    assert [step for step in windows.split() if not summary.hit["worker", step]] == []


def test_moves_were_met_in_many_situations(outcomes: tuple[Summary, list[Outcome], float]) -> None:
    """At each stage, with its source, its target and the leader in all conditions; each of the three was hit there."""
    summary, _, _ = outcomes
    assert len(summary.combinations) >= 100
    assert {combination.stage for combination in summary.combinations} == {"warm", "ordered", "released", "adopted"}
    every = {"well", "held", "in doubt", "gone", "dead", "out"}
    assert {combination.source for combination in summary.combinations} == every
    assert {combination.target for combination in summary.combinations} == every
    hits = Counter(role for role, _ in summary.hit.elements())
    assert all(hits[role] >= 5 for role in ("source", "releaser", "target", "adopter", "mover"))
    assert all(summary.answers[answer] > 20 for answer in ("begun", "refused", "nothing to do"))


def test_it_is_cheap_enough_to_be_run_often(outcomes: tuple[Summary, list[Outcome], float]) -> None:
    """Hundreds of seeds a minute."""
    _, _, rate = outcomes
    assert rate >= CPU_SEEDS_PER_MINUTE_MIN


def test_the_same_seed_tells_the_same_story() -> None:
    """Otherwise a failure could not be told again."""
    first, second = simulate(7), simulate(7)
    assert (first.story, first.steps, first.landed) == (second.story, second.steps, second.landed)


@pytest.mark.parametrize(
    "scenario",
    [
        Scenario(workers=1, leaders=1),
        Scenario(workers=3, leaders=2, orders=6, recovery=RecoverySettings(standbys=1, parallelism=2)),
        Scenario(workers=2, leaders=1, until_end=True),
    ],
)
def test_without_faults_the_result_is_the_one_computed_offline(scenario: Scenario) -> None:
    """What all other runs are compared with is what the engine does when nothing happens to it."""
    rng = Random(1)
    director = HostileDirector(rng, (), uniform=0.0)
    director.calm = True
    work = SampleWork(rng)
    run = Simulation(scenario, work, director, rng)
    assert run.world.run(run.at_rest, 20_000)
    assert run.finish() == []
    assert director.landed.total() == 0
    assert len(work.seen) > 50

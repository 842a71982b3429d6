"""P9 and P10 of the review: the bound of a trim, and a reader below the log start; each breaks without its rule."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kstate.config import RecoverySettings
from kstate.coordinator import trimming
from kstate.coordinator.evidence import Evidence
from kstate.keyspace import FULL_RANGE, KeyRange
from kstate.messages import TilePhase, TileReport
from kstate.plan import Plan, TopicPartition, backup_topic
from kstate.state import checkpoint
from kstate.state.checkpoint import BaseSlice
from kstate.state.layout import parse_suffix, shard_bounds, shard_prefix
from kstate.state.lineage import Lineage
from kstate.testing.simulator import RESTLESS
from kstate.testing.story import STORY, Story
from kstate.testing.violations import Kind
from kstate.testing.world import Process
from tests.support.stage import SHARD, UPPER, cast

SEEDS = range(1, 6)
REBASING = replace(STORY, rebase=RESTLESS)
ABSENT = replace(REBASING, successor_wait_ms=30_000)
"""Nobody else gets what somebody will be back for."""
STANDBY = replace(REBASING, recovery=RecoverySettings(standbys=1))
A_WHILE = 3_000

pytestmark = pytest.mark.simulation


def log_start(story: Story) -> int:
    """Of the shard's backup log."""
    source = TopicPartition(backup_topic("sim", SHARD.operator), SHARD.partition)
    return story.world.log.start_offsets([source])[source]


def goes_on(story: Story, turns: int = A_WHILE) -> None:
    """Records come, for so long."""
    for _ in range(turns // 100):
        story.feed(4)
        story.turns(100)


def middle_of(story: Story, owner: Process) -> KeyRange:
    """The slot of one of the shard's keys, so that others stand on both sides of it."""
    plan = story.cluster.plan()
    assert plan is not None
    prefix = shard_prefix(plan.registry.operators[SHARD.operator], SHARD.partition)
    bounds = shard_bounds(plan.registry.operators[SHARD.operator], SHARD.partition, FULL_RANGE)
    slots = sorted({parse_suffix(key[len(prefix) :]).slot for key, _ in story.cluster.stores[owner.name].scan(*bounds)})
    assert len(slots) >= 3
    return KeyRange(slots[len(slots) // 2], slots[len(slots) // 2] + 1)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_partition_of_which_its_owner_has_two_ranges_is_trimmed(seed: int) -> None:
    """Their markers are in one transaction; each of them is where its report says."""
    story = Story(seed, REBASING)
    source, (other, *_) = cast(story)
    story.feed(100)
    story.turns(800)
    story.moved(SHARD, middle_of(story, source), other)
    before = log_start(story)
    for _ in range(10):
        if log_start(story) == before:
            goes_on(story)
    assert log_start(story) > before
    assert story.verdict() == set()


# P9: trim by what is known of the tiles that somebody owns


def a_range_is_nobodys_while_another_goes_on(story: Story) -> None:
    """The upper half's owner dies and is expected back; the lower half is written anew, over and over."""
    _, (other, *_) = cast(story)
    story.feed(20)
    story.moved(SHARD, UPPER, other)
    story.feed(20)
    story.turns(300)
    story.director.restart_s = 5.0
    story.world.crash(other)
    goes_on(story)


@pytest.mark.parametrize("seed", SEEDS)
def test_p9_the_base_of_a_range_that_nobody_owns_is_kept(seed: int) -> None:
    """However far the other one's has come."""
    story = Story(seed, ABSENT)
    a_range_is_nobodys_while_another_goes_on(story)
    assert story.verdict() == set()


def test_p9_trimming_by_those_who_report_loses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is gone cannot be restored; rule S5 proves it, and the worker that is to have the range stops."""
    claims = trimming.claims

    def of_those_who_report(plan: Plan, evidence: Evidence) -> object:
        there = tuple(t for t in plan.tiles if t.worker and evidence.running(t.worker, t.shard))
        return claims(replace(plan, tiles=there), evidence)

    monkeypatch.setattr(trimming, "claims", of_those_who_report)
    found: set[Kind] = set()
    for seed in SEEDS:
        story = Story(seed, ABSENT)
        a_range_is_nobodys_while_another_goes_on(story)
        found |= story.verdict()
    assert Kind.ERROR in found


# P9: the start of a cycle that runs is no base


def an_owner_dies_in_mid_cycle(story: Story) -> None:
    """And with it its local copy: its heir has what the log has."""
    source, _ = cast(story)
    story.feed(40)
    goes_on(story, 2_000)
    story.until(lambda: in_mid_cycle(story, source))
    story.turns(30)
    story.world.crash(source)
    goes_on(story, 600)


def in_mid_cycle(story: Story, process: Process) -> bool:
    """A cycle of a worker has begun."""
    worker = story.cluster.live.get(process.incarnation)
    courses = worker._epoch._rebasing._courses if worker else {}
    return any(course.cycle is not None for (shard, _), course in courses.items() if shard == SHARD)


@pytest.mark.parametrize("seed", SEEDS)
def test_p9_an_heir_restores_from_the_last_finished_cycle(seed: int) -> None:
    """Whatever was trimmed by then."""
    story = Story(seed, REBASING)
    an_owner_dies_in_mid_cycle(story)
    assert log_start(story) > 0
    assert story.verdict() == set()


def test_p9_taking_the_start_of_a_running_cycle_for_a_base_loses_state(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slots that the cycle had not come to yet are in nothing that is left."""

    def at_once(behind: Lineage, written: BaseSlice | None) -> int:
        inherited = min((position.base for position in behind.values()), default=0)
        return inherited if written is None else max(inherited, written.start)

    monkeypatch.setattr(checkpoint, "_base", at_once)
    found: set[Kind] = set()
    for seed in range(1, 26):
        story = Story(seed, replace(REBASING, rebase=replace(RESTLESS, slice_bytes=1)))
        an_owner_dies_in_mid_cycle(story)
        found |= story.verdict()
    assert found & {Kind.STATE, Kind.LOST}


# P10: a reader that falls below the log start starts over


@pytest.mark.parametrize("seed", SEEDS)
def test_p10_a_standby_that_fell_below_the_log_start_starts_over(seed: int) -> None:
    """It stood still while keys came, were deleted and trimmed away; then it takes over."""
    story = Story(seed, STANDBY)
    source, (standby, *_) = cast(story)
    story.feed(20)
    assert story.until(lambda: any(t.phase is TilePhase.WARM for t in reports(story, standby.incarnation)))
    story.slow(standby)
    before = log_start(story)
    goes_on(story)
    assert log_start(story) > before + 5, "trimmed while it stood still"
    story.release(standby)
    story.turns(200)
    story.world.crash(source)
    goes_on(story, 600)
    assert story.verdict() == set()


def reports(story: Story, incarnation: str) -> tuple[TileReport, ...]:
    """What a worker says of the shard."""
    worker = story.cluster.live.get(incarnation)
    return tuple(t for t in worker.load.snapshot.tiles if t.shard == SHARD) if worker else ()

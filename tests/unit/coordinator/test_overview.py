"""How a job stands, by its topics alone."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import pytest

from kstate.coordinator.observed import FORGET_MS, Observed, control_read, report_read
from kstate.coordinator.overview import Surroundings, overview
from kstate.coordinator.status import MoveStatus, Overview, ShardStatus, WorkerStatus
from kstate.keyspace import KeyRange
from kstate.messages import (
    Control,
    Fatality,
    Heartbeat,
    JobHalted,
    LeaderBeat,
    PlanPublished,
    Report,
    TermStarted,
    WorkerDied,
)
from kstate.plan import Member, MovePhase, Parked, Plan, Shard, Standby, TopicPartition
from tests.support.onlookers import COUNT, HIGH, LEADER, LOW, A, B, beat, move, piece, plan, tile

NOW = 10_000
SILENCE = 1_600
ENDS = {TopicPartition("words", 0): 100, TopicPartition("words", 1): 50}


def seen(*events: tuple[int, Control | Report]) -> Observed:
    """What was read, each with the time at which it was written."""
    observed = Observed()
    for at_ms, event in events:
        if isinstance(event, Heartbeat | LeaderBeat):
            observed = report_read(observed, event, at_ms)
        else:
            observed = control_read(observed, event, at_ms)  # type: ignore[arg-type]
    return observed


def shown(made: Plan | None = None, *beats: Heartbeat, more: tuple[Control, ...] = ()) -> Overview:
    """A job with a plan, all that was said just now."""
    events: list[tuple[int, Any]] = [(1_000, TermStarted(1, LEADER)), (NOW, LeaderBeat(1, LEADER))]
    events.insert(1, (2_000, PlanPublished(made or plan(), "first plan")))
    events += [(5_000, message) for message in more]
    events += [(NOW - 100, each) for each in beats]
    return overview("app", seen(*events), Surroundings(ENDS, NOW, SILENCE))


def first_shard(*beats: Heartbeat, made: Plan | None = None, more: tuple[Control, ...] = ()) -> ShardStatus:
    """The shard with the lowest keys of partition 0."""
    return shown(made, *beats, more=more).shards[0]


def state_of(member: Member, found: Overview) -> str:
    """How a worker stands."""
    (worker,) = [each for each in found.workers if each.id == member.incarnation]
    return worker.state


# -- the job


def test_a_job_that_runs() -> None:
    """Plan, leader, and everybody by name."""
    found = shown(None, beat(A), beat(B))
    assert (found.app, found.state, found.plan_version, found.build) == ("app", "running", 1, "b1")
    assert found.leader is not None
    assert (found.leader.name, found.leader.term, found.leader.state, found.leader.beat_age_s) == (
        LEADER,
        1,
        "leading",
        0,
    )
    assert [(w.name, w.id, w.host, w.pid, w.state) for w in found.workers] == [
        ("worker-1", "worker-1.a", "host", 7, "running"),
        ("worker-2", "worker-2.a", "host", 7, "running"),
    ]


@pytest.mark.parametrize(
    ("events", "state"),
    [
        ((), "no leader"),
        (((1_000, TermStarted(1, LEADER)),), "no leader"),
        (((1_000, TermStarted(1, LEADER)), (NOW, LeaderBeat(1, LEADER))), "starting"),
        (((1_000, TermStarted(1, LEADER)), (2_000, PlanPublished(plan())), (NOW, LeaderBeat(1, LEADER))), "no workers"),
        (((1_000, TermStarted(1, LEADER)), (NOW - 1_700, LeaderBeat(1, LEADER))), "no leader"),
        (
            ((1_000, TermStarted(1, LEADER)), (2_000, PlanPublished(replace(plan(), bounded=True, complete=True)))),
            "complete",
        ),
        (((1_000, TermStarted(1, LEADER)), (2_000, JobHalted(1, "why", 2))), "halted"),
    ],
)
def test_a_job_that_does_not(events: tuple[tuple[int, Any], ...], state: str) -> None:
    """Whoever is missing is said first."""
    assert overview("app", seen(*events), Surroundings({}, NOW, SILENCE)).state == state


def test_a_beat_of_an_older_term_is_no_sign_of_a_leader() -> None:
    """A leader that was replaced may go on beating for a moment."""
    observed = seen((1, TermStarted(1, LEADER)), (2, TermStarted(2, "leader.b")), (NOW, LeaderBeat(1, LEADER)))
    assert overview("app", observed, Surroundings({}, NOW, SILENCE)).state == "no leader"


# -- workers


@pytest.mark.parametrize(
    ("made", "heard", "state"),
    [
        (plan(), beat(B), "running"),
        (plan(), beat(B, piece(phase="restoring")), "restoring"),
        (plan(), beat(B, leaving=True), "leaving"),
        (plan(drained=(B.incarnation,)), beat(B), "draining"),
        (plan(), replace(beat(B), build="b2"), "of another build"),
        (plan(members=(A,)), beat(B), "waiting"),
    ],
)
def test_a_worker_stands_as_it_says_and_as_the_plan_says(made: Plan, heard: Heartbeat, state: str) -> None:
    """One word each."""
    assert state_of(B, shown(made, beat(A), heard)) == state


def test_a_member_that_is_not_heard_is_silent() -> None:
    """It is listed all the same, by the name that the plan has for it."""
    found = shown(None, beat(A))
    assert state_of(B, found) == "silent"
    assert found.workers[1].name == "worker-2"
    assert found.workers[1].beat_age_s is None


def test_the_dead_are_listed_while_they_own_something() -> None:
    """Until their tiles are given away."""
    died = WorkerDied(1, B.incarnation, "silent")
    found = shown(None, beat(A), beat(B), more=(died,))
    assert state_of(B, found) == "dead"
    assert found.shards[1].phase == "lost"
    given = PlanPublished(plan(2, tile(A), tile(A, shard=Shard("count", 1)), members=(A,)), "tiles to worker-1")
    assert [w.name for w in shown(None, beat(A), beat(B), more=(died, given)).workers] == ["worker-1"]


def test_load_is_how_busy_a_worker_is_and_how_much_it_has() -> None:
    """Tiles by the plan."""
    found = shown(plan(1, tile(A, LOW), tile(A, HIGH)), beat(A, busy_percent=42), beat(B))
    assert [(w.load.busy_percent, w.load.tiles) for w in found.workers] == [(42, 2), (0, 0)]


# -- shards


def test_lag_is_what_stands_behind_the_progress() -> None:
    """End offset minus next offset, over all inputs."""
    found = first_shard(beat(A, piece(at=93, state_bytes=1000)), beat(B))
    assert (found.phase, found.progress, found.lag, found.epoch, found.state_bytes) == (
        "running",
        {"words": 93},
        7,
        5,
        1000,
    )
    assert (found.operator, found.partition, found.lo, found.hi) == ("count", 0, 0, 0x10000)
    assert (found.worker, found.incarnation, found.grant) == ("worker-1", A.incarnation, 1)


def test_of_several_pieces_the_one_that_is_least_far_counts() -> None:
    """Pieces of a tile run side by side until they stand at the same progress."""
    found = first_shard(beat(A, piece(LOW, at=90, state_bytes=1), piece(HIGH, at=80, state_bytes=2)))
    assert (found.progress, found.lag, found.state_bytes, found.phase) == ({"words": 80}, 20, 3, "running")


@pytest.mark.parametrize(
    ("made", "pieces", "phase"),
    [
        (plan(), (), "waiting"),
        (plan(), (piece(LOW),), "waiting"),
        (plan(), (piece(phase="restoring"),), "restoring"),
        (plan(), (piece(phase="warm"),), "waiting"),
        (plan(2, tile(A), moves=(move(phase=MovePhase.RELEASE),)), (piece(LOW),), "running"),
        (plan(2, tile(A), moves=(move(phase=MovePhase.WARM),)), (piece(LOW),), "waiting"),
        (plan(2, tile(A, HIGH), tile(B, LOW), moves=(move(phase=MovePhase.RELEASE),)), (), "moving"),
    ],
)
def test_a_shard_runs_when_its_worker_reports_all_that_it_still_has(made: Plan, pieces: Any, phase: str) -> None:
    """What it has released is the target's affair."""
    found = shown(made, beat(A, *pieces), beat(B))
    (mine,) = [shard for shard in found.shards if shard.incarnation == A.incarnation]
    assert mine.phase == phase


def test_a_shard_without_a_worker_says_why_if_somebody_knows() -> None:
    """Parked, or waiting for a worker."""
    parked = (Parked(COUNT, HIGH, "count[0] killed three processes at words[0]@17"),)
    low, high = shown(plan(1, tile(None, LOW), tile(None, HIGH), parked=parked), beat(A)).shards
    assert (low.phase, low.parked, low.worker) == ("unowned", None, None)
    assert (high.phase, high.parked) == ("parked", "count[0] killed three processes at words[0]@17")


def test_what_has_killed_processes_is_counted() -> None:
    """Before it is parked; another worker's share counts, too, a dead one's does not."""
    deaths = (Fatality(COUNT, HIGH, "words", 17, 1),)
    cut = plan(1, tile(A, LOW), tile(A, HIGH))
    found = shown(cut, beat(A, fatalities=deaths), beat(B, fatalities=deaths))
    assert [shard.deaths for shard in found.shards] == [0, 2]
    found = shown(
        cut, beat(A, fatalities=deaths), beat(B, fatalities=deaths), more=(WorkerDied(1, B.incarnation, "x"),)
    )
    assert [shard.deaths for shard in found.shards] == [0, 1]


def test_standbys_stand_with_the_shard_that_they_copy() -> None:
    """With the distance of the part that is least far; one that says nothing yet is starting."""
    made = plan(
        1,
        tile(A, LOW),
        tile(A, HIGH),
        standbys=(Standby(COUNT, LOW, B.incarnation), Standby(COUNT, HIGH, B.incarnation)),
    )
    copies = beat(B, piece(KeyRange(0, 9), "warm", behind=1), piece(KeyRange(9, 0x8000), "warming", behind=30))
    low, high = shown(made, beat(A), copies).shards
    assert [(s.worker, s.phase, s.behind) for s in low.standbys] == [("worker-2", "warming", 30)]
    assert [(s.worker, s.phase, s.behind) for s in high.standbys] == [("worker-2", "starting", 0)]


def test_lag_is_unknown_where_the_end_or_the_progress_is() -> None:
    """No guess."""
    assert first_shard(beat(A, piece(phase="restoring"))).lag is None
    observed = seen((1, TermStarted(1, LEADER)), (2, PlanPublished(plan())), (NOW, beat(A, piece(at=5))))
    assert overview("app", observed, Surroundings({}, NOW, SILENCE)).shards[0].lag is None


# -- moves and decisions


def test_a_move_has_its_ages_and_the_state_of_its_copy() -> None:
    """Since it was decided, and since its phase began."""
    warm = PlanPublished(plan(2, tile(A), moves=(move(order="o1"),)), "ordered", "o1")
    release = PlanPublished(plan(3, tile(A), moves=(move(order="o1", phase=MovePhase.RELEASE),)), "warm")
    observed = seen(
        (1, TermStarted(1, LEADER)),
        (2_000, PlanPublished(plan())),
        (4_000, warm),
        (9_000, release),
        (NOW, beat(B, piece(HIGH, "warm", grant=2, behind=3), piece(LOW, "warming", grant=2, behind=99))),
    )
    (found,) = overview("app", observed, Surroundings(ENDS, NOW, SILENCE)).moves
    assert found == MoveStatus(
        2, "release", 6.0, 1.0, "count", 0, 0x8000, 0x10000, "worker-1", "worker-2", 2, "o1", "warm", 3
    )


def test_a_copy_of_an_earlier_grant_is_not_the_moves() -> None:
    """A standby of the same range, say."""
    made = plan(2, tile(A), moves=(move(),))
    (found,) = shown(made, beat(A), beat(B, piece(HIGH, "warm", grant=1))).moves
    assert found.copy == "starting"


def test_decisions_are_dated_and_the_newest_twenty_are_kept() -> None:
    """With the reason that the leader gave."""
    events = [(1_000 + n, WorkerDied(1, f"w.{n}", f"reason {n}")) for n in range(30)]
    found = overview("app", seen((1, TermStarted(1, LEADER)), *events), Surroundings({}, NOW, SILENCE)).decisions
    assert len(found) == 20
    assert (found[-1].what, found[-1].reason, found[-1].age_s) == ("w.29 is dead", "reason 29", (NOW - 1_029) / 1000)


# -- reading


def test_an_older_heartbeat_changes_nothing() -> None:
    """Reports may come in any order."""
    observed = seen((1, beat(A, sequence=5, busy_percent=50)), (2, beat(A, sequence=4)))
    assert observed.heard[A.incarnation].beat.busy_percent == 50


def test_those_who_came_and_went_are_forgotten() -> None:
    """An onlooker may look on for months; members are kept."""
    observed = seen(
        (1, TermStarted(1, LEADER)), (2, PlanPublished(plan())), (3, beat(A)), (4, beat(Member("x", "x.1")))
    )
    observed = report_read(observed, beat(B), 5 + FORGET_MS)
    assert set(observed.heard) == {A.incarnation, B.incarnation}


def test_everything_is_plain_values() -> None:
    """What `--json` prints."""
    import json

    parked = (Parked(COUNT, HIGH, "why"),)
    made = plan(2, tile(A, LOW), tile(None, HIGH), moves=(move(key_range=LOW),), parked=parked)
    json.dumps(asdict(shown(made, beat(A, piece(LOW)), beat(B))))
    assert isinstance(shown(made).workers[0], WorkerStatus)


def test_the_leader_of_a_term_whose_start_was_trimmed_is_known_by_its_beat() -> None:
    """Control says no more who leads; a beat of an older term tells nothing."""
    events = ((2_000, PlanPublished(plan(), "")), (NOW - 50, LeaderBeat(0, "older")))
    before = overview("app", seen(*events), Surroundings(ENDS, NOW, SILENCE))
    assert before.leader is not None
    assert (before.leader.name, before.leader.state) == ("", "silent")
    after = overview("app", seen(*events, (NOW - 10, LeaderBeat(1, LEADER))), Surroundings(ENDS, NOW, SILENCE))
    assert after.leader is not None
    assert (after.leader.name, after.leader.state) == (LEADER, "leading")

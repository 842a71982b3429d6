"""What the leader decides, under any interleaving of what it may learn."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from kstate.coordinator.commands import Declare, Fence, Finish, Halt, Publish, TakeEnds
from kstate.coordinator.core import Rules, State, decide
from kstate.coordinator.events import (
    Fenced,
    OwnBeat,
    Surveyed,
    Tick,
    TopicsCounted,
)
from kstate.keyspace import FULL_RANGE
from kstate.messages import (
    ProcessExited,
    TilePhase,
    TileReport,
)
from kstate.plan import Shard, tiling_fault
from tests.support.leading import WORDS, Leading, beat, draft, started


def test_the_first_plan_waits_for_the_expected_workers() -> None:
    """One of two is not enough; with both the tiles are spread."""
    lead = Leading()
    lead.see(beat("a"))
    assert lead.run() == []
    lead.see(beat("b"))
    assert [type(c) for c in lead.run()] == [Publish]
    assert lead.owners() == {Shard("split", 0): "a-1", Shard("count", 0): "a-1", Shard("count", 1): "b-1"}


def test_the_first_plan_does_not_wait_for_ever() -> None:
    """After ten seconds it is made for those who came."""
    lead = Leading()
    for _ in range(25):
        lead.see(beat("a"))
        assert lead.run() == []
        lead.wait(0.4)
    assert [type(c) for c in lead.run()] == [Publish]


def test_without_an_expectation_the_first_plan_settles() -> None:
    """Two seconds after the first heartbeat, for all who are there by then."""
    lead = Leading(Rules())
    lead.see(beat("a"))
    lead.wait(1.6)
    lead.see(beat("a"), beat("b"), beat("c"))
    assert lead.run() == []
    lead.wait(0.4)
    lead.run()
    assert [m.name for m in lead.plans()[0].members] == ["a", "b", "c"]


def test_a_death_is_decided_seen_fenced_and_given_in_this_order() -> None:
    """S2, with the successor at hand: three commands and no more."""
    lead = started()
    lead.see(ProcessExited("b-1", -9), beat("b", 2))
    assert [type(c) for c in lead.run()] == [Declare, Fence, Publish]
    assert lead.owners()[Shard("count", 1)] == "b-2"


def test_silence_is_noticed_within_two_seconds() -> None:
    """Four beats of the leader without one of the worker; the other one, heard, stays."""
    lead = started()
    for _ in range(3):
        lead.wait(0.4)
        lead.see(beat("a"))
    lead.wait(0.4)
    assert lead.run() == []
    lead.wait(0.4)
    assert lead.run()[:2] == [Declare("b-1", "no heartbeat for 1600 ms"), Fence("b-1")]


def test_a_leader_that_was_stopped_suspects_nobody() -> None:
    """After a pause of a minute between two of its own beats the others have some seconds to be heard again."""
    lead = started()
    lead.wait(0.4)
    lead.now_ms += 60_000
    lead.see(Tick(lead.now_ms), OwnBeat())
    for _ in range(11):
        assert lead.run() == []
        lead.wait(0.4)
    lead.wait(0.4)
    assert isinstance(lead.run()[0], Declare)


def test_a_leader_that_reads_nothing_suspects_nobody() -> None:
    """Time without its own beats does not count at all."""
    lead = started()
    lead.wait(0.4)
    for _ in range(100):
        lead.now_ms += 400
        lead.see(Tick(lead.now_ms))
    assert lead.run() == []


def test_the_others_get_the_tiles_after_the_wait() -> None:
    """A second without a successor, then the least loaded."""
    lead = started()
    while (commands := lead.run()) == []:
        lead.wait(0.4)
        lead.see(beat("a"))
    assert [type(c) for c in commands] == [Declare, Fence], "silent for too long"
    for _ in range(2):
        lead.wait(0.4)
        lead.see(beat("a"))
        assert lead.run() == []
    lead.wait(0.4)
    lead.see(beat("a"))
    assert [type(c) for c in lead.run()] == [Publish]
    assert set(lead.owners().values()) == {"a-1"}


def test_nobody_waits_for_a_worker_whose_supervisor_starts_it_no_more() -> None:
    """The others get its tiles at once."""
    lead = started()
    lead.see(ProcessExited("b-1", 1))
    assert [type(c) for c in lead.run()] == [Declare, Fence, Publish]
    assert set(lead.owners().values()) == {"a-1"}


def test_a_successor_that_is_being_started_is_waited_for_longer() -> None:
    """The supervisor said so: fifteen seconds, also when another worker joins meanwhile."""
    lead = started()
    lead.see(ProcessExited("b-1", -9, restarts=True))
    lead.run()
    for second in range(36):
        lead.wait(0.4)
        lead.see(beat("a"), *([beat("c")] if second else []))
        lead.run()
    assert lead.owners()[Shard("count", 1)] == "b-1"
    lead.wait(0.8)
    lead.see(beat("a"), beat("c"))
    lead.run()
    assert lead.owners()[Shard("count", 1)] == "c-1"


def test_a_new_leader_fences_again_before_it_gives() -> None:
    """S2: the fence of the leader before is not known to the next; the decision is."""
    lead = started()
    lead.see(ProcessExited("b-1", 1, restarts=True))
    assert [type(c) for c in lead.run()] == [Declare, Fence]
    lead.take_over()
    lead.see(beat("a"), beat("b", 2))
    assert [type(c) for c in lead.run()] == [Fence, Publish]
    assert lead.owners()[Shard("count", 1)] == "b-2"


def test_a_fence_without_a_decision_counts_for_nothing() -> None:
    """Hearing that a live worker was fenced gives none of its tiles away."""
    lead = started()
    lead.see(Fenced("b-1"))
    assert lead.run() == []
    lead.see(ProcessExited("b-1", 1), beat("b", 2))
    assert [type(c) for c in lead.run()] == [Declare, Fence, Publish]


def test_a_fatal_worker_halts_the_job() -> None:
    """The reason and the exit code are the worker's; the leader waits a little for workers to go."""
    lead = started()
    lead.see(beat("a", fatal="operator 'count' failed at lines[0]@7", exit_code=3))
    assert lead.run() == [Halt("a: operator 'count' failed at lines[0]@7", 3)]
    assert decide(lead.state) is None
    lead.see(beat("a", leaving=True), ProcessExited("b-1", 3))
    assert decide(lead.state) == Finish(3)


def test_a_fatal_stranger_halts_nothing() -> None:
    """A worker that is no member, or was declared dead, cannot stop a job that runs."""
    lead = started()
    lead.see(ProcessExited("b-1", 1), beat("b", 2))
    lead.run()
    lead.see(beat("c", fatal="cannot open its folder", exit_code=2), beat("b", 1, fatal="fenced", exit_code=4))
    assert not any(isinstance(c, Halt) for c in lead.run())


def test_a_worker_that_merely_has_to_start_again_halts_nothing() -> None:
    """Fenced, out of time, or with a damaged store: its successor goes on."""
    lead = started()
    lead.see(beat("a", fatal="the local store is damaged", exit_code=6), beat("b", fatal="fenced", exit_code=4))
    assert lead.run() == []


def test_workers_that_do_not_go_are_not_waited_for_for_ever() -> None:
    """Five seconds after the halt was read the leader ends."""
    lead = started()
    lead.see(beat("a", fatal="broken", exit_code=3))
    lead.run()
    for _ in range(12):
        lead.wait(0.4)
        lead.see(beat("a"), beat("b"))
        assert decide(lead.state) is None
    lead.wait(0.4)
    lead.see(beat("a"), beat("b"))
    assert decide(lead.state) == Finish(3)


def test_changed_topics_halt_the_job() -> None:
    """Partitions that were added are not skipped: exit code 2, both counts and the mend."""
    lead = started()
    lead.see(TopicsCounted({"lines": 1, WORDS: 2}))
    assert lead.run() == []
    lead.see(TopicsCounted({"lines": 3, WORDS: 2}))
    (halt,) = lead.run()
    assert isinstance(halt, Halt)
    assert halt.exit_code == 2
    assert "'lines' had 1 partition when the job was first started and has 3 now" in halt.reason


def test_a_new_term_starts_a_halted_job_anew() -> None:
    """People mended it: what an earlier term halted does not hold the next one."""
    lead = started()
    lead.see(beat("a", fatal="broken", exit_code=3))
    lead.run()
    lead.take_over()
    assert lead.state.control.halted is None
    for _ in range(20):
        lead.wait(0.4)
        lead.see(beat("a"), beat("b"))
        assert decide(lead.state) is None


def at(uid: str, partition: int, progress: dict[str, int]) -> TileReport:
    """A running tile."""
    return TileReport(Shard(uid, partition), FULL_RANGE, 1, TilePhase.RUNNING, 1, progress)


def test_a_bounded_run_ends_operator_by_operator() -> None:
    """Source finished → ends of its streams taken and published → downstream finished → complete → finish."""
    lead = started(ends={("split", "lines", 0): 10})
    lead.see(beat("a", tiles=(at("split", 0, {"lines": 9}), at("count", 0, {WORDS: 3}))))
    assert lead.run() == []
    lead.see(beat("a", tiles=(at("split", 0, {"lines": 10}), at("count", 0, {WORDS: 3}))))
    assert [type(c) for c in lead.run()] == [TakeEnds, Publish]
    assert lead.plans()[-1].ends == {("split", "lines", 0): 10, ("count", WORDS, 0): 5, ("count", WORDS, 1): 5}
    lead.see(beat("a", tiles=(at("count", 0, {WORDS: 5}),)))
    assert lead.run() == []
    lead.see(beat("b", tiles=(at("count", 1, {WORDS: 5}),)))
    assert [type(c) for c in lead.run()] == [Publish]
    assert lead.plans()[-1].complete
    assert decide(lead.state) is None
    lead.see(beat("a", leaving=True), beat("b", leaving=True))
    assert decide(lead.state) == Finish(0)


def test_a_death_during_a_bounded_run_is_mended_first() -> None:
    """Progress that a dead worker committed counts; its other tiles go on elsewhere."""
    lead = started(ends={("split", "lines", 0): 10})
    lead.see(beat("a", tiles=(at("split", 0, {"lines": 10}),)), ProcessExited("a-1", -9), beat("a", 2))
    assert [type(c) for c in lead.run()] == [Declare, Fence, Publish, TakeEnds, Publish]
    assert lead.owners()[Shard("split", 0)] == "a-2"


def test_a_finished_job_is_run_again_to_new_ends() -> None:
    """A survey with other ends makes the next plan incomplete again; one without news finishes at once."""
    lead = started(ends={("split", "lines", 0): 0})
    tiles = (at("split", 0, {"lines": 0}), at("count", 0, {WORDS: 5}), at("count", 1, {WORDS: 5}))
    lead.see(beat("a", tiles=tiles))
    lead.run()
    lead.take_over()
    lead.see(ProcessExited("a-1", 0), ProcessExited("b-1", 0))
    assert decide(lead.state) == Finish(0)
    lead.see(Surveyed(draft({("split", "lines", 0): 8})), beat("a", 2))
    lead.run()
    plan = lead.plans()[-1]
    assert (plan.complete, plan.bounded, plan.ends) == (False, True, {("split", "lines", 0): 8})


def test_new_operators_get_tiles() -> None:
    """A draft with one more operator: its tiles are given in the same plan that brings it."""
    lead = started()
    old = lead.plans()[-1]
    wider = replace(draft(), shards={"split": 1, "count": 2, "third": 2}, reason="new: operator 'third'")
    lead.see(Surveyed(wider))
    command = decide(lead.state)
    assert isinstance(command, Publish)
    assert tiling_fault(command.plan) is None
    assert command.plan.tiles[:3] == old.tiles
    assert {(t.shard, t.worker) for t in command.plan.tiles[3:]} == {
        (Shard("third", 0), "b-1"),
        (Shard("third", 1), "a-1"),
    }
    assert command.reason.startswith("new: operator 'third'; ")


# -- any interleaving

NAMES = st.sampled_from(("a", "b", "c"))
HEARD = st.builds(beat, NAMES, st.integers(1, 3))
GONE = st.builds(lambda name, n, again: ProcessExited(f"{name}-{n}", 1, again), NAMES, st.integers(1, 3), st.booleans())
ACTIONS = st.one_of(HEARD, GONE, st.sampled_from(("beat", "long", "one", "one", "lose", "all", "take over", "restudy")))


@settings(max_examples=400, deadline=None)
@given(st.booleans(), st.lists(ACTIONS, max_size=60))
def test_no_interleaving_breaks_the_order_of_s2_or_the_tiling(running: bool, actions: Iterable[Any]) -> None:
    """Heartbeats, exits, time, lost commands and new leaders in any order: every plan is checked as it is written.

    At the end two workers stay alive: all tiles are then owned by live members, nothing is wedged.
    """
    lead = started() if running else Leading()
    for action in actions:
        match action:
            case "beat":
                lead.wait(0.4)
            case "long":
                lead.wait(2.0)
            case "one" | "lose":
                if (command := decide(lead.state)) is not None and not isinstance(command, Finish):
                    lead.carry_out(command, lost=action == "lose")
            case "all":
                lead.run()
            case "take over":
                lead.take_over()
            case "restudy":
                lead.see(Surveyed(None if lead.plans() else draft()))
            case event:
                lead.see(event)
    for _ in range(40):
        lead.see(beat("a", 9), beat("b", 9))
        lead.run()
        lead.wait(0.4)
    assert set(lead.owners().values()) <= {"a-9", "b-9"}


def test_observing_changes_nothing_in_place() -> None:
    """The state is a value: an old one decides today as it did then."""
    lead = started()
    before: State = lead.state
    lead.see(ProcessExited("b-1", 1))
    assert decide(before) is None
    assert isinstance(decide(lead.state), Declare)

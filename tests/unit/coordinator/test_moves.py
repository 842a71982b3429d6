"""The life of a move, phase by phase, and what becomes of it when somebody dies."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kstate.coordinator.moves import CLOSE_RECORDS, waits
from kstate.coordinator.planning import changed
from kstate.coordinator.scene import Ownership, Scene
from kstate.keyspace import FULL_RANGE, KeyRange
from kstate.messages import Heartbeat
from kstate.plan import MovePhase, Shard
from tests.support.scenes import HALF, LOWER, UPPER, move, owners, plan, says, scene, tile, worker

WARM, RELEASE = MovePhase.WARM, MovePhase.RELEASE


def after(now: Scene) -> Ownership:
    """What the next plan says; there must be one."""
    found = changed(now)
    assert found is not None
    return found


def test_a_release_is_ordered_when_the_target_is_warm_and_the_source_runs() -> None:
    """The move keeps its id, target and grant; the tile stays whole and the source's."""
    newest = plan([tile("i1")], moves=(move(UPPER),))
    got = after(scene(newest, says("i2", "warm", 5, UPPER), says("i1", "running")))
    assert got.moves == (move(UPPER, RELEASE),)
    assert got.tiles == newest.tiles
    assert got.reason == "move 5 of count[0] [0x8000, 0x10000): worker-2 is warm, worker-1 is to release"


@pytest.mark.parametrize(
    ("target", "source"),
    [
        (says("i2", "warming", 5, UPPER), says("i1", "running")),
        (says("i2", "warm", 4, UPPER), says("i1", "running")),
        (says("i2", "warm", 5, KeyRange(HALF + 1, 65536)), says("i1", "running")),
        (says("i2", "warm", 5, UPPER), says("i1", "restoring")),
        (says("i2", "warm", 5, UPPER), says("i1", "running", 1, LOWER)),
    ],
    ids=["behind", "for another move", "a slot is missing", "the source restores", "the source runs another part"],
)
def test_no_release_is_ordered_before(target: object, source: object) -> None:
    """Each condition is needed; somebody waits, and it is said for what."""
    now = scene(plan([tile("i1")], moves=(move(UPPER),)), target, source)  # type: ignore[arg-type]
    assert changed(now) is None
    (reason,) = waits(now)
    assert reason.startswith("move 5 of count[0] [0x8000, 0x10000) waits for worker-")


def at(beat: Heartbeat, **progress: int) -> Heartbeat:
    """The same worker, standing there."""
    return replace(beat, tiles=tuple(replace(tile, progress=progress) for tile in beat.tiles))


def merging(source: dict[str, int], target: dict[str, int], **more: object) -> Scene:
    """The upper half of a shard is to come back to who runs the lower one; both stand somewhere."""
    tiles = [tile("i2", LOWER, grant=2), tile("i1", UPPER)]
    runs = at(says("i2", "running", 2, LOWER), **target)
    warm = says("i2", "warm", 5, UPPER).tiles
    newest = replace(plan(tiles, moves=(move(UPPER),)), **more)  # type: ignore[arg-type]
    return scene(newest, replace(runs, tiles=(*runs.tiles, *warm)), at(says("i1", "running", 1, UPPER), **source))


@pytest.mark.parametrize(("source", "target"), [(0, CLOSE_RECORDS + 1), (CLOSE_RECORDS + 1, 0)])
def test_a_half_is_not_released_to_one_that_stands_far_from_it(source: int, target: int) -> None:
    """Whichever is ahead would stand still until the other is level; it goes once they are close."""
    far = merging({"lines": source, "words": 5}, {"lines": target, "words": 5})
    assert changed(far) is None
    assert waits(far) == [f"{move(UPPER)} waits for worker-1 and worker-2 to stand within 100,000 records"]
    close = merging({"lines": min(source, CLOSE_RECORDS)}, {"lines": min(target, CLOSE_RECORDS)})
    assert after(close).moves[0].phase is RELEASE


def test_what_a_drained_worker_has_goes_however_far_it_stands() -> None:
    """It is to go; that the other half stands still for a while is the lesser evil."""
    assert after(merging({"lines": 0}, {"lines": 1 << 40}, drained=("i1",))).moves[0].phase is RELEASE
    assert after(merging({}, {"lines": 1 << 40})).moves[0].phase is RELEASE, "nothing is known of the source's inputs"


def test_a_move_is_done_when_the_target_runs_the_range_under_its_grant() -> None:
    """The tile is cut: the range is the target's under the move's grant, the rest keeps its own."""
    newest = plan([tile("i1", grant=3)], moves=(move(UPPER, RELEASE),))
    got = after(scene(newest, says("i2", "running", 5, UPPER)))
    assert owners(got.tiles) == [(LOWER, "i1", 3), (UPPER, "i2", 5)]
    assert got.moves == ()
    assert got.reason == "move 5 of count[0] [0x8000, 0x10000) runs at worker-2: done"


def test_a_range_out_of_the_middle_leaves_two_tiles() -> None:
    """What is on both sides stays the source's, as do other moves there."""
    middle, end = KeyRange(100, 200), KeyRange(300, 400)
    other = replace(move(end), id=6, grant=6)
    newest = plan([tile("i1", grant=3)], moves=(move(middle, RELEASE), other))
    got = after(scene(newest, says("i2", "running", 5, middle)))
    assert owners(got.tiles) == [(KeyRange(0, 100), "i1", 3), (middle, "i2", 5), (KeyRange(200, 65536), "i1", 3)]
    assert got.moves == (other,)


@pytest.mark.parametrize("grant", [4, 6])
def test_running_under_another_grant_proves_nothing(grant: int) -> None:
    """The target may have run the range before; only the move's own grant shows that it read the release."""
    assert (
        changed(scene(plan([tile("i1")], moves=(move(UPPER, RELEASE),)), says("i2", "running", grant, UPPER))) is None
    )


def test_one_plan_advances_all_moves_that_can_be() -> None:
    """One is released, one is done."""
    first, second = move(LOWER), replace(move(UPPER, RELEASE, target="i3"), id=6, grant=6)
    newest = plan([tile("i1")], moves=(first, second))
    got = after(scene(newest, says("i2", "warm", 5, LOWER), says("i1", "running"), says("i3", "running", 6, UPPER)))
    assert got.moves == (move(LOWER, RELEASE),)
    assert owners(got.tiles) == [(LOWER, "i1", 1), (UPPER, "i3", 6)]


@pytest.mark.parametrize(("gone", "name"), [("i1", "worker-1"), ("i2", "worker-2")])
def test_a_warm_move_is_cancelled_when_either_end_is_declared_dead(gone: str, name: str) -> None:
    """Nobody but the source has touched the range: no fence is waited for."""
    got = after(scene(plan([tile("i1")], moves=(move(UPPER),)), dead=[gone]))
    assert (got.moves, got.tiles) == ((), (tile("i1"),))
    assert f"move 5 of count[0] [0x8000, 0x10000) cancelled: {name} is dead" in got.reason


def test_the_copy_of_a_warm_target_helps_when_the_source_is_dead() -> None:
    """Once the source is fenced the target gets the range at once, as a standby would; the rest waits as usual."""
    newest = plan([tile("i1")], moves=(move(UPPER),))
    got = after(scene(newest, says("i2", "warming", 5, UPPER), fenced=["i1"]))
    assert owners(got.tiles) == [(LOWER, "i1", 1), (UPPER, "i2", 10)]
    assert got.moves == ()
    assert got.reason.endswith("count[0] [0x8000, 0x10000) of worker-1 to worker-2, on its way there")
    without = after(scene(newest, fenced=["i1"]))
    assert (without.tiles, without.moves) == (newest.tiles, ())


def test_a_warm_move_to_one_who_may_get_nothing_is_cancelled() -> None:
    """Drained since, or of another build than the leader that now leads."""
    drained = after(scene(plan([tile("i1")], moves=(move(),), drained=("i2",))))
    assert drained.reason.endswith("cancelled: worker-2 is being drained")
    members = (worker(1), worker(2, "older"))
    other = after(scene(plan([tile("i1")], moves=(move(),), members=members)))
    assert other.reason.endswith("cancelled: worker-2 runs another build")


def test_a_source_of_another_build_may_be_moved_from() -> None:
    """A rolling deploy: it gets nothing, but it may give."""
    newest = plan([tile("i1")], moves=(move(),), members=(worker(1, "older"), worker(2)))
    got = after(scene(newest, says("i2", "warm", 5), says("i1", "running")))
    assert got.moves == (move(phase=RELEASE),)


def test_a_release_is_never_cancelled_because_somebody_is_declared_dead() -> None:
    """S7: the target may run the range, the source may; only a fence tells."""
    for gone in ("i1", "i2"):
        got = changed(scene(plan([tile("i1")], moves=(move(UPPER, RELEASE),)), dead=[gone]))
        assert got is None


def test_a_target_that_is_dead_and_fenced_gives_the_range_back_to_the_source() -> None:
    """The same move under a new grant: the source releases, if it has not, and adopts it again (W1, P8)."""
    got = after(scene(plan([tile("i1")], moves=(move(UPPER, RELEASE),)), fenced=["i2"]))
    assert got.moves == (move(UPPER, RELEASE, target="i1", grant=10),)
    assert got.tiles == (tile("i1"),)
    assert "move 5 of count[0] [0x8000, 0x10000): worker-2 is dead, back to worker-1" in got.reason


def test_a_move_back_to_its_source_is_done_like_any_other() -> None:
    """The range has the new grant, and is joined with the rest later."""
    newest = plan([tile("i1")], moves=(move(UPPER, RELEASE, target="i1", grant=9),))
    assert changed(scene(newest, says("i1", "running", 1))) is None
    got = after(scene(newest, says("i1", "running", 9, UPPER)))
    assert owners(got.tiles) == [(LOWER, "i1", 1), (UPPER, "i1", 9)]
    assert got.moves == ()


def test_a_source_that_is_dead_and_fenced_leaves_the_range_to_the_target() -> None:
    """S7: to nobody else, under the move's grant; the rest of the tile is recovered as usual."""
    newest = plan([tile("i1")], moves=(move(UPPER, RELEASE),))
    got = after(scene(newest, overdue=["i1"]))
    assert owners(got.tiles) == [(LOWER, "i3", 10), (UPPER, "i2", 5)]
    assert got.moves == ()
    assert "move 5 of count[0] [0x8000, 0x10000): worker-1 is dead, worker-2 has it" in got.reason


def test_a_range_whose_source_and_target_are_dead_and_fenced_is_given_like_any_other() -> None:
    """Nobody is left who might run it."""
    newest = plan([tile("i1")], moves=(move(UPPER, RELEASE),))
    assert changed(scene(newest, dead=["i2"], fenced=["i1"])) is None
    got = after(scene(newest, fenced=["i2"], overdue=["i1"]))
    assert owners(got.tiles) == [(FULL_RANGE, "i3", 10)]
    assert got.moves == ()


def test_what_a_drained_worker_has_moves_away_whatever_happens_to_a_target() -> None:
    """Level-triggered: the first plan after a cancelled move names another target; a new leader would do the same."""
    newest = plan([tile("i1"), tile("i3", partition=1)], workers=4, moves=(move(),), drained=("i1",))
    got = after(scene(newest, dead=["i2"]))
    assert got.moves == (replace(move(), id=10, grant=10, target="i4"),)
    assert got.reason.endswith("drained: count[0] [0x0000, 0x10000) from worker-1 to worker-4")


def test_only_what_is_not_on_its_way_is_moved_from_a_drained_worker() -> None:
    """A range under release goes on; the rest of the tile gets a move of its own."""
    newest = plan([tile("i1")], moves=(move(UPPER, RELEASE),), drained=("i1",))
    got = after(scene(newest))
    assert [(m.key_range, m.target, m.phase) for m in got.moves] == [(UPPER, "i2", RELEASE), (LOWER, "i3", WARM)]


def test_a_drained_worker_keeps_what_nobody_can_take() -> None:
    """Alone, it goes on; in a bounded run nothing is moved."""
    assert changed(scene(plan([tile("i1")], workers=1, drained=("i1",)))) is None
    assert changed(scene(plan([tile("i1")], drained=("i1",), bounded=True))) is None


def test_what_a_drained_worker_of_an_older_build_has_of_a_dropped_operator_ends_with_it() -> None:
    """Nobody of this build could run it: a move would be cancelled and begun again by every plan."""
    dropped = replace(tile("i1"), shard=Shard("gone", 0))
    members = (worker(1, "older"), worker(2))
    assert changed(scene(plan([dropped, tile("i2")], members=members, drained=("i1",)))) is None


def test_a_drained_entry_vanishes_with_its_member() -> None:
    """The next incarnation of the name is like any other worker."""
    got = after(scene(plan([tile("i1")], drained=("i2",)), dead=["i2"]))
    assert got.drained == ()
    assert [m.name for m in got.members] == ["worker-1", "worker-3"]


def test_touching_tiles_that_one_worker_runs_become_one() -> None:
    """Under a new grant, which is the plan's version; those of another shard or worker do not."""
    tiles = [tile("i1", LOWER, grant=3), tile("i1", UPPER, grant=5), tile("i2", partition=1)]
    running = says("i1", "running", 3, LOWER)
    both = replace(running, tiles=(*running.tiles, *says("i1", "running", 5, UPPER).tiles))
    got = after(scene(plan(tiles), both))
    assert owners(got.tiles) == [(FULL_RANGE, "i1", 10), (FULL_RANGE, "i2", 1)]
    assert got.reason == "count[0] [0x0000, 0x10000) joined at worker-1"
    assert changed(scene(plan(tiles), running)) is None, "one is not yet running"
    moving = plan(tiles, moves=(move(KeyRange(HALF, HALF + 9)),))
    assert changed(scene(moving, both)) is None, "a part is on its way"
    older = plan(tiles, members=(worker(1, "older"), worker(2)))
    assert changed(scene(older, both)) is None, "a worker of another build gets no grants"

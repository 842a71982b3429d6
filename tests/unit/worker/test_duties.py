"""What a plan asks of a worker: `duties` read against the stories that its rules come from."""

from __future__ import annotations

from collections.abc import Sequence

from kstate.keyspace import FULL_RANGE, SLOTS, KeyRange
from kstate.plan import Member, Move, MovePhase, Plan, Registry, Shard, Standby, Tile
from kstate.progress import SlotMap
from kstate.worker.duties import Duties, Role, duties

SHARD = Shard("count", 0)
LOWER, UPPER = KeyRange(0, SLOTS // 2), KeyRange(SLOTS // 2, SLOTS)


def plan(version: int, tiles: Sequence[Tile], moves: Sequence[Move] = (), standbys: Sequence[Standby] = ()) -> Plan:
    """A plan for workers a, b and c."""
    members = tuple(Member(name, name) for name in "abc")
    return Plan(
        "app", version, 1, members, (), tuple(tiles), Registry(), {}, {}, moves=tuple(moves), standbys=tuple(standbys)
    )


def move(phase: MovePhase, target: str = "b", grant: int = 2) -> Move:
    """Move 2: the upper half goes from a to somebody."""
    return Move(2, SHARD, UPPER, "a", target, grant, phase)


WHOLE = Tile(SHARD, FULL_RANGE, "a", 1)
GIVEN = {SHARD: SlotMap([(UPPER, 1)])}
"""What a has released under its first grant."""


def asked(plan: Plan, worker: str, given: dict[Shard, SlotMap[int]] | None = None) -> Duties:
    """The duties in the shard."""
    return duties(plan, worker, given or {}).get(SHARD, Duties())


def test_a_warming_move_leaves_the_source_what_it_has_and_cuts_it() -> None:
    """The target copies, the source owns all and keeps the range apart."""
    warm = plan(2, [WHOLE], [move(MovePhase.WARM)])
    source, target = asked(warm, "a"), asked(warm, "b")
    assert source.runs == SlotMap([(FULL_RANGE, Role(1, runs=True))])
    assert source.cuts == {UPPER.lo, UPPER.hi}
    assert not len(source.releases)
    assert not len(target.runs)
    assert target.copies == SlotMap([(UPPER, Role(2, runs=False, move=UPPER))])


def test_the_target_of_an_ordered_release_runs_under_the_moves_grant_once_the_log_says_released() -> None:
    """S6: it waits for the release of this very move."""
    ordered = plan(3, [WHOLE], [move(MovePhase.RELEASE)])
    assert asked(ordered, "a").releases == SlotMap([(UPPER, 2)])
    assert asked(ordered, "b").runs == SlotMap([(UPPER, Role(2, runs=True, awaits=2, move=UPPER))])
    assert not len(asked(ordered, "b").copies)


def test_what_was_released_is_not_owned_again_under_the_same_grant() -> None:
    """P6: a plan about something else still names the source for the whole tile."""
    stale = plan(4, [WHOLE], [move(MovePhase.RELEASE)])
    duty = asked(stale, "a", GIVEN)
    assert duty.runs == SlotMap([(LOWER, Role(1, runs=True))])
    assert not len(duty.releases)


def test_what_was_released_is_owned_again_under_a_newer_grant() -> None:
    """P6 the other way round: the range is given back later."""
    back = plan(9, [Tile(SHARD, LOWER, "a", 1), Tile(SHARD, UPPER, "a", 9)])
    assert asked(back, "a", GIVEN).runs == SlotMap([(LOWER, Role(1, runs=True)), (UPPER, Role(9, runs=True))])


def test_a_move_that_goes_back_to_its_source_is_released_first() -> None:
    """P8: the target died; the source gets the range under the same move and a newer grant, once it has released it."""
    back = plan(5, [WHOLE], [move(MovePhase.RELEASE, target="a", grant=5)])
    before, after = asked(back, "a"), asked(back, "a", GIVEN)
    assert before.runs == SlotMap([(FULL_RANGE, Role(1, runs=True))])
    assert before.releases == SlotMap([(UPPER, 2)])
    assert after.runs == SlotMap([(LOWER, Role(1, runs=True)), (UPPER, Role(5, runs=True, awaits=2, move=UPPER))])
    assert not len(after.releases)


def test_the_plan_that_completes_a_move_asks_the_target_for_nothing_new() -> None:
    """The grant is that of the move: who runs the range goes on."""
    done = plan(4, [Tile(SHARD, LOWER, "a", 1), Tile(SHARD, UPPER, "b", 2)])
    assert asked(done, "b").runs == SlotMap([(UPPER, Role(2, runs=True))])


def test_a_tile_given_without_its_move_needs_no_release() -> None:
    """The source was fenced: nobody will ever release it."""
    fenced = plan(4, [Tile(SHARD, FULL_RANGE, "b", 2)])
    assert asked(fenced, "b").runs == SlotMap([(FULL_RANGE, Role(2, runs=True))])


def test_a_standby_copies_what_it_does_not_run_or_move() -> None:
    """Several reasons for a copy of a slot: the strongest counts."""
    tiles = [Tile(SHARD, LOWER, "a", 1), Tile(SHARD, UPPER, "b", 2)]
    standbys = [Standby(SHARD, FULL_RANGE, "b"), Standby(SHARD, LOWER, "c")]
    both = plan(3, tiles, standbys=standbys)
    assert asked(both, "b").copies == SlotMap([(LOWER, Role(0, runs=False))])
    assert asked(both, "c").copies == SlotMap([(LOWER, Role(0, runs=False))])
    moving = plan(4, [WHOLE], [move(MovePhase.WARM)], [Standby(SHARD, FULL_RANGE, "b")])
    coming = Role(2, runs=False, move=UPPER)
    assert asked(moving, "b").copies == SlotMap([(LOWER, Role(0, runs=False)), (UPPER, coming)])


def test_neighbours_that_come_by_two_moves_of_one_plan_come_each_by_itself() -> None:
    """They have one id and one grant, and the release of one must not wait for that of the other."""
    lower = Move(2, SHARD, LOWER, "c", "b", 2, MovePhase.RELEASE)
    tiles = [Tile(SHARD, LOWER, "c", 1), Tile(SHARD, UPPER, "a", 1)]
    asked_of_b = asked(plan(3, tiles, [lower, move(MovePhase.RELEASE)]), "b")
    assert [key_range for key_range, _ in asked_of_b.runs] == [LOWER, UPPER]

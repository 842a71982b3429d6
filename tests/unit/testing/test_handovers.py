"""The oracle's view of ownership: what it lets pass, and what it reports."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kstate.keyspace import FULL_RANGE, SLOTS, KeyRange
from kstate.messages import TilePhase, TileReport
from kstate.plan import Member, Move, MovePhase, Plan, Registry, Shard, Tile
from kstate.state.markers import Marker, MarkerKind
from kstate.testing.handovers import Handovers
from kstate.testing.violations import Kind
from kstate.times import Times

SHARD = Shard("count", 0)
LOWER, UPPER = KeyRange(0, SLOTS // 2), KeyRange(SLOTS // 2, SLOTS)
A, B, C = "a.1", "b.1", "c.1"


class Watched:
    """A history told event by event; `found` are the kinds of violation so far."""

    def __init__(self) -> None:
        self.found: list[Kind] = []
        self.dead: set[str] = set()
        self.view = Handovers(lambda kind, _: self.found.append(kind), self.dead)
        self.plans: list[Plan] = []

    def runs(self, worker: str, grant: int, key_range: KeyRange = FULL_RANGE) -> None:
        self.view.runs(worker, TileReport(SHARD, key_range, grant, TilePhase.RUNNING, 1, {}))

    def commits(self, worker: str, grant: int, key_range: KeyRange = FULL_RANGE, move: int | None = None) -> None:
        kind = MarkerKind.EPOCH if move is None else MarkerKind.RELEASE
        marker = Marker(1, key_range, kind, 1, worker, grant, {}, Times(), (), 0, 0, 0, 0, move)
        self.view.committed("a marker", SHARD, marker)

    def dies(self, worker: str) -> None:
        """Declared dead, and then fenced."""
        self.dead.add(worker)
        self.view.opened(worker, by_owner=False)

    def plan(self, *tiles: Tile, moves: tuple[Move, ...] = ()) -> None:
        version = len(self.plans) + 1
        members = tuple(Member(worker, worker) for worker in (A, B, C))
        plan = Plan("app", version, 1, members, (), tiles, Registry(), {}, {}, moves=moves)
        self.view.planned(self.plans[-1] if self.plans else None, plan)
        self.plans.append(plan)


def tile(worker: str | None, grant: int, key_range: KeyRange = FULL_RANGE) -> Tile:
    """A tile of the shard."""
    return Tile(SHARD, key_range, worker, grant)


MOVE = Move(2, SHARD, UPPER, A, B, 2, MovePhase.WARM)
ORDERED = replace(MOVE, phase=MovePhase.RELEASE)


def ordered() -> Watched:
    """A runs all, and is to release the upper half for B."""
    w = Watched()
    w.plan(tile(A, 1))
    w.runs(A, 1)
    w.plan(tile(A, 1), moves=(MOVE,))
    w.plan(tile(A, 1), moves=(ORDERED,))
    return w


def test_a_move_by_the_rules_is_no_violation() -> None:
    """Warm, release, adopt, and only then the plan; the tiles of one worker are joined later on."""
    w = ordered()
    w.commits(A, 1, UPPER, move=2)
    w.runs(B, 2, UPPER)
    w.commits(B, 2, UPPER)
    w.commits(A, 1, LOWER)
    w.plan(tile(A, 1, LOWER), tile(B, 2, UPPER))
    w.dies(B)
    w.plan(tile(A, 1, LOWER), tile(A, 5, UPPER))
    w.runs(A, 5, UPPER)
    w.plan(tile(A, 6))
    w.runs(A, 6)
    w.commits(A, 6)
    assert w.found == []


def test_a_target_that_does_not_wait_is_a_second_owner() -> None:
    """Whether or not it commits."""
    w = ordered()
    w.runs(B, 2, UPPER)
    assert w.found[0] is Kind.TWO_OWNERS


def test_a_release_for_another_move_does_not_count() -> None:
    """The source has taken the range back meanwhile."""
    w = ordered()
    w.commits(A, 1, UPPER, move=1)
    w.runs(B, 2, UPPER)
    assert Kind.TWO_OWNERS in w.found


def test_a_source_that_goes_on_after_its_release_is_a_second_owner() -> None:
    """Before anybody else runs the range, too."""
    w = ordered()
    w.commits(A, 1, UPPER, move=2)
    w.commits(A, 1)
    assert w.found == [Kind.TWO_OWNERS]


def test_the_same_worker_may_have_it_back_under_a_newer_grant() -> None:
    """Its target has died and is fenced: same id, other target, and the release still stands."""
    w = ordered()
    w.commits(A, 1, UPPER, move=2)
    w.dies(B)
    w.plan(tile(A, 1), moves=(replace(ORDERED, target=A, grant=4),))
    w.runs(A, 4, UPPER)
    w.commits(A, 4, UPPER)
    w.plan(tile(A, 1, LOWER), tile(A, 4, UPPER))
    assert w.found == []


def test_it_is_taken_from_nobody_but_the_fenced_dead() -> None:
    """A death that is only decided, or a fence before the decision, leaves the worker in possession (S2)."""
    w = Watched()
    w.plan(tile(A, 1))
    w.runs(A, 1)
    w.dead.add(A)
    w.plan(tile(B, 2))
    w.runs(B, 2)
    assert w.found == [Kind.PLAN, Kind.TWO_OWNERS]
    fenced = Watched()
    fenced.plan(tile(A, 1))
    fenced.runs(A, 1)
    fenced.view.opened(A, by_owner=False)
    fenced.view.opened(A, by_owner=True)
    fenced.dead.add(A)
    fenced.plan(tile(B, 2))
    assert fenced.found == [Kind.PLAN]
    fenced.view.opened(A, by_owner=False)
    fenced.runs(B, 2)
    assert fenced.found == [Kind.PLAN]


def test_who_comes_late_with_an_older_grant_is_a_second_owner() -> None:
    """A zombie commits after its heir has begun."""
    w = Watched()
    w.plan(tile(A, 1))
    w.runs(A, 1)
    w.dies(A)
    w.plan(tile(B, 2))
    w.runs(B, 2)
    w.commits(A, 1)
    assert w.found == [Kind.TWO_OWNERS]


@pytest.mark.parametrize(
    ("tiles", "moves"),
    [
        ((tile(A, 1, LOWER), tile(C, 4, UPPER)), ()),
        ((tile(A, 1, LOWER), tile(B, 2, UPPER)), ()),
        ((tile(A, 1),), ()),
        ((tile(A, 1),), (MOVE,)),
        ((tile(A, 4),), (ORDERED,)),
        ((tile(A, 1),), (replace(ORDERED, target=C, grant=4),)),
        ((tile(A, 1),), (replace(ORDERED, id=4, grant=4),)),
    ],
    ids=["to a third", "before the release", "cancelled", "taken back", "new grant", "other target", "other id"],
)
def test_what_no_plan_may_do_with_a_range_under_release(tiles: tuple[Tile, ...], moves: tuple[Move, ...]) -> None:
    """S7, while source and target live and nothing is released."""
    w = ordered()
    w.plan(*tiles, moves=moves)
    assert set(w.found) == {Kind.PLAN}


def test_a_range_of_two_dead_may_go_to_anybody() -> None:
    """Source and target are out: nobody can have it."""
    w = ordered()
    w.dies(A)
    w.dies(B)
    w.plan(tile(C, 4))
    w.runs(C, 4)
    assert w.found == []


def test_a_dead_source_has_released_everything() -> None:
    """The target has it, under the grant of the move."""
    w = ordered()
    w.dies(A)
    w.plan(tile(A, 1, LOWER), tile(B, 2, UPPER))
    w.runs(B, 2, UPPER)
    assert w.found == []


def test_an_id_names_one_move() -> None:
    """A cancelled one leaves no id behind that another may have."""
    w = Watched()
    w.plan(tile(A, 1))
    w.plan(tile(A, 1), moves=(MOVE,))
    w.plan(tile(A, 1))
    w.plan(tile(A, 1), moves=(replace(MOVE, target=C),))
    assert w.found == [Kind.PLAN]

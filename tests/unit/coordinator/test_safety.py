"""Plans that would give a slot two owners are refused before anybody sees them, whoever made them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kstate.coordinator.evidence import Evidence
from kstate.coordinator.safety import giving_fault, release_fault
from kstate.keyspace import FULL_RANGE, KeyRange
from kstate.plan import Move, MovePhase, Plan, Tile
from tests.support.scenes import LOWER, UPPER, move, plan, says, tile

WARM, RELEASE = MovePhase.WARM, MovePhase.RELEASE
RUNS = Evidence({"i2": says("i2", "running", 5, UPPER)})
CUT = (tile("i1", LOWER), tile("i2", UPPER, grant=5))
"""The move of the upper half is done."""


def then(before: Plan, tiles: tuple[Tile, ...] | None = None, moves: tuple[Move, ...] = ()) -> Plan:
    """The next plan."""
    return replace(before, version=10, tiles=before.tiles if tiles is None else tiles, moves=moves)


@pytest.mark.parametrize(
    ("tiles", "fenced", "fault"),
    [
        ((tile("i1"),), "", None),
        ((tile("i1", grant=10),), "", None),
        ((tile("i1", LOWER), tile("i1", UPPER)), "", None),
        ((tile("i2", grant=10),), "i1", None),
        ((tile(None, grant=10),), "i1", None),
        ((), "i1", None),
        ((tile("i2", grant=10),), "", "is taken from i1, who is not fenced"),
        ((tile(None, grant=10),), "i2", "is taken from i1, who is not fenced"),
        ((tile("i1", LOWER), tile("i2", UPPER, grant=10)), "", "count[0] [0x8000, 0x10000) is taken from i1"),
        ((tile("i2", grant=9),), "i1", "is given to i2 under the old grant 9"),
        ((tile("i1", grant=0),), "", "its grant goes back from 1 to 0"),
        ((), "", "is taken from i1, who is not fenced"),
    ],
)
def test_a_slot_is_taken_only_from_the_fenced(tiles: tuple[Tile, ...], fenced: str, fault: str | None) -> None:
    """S2, slot by slot, also where tiles are cut or gone; and grants never go back."""
    before = plan([tile("i1")])
    found = giving_fault(before, then(before, tiles), frozenset({fenced}))
    assert (found is None) if fault is None else (found is not None and fault in found)


def test_nobodys_tile_may_be_given() -> None:
    """There is nobody to be fenced."""
    before = plan([tile(None)])
    assert giving_fault(before, then(before, (tile("i1", grant=10),)), frozenset()) is None


BEFORE = plan([tile("i1")], moves=(move(UPPER, RELEASE),))
BACK = move(UPPER, RELEASE, target="i1", grant=10)
BOTH = frozenset({"i1", "i2"})
NOBODY: frozenset[str] = frozenset()


@pytest.mark.parametrize(
    ("after", "fenced", "evidence"),
    [
        (then(BEFORE, moves=BEFORE.moves), NOBODY, Evidence()),
        (then(BEFORE, CUT), NOBODY, RUNS),
        (then(BEFORE, CUT), frozenset({"i1"}), Evidence()),
        (then(BEFORE, moves=(BACK,)), frozenset({"i2"}), Evidence()),
        (then(BEFORE), BOTH, Evidence()),
        (then(BEFORE, (tile("i3", grant=10),)), BOTH, Evidence()),
    ],
    ids=["goes on", "runs", "source fenced", "back to the source", "both fenced: waits", "both fenced: given"],
)
def test_what_may_become_of_a_range_under_release(after: Plan, fenced: frozenset[str], evidence: Evidence) -> None:
    """S7: it waits, is done, or its heir is fenced."""
    assert giving_fault(BEFORE, after, fenced) is None
    assert release_fault(BEFORE, after, fenced, evidence) is None


@pytest.mark.parametrize(
    ("after", "fenced", "fault"),
    [
        (then(BEFORE), frozenset({"i2"}), "it went to i1, but i1 and i2 are not both fenced"),
        (then(BEFORE, moves=(move(UPPER, WARM),)), BOTH, "its release was ordered and cannot be taken back"),
        (then(BEFORE, CUT), frozenset({"i2"}), "i2 does not run it, i1 is not fenced"),
        (then(BEFORE, (tile("i1", LOWER), tile("i2", UPPER, grant=10))), frozenset({"i1"}), "it went to i2"),
        (then(BEFORE, (tile("i1", LOWER), tile("i3", UPPER, grant=10))), frozenset({"i1"}), "it went to i3"),
        (then(BEFORE, moves=(BACK,)), frozenset({"i1"}), "i2 is replaced by i1 and not fenced"),
        (then(BEFORE, moves=(replace(BACK, target="i3"),)), NOBODY, "i2 is replaced by i3 and not fenced"),
        (then(BEFORE, moves=(replace(BACK, grant=5),)), frozenset({"i2"}), "i1 has the grant of the target before"),
        (then(BEFORE, moves=(replace(BACK, id=10),)), frozenset({"i2"}), "it went to i1"),
        (then(BEFORE, moves=(replace(BEFORE.moves[0], grant=10),)), NOBODY, "its target has another grant"),
        (then(BEFORE, (tile("i2", grant=10),), (move(UPPER, RELEASE),)), frozenset({"i1"}), "cannot be taken back"),
    ],
)
def test_a_range_under_release_goes_to_nobody_but_its_heir(after: Plan, fenced: frozenset[str], fault: str) -> None:
    """S7 and W1: no other target, no other id, no way back, before the heir is fenced."""
    found = release_fault(BEFORE, after, fenced, Evidence())
    assert found is not None
    assert fault in found


def test_a_part_of_a_range_under_release_is_watched_too() -> None:
    """Slot by slot: the target runs only half of what it is given."""
    half = KeyRange(UPPER.lo, 50_000)
    runs = Evidence({"i2": says("i2", "running", 5, half)})
    cut = (tile("i1", LOWER), tile("i2", half, grant=5), tile("i2", KeyRange(50_000, 65536), grant=5))
    found = release_fault(BEFORE, then(BEFORE, cut), NOBODY, runs)
    assert found is not None
    assert "i2 does not run it" in found


def test_no_move_begins_with_its_release() -> None:
    """The target would not be warm; neither may a move change while it is warm."""
    idle, warm = plan([tile("i1")]), plan([tile("i1")], moves=(move(),))
    released = (move(FULL_RANGE, RELEASE),)
    assert release_fault(warm, then(warm, moves=released), NOBODY, Evidence()) is None
    for before, moves in ((idle, released), (warm, (replace(released[0], target="i3"),))):
        found = release_fault(before, then(before, moves=moves), NOBODY, Evidence())
        assert found is not None
        assert "is under release before it was warm" in found

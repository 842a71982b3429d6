"""The simulation notices when a clause of the safety rules is missing, by the violation that it leads to.

Each clause is patched out alone. An exception would not count: what must be found is the kind of violation that
belongs to the rule, the damage itself.
"""

from __future__ import annotations

import pytest

from kstate.testing.violations import Kind
from tests.support.move_mutations import MOVE_MUTATIONS
from tests.support.mutations import MUTATIONS, Mutation

SEEDS = range(1, 26)
ALL = (*MUTATIONS, *MOVE_MUTATIONS)

pytestmark = pytest.mark.simulation


@pytest.mark.parametrize("mutation", ALL, ids=str)
def test_without_the_clause_the_damage_is_found(mutation: Mutation, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within a few interleavings of its story."""
    mutation.patch(monkeypatch)
    found: set[Kind] = set()
    for seed in SEEDS:
        found |= mutation.story(seed)
        if mutation.kind in found:
            return
    pytest.fail(f"without {mutation.clause!r}: expected {mutation.kind}, {len(SEEDS)} tellings found {sorted(found)}")


@pytest.mark.parametrize("mutation", ALL, ids=str)
def test_with_the_clause_the_same_story_ends_well(mutation: Mutation) -> None:
    """Otherwise the story, not the missing clause, would do the damage."""
    for seed in SEEDS[:5]:
        assert mutation.story(seed) == set(), f"seed {seed}"

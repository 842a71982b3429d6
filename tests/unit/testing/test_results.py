"""The oracle's comparison: what is lost is told from what is doubled, out of order, or counted from wrong state."""

from __future__ import annotations

import pytest

from kstate.testing.results import output_violations
from kstate.testing.sample_job import Balance, Counted, Fed, Line, Payment, expected
from kstate.testing.violations import Kind

FED = [
    Fed("lines", "ann", Line(1, "cat dog")),
    Fed("lines", None, Line(2, "cat")),
    Fed("lines", "ann", Line(3, "cat")),
    Fed("payments", "x1", Payment(4, 5)),
    Fed("payments", "x1", Payment(5, 2)),
]
COUNTS: list[Counted | Balance] = [
    Counted("cat", 1, 1),
    Counted("cat", 2, 2),
    Counted("cat", 3, 3),
    Counted("dog", 1, 1),
]
BALANCES: list[Counted | Balance] = [Balance("x1", 4, 5), Balance("x1", 5, 7)]
RIGHT: list[Counted | Balance] = [*COUNTS, *BALANCES]


def kinds(seen: list[Counted | Balance]) -> set[Kind]:
    """The kinds of violation in these outputs."""
    return {violation.kind for violation in output_violations(seen, expected(FED))}


def test_the_right_outputs_have_no_violation() -> None:
    """In any interleaving of keys, and of lines of different authors."""
    assert kinds([*RIGHT]) == set()
    assert (
        kinds([*BALANCES, Counted("cat", 2, 1), Counted("cat", 1, 2), Counted("dog", 1, 1), Counted("cat", 3, 3)])
        == set()
    )


@pytest.mark.parametrize("missing", range(len(RIGHT)))
def test_a_record_that_is_not_there_is_lost(missing: int) -> None:
    """Whichever it is."""
    assert kinds(RIGHT[:missing] + RIGHT[missing + 1 :]) == {Kind.LOST}


@pytest.mark.parametrize("twice", RIGHT)
def test_a_record_that_is_there_twice_is_doubled(twice: Counted | Balance) -> None:
    """Whichever it is."""
    assert kinds([*RIGHT, twice]) == {Kind.DOUBLED}


@pytest.mark.parametrize(
    "seen",
    [
        [Counted("cat", 3, 1), Counted("cat", 2, 2), Counted("cat", 1, 3), Counted("dog", 1, 1), *BALANCES],
        [Counted("cat", 2, 2), Counted("cat", 1, 1), Counted("cat", 3, 3), Counted("dog", 1, 1), *BALANCES],
        [*COUNTS, *reversed(BALANCES)],
    ],
)
def test_records_in_another_order_of_their_key_are_a_violation_of_order(seen: list[Counted | Balance]) -> None:
    """One author's lines swapped; counts that do not rise; balances swapped."""
    assert kinds(seen) == {Kind.ORDER}


@pytest.mark.parametrize(
    "seen",
    [
        [Counted("cat", 1, 1), Counted("cat", 2, 3), Counted("cat", 3, 4), Counted("dog", 1, 1), *BALANCES],
        [*COUNTS, Balance("x1", 4, 5), Balance("x1", 5, 2)],
    ],
)
def test_outputs_from_wrong_state_are_told_as_such(seen: list[Counted | Balance]) -> None:
    """Every record is answered once, but with a figure that only wrong state can give."""
    assert kinds(seen) == {Kind.STATE}

"""The oracle's comparison: what is lost is told from what is doubled, out of order, or counted from wrong state."""

from __future__ import annotations

import pytest

from kstate.testing.results import output_violations
from kstate.testing.sample_job import FIRST_MS, Balance, Closed, Counted, Fed, Line, Payment
from kstate.testing.sample_results import expected
from kstate.testing.violations import Kind

Output = Counted | Balance | Closed
FED = [
    Fed("lines", "ann", Line(1, "cat dog")),
    Fed("lines", None, Line(2, "cat")),
    Fed("lines", "ann", Line(3, "cat")),
    Fed("payments", "x1", Payment(4, 5)),
    Fed("payments", "x1", Payment(5, 2, FIRST_MS + 150)),
    Fed("payments", "x1", Payment(6, 1, FIRST_MS + 250)),
]
COUNTS: list[Output] = [
    Counted("cat", 1, 1),
    Counted("cat", 2, 2),
    Counted("cat", 3, 3),
    Counted("dog", 1, 1),
]
BALANCES: list[Output] = [Balance("x1", 4, 5), Balance("x1", 5, 7), Balance("x1", 6, 8)]
CLOSED: list[Output] = [Closed("account", "x1", FIRST_MS + 100, 5), Closed("account", "x1", FIRST_MS + 200, 2)]
RIGHT: list[Output] = [*COUNTS, *BALANCES, *CLOSED]


def kinds(seen: list[Output]) -> set[Kind]:
    """The kinds of violation in these outputs."""
    return {violation.kind for violation in output_violations(seen, expected(FED))}


def test_the_right_outputs_have_no_violation() -> None:
    """In any interleaving of keys, and of lines of different authors."""
    assert kinds([*RIGHT]) == set()
    assert (
        kinds(
            [*CLOSED, *BALANCES, Counted("cat", 2, 1), Counted("cat", 1, 2), Counted("dog", 1, 1), Counted("cat", 3, 3)]
        )
        == set()
    )


@pytest.mark.parametrize("missing", range(len(RIGHT)))
def test_a_record_that_is_not_there_is_lost(missing: int) -> None:
    """Whichever it is."""
    assert kinds(RIGHT[:missing] + RIGHT[missing + 1 :]) == {Kind.LOST}


@pytest.mark.parametrize("twice", RIGHT)
def test_a_record_that_is_there_twice_is_doubled(twice: Output) -> None:
    """Whichever it is."""
    assert kinds([*RIGHT, twice]) == {Kind.DOUBLED}


@pytest.mark.parametrize(
    "seen",
    [
        [Counted("cat", 3, 1), Counted("cat", 2, 2), Counted("cat", 1, 3), Counted("dog", 1, 1), *BALANCES, *CLOSED],
        [Counted("cat", 2, 2), Counted("cat", 1, 1), Counted("cat", 3, 3), Counted("dog", 1, 1), *BALANCES, *CLOSED],
        [*COUNTS, *reversed(BALANCES), *CLOSED],
        [*COUNTS, *BALANCES, *reversed(CLOSED)],
    ],
)
def test_records_in_another_order_of_their_key_are_a_violation_of_order(seen: list[Output]) -> None:
    """One author's lines swapped; counts that do not rise; balances swapped; windows swapped."""
    assert kinds(seen) == {Kind.ORDER}


@pytest.mark.parametrize(
    "seen",
    [
        [Counted("cat", 1, 1), Counted("cat", 2, 3), Counted("cat", 3, 4), Counted("dog", 1, 1), *BALANCES, *CLOSED],
        [*COUNTS, Balance("x1", 4, 5), Balance("x1", 5, 2), Balance("x1", 6, 3), *CLOSED],
        [*COUNTS, *BALANCES, CLOSED[0], Closed("account", "x1", FIRST_MS + 200, 3)],
    ],
)
def test_outputs_from_wrong_state_are_told_as_such(seen: list[Output]) -> None:
    """Every record is answered once, but with a figure that only wrong state can give."""
    assert kinds(seen) == {Kind.STATE}

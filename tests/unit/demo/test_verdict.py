import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.demo.verdict import Verdict, by_word, judge

EXPECTED = {"the": 4, "is": 2, "lambda": 1}
RIGHT = [("the", 1), ("is", 1), ("the", 2), ("lambda", 1), ("the", 3), ("is", 2), ("the", 4)]


def verdict(records: list[tuple[str, int]]) -> Verdict:
    """Judge records against EXPECTED."""
    return judge(EXPECTED, by_word(records))


def test_the_right_records_are_exactly_once() -> None:
    """Each word's counts 1 to n, in order, whatever the order between words: the line that people look for."""
    found = verdict(RIGHT)
    assert found.exactly_once
    assert str(found) == "exactly-once: 7 words, 3 distinct, 0 lost, 0 doubled"


@pytest.mark.parametrize("missing", range(len(RIGHT)))
def test_a_lost_record_is_seen(missing: int) -> None:
    """Any one record left out, the first and the last of a word too, is lost, and nothing else is said."""
    found = verdict(RIGHT[:missing] + RIGHT[missing + 1 :])
    assert not found.exactly_once
    assert (found.lost, found.doubled, found.out_of_order, found.foreign) == (1, 0, 0, 0)
    assert repr(RIGHT[missing][0]) in str(found)


@pytest.mark.parametrize("twice", range(len(RIGHT)))
def test_a_doubled_record_is_seen(twice: int) -> None:
    """A record repeated at once, as a blind retry writes it, is doubled."""
    found = verdict(RIGHT[: twice + 1] + RIGHT[twice:])
    assert not found.exactly_once
    assert (found.lost, found.doubled, found.out_of_order, found.foreign) == (0, 1, 0, 0)


def test_two_records_in_the_wrong_order_are_seen() -> None:
    """The right multiset does not excuse a count that stands behind a larger one."""
    found = verdict([("the", 2), ("the", 1), ("is", 1), ("lambda", 1), ("the", 3), ("is", 2), ("the", 4)])
    assert not found.exactly_once
    assert (found.lost, found.doubled, found.out_of_order, found.foreign) == (0, 0, 1, 0)


def test_an_epoch_done_twice_is_seen() -> None:
    """Replay from an older state, the classic failure: counts 2 and 3 come again, the last one is then missing."""
    replayed = [("the", 1), ("the", 2), ("the", 3), ("the", 2), ("the", 3), ("is", 1), ("is", 2), ("lambda", 1)]
    found = verdict(replayed)
    assert (found.lost, found.doubled, found.out_of_order) == (1, 2, 1)


def test_records_that_nothing_explains_are_seen() -> None:
    """A count beyond the word's occurrences, and a word that the input does not have."""
    found = verdict([*RIGHT, ("the", 5), ("unheard", 1), ("is", 0)])
    assert not found.exactly_once
    assert (found.lost, found.doubled, found.out_of_order, found.foreign) == (0, 0, 0, 3)


def test_a_failure_is_said_in_words() -> None:
    """The line of a failure cannot be taken for that of a success, and names words and counts."""
    line = str(verdict(RIGHT[:-1]))
    assert line.startswith("NOT exactly-once: 7 words, 3 distinct, 1 lost, 0 doubled")
    assert "'the': lost [4]" in line


@given(st.lists(st.sampled_from(RIGHT), max_size=20), st.randoms(use_true_random=False))
def test_only_the_right_records_pass(records: list[tuple[str, int]], dice: random.Random) -> None:
    """Whatever else stands in the topic, it is exactly-once if and only if each word's counts are those expected."""
    found = by_word(records)
    right = all(found.get(word, []) == list(range(1, n + 1)) for word, n in EXPECTED.items())
    assert verdict(records).exactly_once == right
    shuffled = sorted(RIGHT, key=lambda _: dice.random())
    assert verdict(shuffled).exactly_once == all(c == sorted(c) for c in by_word(shuffled).values())

"""Counts of words as they come, crashes included."""

from __future__ import annotations

import pytest

from kstate.testing import Driver
from operators.records import Line, RunningCount, Word
from operators.running_count import job
from operators.running_count.operators import Count
from operators.word_count.operators import Split


def test_every_occurrence_is_answered_with_the_count_so_far() -> None:
    """A word's first occurrence is counted 1, its second 2, whatever its case."""
    with Driver(job) as d:
        d.send(Split.lines, Line("to be or not To be", 1_000))
        assert d.read(Count.counts) == [
            RunningCount("to", 1),
            RunningCount("be", 1),
            RunningCount("or", 1),
            RunningCount("not", 1),
            RunningCount("to", 2),
            RunningCount("be", 2),
        ]


def test_counts_go_on_from_line_to_line_and_are_kept_by_word() -> None:
    """State outlives the line that made it; a word that never came has the default."""
    with Driver(job) as d:
        d.send(Split.lines, Line("rose is a rose", 1_000), Line("is a rose", 2_000))
        assert d.read(Count.counts)[-1] == RunningCount("rose", 3)
        assert (d.state(Count.seen, key="rose"), d.state(Count.seen, key="tulip")) == (3, 0)


def test_a_line_of_blanks_has_no_words() -> None:
    """Nothing is emitted for it."""
    with Driver(job) as d:
        d.send(Split.lines, Line("  \t ", 1_000))
        assert d.read(Split.words) == []


def test_one_operator_can_be_tested_by_feeding_its_internal_stream() -> None:
    """The key is the one that Split would give the record."""
    with Driver(job) as d:
        d.send(Count.words, Word("alone"), Word("alone"))
        assert d.read(Count.counts) == [RunningCount("alone", 1), RunningCount("alone", 2)]


@pytest.mark.parametrize("point", ["before_commit", "after_commit", "processed", "markers-sent"])
def test_a_crash_neither_loses_nor_doubles_a_word(point: str) -> None:
    """Whether the worker dies just before or just after its epoch is committed, each word is counted once."""
    with Driver(job, workers=2) as d:
        d.send(Split.lines, Line("one two two", 1_000))
        for worker in (0, 1):
            d.crash(worker, at=point)
        d.send(Split.lines, Line("three two three one", 2_000), Line("one two", 3_000))
        counts = [(count.word, count.n) for count in d.read(Count.counts)]
        assert sorted(counts) == sorted(
            [*(("one", n) for n in (1, 2, 3)), *(("two", n) for n in (1, 2, 3, 4)), *(("three", n) for n in (1, 2))]
        )
        assert [n for word, n in counts if word == "two"] == [1, 2, 3, 4]

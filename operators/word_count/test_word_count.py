"""How users test operators: on the real engine, in memory, without a broker and without waiting."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kstate.testing import Driver
from operators.records import Line, Word, WordCount
from operators.word_count import job
from operators.word_count.operators import Count, Split


def by_word(counts: list[WordCount]) -> list[WordCount]:
    """There is no order between words."""
    return sorted(counts, key=lambda count: (count.word, count.start))


def test_each_word_of_a_window_is_reported_once_when_it_is_over() -> None:
    """Whatever its case; over is a window when a line two seconds (the lateness) behind its end has come."""
    with Driver(job) as d:
        d.send(Split.lines, Line("to be or not To be", 1_000), Line("end", 31_999))
        assert d.read(Count.counts) == []
        d.send(Split.lines, Line("end", 32_000))
        assert by_word(d.read(Count.counts)) == [
            WordCount("be", 0, 2),
            WordCount("not", 0, 1),
            WordCount("or", 0, 1),
            WordCount("to", 0, 2),
        ]


def test_windows_of_a_word_follow_each_other() -> None:
    """In order of their ends; one without the word is not reported."""
    with Driver(job) as d:
        d.send(Split.lines, Line("rose", 29_999), Line("rose is a rose", 30_000), Line("rose", 95_000))
        d.send(Split.lines, Line("end", 200_000))
        roses = [count for count in d.read(Count.counts) if count.word == "rose"]
        assert roses == [WordCount("rose", 0, 1), WordCount("rose", 30_000, 2), WordCount("rose", 90_000, 1)]


def test_a_line_that_is_two_seconds_late_counts_and_one_that_is_later_does_not() -> None:
    """A closed window is closed; the words of a late line open no other."""
    with Driver(job) as d:
        d.send(Split.lines, Line("in", 31_000), Line("time", 29_000), Line("over", 32_000))
        assert d.read(Count.counts) == [WordCount("time", 0, 1)]
        d.send(Split.lines, Line("time", 29_000), Line("end", 200_000))
        assert by_word(d.read(Count.counts)) == [WordCount("in", 30_000, 1), WordCount("over", 30_000, 1)]


def test_lines_are_split_at_white_space() -> None:
    """What an operator emits to another one can be read like any output; a line of blanks has no words."""
    with Driver(job) as d:
        d.send(Split.lines, Line("  \t ", 1_000), Line(" To be,\tor ", 2_000))
        assert d.read(Split.words) == [Word("to"), Word("be,"), Word("or")]


def test_one_operator_can_be_tested_by_feeding_its_internal_stream() -> None:
    """The key is the one that Split would give the record."""
    with Driver(job) as d:
        d.send(Count.words, Word("alone"), Word("alone"), event_time=31_000)
        assert list(d.state(Count.n, key="alone").values()) == [2]


@pytest.mark.parametrize("point", ["before_commit", "after_commit", "processed", "markers-sent"])
def test_a_crash_neither_loses_nor_doubles_a_word(point: str) -> None:
    """Open windows and watermarks come back as they were committed, on whichever worker."""
    with Driver(job, workers=2) as d:
        d.send(Split.lines, Line("one two two", 1_000))
        for worker in (0, 1):
            d.crash(worker, at=point)
        d.send(Split.lines, Line("three two three one", 2_000), Line("one two", 3_000))
        d.send(Split.lines, *(Line("end", 40_000 + number) for number in range(4)))
        assert by_word(d.read(Count.counts)) == [
            WordCount("one", 0, 3),
            WordCount("three", 0, 2),
            WordCount("two", 0, 4),
        ]


def test_the_fixture_makes_drivers(kstate_driver: Callable[..., Driver]) -> None:
    """The same without a `with`: the driver is checked and closed when the test ends."""
    d = kstate_driver(job)
    d.send(Split.lines, Line("once", 1_000), Line("end", 40_000))
    assert d.read(Count.counts) == [WordCount("once", 0, 1)]

from itertools import cycle

from benchmarks.demo.load import Pace, Truth, paced
from benchmarks.demo.text import python_topics


def test_lines_come_until_enough_words_are_taken() -> None:
    """Whole lines, in order, over and over; the truth counts words in lower case, blank lines none."""
    truth, source = Truth(), cycle(("The cat", "", "the dog ran"))
    assert list(paced(source, truth, 1)) == ["The cat"]
    assert list(paced(source, truth, 7)) == ["", "the dog ran", "The cat"]
    assert truth.counts == {"the": 3, "cat": 2, "dog": 1, "ran": 1}
    assert (truth.words, truth.lines) == (7, 4)


def test_a_line_counts_before_it_is_written() -> None:
    """The job can never be ahead of the truth."""
    truth = Truth()
    line = next(paced(cycle(("a b",)), truth, 10))
    assert (line, truth.words) == ("a b", 2)


def test_the_load_is_steady_until_the_job_is_too_far_behind() -> None:
    """Words come due by time; while the job has too much to do none do, and none of them are made up for later."""
    pace = Pace(words_per_s=1_000, behind_max=500)
    due = pace.due(0.0, 0.5, behind=500)
    assert due == 500
    due = pace.due(due, 3.0, behind=501)
    assert due == 500
    assert pace.due(due, 0.25, behind=0) == 750


def test_python_brings_real_text() -> None:
    """English words, some frequent, thousands of them different."""
    truth = Truth()
    lines = list(paced(cycle(python_topics()), truth, 200_000))
    assert len(lines) == truth.lines
    assert 200_000 <= truth.words < 200_100
    assert len(truth.counts) > 5_000
    assert truth.counts["the"] > 4_000

import pytest

from benchmarks.demo.text import python_topics, repeated


def test_the_source_is_repeated_until_there_are_enough_words() -> None:
    """Whole lines only, in order, over and over; words are lower case."""
    text = repeated(("The cat", "", "the dog ran"), 7)
    assert text.lines == ("The cat", "", "the dog ran", "The cat")
    assert text.counts == {"the": 3, "cat": 2, "dog": 1, "ran": 1}
    assert text.words == 7


def test_a_source_without_words_is_refused() -> None:
    """It would be repeated for ever."""
    with pytest.raises(ValueError, match="no words"):
        repeated(("", "  "), 1)


def test_python_brings_real_text() -> None:
    """Half a million English words can be made of it, some frequent, thousands of them different."""
    text = repeated(python_topics(), 500_000)
    assert 500_000 <= text.words < 500_100
    assert len(text.counts) > 5_000
    assert text.counts["the"] > 10_000

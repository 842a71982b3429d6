import json

from benchmarks.demo.evidence import Diary, Recovery, Seen, Span, recovery, uncommitted
from benchmarks.demo.screen import Rate
from benchmarks.demo.story import Outcome
from benchmarks.demo.verdict import judge

LINES = ("split", "lines", 0)
WORDS = ("count", "words", 3)


def handled(next_offset: int, records: int, who: str = "w-1") -> str:
    """A line of the worker's log after a batch of `lines`."""
    fields = {"event": "handled", "incarnation": who, "operator": "split", "topic": "lines", "partition": 0}
    return json.dumps({**fields, "next_offset": next_offset, "records": records})


def test_what_is_in_hand_is_what_was_handled_since_the_last_commit() -> None:
    """Batches add up; an epoch that was committed, or undone, empties the hand."""
    diary = Diary("w-1", {})
    for line in (handled(10, 10), handled(25, 15)):
        diary.take(line)
    assert (diary.in_hand, diary.handled) == (25, {LINES: 25})
    diary.take(json.dumps({"event": "committed", "incarnation": "w-1"}))
    assert (diary.in_hand, diary.handled) == (0, {})
    diary.take(handled(31, 6))
    assert (diary.in_hand, diary.handled) == (6, {LINES: 31})
    diary.take(json.dumps({"event": "undone", "incarnation": "w-1"}))
    assert (diary.in_hand, diary.handled) == (0, {})


def test_lines_of_others_count_for_nothing() -> None:
    """Another worker, the successor of the same name, plain text and a line that was cut off by the kill."""
    diary = Diary("w-1", {})
    for line in (handled(10, 10, "w-2"), "Traceback …", "[1]", handled(10, 10)[:40], ""):
        diary.take(line)
    assert (diary.in_hand, diary.handled) == (0, {})


def test_only_what_lies_beyond_the_last_marker_was_lost() -> None:
    """An input partition whose marker covers all that was handled has nothing to be done again."""
    spans = uncommitted({LINES: 31, WORDS: 7}, {LINES: 25, WORDS: 7, ("count", "words", 4): 0})
    assert spans == [Span(LINES, 25, 31)]
    assert spans[0].holds("lines", 0, 25)
    assert not spans[0].holds("lines", 0, 31)
    assert not spans[0].holds("lines", 1, 25)


def test_recovery_is_measured_by_outputs_of_lost_tiles_behind_the_end() -> None:
    """Records before the end at the kill are the victim's own, other tiles never stopped: neither counts."""
    lost = {b"a": 0, b"b": 1, b"other": None}
    seen = [
        Seen(10.01, 0, 4, b"a"),  # committed by the victim, delivered after its death
        Seen(10.2, 0, 5, b"other"),
        Seen(12.5, 0, 6, b"a"),
        Seen(12.6, 0, 7, b"a"),
        Seen(13.0, 1, 9, b"b"),
    ]
    found = recovery(seen, 10.0, {0: 5, 1: 9}, lost.__getitem__)
    assert found == Recovery(first_s=2.5, all_s=3.0, tiles=2)
    assert recovery(seen[:2], 10.0, {0: 5, 1: 9}, lost.__getitem__) is None


def test_a_demo_that_proves_nothing_fails() -> None:
    """Right results are not enough: something must have been in hand, enough left, and a recovery seen."""
    good = Outcome(judge({"a": 1}, {"a": [1]}), 1, 5, 0.4, Recovery(1.0, 2.0, 8), 0, 20.0)
    assert good.faults() == []
    verdict = judge({"a": 2}, {"a": [1]})
    poor = Outcome(verdict, 1, 0, 0.2, None, 1, 20.0)
    assert len(poor.faults()) == 6


def test_the_rate_is_that_of_the_last_moments() -> None:
    """A counter that stood still for longer than the window has rate 0."""
    rate = Rate()
    assert rate.at(0.0, 0) == 0.0
    assert rate.at(1.0, 500) == 500.0
    assert rate.at(2.0, 500) == 250.0
    assert rate.at(4.5, 500) == 0.0

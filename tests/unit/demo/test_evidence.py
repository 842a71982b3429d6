import json
from dataclasses import replace
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from benchmarks.demo.__main__ import report
from benchmarks.demo.evidence import Diary, Recovering, Recovery, Seen
from benchmarks.demo.gaps import Group, Grouping
from benchmarks.demo.screen import Rate
from benchmarks.demo.story import Outcome, Ran
from benchmarks.demo.timeline import Carried, Deed, effect
from benchmarks.demo.verdict import judge
from kstate.keyspace import FULL_RANGE, SLOTS, KeyRange
from kstate.plan import Shard, Tile

LINES = ("split", "lines", 0)
LOW = KeyRange(0, SLOTS // 2)


def handled(next_offset: int, records: int, who: str = "w-1") -> str:
    """A line of the worker's log after a batch of `lines`."""
    fields = {"event": "handled", "incarnation": who, "operator": "split", "topic": "lines", "partition": 0}
    stamp = f"2026-01-01T00:00:{next_offset:02}.500000Z"
    return json.dumps({**fields, "next_offset": next_offset, "records": records, "timestamp": stamp})


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


def test_an_epoch_begins_with_its_first_batch_by_the_workers_own_clock() -> None:
    """When we read the note does not matter: who looks late would take an old epoch for a young one."""
    diary, began = Diary("w-1", {}), 1767225610.5  # 2026-01-01T00:00:10.5Z
    for line in (handled(10, 10), handled(25, 15)):
        diary.take(line)
    seen = [diary.since]
    for line in (json.dumps({"event": "committed", "incarnation": "w-1"}), handled(31, 6)):
        diary.take(line)
        seen.append(diary.since)
    assert seen == [began, None, began + 21]


def test_lines_of_others_count_for_nothing() -> None:
    """Another worker, the successor of the same name, plain text and a line that was cut off by the kill."""
    diary = Diary("w-1", {})
    for line in (handled(10, 10, "w-2"), "Traceback …", "[1]", handled(10, 10)[:40], ""):
        diary.take(line)
    assert (diary.in_hand, diary.handled) == (0, {})


def test_recovery_is_measured_by_outputs_of_lost_tiles_behind_the_end() -> None:
    """Records before the end at the kill are the victim's own, other tiles never stopped: neither counts."""
    a, b, other = Group(0, 0), Group(1, 0), Group(1, 7)
    lost = {a: Tile(Shard("count", 0), FULL_RANGE, "i2", 1), b: Tile(Shard("count", 1), LOW, "i2", 1)}
    recovering = Recovering(10.0, {0: 5, 1: 9}, lost)
    recovering.take(Seen(10.01, 0, 4, a))  # committed by the victim, delivered after its death
    recovering.take(Seen(10.2, 0, 5, other))
    assert [recovering.result, recovering.silent] == [None, 2]
    recovering.take(Seen(12.5, 0, 6, a))
    recovering.take(Seen(12.6, 0, 7, a))
    assert recovering.result == Recovery(first_s=2.5, all_s=2.5, tiles=1)
    recovering.take(Seen(13.0, 1, 9, b))
    assert recovering.result == Recovery(first_s=2.5, all_s=3.0, tiles=2)
    assert recovering.silent == 0


def good() -> Outcome:
    """Of a demo as it should be."""
    seen = {group: [0.0, 9.0] for group in Grouping(1).groups}
    deed = Deed("split", 1.0, 2.0, 3.0, (Carried(Shard("count", 0), LOW, "worker-1", "worker-2"),))
    found = effect(deed, seen, list(seen), "count")
    verdict = judge({"a": 1}, {"a": [1]})
    ran = (Ran("split of count[0], at worker-2", 100), Ran("merge of count[0], at worker-1", 100))
    return Outcome(verdict, 1, 0.0, (found,), ran, 5, 8, Recovery(1.0, 2.0, 8), "", 0, 15_000.0)


def test_a_demo_that_is_what_it_claims_to_be_has_no_fault() -> None:
    """Everything happened and everything was seen."""
    assert good().faults() == []


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"missed": "merge: order refused"}, "merge: order refused"),
        ({"ran": ()}, "nothing was split"),
        ({"ran": (Ran("split of count[0], at worker-2", 0),)}, "no word was counted there"),
        ({"replayed": 0}, "nothing was replayed"),
        ({"recovery": None}, "no output of the lost tiles"),
        ({"recovery": Recovery(1.0, 2.0, 7)}, "not all of the lost tiles"),
        ({"exit_code": None}, "exit code None"),
        ({"observed": 2}, "saw 2 records"),
        ({"verdict": judge({"a": 2}, {"a": [1, 1]})}, "results differ"),
    ],
)
def test_a_demo_that_proves_less_fails(change: dict[str, Any], fault: str) -> None:
    """Right results are not enough: each act must have happened, on work that was really under way."""
    assert [each for each in replace(good(), **change).faults() if fault in each]


def test_a_gap_that_was_not_seen_fails_the_demo() -> None:
    """A figure that nobody measured is not shown as one, and not passed over."""
    outcome = good()
    silent = effect(outcome.effects[0].deed, {}, Grouping(1).groups, "count")
    assert len(replace(outcome, effects=(silent,)).faults()) == 2


def test_the_exit_code_says_whether_the_demo_proved_what_it_claims() -> None:
    """0 for a good one; 1, with the reason in words, as soon as one act did not happen, whatever the results are."""
    console = Console(file=StringIO(), width=118)
    assert report(good(), console) == 0
    assert report(replace(good(), missed="kill: worker-2 had nothing in hand"), console) == 1
    assert isinstance(console.file, StringIO)
    first, second = console.file.getvalue().split("exactly-once: 1 words", 1)
    assert "recovered in 1.0 s" in first
    assert "failed: kill: worker-2 had nothing in hand" in second


def test_the_rate_is_that_of_the_last_moments() -> None:
    """A counter that stood still for longer than the window has rate 0."""
    rate = Rate()
    assert rate.at(0.0, 0) == 0.0
    assert rate.at(1.0, 500) == 500.0
    assert rate.at(2.0, 500) == 250.0
    assert rate.at(4.5, 500) == 0.0

"""The oracle of the integration tests finds what it is there to find."""

from __future__ import annotations

import io
from collections.abc import Iterable

from fastavro import parse_schema, schemaless_writer

from tests.support.oracle import Seen, judged
from tests.support.records import Tally

EXPECTED = {"a": {0: [1, 4], 1: [2]}, "b": {0: [3]}}
RIGHT = [Tally("a", 1, 1, 1), Tally("a", 2, 3, 2), Tally("a", 3, 7, 4), Tally("b", 1, 3, 3)]
SCHEMA = parse_schema(
    {
        "type": "record",
        "name": "Tally",
        "fields": [
            {"name": "key", "type": "string"},
            {"name": "n", "type": "long"},
            {"name": "total", "type": "long"},
            {"name": "id", "type": "long"},
        ],
    }
)


def topic(tallies: Iterable[Tally], *, partition: int = 0) -> list[Seen]:
    """Results as they stand in a topic."""
    seen = []
    for offset, tally in enumerate(tallies):
        out = io.BytesIO()
        schemaless_writer(out, SCHEMA, {name: getattr(tally, name) for name in ("key", "n", "total", "id")})
        seen.append(Seen("out", partition, offset, tally.key.encode(), out.getvalue()))
    return seen


def test_what_was_expected_holds_whatever_the_interleaving_of_order_groups() -> None:
    """Group 1 of key a may come before, between or after the records of group 0."""
    assert judged(topic(RIGHT), EXPECTED).holds
    swapped = [Tally("a", 1, 2, 2), Tally("a", 2, 3, 1), Tally("a", 3, 7, 4), Tally("b", 1, 3, 3)]
    assert judged(topic(swapped), EXPECTED).holds


def test_a_missing_record_is_lost_and_one_too_many_is_doubled() -> None:
    """Each is named with its key and id."""
    assert judged(topic(RIGHT[:-1]), EXPECTED).lost == [("b", 3)]
    assert judged(topic([*RIGHT, Tally("b", 2, 6, 3)]), EXPECTED).doubled == [("b", 3)]
    assert judged(topic([*RIGHT, Tally("c", 1, 9, 9)]), EXPECTED).doubled == [("c", 9)]


def test_one_lost_and_one_doubled_do_not_cancel_out() -> None:
    """The number of records is right and still two faults are found."""
    verdict = judged(topic([*RIGHT[:2], Tally("a", 3, 5, 2), RIGHT[3]]), EXPECTED)
    assert (verdict.lost, verdict.doubled) == ([("a", 4)], [("a", 2)])


def test_records_of_a_group_out_of_order_are_found() -> None:
    """As a multiset they are right."""
    verdict = judged(topic([Tally("a", 1, 4, 4), Tally("a", 2, 5, 1), Tally("a", 3, 7, 2), RIGHT[3]]), EXPECTED)
    assert verdict.disordered
    assert not verdict.lost
    assert not verdict.doubled


def test_state_that_did_not_run_along_is_found() -> None:
    """Every id came out once, but the second one was counted from nothing."""
    verdict = judged(topic([RIGHT[0], Tally("a", 1, 2, 2), RIGHT[2], RIGHT[3]]), EXPECTED)
    assert verdict.wrong
    assert not verdict.holds


def test_a_key_in_two_partitions_is_found() -> None:
    """Order per key is only meaningful within one partition."""
    verdict = judged([*topic(RIGHT[:1]), *topic(RIGHT[1:], partition=1)], EXPECTED)
    assert any("partitions" in fault for fault in verdict.wrong)

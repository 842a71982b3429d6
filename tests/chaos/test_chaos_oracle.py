"""The oracle of the chaos runs finds what it is there to find, and nothing in a right result."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from fastavro import parse_schema, schemaless_writer

from kstate.keyspace import partition_of
from tests.support.chaos_oracle import Given, Table, Verdict, judge_accounts, judge_groups, judge_windows
from tests.support.chaos_records import ACCOUNTS, PARTITIONS, WINDOW_MS, Feed, Ints, key_bytes, keys_of, longs_of

FEED = Feed(start_ms=1_700_000_000_000, count=30_000)
IDS = np.arange(FEED.end)
GIVEN = Given(FEED, np.delete(IDS, [77, 78, 79]))
"""Three records were in an aborted transaction."""


def places(keys: Ints) -> Ints:
    """The partition of each key."""
    found = {key: partition_of(key_bytes(key), PARTITIONS) for key in np.unique(keys).tolist()}
    return np.array([found[key] for key in keys.tolist()], np.int64)


def tallies(ids: Ints, keys: Ints) -> Table:
    """What an exact job emits when it handles the records in this order."""
    numbers: dict[int, int] = {}
    sums: dict[int, int] = {}
    rows = []
    for number, key, amount in zip(ids.tolist(), keys.tolist(), FEED.amounts(ids).tolist(), strict=True):
        numbers[key] = numbers.get(key, 0) + 1
        sums[key] = sums.get(key, 0) + amount
        rows.append((numbers[key], sums[key], number))
    return Table(keys, np.array(rows, np.int64), places(keys))


def windows(*, grouped: bool) -> Table:
    """What an exact job emits for the windows, and the open one of the closing records."""
    found: dict[tuple[int, int], list[int]] = {}
    ids = GIVEN.ids
    keys = FEED.groups(ids) if grouped else FEED.accounts(ids)
    columns = (keys.tolist(), FEED.times(ids).tolist(), FEED.amounts(ids).tolist())
    for key, ts, amount in zip(*columns, strict=True):
        window = found.setdefault((ts // WINDOW_MS * WINDOW_MS, key), [0, 0])
        window[0] += 1
        window[1] += amount
    rows = sorted((start, key, n, total) for (start, key), (n, total) in found.items())
    fields = np.array([(start, n, total, 0) for start, _, n, total in rows], np.int64)
    keys = np.array([key for _, key, _, _ in rows], np.int64)
    return Table(keys, fields, places(keys))


def changed(table: Table, rows: Ints) -> Table:
    """The same records, some of them, in another order."""
    return Table(table.keys[rows], table.fields[rows], table.partitions[rows])


@pytest.fixture(scope="module")
def accounts() -> Table:
    """Exact results of the first stage."""
    return tallies(GIVEN.ids, FEED.accounts(GIVEN.ids))


@pytest.fixture(scope="module")
def groups() -> Table:
    """Groups see the accounts' shares interleaved otherwise than in the input."""
    order = np.argsort(FEED.accounts(GIVEN.ids) % 3, kind="stable")
    ids = GIVEN.ids[order]
    return tallies(ids, FEED.groups(ids))


def judged(found: Table, which: str) -> Verdict:
    """By the oracle of that output."""
    match which:
        case "accounts":
            return judge_accounts(GIVEN, found)
        case "groups":
            return judge_groups(GIVEN, found)
        case _:
            return judge_windows(GIVEN, found, grouped=which == "group windows")


@pytest.fixture(params=["accounts", "groups", "windows", "group windows"])
def right(request: pytest.FixtureRequest) -> tuple[str, Table]:
    """Each output as it must be."""
    which = request.param
    if "windows" in which:
        return which, windows(grouped=which == "group windows")
    return which, request.getfixturevalue(which)


def test_a_right_output_holds(right: tuple[str, Table]) -> None:
    """Of each kind, with thousands of records."""
    verdict = judged(right[1], right[0])
    assert verdict.holds, str(verdict)
    assert verdict.records > 50
    assert verdict.expected > 50


def test_a_lost_record_is_found(right: tuple[str, Table]) -> None:
    """One among thousands, anywhere; also where the count says that another was doubled instead."""
    which, table = right
    assert judged(changed(table, np.delete(np.arange(len(table)), 33)), which).lost == 1
    assert judged(changed(table, np.delete(np.arange(len(table)), 0)), which).lost == 1
    verdict = judged(changed(table, np.concatenate(([1], np.arange(1, len(table))))), which)
    assert (verdict.lost, verdict.doubled) == (1, 1)


def test_a_doubled_record_is_found(right: tuple[str, Table]) -> None:
    """As it stands, and behind all others."""
    which, table = right
    assert judged(changed(table, np.concatenate((np.arange(len(table)), [50]))), which).doubled == 1
    assert not judged(changed(table, np.concatenate(([50], np.arange(len(table))))), which).holds


def test_a_reordered_record_is_found(right: tuple[str, Table]) -> None:
    """The first and the last record of a key exchange their places."""
    which, table = right
    at = np.flatnonzero(table.keys == table.keys[10])
    rows = np.arange(len(table))
    last = at[table.fields[at, 0] < FEED.closing_ms // WINDOW_MS * WINDOW_MS][-1]
    rows[[at[0], last]] = rows[[last, at[0]]]
    verdict = judged(changed(table, rows), which)
    assert not verdict.lost
    assert not verdict.doubled
    assert verdict.disordered or which == "groups"
    assert not verdict.holds


def test_payments_of_an_account_that_change_places_within_their_group_are_found(groups: Table) -> None:
    """Also when count and sum run along with the wrong order; payments of different accounts may change places."""
    ids = groups.fields[:, 2]
    pair = FEED.groups(ids) * ACCOUNTS + FEED.accounts(ids)
    names, counts = np.unique(pair, return_counts=True)
    at = np.flatnonzero(pair == names[counts > 1][0])
    ids = ids.copy()
    ids[[at[0], at[1]]] = ids[[at[1], at[0]]]
    verdict = judged(tallies(ids, FEED.groups(ids)), "groups")
    assert verdict.disordered == 1
    assert verdict.wrong == 0


def test_state_that_did_not_run_along_is_found(right: tuple[str, Table]) -> None:
    """A count, and a sum, that do not follow from the records before."""
    which, table = right
    for column in (1, 2) if "windows" in which else (0, 1):
        fields = table.fields.copy()
        fields[40, column] += 1
        verdict = judged(Table(table.keys, fields, table.partitions), which)
        assert verdict.wrong == 1, str(verdict)


def test_a_record_that_nothing_demands_is_foreign(right: tuple[str, Table]) -> None:
    """Such as one of an aborted transaction of the feed."""
    which, table = right
    extra = table.fields[:1].copy()
    extra[0, 0 if "windows" in which else 2] = FEED.start_ms - 10 * WINDOW_MS if "windows" in which else 78
    found = Table(
        np.concatenate((table.keys, table.keys[:1])),
        np.concatenate((table.fields, extra)),
        np.concatenate((table.partitions, table.partitions[:1])),
    )
    verdict = judged(found, which)
    assert verdict.foreign == 1
    assert not verdict.holds


def test_a_key_in_two_partitions_is_found(right: tuple[str, Table]) -> None:
    """Order per key is only meaningful within one."""
    which, table = right
    partitions = table.partitions.copy()
    partitions[5] = (partitions[5] + 1) % PARTITIONS
    assert judged(Table(table.keys, table.fields, partitions), which).wrong == 1


def test_a_late_record_is_wrong() -> None:
    """The feed is never later than the lateness that the job allows."""
    table = windows(grouped=False)
    fields = table.fields.copy()
    fields[9, 3] = 1
    assert judge_windows(GIVEN, Table(table.keys, fields, table.partitions), grouped=False).wrong == 1


def test_columns_are_decoded_as_avro_writes_them() -> None:
    """Longs of every length and sign; a value with a number too many or too few is refused."""
    schema = parse_schema(
        {"type": "record", "name": "Two", "fields": [{"name": "a", "type": "long"}, {"name": "b", "type": "long"}]}
    )
    numbers = [0, 1, -1, 63, 64, -64, -65, 2**31, -(2**31), 2**62, 2**63 - 1, -(2**63), 1_700_000_000_123]

    def encoded(*row: int) -> bytes:
        out = io.BytesIO()
        value: Any = dict(zip("ab", row, strict=True))
        schemaless_writer(out, schema, value)
        return out.getvalue()

    rows = [(a, b) for a in numbers for b in numbers]
    assert longs_of([encoded(*row) for row in rows], 2).tolist() == [list(row) for row in rows]
    with pytest.raises(ValueError, match="expected 2"):
        longs_of([encoded(1, 2), encoded(3, 4)[:1]], 2)
    with pytest.raises(ValueError, match="does not hold 2"):
        longs_of([encoded(1, 2)[:1], encoded(3, 4) + b"\x02"], 2)


def test_the_feed_is_a_function_of_record_numbers() -> None:
    """Records decode to the columns from which everything expected is computed; every account has a closing record."""
    found = FEED.records(29_000, FEED.end)
    rows = longs_of([value for _, value in found], 4)
    ids = np.arange(29_000, FEED.end)
    assert np.array_equal(rows, np.column_stack((ids, FEED.amounts(ids), FEED.times(ids), FEED.groups(ids))))
    assert np.array_equal(keys_of([key for key, _ in found]), FEED.accounts(ids))
    assert set(FEED.accounts(IDS[FEED.count :]).tolist()) == set(range(ACCOUNTS))
    assert len(np.unique(FEED.accounts(IDS[: FEED.count]))) == ACCOUNTS


def test_an_input_that_is_not_the_feeds_is_refused() -> None:
    """What is expected rests on it."""
    ids = np.delete(IDS, 5)
    fields = np.column_stack((ids, FEED.amounts(ids), FEED.times(ids), FEED.groups(ids)))
    assert len(Given.of(FEED, Table(FEED.accounts(ids), fields, ids * 0))) == len(ids)
    with pytest.raises(AssertionError, match="twice"):
        Given.of(FEED, Table(FEED.accounts(ids), np.concatenate((fields[:-1], fields[:1])), ids * 0))
    with pytest.raises(AssertionError, match="closing"):
        Given.of(FEED, Table(FEED.accounts(ids[:-1]), fields[:-1], ids[:-1] * 0))

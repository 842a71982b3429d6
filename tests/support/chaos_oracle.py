"""Every committed record of a chaos run against what the input demands, for millions of records, without kstate.

The input topic is read back: its committed records, in the order of each partition, are what was given. From them
follow, per key, the ids, counts and sums that must come out in this order, and every window. Columns are compared as
arrays.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from zlib import crc32

import numpy as np
from confluent_kafka import TopicPartition

from tests.support.chaos_records import ACCOUNTS, PARTITIONS, WINDOW_MS, Feed, Ints, keys_of, longs_of
from tests.support.oracle import bounds, ends, partitions_of, reader

CHUNK = 20_000
EXAMPLES = 8
EMPTY: Ints = np.zeros(0, np.int64)


@dataclass(slots=True)
class Table:
    """A topic: keys and fields of its records, in the order of each partition, the partitions one after the other."""

    keys: Ints
    fields: Ints
    """One row per record."""
    partitions: Ints
    crcs: dict[int, int] = field(default_factory=dict)
    """Partition → CRC over offset, key and value of all its records: two readers that agree saw the same."""

    def __len__(self) -> int:
        return len(self.keys)


def chained(crc: int, offset: int, key: bytes, value: bytes) -> int:
    """The CRC of a partition with one more record."""
    return crc32(value, crc32(key, crc32(offset.to_bytes(8, "big"), crc)))


def read_table(servers: str, topic: str, fields: int) -> Table:
    """All committed records of a topic to a fresh end, taken read_uncommitted; one process for each core reads."""
    goal = ends(servers, topic)
    with ProcessPoolExecutor(os.cpu_count() or 1, get_context("spawn")) as pool:
        asked = [pool.submit(_read_partition, servers, topic, p, goal[p], fields) for p in sorted(goal)]
        parts = [answer.result() for answer in asked]
    return Table(
        np.concatenate([part.keys for part in parts]) if parts else EMPTY,
        np.concatenate([part.fields for part in parts]) if parts else np.zeros((0, fields), np.int64),
        np.concatenate([part.partitions for part in parts]) if parts else EMPTY,
        {p: part.crcs[p] for p, part in zip(sorted(goal), parts, strict=True)},
    )


def _read_partition(servers: str, topic: str, partition: int, goal: int, fields: int) -> Table:
    crc, keys, rows = 0, [EMPTY], [np.zeros((0, fields), np.int64)]
    for chunk in _chunks(servers, topic, partition, goal):
        for offset, key, value in chunk:
            crc = chained(crc, offset, key, value)
        keys.append(keys_of([key for _, key, _ in chunk]))
        rows.append(longs_of([value for _, _, value in chunk], fields))
    found = np.concatenate(keys)
    return Table(found, np.concatenate(rows), np.full(len(found), partition), {partition: crc})


def _chunks(servers: str, topic: str, partition: int, goal: int) -> Iterator[list[tuple[int, bytes, bytes]]]:
    """Offset, key and value of committed records up to a read_uncommitted end."""
    consumer = reader(servers)
    here = TopicPartition(topic, partition)
    assert here in partitions_of(consumer, topic)
    start = bounds(consumer, here)[0]
    assert start == 0, f"the beginning of {topic}[{partition}] is gone"
    consumer.assign([TopicPartition(topic, partition, 0)])
    silent = 0
    while goal > 0 and consumer.position([here])[0].offset < goal:
        messages = consumer.consume(CHUNK, 0.2)
        silent = 0 if messages else silent + 1
        assert silent < 300, f"{topic}[{partition}] was not readable to {goal} within a minute"
        found = [m for m in messages if m.error() is None]
        if found:
            yield [(m.offset() or 0, _bytes(m.key()), _bytes(m.value())) for m in found]
    consumer.close()


def _bytes(data: str | bytes | None) -> bytes:
    return data.encode() if isinstance(data, str) else data or b""


@dataclass(slots=True)
class Verdict:
    """How an output differs from what was expected; all zero: it does not."""

    name: str
    records: int = 0
    expected: int = 0
    keys: int = 0
    lost: int = 0
    doubled: int = 0
    foreign: int = 0
    """Records that nothing in the input demands."""
    disordered: int = 0
    """Keys whose records came in another order."""
    wrong: int = 0
    """Records with a count, sum or key that does not follow from those before, or in another partition than the key's
    others."""
    examples: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        return not (self.lost or self.doubled or self.foreign or self.disordered or self.wrong)

    def __str__(self) -> str:
        faults = f"{self.lost:,} lost, {self.doubled:,} doubled, {self.foreign:,} foreign"
        faults += f", {self.disordered:,} keys out of order, {self.wrong:,} wrong"
        shown = f"; {'; '.join(self.examples)}" if self.examples else ""
        return f"{self.name}: {self.records:,} records of {self.keys:,} keys, {faults}{shown}"

    def example(self, what: str) -> None:
        if len(self.examples) < EXAMPLES:
            self.examples.append(what)


@dataclass(frozen=True, slots=True)
class Given:
    """The committed input: ids in the order of each partition, the partitions one after the other."""

    feed: Feed
    ids: Ints

    def __len__(self) -> int:
        return len(self.ids)

    @staticmethod
    def of(feed: Feed, table: Table) -> Given:
        """From the input topic. Raises AssertionError when it does not hold what the feed writes."""
        ids = table.fields[:, 0]
        assert len(np.unique(ids)) == len(ids), "the feed wrote a record twice"
        assert len(ids) == 0 or 0 <= ids.min() <= ids.max() < feed.end, "there are records that the feed did not write"
        assert np.array_equal(table.keys, feed.accounts(ids)), "the input topic holds other keys than the feed's"
        closing = np.arange(feed.count, feed.end)
        assert np.isin(closing, ids).all(), "closing records are missing"
        return Given(feed, ids)


def judge_accounts(given: Given, found: Table) -> Verdict:
    """One tally per payment: per account in the order of the input, counted and summed up."""
    verdict = _new("accounts", found, len(given))
    keys = given.feed.accounts(found.fields[:, 2]) if len(found) else EMPTY
    _judge_ids(verdict, given.ids, found, keys)
    if verdict.lost or verdict.doubled or verdict.foreign:
        return verdict
    wanted = _by_key(given.feed.accounts(given.ids), given.ids)
    came = _by_key(found.keys, found.fields[:, 2])
    if not np.array_equal(wanted, came):
        accounts = np.unique(given.feed.accounts(came[wanted != came]))
        verdict.disordered = len(accounts)
        verdict.example(f"account {accounts[0]} out of order")
    _judge_sums(verdict, given.feed, found)
    return verdict


def judge_groups(given: Given, found: Table) -> Verdict:
    """One tally per payment and group: in order per account within a group, counted and summed up in any order."""
    verdict = _new("groups", found, len(given))
    keys = given.feed.groups(found.fields[:, 2]) if len(found) else EMPTY
    _judge_ids(verdict, given.ids, found, keys)
    if verdict.lost or verdict.doubled or verdict.foreign:
        return verdict
    wanted, came = (
        _by_key(given.feed.groups(ids) * ACCOUNTS + given.feed.accounts(ids), ids)
        for ids in (given.ids, found.fields[:, 2])
    )
    if not np.array_equal(wanted, came):
        groups = np.unique(given.feed.groups(came[wanted != came]))
        verdict.disordered = len(groups)
        verdict.example(f"group {groups[0]}: the payments of an account are out of order")
    _judge_sums(verdict, given.feed, found)
    return verdict


def judge_windows(given: Given, found: Table, *, grouped: bool) -> Verdict:
    """One record per key and window, with count and sum, and none that came too late."""
    feed, ids = given.feed, given.ids
    verdict = _new("group windows" if grouped else "windows", found, 0)
    ids = ids[ids < feed.count]
    keys = feed.groups(ids) if grouped else feed.accounts(ids)
    wanted, numbers, sums = _windows(_window_names(keys, feed.times(ids)), feed.amounts(ids))
    closing = feed.closing_ms // WINDOW_MS * WINDOW_MS
    before = found.fields[:, 0] < closing
    keys, rows = found.keys[before], found.fields[before]
    verdict.expected, verdict.records = len(wanted), len(rows)
    came = _window_names(keys, rows[:, 0])
    names, first, counts = np.unique(came, return_index=True, return_counts=True)
    known = np.isin(names, wanted)
    lost = np.setdiff1d(wanted, names)
    verdict.lost, verdict.doubled = len(lost), int((counts[known] - 1).sum())
    verdict.foreign = int(counts[~known].sum())
    for what, which in (("lost", lost), ("doubled", names[known & (counts > 1)]), ("foreign", names[~known])):
        if len(which):
            verdict.example(f"{what}: windows {[_window(name) for name in which[:EXAMPLES].tolist()]} (key, start)")
    place = np.minimum(np.searchsorted(wanted, names), max(len(wanted) - 1, 0))
    bad = known & ((rows[first, 1] != numbers[place]) | (rows[first, 2] != sums[place])) if len(wanted) else ~known
    verdict.wrong = int((bad & known).sum() + rows[:, 3].sum())
    if (bad & known).any():
        verdict.example(f"window {_window(int(names[bad & known][0]))} (key, start) has another count or sum")
    _judge_places(verdict, found)
    _judge_order(verdict, keys, rows[:, 0])
    return verdict


def _new(name: str, found: Table, expected: int) -> Verdict:
    return Verdict(name, len(found), expected, len(np.unique(found.keys)))


def _judge_ids(verdict: Verdict, wanted: Ints, found: Table, keys: Ints) -> None:
    """As a multiset."""
    names, counts = np.unique(found.fields[:, 2], return_counts=True)
    known = np.isin(names, wanted)
    lost = np.setdiff1d(wanted, names)
    verdict.lost = len(lost)
    verdict.doubled = int((counts[known] - 1).sum())
    verdict.foreign = int(counts[~known].sum())
    for what, which in (("lost", lost), ("doubled", names[known & (counts > 1)]), ("foreign", names[~known])):
        if len(which):
            verdict.example(f"{what}: ids {which[:EXAMPLES].tolist()}")
    moved = found.keys != keys
    verdict.wrong += int(moved.sum())
    if moved.any():
        verdict.example(f"id {found.fields[moved][0, 2]} under key {found.keys[moved][0]}")
    _judge_places(verdict, found)


def _judge_places(verdict: Verdict, found: Table) -> None:
    """A key has one partition."""
    pairs = np.unique(found.keys * PARTITIONS + found.partitions)
    scattered = len(pairs) - len(np.unique(found.keys))
    verdict.wrong += scattered
    if scattered:
        verdict.example(f"{scattered} keys stand in several partitions")


def _judge_sums(verdict: Verdict, feed: Feed, found: Table) -> None:
    """Count and sum run along in the order in which the records of a key stand."""
    if not len(found):
        return
    order = np.argsort(found.keys, kind="stable")
    keys, rows = found.keys[order], found.fields[order]
    first = np.flatnonzero(np.concatenate(([True], keys[1:] != keys[:-1])))
    lengths = np.diff(np.concatenate((first, [len(keys)])))
    numbers = np.arange(len(keys)) - np.repeat(first, lengths) + 1
    sums = np.cumsum(feed.amounts(rows[:, 2]))
    before = np.repeat(sums[first] - feed.amounts(rows[first, 2]), lengths)
    bad = (rows[:, 0] != numbers) | (rows[:, 1] != sums - before)
    verdict.wrong += int(bad.sum())
    if bad.any():
        at = int(np.flatnonzero(bad)[0])
        came = f"count {rows[at, 0]} and sum {rows[at, 1]} at id {rows[at, 2]}"
        verdict.example(f"key {keys[at]}: {came}, expected {numbers[at]} and {sums[at] - before[at]}")


def _judge_order(verdict: Verdict, keys: Ints, starts: Ints) -> None:
    """The windows of a key close one after the other."""
    if not len(keys):
        return
    order = np.argsort(keys, kind="stable")
    same = keys[order][1:] == keys[order][:-1]
    back = same & (np.diff(starts[order]) < 0)
    verdict.disordered = len(np.unique(keys[order][1:][back]))


def _by_key(keys: Ints, ids: Ints) -> Ints:
    """Ids key by key, those of a key in their order."""
    sorted_ids: Ints = ids[np.argsort(keys, kind="stable")]
    return sorted_ids


def _window_names(keys: Ints, times: Ints) -> Ints:
    """One number for a key and the window in which a time lies."""
    names: Ints = (keys << 40) | (times // WINDOW_MS)
    return names


def _window(name: int) -> tuple[int, int]:
    return name >> 40, (name & ((1 << 40) - 1)) * WINDOW_MS


def _windows(names: Ints, amounts: Ints) -> tuple[Ints, Ints, Ints]:
    """The windows that there are, sorted by name, with counts and sums."""
    found, which, counts = np.unique(names, return_inverse=True, return_counts=True)
    sums = np.bincount(which.ravel(), weights=amounts, minlength=len(found)).astype(np.int64)
    return found, counts.astype(np.int64), sums


def total(verdicts: Iterable[Verdict]) -> dict[str, int]:
    """The sums that a summary shows."""
    verdicts = list(verdicts)
    names = ("records", "lost", "doubled", "foreign", "disordered", "wrong")
    return {name: sum(int(getattr(verdict, name)) for verdict in verdicts) for name in names}

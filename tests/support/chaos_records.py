"""The input of a chaos run, as a function of record numbers, and the bytes of its records, without kstate.

Record i of the feed is a payment: its account, group, amount and event time follow from i alone, so that what must come
out can be computed for millions of records at once, by numpy. All fields are Avro longs; a topic's values are decoded
as one run of varints. Keys are 8 bytes, big-endian.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from fastavro import parse_schema, schemaless_writer

Ints: TypeAlias = npt.NDArray[np.int64]

ACCOUNTS = 600
"""Keys of the first stage."""
GROUPS = 64
"""Keys of the second stage."""
PARTITIONS = 4
EVENTS_PER_MS = 10
"""Event time runs by record numbers: a run of 10,000 records/s stays close to the clock."""
JITTER_MS = 150
"""How much out of order event times are."""
LATENESS_MS = 400
"""More than the jitter, so that no record is late, whoever reads it."""
WINDOW_MS = 2_000
CLOSING_MS = 60_000
"""How much later than all others the closing records are: they close every window."""


@dataclass(frozen=True, slots=True)
class Payment:
    """An input record; the account is the message key."""

    id: int
    amount: int
    ts: int
    group: int


@dataclass(frozen=True, slots=True)
class Share:
    """A payment on its way to its group."""

    id: int
    amount: int
    group: int


@dataclass(frozen=True, slots=True)
class Sum:
    """State: how many payments and how much."""

    n: int
    total: int


@dataclass(frozen=True, slots=True)
class Tally:
    """The result for one payment: the key's n-th, the sum so far, and which one."""

    n: int
    total: int
    id: int


@dataclass(frozen=True, slots=True)
class Closed:
    """The result of a window: its start, how many payments, and how much; `late` payments found it closed."""

    start: int
    n: int
    total: int
    late: int


_PAYMENT = parse_schema(
    {
        "type": "record",
        "name": "Payment",
        "fields": [{"name": n, "type": "long"} for n in ("id", "amount", "ts", "group")],
    }
)


@dataclass(frozen=True, slots=True)
class Feed:
    """Records [0, count) and behind them the closing ones, one for every account; `start_ms` is the first's time."""

    start_ms: int
    count: int

    @property
    def end(self) -> int:
        """Behind the last closing record."""
        return self.count + ACCOUNTS

    @property
    def closing_ms(self) -> int:
        """Event time of all closing records."""
        return self.start_ms + self.count // EVENTS_PER_MS + CLOSING_MS

    def accounts(self, ids: Ints) -> Ints:
        """Of each record; the closing ones go through all of them."""
        return np.where(ids < self.count, _mixed(ids, 1) % ACCOUNTS, ids - self.count)

    def groups(self, ids: Ints) -> Ints:
        """Of each record."""
        return _mixed(ids, 2) % GROUPS

    def amounts(self, ids: Ints) -> Ints:
        """Of each record."""
        return _mixed(ids, 3) % 1_000

    def times(self, ids: Ints) -> Ints:
        """Event times, ms since the epoch."""
        times = self.start_ms + ids // EVENTS_PER_MS - _mixed(ids, 4) % JITTER_MS
        return np.where(ids < self.count, times, self.closing_ms)

    def records(self, lo: int, hi: int) -> list[tuple[bytes, bytes]]:
        """Message keys and values of the records [lo, hi)."""
        ids = np.arange(lo, hi, dtype=np.int64)
        columns = (ids, self.amounts(ids), self.times(ids), self.groups(ids))
        rows = zip(self.accounts(ids).tolist(), *(column.tolist() for column in columns), strict=True)
        return [(key_bytes(account), _payment(*row)) for account, *row in rows]


def _payment(number: int, amount: int, ts: int, group: int) -> bytes:
    out = io.BytesIO()
    schemaless_writer(out, _PAYMENT, {"id": number, "amount": amount, "ts": ts, "group": group})
    return out.getvalue()


def key_bytes(key: int) -> bytes:
    """The message key of an account or group."""
    return key.to_bytes(8, "big")


def keys_of(keys: Sequence[bytes]) -> Ints:
    """The inverse of `key_bytes`. Raises ValueError for any other key."""
    if any(len(key) != 8 for key in keys):
        raise ValueError("a message key is not 8 bytes long")
    return np.frombuffer(b"".join(keys), ">i8").astype(np.int64)


def longs_of(values: Sequence[bytes], fields: int) -> Ints:
    """Records of so many Avro longs each, as rows. Raises ValueError for a value with more or fewer."""
    data = np.frombuffer(b"".join(values), np.uint8)
    last = data < 0x80
    ends = np.flatnonzero(last) + 1
    if len(ends) != len(values) * fields:
        raise ValueError(f"{len(values)} values hold {len(ends)} numbers, expected {fields} each")
    record_ends = np.cumsum([len(value) for value in values])
    if len(values) and not np.array_equal(ends[fields - 1 :: fields], record_ends):
        raise ValueError(f"a value does not hold {fields} numbers")
    starts = np.concatenate(([0], ends[:-1])).astype(np.int64)
    found = np.zeros(len(ends), np.uint64)
    lengths = ends - starts
    for place in range(int(lengths.max(initial=0))):
        there = lengths > place
        bits = (data[starts[there] + place] & 0x7F).astype(np.uint64)
        found[there] |= bits << np.uint64(7 * place)
    signed: Ints = (found >> np.uint64(1)).astype(np.int64) ^ -(found & np.uint64(1)).astype(np.int64)
    return signed.reshape(-1, fields)


def _mixed(ids: Ints, salt: int) -> Ints:
    """A number below 2**31 that looks random (splitmix64)."""
    with np.errstate(over="ignore"):
        z = ids.astype(np.uint64) + np.uint64(salt * 0x9E3779B97F4A7C15 % 2**64)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = (z ^ (z >> np.uint64(31))) >> np.uint64(33)
    mixed: Ints = z.astype(np.int64)
    return mixed

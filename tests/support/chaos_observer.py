"""A reader beside the job, read_committed, from the first record to the last: what every consumer sees, and when.

It keeps a CRC per partition of all that it saw: in the end the same must stand there. It notes when each *cell* (an
operator's partition, cut into ranges of slots) brought something last, which gives the gaps, and when the keys of lost
tiles brought something again.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from confluent_kafka import Message

from kstate.keyspace import KeyRange, partition_of, slot_of
from tests.support.chaos_oracle import chained
from tests.support.chaos_reader import SteadyReader
from tests.support.chaos_records import ACCOUNTS, GROUPS, PARTITIONS, Ints, key_bytes, keys_of

CELLS = 16
"""Ranges of slots per partition whose gaps are measured."""
CONSUMED = 4_000
KEYS = {"accounts": ACCOUNTS, "groups": GROUPS}
"""Operator → number of its keys."""


@dataclass(frozen=True, slots=True, order=True)
class Lost:
    """A tile that lost its owner."""

    operator: str
    partition: int
    key_range: KeyRange


@dataclass(slots=True)
class Recovery:
    """When the keys of lost tiles brought a committed output again; times are monotonic seconds."""

    since: float
    ends: Mapping[tuple[str, int], int]
    """(operator, partition of its output) → read_uncommitted end when the owner was gone: what follows is an heir's."""
    tiles: Mapping[str, Ints]
    """Operator → number of the lost tile of each key, -1: not lost."""
    waiting: set[int]
    """Numbers of the tiles that brought nothing yet, those without any key left out."""
    first: float | None = None
    last: float | None = None

    @property
    def over(self) -> bool:
        return not self.waiting

    def take(self, operator: str, partition: int, offsets: Ints, keys: Ints, now: float) -> None:
        """Committed outputs of an operator."""
        numbers = self.tiles[operator][keys[offsets >= self.ends[operator, partition]]]
        if came := self.waiting.intersection(numbers[numbers >= 0].tolist()):
            self.first = self.first or now
            self.last = now
            self.waiting -= came


def recovery_of(lost: list[Lost], since: float, ends: Mapping[tuple[str, int], int]) -> Recovery:
    """Follow the keys of lost tiles."""
    tiles = {operator: np.full(keys, -1, np.int64) for operator, keys in KEYS.items()}
    for number, tile in enumerate(lost):
        places, slots = places_of(tile.operator)
        within = (slots >= tile.key_range.lo) & (slots < tile.key_range.hi)
        tiles[tile.operator][(places == tile.partition) & within] = number
    waiting = {number for numbers in tiles.values() for number in numbers.tolist() if number >= 0}
    return Recovery(since, ends, tiles, waiting)


@dataclass(frozen=True, slots=True)
class Gap:
    """The longest time in which a cell brought nothing."""

    seconds: float
    cell: str
    ended: float
    """Monotonic seconds."""


@dataclass(slots=True)
class Seen:
    """What was seen of one topic."""

    operator: str
    """Empty: its gaps do not count."""
    records: int = 0
    crcs: Counter[int] = field(default_factory=Counter)
    offsets: dict[int, int] = field(default_factory=dict)
    """Partition → offset of the newest record."""
    disordered: int = 0
    """Records that did not come behind the one before."""


class Observer:
    """The thread; a context manager around the whole run. Topics with the operator whose keys they show, or none."""

    def __init__(self, servers: str, topics: Mapping[str, str]) -> None:
        self.seen = {topic: Seen(operator) for topic, operator in topics.items()}
        self.failure: Exception | None = None
        self.gaps: list[Gap] = []
        """Every gap longer than `gap_seconds`."""
        self.gap_seconds = 1.0
        self._recoveries: list[Recovery] = []
        self._cells = {operator: np.zeros(PARTITIONS * CELLS) for operator in topics.values() if operator}
        self._cell_of = {operator: _cells(operator) for operator in self._cells}
        places = [(topic, partition) for topic in topics for partition in range(PARTITIONS)]
        self.reader = SteadyReader(servers, dict.fromkeys(places, 0))
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="observer", daemon=True)

    def __enter__(self) -> Observer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join(30)

    def records(self, topic: str) -> int:
        """Seen so far."""
        return self.seen[topic].records

    def stalest(self) -> tuple[float, str]:
        """For how long the cell that brought nothing for the longest time did not, and its name."""
        now = time.monotonic()
        found = [
            (float(now - last[cell]), _name(operator, cell))
            for operator, last in self._cells.items()
            for cell in np.unique(self._cell_of[operator]).tolist()
        ]
        return max(found)

    def follow(self, recovery: Recovery) -> Recovery:
        """Tell it when the lost keys are back."""
        with self._lock:
            self._recoveries = [other for other in self._recoveries if not other.over]
            self._recoveries.append(recovery)
        return recovery

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                messages = self.reader.consume(CONSUMED, 0.03)
                if messages:
                    self._take(messages, time.monotonic())
            self.reader.close()
        except Exception as failure:  # noqa: BLE001 - shown by whoever looks at the observer
            self.failure = failure

    def _take(self, messages: list[Message], now: float) -> None:
        batches: dict[tuple[str, int], list[tuple[int, bytes, bytes]]] = {}
        for message in messages:
            place = message.topic() or "", message.partition() or 0
            record: tuple[int, bytes, bytes] = message.offset() or 0, message.key(), message.value()  # type: ignore[assignment]
            batches.setdefault(place, []).append(record)
        for (topic, partition), batch in batches.items():
            self._taken(topic, partition, batch, now)

    def _taken(self, topic: str, partition: int, batch: list[tuple[int, bytes, bytes]], now: float) -> None:
        seen = self.seen[topic]
        crc, newest = seen.crcs[partition], seen.offsets.get(partition, -1)
        for offset, key, value in batch:
            crc = chained(crc, offset, key, value)
            seen.disordered += offset <= newest
            newest = offset
        seen.crcs[partition], seen.offsets[partition] = crc, newest
        seen.records += len(batch)
        if seen.operator:
            keys = keys_of([key for _, key, _ in batch])
            self._note_cells(seen.operator, keys, now)
            offsets = np.array([offset for offset, _, _ in batch], np.int64)
            with self._lock:
                for recovery in self._recoveries:
                    if not recovery.over:
                        recovery.take(seen.operator, partition, offsets, keys, now)

    def _note_cells(self, operator: str, keys: Ints, now: float) -> None:
        last = self._cells[operator]
        for cell in np.unique(self._cell_of[operator][keys]).tolist():
            if last[cell] and now - last[cell] > self.gap_seconds:
                self.gaps.append(Gap(float(now - last[cell]), _name(operator, cell), now))
            last[cell] = now


def places_of(operator: str) -> tuple[Ints, Ints]:
    """Partition and slot of every key of an operator."""
    keys = [key_bytes(key) for key in range(KEYS[operator])]
    return np.array([partition_of(key, PARTITIONS) for key in keys]), np.array([slot_of(key) for key in keys])


def _name(operator: str, cell: int) -> str:
    return f"{operator}[{cell // CELLS}] {cell % CELLS + 1}/{CELLS}"


def _cells(operator: str) -> Ints:
    places, slots = places_of(operator)
    cells: Ints = places * CELLS + slots * CELLS // 65536
    return cells

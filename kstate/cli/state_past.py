"""The committed state of an operator as of a moment, read from its backup topic: nobody who runs is asked or disturbed.

A moment is a time (what was committed before it counts), or an offset of one backup partition, or now. Each partition
is brought into a scratch store of its own, by kstate.state.recall, and given out in the order of slots and keys.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from heapq import merge
from itertools import groupby
from operator import itemgetter

from kstate.cli.state_rows import Row, Rows
from kstate.clock import Clock, run_steps
from kstate.config import MIB
from kstate.errors import ConfigError
from kstate.interfaces import Log, Store
from kstate.keyspace import FULL_RANGE, KeyRange, partition_of, slot_of
from kstate.plan import Plan, TopicPartition, backup_topic
from kstate.state.layout import key_suffix, shard_bounds, shard_prefix
from kstate.state.lineage import Lineage
from kstate.state.local_copy import RestoreTarget
from kstate.state.recall import NEWEST, recall
from kstate.times import UNKNOWN_TIME

RUN_BYTES = 64 * MIB
"""Collected in memory before it is written to the scratch store."""

Entry = tuple[bytes, bytes, int]
"""Key suffix, stored value, and the watermark that its key range stands at."""


@dataclass(frozen=True, slots=True)
class Moment:
    """`time_ms`: ms since the epoch; `offset`: of a backup partition; neither: now."""

    time_ms: int | None = None
    offset: int | None = None


NOW = Moment()


def read_moment(text: str | None) -> Moment:
    """An instant in ISO 8601 with its offset from UTC, or `@OFFSET`. Raises ConfigError."""
    if text is None:
        return NOW
    if text.startswith("@") and text[1:].isdecimal():
        return Moment(offset=int(text[1:]))
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        instant = None
    if instant is None or instant.tzinfo is None:
        raise ConfigError(
            f"{text!r} is no moment.",
            hint="write an instant and its offset from UTC, as 2026-11-21T10:00:00Z, or @OFFSET of the backup log.",
        )
    return Moment(time_ms=round(instant.astimezone(UTC).timestamp() * 1000))


@dataclass(frozen=True, slots=True)
class Difference:
    """What became of an entry between two moments: `before` None: it is new; `after` None: it is gone."""

    before: Row | None
    after: Row | None


class Past:
    """Reads the state of one operator."""

    def __init__(self, log: Log, clock: Clock, plan: Plan, rows: Rows, scratch: Callable[[], Store]) -> None:
        """`scratch` makes an empty store each time."""
        self._log = log
        self._clock = clock
        self._plan = plan
        self._rows = rows
        self._scratch = scratch
        tiles = [tile.shard.partition for tile in plan.tiles if tile.shard.operator == rows.uid]
        self.partitions = sorted(set(tiles))

    def check_states(self, names: Iterable[str]) -> None:
        """Raise ConfigError when the operator has no state of one of these names."""
        for name in names:
            self._rows.state_id(name)

    def scan(self, partition: int, moment: Moment, key_range: KeyRange = FULL_RANGE) -> Iterator[Row]:
        """All of a key range in a partition. Raises ConfigError when the moment is not retained."""
        for entry in self._entries(partition, moment, key_range):
            if (row := self._row(partition, entry)) is not None:
                yield row

    def get(self, state: str, key: str, moment: Moment) -> list[Row]:
        """What a state has of a key, which stands as people type it; where it ought to be is looked first."""
        key_bytes = self._rows.keys.encode(key)
        slot = slot_of(key_bytes)
        prefix = key_suffix(slot, self._rows.state_id(state), key_bytes)
        likely = partition_of(key_bytes, len(self.partitions))
        for partition in sorted(self.partitions, key=lambda each: each != likely):
            found = [
                row
                for entry in self._entries(partition, moment, KeyRange(slot, slot + 1))
                if entry[0].startswith(prefix) and (row := self._row(partition, entry)) is not None
            ]
            if found:
                return found
        return []

    def diff(self, partition: int, before: Moment, after: Moment, key_range: KeyRange) -> Iterator[Difference]:
        """What differs between two moments, in the order of slots and keys."""
        sides = (self._side(0, partition, before, key_range), self._side(1, partition, after, key_range))
        for _, found in groupby(merge(*sides, key=itemgetter(0, 1)), key=itemgetter(0)):
            pair: list[Row | None] = [None, None]
            for _, side, entry in found:
                pair[side] = self._row(partition, entry)
            if pair[0] != pair[1]:
                yield Difference(*pair)

    def _side(
        self, side: int, partition: int, moment: Moment, key_range: KeyRange
    ) -> Iterator[tuple[bytes, int, Entry]]:
        return ((entry[0], side, entry) for entry in self._entries(partition, moment, key_range))

    def _entries(self, partition: int, moment: Moment, key_range: KeyRange) -> Iterator[Entry]:
        rows = self._rows
        source = TopicPartition(backup_topic(self._plan.app, rows.uid), partition)
        target = RestoreTarget(source, rows.operator_id, key_range, partial=rows.partial)
        prefix = len(shard_prefix(rows.operator_id, partition))
        with closing(self._scratch()) as store:
            steps = recall(self._log, store, target, self._until(source, moment), RUN_BYTES)
            lineage = run_steps(steps, self._clock)
            for key, value in store.scan(*shard_bounds(rows.operator_id, partition, key_range)):
                suffix = key[prefix:]
                yield suffix, value, _watermark(lineage, suffix)

    def _until(self, source: TopicPartition, moment: Moment) -> int:
        if moment.time_ms is not None:
            return self._log.offsets_at([source], moment.time_ms)[source]
        return NEWEST if moment.offset is None else moment.offset

    def _row(self, partition: int, entry: Entry) -> Row | None:
        return self._rows.row(partition, *entry)


def _watermark(lineage: Lineage, suffix: bytes) -> int:
    position = lineage.get(int.from_bytes(suffix[:2], "big"))
    return UNKNOWN_TIME if position is None else position.times.watermark

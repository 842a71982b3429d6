"""The committed state of an operator as people ask for it: all of it, that of a key, or what differs of two moments.

Where entries come from is no matter here: backup topics (kstate.cli.state_past), or the workers that run the key ranges
(kstate.cli.state_live).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from heapq import merge
from itertools import groupby
from operator import itemgetter

from kstate.answers import Entry
from kstate.cli.state_past import Moment
from kstate.cli.state_rows import Row, Rows
from kstate.keyspace import FULL_RANGE, KeyRange, partition_of, slot_of
from kstate.plan import Plan
from kstate.state.layout import key_suffix

Entries = Callable[[int, Moment, KeyRange], Iterator[Entry]]
"""Gives the entries of a key range of a partition as of a moment, in the order of slots and keys."""


@dataclass(frozen=True, slots=True)
class Difference:
    """What became of an entry between two moments: `before` None: it is new; `after` None: it is gone."""

    before: Row | None
    after: Row | None


class StateView:
    """Shows the state of one operator."""

    def __init__(self, plan: Plan, rows: Rows, entries: Entries) -> None:
        self._rows = rows
        self._entries = entries
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

    def _row(self, partition: int, entry: Entry) -> Row | None:
        return self._rows.row(partition, *entry)

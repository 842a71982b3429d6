"""How many bytes the state of a piece has, as an estimate that costs little: `TileReport.state_bytes`.

Keys and values of the local store, as they are there, are counted over the first slots of the piece until there were
`ENTRIES_MAX` of them; the rest of the slots is taken to be like these, as slots are hash values of keys. So what is
said of small states is exact, and of larger ones right to a few percent where values are alike in size. A key whose
state is far larger than that of others is seen by chance. The first slot, where partial state lies, counts for itself.
"""

from __future__ import annotations

from kstate.clock import Clock
from kstate.interfaces import Store
from kstate.keyspace import KeyRange
from kstate.plan import Shard
from kstate.state.layout import shard_bounds, shard_prefix
from kstate.worker.ownership import OwnedShard, Piece

ENTRIES_MAX = 1_000
"""So many entries take a millisecond or two."""
ENTRIES_OF_A_SLOT_MAX = 10_000
"""A key with a map of any size is not counted to its end."""
AGAIN_S = 5.0
"""An estimate is made anew after so long."""
FIRST_MAX = 16
"""Pieces looked at for the first time at once: a worker that got many must not stand still for it."""
SLOT_AT = slice(len(shard_prefix(0, 0)), len(shard_prefix(0, 0)) + 2)
"""Of a key of the store (kstate.state.layout)."""


class StateSizes:
    """Estimates for the running pieces of a worker; `of` makes few at a time, and anew at most one."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._known: dict[tuple[Shard, KeyRange], tuple[float, int]] = {}
        """When it was made, and the estimate."""

    def of(self, shards: list[OwnedShard]) -> dict[tuple[Shard, KeyRange], int]:
        """By shard and key range of each piece; 0 for one that was not looked at yet."""
        pieces = {(shard.shard, piece.key_range): (shard, piece) for shard in shards for piece in shard.pieces}
        self._known = {place: known for place, known in self._known.items() if place in pieces}
        now, unknown = self._clock.monotonic(), [place for place in pieces if place not in self._known]
        due = unknown[:FIRST_MAX]
        if not due and self._known:
            oldest = min(self._known, key=lambda place: self._known[place][0])
            due = [oldest] if now - self._known[oldest][0] >= AGAIN_S else []
        for place in due:
            self._known[place] = now, estimate(self._store, *pieces[place])
        return {place: size for place, (_, size) in self._known.items()}


def estimate(store: Store, shard: OwnedShard, piece: Piece) -> int:
    """Bytes of the keys and values of a piece in the store; of what the running epoch changed, none."""
    key_range = piece.key_range
    first = KeyRange(key_range.lo, key_range.lo + 1)
    size, _ = _counted(store, shard, first)
    if key_range.width == 1:
        return size
    rest = KeyRange(first.hi, key_range.hi)
    counted, slots = _counted(store, shard, rest)
    return size + counted * rest.width // slots


def _counted(store: Store, shard: OwnedShard, key_range: KeyRange) -> tuple[int, int]:
    """Bytes of the first entries of a key range, and how many of its slots they fill."""
    lo, hi = shard_bounds(shard.operator_id, shard.shard.partition, key_range)
    size, slot = 0, key_range.lo
    for number, (key, value) in enumerate(store.scan(lo, hi)):
        last, slot = slot, int.from_bytes(key[SLOT_AT], "big")
        if (number >= ENTRIES_MAX and slot != last) or number >= ENTRIES_OF_A_SLOT_MAX:
            return size, max(1, slot - key_range.lo)
        size += len(key) + len(value)
    return size, key_range.width

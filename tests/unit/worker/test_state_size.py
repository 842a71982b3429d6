"""The estimate of how large the state of a piece is."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import cast

import pytest

from kstate.keyspace import FULL_RANGE, SLOTS, KeyRange, slot_of
from kstate.plan import Shard
from kstate.state.layout import key_suffix, shard_prefix
from kstate.testing.memory_store import MemoryStore
from kstate.testing.virtual_time import VirtualClock
from kstate.worker.ownership import OwnedShard
from kstate.worker.state_size import AGAIN_S, ENTRIES_MAX, ENTRIES_OF_A_SLOT_MAX, FIRST_MAX, StateSizes, estimate

LOW, HIGH = KeyRange(0, 0x2000), KeyRange(0x2000, SLOTS)


class Counting(MemoryStore):
    """A store that counts what is read."""

    def __init__(self) -> None:
        super().__init__()
        self.read = 0

    def scan(self, lo: bytes, hi: bytes) -> Iterator[tuple[bytes, bytes]]:
        for pair in super().scan(lo, hi):
            self.read += 1
            yield pair


class FakePiece:
    def __init__(self, key_range: KeyRange) -> None:
        self.key_range = key_range


class FakeShard:
    """Some pieces of partition 2 of operator 7."""

    def __init__(self, *ranges: KeyRange, partition: int = 2) -> None:
        self.shard = Shard("count", partition)
        self.operator_id = 7
        self.pieces = [FakePiece(key_range) for key_range in ranges]


def of(store: MemoryStore, key_range: KeyRange) -> int:
    """The estimate for a piece."""
    shard = FakeShard(key_range)
    return estimate(store, cast(OwnedShard, shard), shard.pieces[0])  # type: ignore[arg-type]


def fill(store: MemoryStore, count: int, size: int = 40) -> int:
    """Values of about this size under random keys, of this shard and of its neighbours; the shard's bytes."""
    rng = Random(5)
    pairs = {}
    for number in range(count):
        key = f"key-{number}".encode()
        value = bytes(rng.randint(size // 2, size * 3 // 2))
        for partition in (1, 2, 3):
            pairs[shard_prefix(7, partition) + key_suffix(slot_of(key), 1, key)] = value
    store.write(list(pairs), list(pairs.values()))
    return sum(len(k) + len(v) for k, v in pairs.items()) // 3


@pytest.mark.parametrize("count", [0, 1, 300, ENTRIES_MAX - 1])
def test_a_small_state_is_counted_exactly(count: int) -> None:
    """Keys and values, of this shard only."""
    store = MemoryStore()
    whole = fill(store, count)
    assert of(store, FULL_RANGE) == whole
    assert of(store, LOW) + of(store, HIGH) == whole


def test_a_large_state_is_estimated_from_its_first_slots() -> None:
    """Within ten percent, for the whole and for a part, by reading no more than it must."""
    store = Counting()
    whole = fill(store, 30_000)
    assert of(store, FULL_RANGE) == pytest.approx(whole, rel=0.1)
    assert of(store, LOW) == pytest.approx(whole * LOW.width / SLOTS, rel=0.1)
    assert store.read < 2.1 * ENTRIES_MAX


def test_a_large_object_in_the_first_slot_is_not_multiplied() -> None:
    """That is where partial state lies: one object for a whole key range."""
    store = MemoryStore()
    whole = fill(store, 30_000)
    store.write([shard_prefix(7, 2) + key_suffix(0, 9, b"", b"range")], [bytes(400_000)])
    assert of(store, FULL_RANGE) == pytest.approx(whole + 400_000, rel=0.1)


def test_one_key_with_a_map_of_any_size_does_not_hold_the_worker_up() -> None:
    """It is not counted to its end."""
    store = Counting()
    keys = [shard_prefix(7, 2) + key_suffix(5, 1, b"hot", number.to_bytes(4, "big")) for number in range(50_000)]
    store.write(keys, [b"x"] * len(keys))
    assert of(store, FULL_RANGE) > 0
    assert store.read <= ENTRIES_OF_A_SLOT_MAX + 1


def test_new_pieces_are_looked_at_at_once_and_again_one_per_call_after_a_while() -> None:
    """What is not yet known is 0; what is gone is forgotten."""
    store, clock = Counting(), VirtualClock()
    total = fill(store, 500)
    sizes = StateSizes(store, clock)
    shards = cast("list[OwnedShard]", [FakeShard(LOW, HIGH)])
    known = sizes.of(shards)
    assert sum(known.values()) == total
    read = store.read
    assert (sizes.of(shards), store.read) == (known, read), "nothing is read while the estimates are fresh"
    clock.sleep(AGAIN_S)
    assert sizes.of(shards) == known
    assert 0 < store.read - read < 500
    sizes.of(shards)
    assert store.read == read + 500
    assert sizes.of([]) == {}


def test_a_worker_with_very_many_new_pieces_looks_at_some_per_call() -> None:
    """It must not stand still for it."""
    sizes = StateSizes(MemoryStore(), VirtualClock())
    ranges = [KeyRange(lo, lo + 0x400) for lo in range(0, SLOTS, 0x400)]
    shards = cast("list[OwnedShard]", [FakeShard(*ranges)])
    assert [len(sizes.of(shards)) for _ in range(6)] == [FIRST_MAX, 2 * FIRST_MAX, 3 * FIRST_MAX, 64, 64, 64]

"""The store in memory: the contract, and that it can lose as much as RocksDB."""

from __future__ import annotations

from copy import deepcopy
from random import Random

import pytest

from kstate.testing.memory_store import MemoryStore
from tests.contract.store_contract import StoreContract, content


class MemoryBench:
    """Crashes as the seed says."""

    def __init__(self) -> None:
        self.store = MemoryStore()

    def crash(self, rng: Random) -> None:
        self.store.crash(rng)

    def reopen(self) -> None:
        self.store.close()


class TestMemoryStore(StoreContract):
    """The contract over the model."""

    @pytest.fixture
    def bench(self) -> MemoryBench:
        """An empty store."""
        return MemoryBench()


def test_a_crash_may_lose_any_suffix_of_the_unflushed_writes() -> None:
    """All of them, some, none: every prefix comes out for some seed."""
    store = MemoryStore()
    for i in range(4):
        store.write([b"%d" % i], [b"x"])
    outcomes = set()
    for seed in range(60):
        crashed = deepcopy(store)
        crashed.crash(Random(seed))
        outcomes.add(tuple(key for key, _ in content(crashed)))
    assert outcomes == {(), (b"0",), (b"0", b"1"), (b"0", b"1", b"2"), (b"0", b"1", b"2", b"3")}


def test_a_deletion_that_was_not_flushed_can_be_lost_under_a_later_run() -> None:
    """As measured with RocksDB: old data under a new file. Whoever forgets the flush is found out."""
    store = MemoryStore()
    store.write([b"a", b"b"], [b"old", b"old"])
    store.flush()
    store.delete_range(b"a", b"z")
    store.ingest([(b"b", b"new")])
    outcomes = []
    for seed in range(20):
        crashed = deepcopy(store)
        crashed.crash(Random(seed))
        outcomes.append(content(crashed))
    assert [(b"a", b"old"), (b"b", b"new")] in outcomes
    assert [(b"b", b"new")] in outcomes

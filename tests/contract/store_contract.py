"""The contract of Store: one suite, run over the model in memory and over RocksDB.

A subclass gives the fixture `bench`, which can also crash the store, losing what a killed process loses.
"""

from __future__ import annotations

from random import Random
from typing import Protocol

import pytest

from kstate.interfaces import Store

Pairs = list[tuple[bytes, bytes]]
EVERYTHING = (b"", b"\xff\xff")


class StoreBench(Protocol):
    """A store that can be crashed and closed, and comes back as another object."""

    store: Store

    def crash(self, rng: Random) -> None:
        """Kill the process; `store` is then what it left behind."""
        ...

    def reopen(self) -> None:
        """Close in an orderly way and open again."""
        ...


def content(store: Store) -> Pairs:
    """All pairs, in order."""
    return list(store.scan(*EVERYTHING))


class StoreContract:
    """What every store does."""

    def test_a_new_store_is_empty(self, bench: StoreBench) -> None:
        """Absent keys are None."""
        assert content(bench.store) == []
        assert bench.store.get_many([b"a", b"b"]) == [None, None]
        assert bench.store.get_many([]) == []

    def test_what_was_written_is_read_in_the_order_of_the_question(self, bench: StoreBench) -> None:
        """Also keys asked for twice, empty values and keys with zero bytes."""
        bench.store.write([b"b", b"a\x00", b"c"], [b"2", b"", b"3"])
        assert bench.store.get_many([b"c", b"x", b"a\x00", b"b", b"c"]) == [b"3", None, b"", b"2", b"3"]

    def test_the_last_write_of_a_key_counts_and_none_deletes(self, bench: StoreBench) -> None:
        """Between writes and within one."""
        bench.store.write([b"a", b"b", b"a"], [b"1", b"2", b"3"])
        bench.store.write([b"b", b"absent"], [None, None])
        assert content(bench.store) == [(b"a", b"3")]

    def test_keys_and_values_of_unequal_number_are_refused(self, bench: StoreBench) -> None:
        """And nothing is written."""
        with pytest.raises(ValueError, match="zip"):
            bench.store.write([b"a", b"b"], [b"1"])
        assert content(bench.store) == []

    def test_a_scan_is_half_open_bytewise_and_in_order(self, bench: StoreBench) -> None:
        """Keys sort as bytes, a prefix before what it begins."""
        keys = [b"\x00", b"a", b"a\x00", b"aa", b"b", b"\xfe"]
        bench.store.write(keys[::-1], [b"v"] * 6)
        assert [key for key, _ in bench.store.scan(b"a", b"b")] == [b"a", b"a\x00", b"aa"]
        assert [key for key, _ in content(bench.store)] == keys
        assert list(bench.store.scan(b"b", b"a")) == []

    def test_a_scan_sees_the_store_as_of_the_call(self, bench: StoreBench) -> None:
        """Whatever is written while it is read, or before it is first used."""
        bench.store.write([b"a", b"b", b"c"], [b"1", b"2", b"3"])
        scan = bench.store.scan(*EVERYTHING)
        bench.store.write([b"b", b"d"], [None, b"4"])
        bench.store.ingest([(b"c", b"33")])
        assert next(scan) == (b"a", b"1")
        bench.store.delete_range(b"a", b"z")
        assert list(scan) == [(b"b", b"2"), (b"c", b"3")]

    @pytest.mark.parametrize("length", range(1, 25))
    def test_a_scan_is_not_disturbed_by_what_happens_meanwhile(self, bench: StoreBench, length: int) -> None:
        """Nor by the memory that is used for it: bounds of any length, among reads and writes of keys of any length."""
        keys = [b"k%04d" % i for i in range(2_000)]
        bench.store.write(keys, [b"v" * 20] * len(keys))
        bench.store.flush()
        others = [b"a" * i for i in range(1, 40)]
        for _ in range(3):
            scan = bench.store.scan(b"a", b"z" * length)
            found = [bench.store.get_many([other]) for other in others]
            bench.store.write(others, others)
            bench.store.write(others, [None] * len(others))
            assert found == [[None]] * len(others)
            assert [key for key, _ in scan] == keys

    def test_a_range_is_deleted_without_its_end(self, bench: StoreBench) -> None:
        """What is written afterwards stays."""
        bench.store.write([b"a", b"b", b"c", b"d"], [b"v"] * 4)
        bench.store.flush()
        bench.store.delete_range(b"b", b"d")
        bench.store.write([b"c"], [b"new"])
        assert content(bench.store) == [(b"a", b"v"), (b"c", b"new"), (b"d", b"v")]
        assert bench.store.get_many([b"b", b"c"]) == [None, b"new"]

    def test_a_sorted_run_goes_over_what_is_there(self, bench: StoreBench) -> None:
        """Over flushed and unflushed writes; later writes go over it."""
        bench.store.write([b"a", b"b"], [b"1", b"1"])
        bench.store.flush()
        bench.store.write([b"c", b"d"], [b"1", b"1"])
        bench.store.ingest([(b"a", b"2"), (b"b", None), (b"c", None), (b"e", b"2")])
        bench.store.write([b"e"], [b"3"])
        assert content(bench.store) == [(b"a", b"2"), (b"d", b"1"), (b"e", b"3")]

    def test_an_empty_run_changes_nothing_and_an_unsorted_one_is_refused(self, bench: StoreBench) -> None:
        """A repeated key is not ascending either."""
        bench.store.ingest([])
        for pairs in ([(b"b", b"1"), (b"a", b"1")], [(b"a", b"1"), (b"a", b"2")]):
            with pytest.raises(ValueError, match="ascending"):
                bench.store.ingest(pairs)
        assert content(bench.store) == []

    def test_everything_is_there_after_an_orderly_end(self, bench: StoreBench) -> None:
        """Closing makes writes durable."""
        bench.store.write([b"a", b"b"], [b"1", b"2"])
        bench.store.ingest([(b"c", b"3")])
        bench.store.delete_range(b"a", b"b")
        bench.reopen()
        assert content(bench.store) == [(b"b", b"2"), (b"c", b"3")]

    @pytest.mark.parametrize("seed", range(3))
    def test_a_crash_leaves_what_was_flushed_and_a_prefix_of_the_rest(self, bench: StoreBench, seed: int) -> None:
        """A write is there as a whole or not at all, and none without those before it."""
        for i in range(10):
            bench.store.write([b"n", b"%d" % i], [b"%d" % i, b"x"])
            if i == 4:
                bench.store.flush()
        bench.crash(Random(seed))
        pairs = dict(content(bench.store))
        last = int(pairs.pop(b"n"))
        assert last >= 4
        assert sorted(pairs) == sorted(b"%d" % i for i in range(last + 1))

    @pytest.mark.parametrize("seed", range(3))
    def test_an_ingested_run_survives_a_crash(self, bench: StoreBench, seed: int) -> None:
        """Whatever happens to the writes around it."""
        bench.store.write([b"a"], [b"1"])
        bench.store.ingest([(b"m", b"2"), (b"n", b"2")])
        bench.store.write([b"z"], [b"3"])
        bench.crash(Random(seed))
        assert bench.store.get_many([b"m", b"n"]) == [b"2", b"2"]

    @pytest.mark.parametrize("seed", range(3))
    def test_a_flushed_deletion_stays_deleted_under_an_ingested_run(self, bench: StoreBench, seed: int) -> None:
        """The order that a restore depends on: drop, flush, ingest."""
        bench.store.write([b"a", b"b"], [b"old", b"old"])
        bench.store.flush()
        bench.store.delete_range(b"a", b"z")
        bench.store.flush()
        bench.store.ingest([(b"b", b"new")])
        bench.crash(Random(seed))
        assert content(bench.store) == [(b"b", b"new")]

    def test_it_goes_on_after_a_crash(self, bench: StoreBench) -> None:
        """New writes go over what came back."""
        bench.store.write([b"a"], [b"1"])
        bench.store.flush()
        for i in range(3):
            bench.crash(Random(i))
            bench.store.write([b"a", b"%d" % i], [b"%d" % i, b"x"])
            bench.store.flush()
        assert content(bench.store) == [(b"0", b"x"), (b"1", b"x"), (b"2", b"x"), (b"a", b"2")]

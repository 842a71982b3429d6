"""Bound handles of states beside the models: batches of keys, what is refused, tables."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import pytest

from kstate.errors import ConfigError
from kstate.state.cache import ValueFault, check_changes
from kstate.state.values import Expiring
from kstate.worker.collection_handles import BoundList, BoundMap
from kstate.worker.value_handles import BoundExpiringValue, BoundTable, BoundValue
from tests.support.state_bench import CODECS, StateBench, column_of


class Pair(NamedTuple):
    """A composite key."""

    name: str
    number: int


def batch(bench: StateBench, *keys: str, at: int = 0, watermark: int | None = None) -> Any:
    """The handle within a call with many keys."""
    cursor = bench.cursor
    cursor.batch_keys = keys
    cursor.batch_entries = {key: bench.entry(key) for key in keys}
    cursor.event_times = [at] * len(keys)
    cursor.watermarks = None if watermark is None else [watermark] * len(keys)
    cursor.row = len(keys) - 1
    return bench.handle


def test_values_of_many_keys_are_read_and_set_at_once() -> None:
    """In the order of the keys; of a key that occurs twice the last value stays, None clears."""
    bench = StateBench(column_of(int), lambda cursor: BoundValue(cursor, 0, -1))
    handle = batch(bench, "a", "b", "c")
    handle.set_many(["a", "b", "a"], [1, 2, 3])
    assert handle.get_many(["c", "b", "a", "a"]) == [-1, 2, 3, 3]
    bench.commit()
    bench.reload()
    handle = batch(bench, "a", "b", "c")
    handle.set_many(["a"], [None])
    assert handle.get_many(["a", "b"]) == [-1, 2]
    bench.cursor.undo()
    assert handle.get_many(["a", "b"]) == [3, 2]
    assert bench.cache.changed == []


def test_values_with_ttl_of_many_keys_expire() -> None:
    """So long after the event time of the call; the watermark hides them, too."""
    bench = StateBench(column_of(int, expiring=True), lambda cursor: BoundExpiringValue(cursor, 0, None, 10))
    batch(bench, "a", "b", at=5).set_many(["a", "b"], [1, None])
    assert batch(bench, "a", "b", at=14).get_many(["a", "b"]) == [1, None]
    assert batch(bench, "a", at=14, watermark=14).get_many(["a"]) == [1]
    assert batch(bench, "a", at=15).get_many(["a"]) == [None]
    assert batch(bench, "a", at=1, watermark=15).get_many(["a"]) == [None]
    assert bench.commit().times == [(0, b"a", b"", None, 15)]


def test_values_with_ttl_go_by_the_records_of_their_own_key() -> None:
    """What else is in a batch changes nothing: read as at the first record of the key, kept from its last one on."""
    bench = StateBench(column_of(int, expiring=True), lambda cursor: BoundExpiringValue(cursor, 0, None, 10))
    handle = batch(bench, "a", "b", "a", "c")
    bench.cursor.event_times = [5, 20, 8, 90]
    handle.set_many(["a", "b"], [1, 2])
    handle = batch(bench, "b", "a", "b", "a")
    bench.cursor.event_times, bench.cursor.watermarks = [29, 17, 30, 18], [1, 2, 3, 18]
    assert handle.get_many(["a", "b", "a"]) == [1, 2, 1]
    bench.cursor.event_times = [30, 18, 29, 17]
    assert handle.get_many(["a", "b"]) == [None, None]
    bench.cursor.event_times, bench.cursor.watermarks = [29, 17, 30, 18], [30, 18, 30, 18]
    assert handle.get_many(["a", "b"]) == [None, None]


def failed(bench: StateBench, use: Any, error: type[Exception]) -> str:
    """What is said of a call whose values are checked, and which raises after it."""
    try:
        with bench.call() as handle:
            use(handle)
            check_changes([bench.column], bench.cursor.journal)
            raise error
    except error as raised:
        return str(raised)


@pytest.mark.parametrize("use", [lambda h: h.get_many(["a", "z"]), lambda h: h.set_many(["z"], [1])])
def test_a_key_that_is_not_in_the_batch_is_refused(use: Any) -> None:
    """Its state may be with another worker."""
    for bind in (lambda c: BoundValue(c, 0, None), lambda c: BoundExpiringValue(c, 0, None, 1)):
        bench = StateBench(column_of(int), bind)
        with pytest.raises(ValueError, match="key 'z' is not in the current batch"):
            use(batch(bench, "a"))


def test_as_many_values_as_keys() -> None:
    """Anything else is a mistake; nothing is set then."""
    bench = StateBench(column_of(int), lambda cursor: BoundValue(cursor, 0, None))
    with pytest.raises(ValueError, match="set_many: 2 keys, but 1 values"):
        batch(bench, "a", "b").set_many(["a", "b"], [1])
    assert bench.cache.changed == []


def test_handles_only_have_what_was_declared() -> None:
    """A Table is not written by handlers; the engine takes records and tombstones in, and a failing call undoes it."""
    bench = StateBench(column_of(str), lambda cursor: BoundTable(cursor, 0))
    with bench.call() as table:
        assert table.get() is None
        table.take_in("record")
        assert table.get() == "record"
    failed(bench, lambda table: table.take_in(None), ZeroDivisionError)
    bench.commit()
    bench.reload()
    assert batch(bench, "k", "other").get_many(["k", "other"]) == ["record", None]
    with bench.call() as table:
        table.take_in(None)
        assert table.get() is None
    assert bench.commit().values == [None]
    assert not hasattr(table, "set")


def test_a_list_numbers_its_elements_anew_once_it_is_empty() -> None:
    """Elements are stored newest first, under the complement of their numbers."""
    bench = StateBench(column_of(int, cells=True), lambda cursor: BoundList(cursor, 0))
    with bench.call() as handle:
        handle.extend([1, 2])
        handle.extend(handle)
        assert handle.get() == tuple(handle) == (1, 2, 1, 2)
        handle.set(value * 10 for value in handle)
        assert handle.get() == (10, 20, 10, 20)
    bench.commit()
    assert [subkey.hex() for _, subkey in bench.stored()] == [f"fffffffffffffff{n}" for n in "cdef"]
    with bench.call() as handle:
        handle.clear()
        handle.append(3)
    assert sorted(value is None for value in bench.commit().values) == [False, True, True, True]
    assert [subkey.hex() for _, subkey in bench.stored()] == ["f" * 16]


def test_elements_expire_one_by_one() -> None:
    """Whatever order they came in; those that remain keep their order and new ones follow."""
    bench = StateBench(column_of(int, cells=True, expiring=True), lambda cursor: BoundList(cursor, 0, 10))
    for at in (5, 1, 9):
        with bench.call(at=at) as handle:
            handle.append(at)
    bench.commit()
    bench.sweep(12)
    bench.reload()
    with bench.call(at=12, watermark=12) as handle:
        assert (handle.get(), len(handle)) == ((5, 9), 2)
        handle.append(12)
        assert handle.get() == (5, 9, 12)


def test_maps_go_by_the_bytes_of_their_keys() -> None:
    """Negative numbers come last; composite keys work."""
    bench = StateBench(column_of(str, cells=True), lambda cursor: BoundMap(cursor, 0, CODECS.key(int)))
    with bench.call() as handle:
        handle.update({-1: "minus", 300: "many", 2: "two"})
        assert list(handle.items()) == [(2, "two"), (300, "many"), (-1, "minus")]
        for key in handle:
            del handle[key]
        assert len(handle) == 0
    bench = StateBench(column_of(str, cells=True), lambda cursor: BoundMap(cursor, 0, CODECS.key(Pair)))
    with bench.call() as handle:
        handle[Pair("a", 1)] = "x"
        assert Pair("a", 1) in handle
        assert Pair("a", 2) not in handle
    bench.commit()
    bench.reload()
    with bench.call() as handle:
        assert dict(handle.items()) == {Pair("a", 1): "x"}


def test_a_key_of_another_type_is_refused_wherever_it_is_used() -> None:
    """An error of the record, as any other mistake in a handler."""
    bench = StateBench(column_of(str, cells=True), lambda cursor: BoundMap(cursor, 0, CODECS.key(int)))
    uses: list[Any] = [
        lambda h: h.get("x"),
        lambda h: h["x"],
        lambda h: "x" in h,
        lambda h: h.pop("x"),
        lambda h: h.update({1: "one", "x": "y"}),
        lambda h: h.__setitem__(1 << 63, "too large"),
        lambda h: h.__delitem__(None),
    ]
    for use in uses:
        with pytest.raises(ValueError, match="is not a key of type int"), bench.call() as handle:
            use(handle)
    assert bench.cache.changed == []
    for kind in (float, bool, dict[str, int], str | None):
        with pytest.raises(ConfigError):
            CODECS.key(kind)


@pytest.mark.parametrize(
    ("bind", "use", "named"),
    [
        (lambda c: BoundList(c, 0), lambda h: h.extend([1, "x"]), r"state 's' of key 'k' at b'\\xff"),
        (lambda c: BoundList(c, 0), lambda h: h.append(None), "state 's' of key 'k' at"),
        (lambda c: BoundMap(c, 0, CODECS.key(str)), lambda h: h.__setitem__("a", 1.5), "state 's' of key 'k' at b'a'"),
    ],
)
def test_an_element_that_does_not_encode_is_found_by_the_check_after_the_call(bind: Any, use: Any, named: str) -> None:
    """So its record alone becomes a dead letter; the call is undone."""
    bench = StateBench(column_of(int, cells=True), bind)
    assert re.search(named, failed(bench, use, ValueFault))
    assert len(bench.commit()) == 0


def test_an_expiring_value_that_does_not_encode_is_found_too() -> None:
    """With its key."""
    bench = StateBench(column_of(int, expiring=True), lambda cursor: BoundExpiringValue(cursor, 0, None, 10))
    assert "state 's' of key 'k' does not encode" in failed(bench, lambda handle: handle.set("x"), ValueFault)
    with bench.call(at=1) as handle:
        handle.set(7)
    assert bench.entry("k").values == [Expiring(7, 11)]

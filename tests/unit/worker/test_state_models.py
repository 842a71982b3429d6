"""Keyed states against the simplest possible models: dictionaries and lists, copied at every call and epoch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kstate.worker.collection_handles import BoundList, BoundMap
from kstate.worker.value_handles import BoundExpiringValue, BoundValue
from tests.support.state_bench import CODECS, StateBench, column_of

KEYS = ["a", "b"]
SUBKEYS = ["", "x", "y", "\x00", "é" * 40]
TTL = 10


class Live:
    """A model's values with what they expire at; `visible` is given by the time of the call."""

    def __init__(self, ttl: int | None) -> None:
        self.ttl = ttl
        self.at = 0
        self.watermark: int | None = None

    def stamped(self, value: Any) -> tuple[Any, int]:
        """The value with its expiry."""
        return value, 1 << 62 if self.ttl is None else self.at + self.ttl

    def seen(self, stamped: tuple[Any, int]) -> bool:
        """Whether it has not expired."""
        return self.at < stamped[1] and (self.watermark is None or self.watermark < stamped[1])


class ValueModel(Live):
    """A variable."""

    held: tuple[Any, int] | None = None

    def get(self) -> Any:
        return self.held[0] if self.held and self.seen(self.held) else -1

    def set(self, value: Any) -> None:
        self.held = None if value is None else self.stamped(value)

    def pop(self) -> Any:
        value, self.held = self.get(), None
        return value

    def clear(self) -> None:
        self.held = None


class ListModel(Live):
    """A list."""

    def __init__(self, ttl: int | None) -> None:
        super().__init__(ttl)
        self.held: list[tuple[Any, int]] = []

    def get(self) -> tuple[Any, ...]:
        return tuple(stamped[0] for stamped in self.held if self.seen(stamped))

    def append(self, value: Any) -> None:
        self.held.append(self.stamped(value))

    def extend(self, values: Sequence[Any]) -> None:
        self.held += map(self.stamped, values)

    def set(self, values: Sequence[Any]) -> None:
        self.held = [self.stamped(value) for value in values]

    def clear(self) -> None:
        self.held = []

    def __len__(self) -> int:
        return len(self.get())


class MapModel(Live):
    """A dictionary; iteration in the order of the keys' bytes."""

    def __init__(self, ttl: int | None) -> None:
        super().__init__(ttl)
        self.held: dict[str, tuple[Any, int]] = {}

    def items(self) -> list[tuple[str, Any]]:
        shown = [(key, stamped[0]) for key, stamped in self.held.items() if self.seen(stamped)]
        return sorted(shown, key=lambda item: item[0].encode())

    def get(self, key: str) -> Any:
        return dict(self.items()).get(key)

    def set(self, key: str, value: Any) -> None:
        self.held.pop(key, None)
        if value is not None:
            self.held[key] = self.stamped(value)

    def delete(self, key: str) -> Any:
        if self.get(key) is None:
            return "KeyError"
        del self.held[key]
        return None

    def pop(self, key: str) -> Any:
        value = self.get(key)
        self.held.pop(key, None)
        return value

    def clear(self) -> None:
        self.held = {}

    def __len__(self) -> int:
        return len(self.items())


def done_to_map(handle: BoundMap, name: str, *arguments: Any) -> Any:
    """What the model's method is on the handle."""
    match name:
        case "items":
            assert list(handle) == list(handle.keys()) == [key for key, _ in handle.items()]
            assert list(handle.values()) == [value for _, value in handle.items()]
            return list(handle.items())
        case "set":
            handle[arguments[0]] = arguments[1]
            return None
        case "delete":
            try:
                del handle[arguments[0]]
            except KeyError:
                return "KeyError"
            return None
        case "get":
            assert (arguments[0] in handle) == (handle.get(*arguments) is not None)
    return done(handle, name, *arguments)


def done(handle: Any, name: str, *arguments: Any) -> Any:
    """Call a method; `len` is a function."""
    return len(handle) if name == "len" else getattr(handle, name)(*arguments)


NUMBERS = st.integers(-(1 << 40), 1 << 40)
VALUE_CALLS = st.one_of(
    st.tuples(st.sampled_from(["get", "pop", "clear"])),
    st.tuples(st.just("set"), NUMBERS | st.none()),
)
LIST_CALLS = st.one_of(
    st.tuples(st.sampled_from(["get", "len", "clear"])),
    st.tuples(st.just("append"), NUMBERS),
    st.tuples(st.just("append"), NUMBERS),
    st.tuples(st.sampled_from(["extend", "set"]), st.lists(NUMBERS, max_size=3)),
)
MAP_CALLS = st.one_of(
    st.tuples(st.sampled_from(["items", "len", "clear"])),
    st.tuples(st.just("set"), st.sampled_from(SUBKEYS), NUMBERS | st.none()),
    st.tuples(st.just("set"), st.sampled_from(SUBKEYS), NUMBERS),
    st.tuples(st.sampled_from(["get", "delete", "pop"]), st.sampled_from(SUBKEYS)),
)


def steps_of(calls: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    """Handler calls (key, event time, watermark's advance, what it does, whether it fails) and what happens between."""
    call = st.tuples(
        st.sampled_from(KEYS), st.integers(1, 40), st.integers(0, 4), st.lists(calls, max_size=5), st.booleans()
    )
    between = st.sampled_from(["commit", "rollback", "turn", "reload", "sweep"])
    return st.lists(call | between, max_size=25)


class HandlerError(Exception):
    """The handler raised."""


class Comparison:
    """Does every step to a bench and to models, one per key, and compares what they answer."""

    def __init__(self, bench: StateBench, model: Callable[[], Any], do: Callable[..., Any], *, timed: bool) -> None:
        self.bench = bench
        self.live = {key: model() for key in KEYS}
        self.committed = deepcopy(self.live)
        self.do = do
        self.timed = timed
        self.watermark = 0
        self.committed_watermark = 0

    def step(self, step: Any) -> None:
        """One call, or one thing between calls."""
        if isinstance(step, tuple):
            self.call(*step)
        elif step == "sweep":
            self.bench.sweep(self.watermark if self.timed else 0)
        elif step in ("commit", "turn"):
            getattr(self.bench, step)()
            self.committed, self.committed_watermark = deepcopy(self.live), self.watermark
            assert self.bench.index == self.bench.stored_expiries()
        else:
            getattr(self.bench, step)()
            self.live, self.watermark = deepcopy(self.committed), self.committed_watermark
        self.bench.check_marks()

    def call(self, key: str, at: int, advance: int, calls: Sequence[Any], fails: bool) -> None:
        """A handler call: all of it happens, or nothing."""
        self.watermark += advance
        before = deepcopy(self.live)
        model = self.live[key]
        model.at, model.watermark = at, self.watermark if self.timed else None
        try:
            with self.bench.call(key, at, model.watermark) as handle:
                for name, *arguments in calls:
                    wanted = done(model, name, *arguments)
                    assert self.do(handle, name, *arguments) == wanted, (name, arguments)
                if fails:
                    raise HandlerError
        except HandlerError:
            self.live = before


def value_bench(ttl: int | None) -> StateBench:
    """A ValueState with default −1."""
    column = column_of(int, expiring=ttl is not None)
    if ttl is None:
        return StateBench(column, lambda cursor: BoundValue(cursor, 0, -1))
    return StateBench(column, lambda cursor: BoundExpiringValue(cursor, 0, -1, ttl))


def list_bench(ttl: int | None) -> StateBench:
    """A ListState."""
    return StateBench(column_of(int, cells=True, expiring=ttl is not None), lambda cursor: BoundList(cursor, 0, ttl))


def map_bench(ttl: int | None) -> StateBench:
    """A MapState with keys of text."""
    return StateBench(
        column_of(int, cells=True, expiring=ttl is not None),
        lambda cursor: BoundMap(cursor, 0, CODECS.key(str), ttl),
    )


@pytest.mark.parametrize("ttl", [None, TTL])
@pytest.mark.parametrize("timed", [False, True])
@settings(deadline=None, max_examples=100)
@given(steps=steps_of(VALUE_CALLS))
def test_a_value_is_a_variable_per_key(ttl: int | None, timed: bool, steps: list[Any]) -> None:
    """Whatever fails, is rolled back, falls out of the cache, or is swept away once it has expired."""
    comparison = Comparison(value_bench(ttl), lambda: ValueModel(ttl), done, timed=timed)
    for step in [*steps, "commit", "reload", *((key, 1, 0, [("get",)], False) for key in KEYS)]:
        comparison.step(step)


@pytest.mark.parametrize("ttl", [None, TTL])
@settings(deadline=None, max_examples=120)
@given(steps=steps_of(LIST_CALLS))
def test_a_list_is_a_list_per_key(ttl: int | None, steps: list[Any]) -> None:
    """Whatever fails, is rolled back, falls out of the cache, or is swept away once it has expired."""
    comparison = Comparison(list_bench(ttl), lambda: ListModel(ttl), done, timed=True)
    for step in [*steps, "commit", "reload", *((key, 1, 0, [("get",)], False) for key in KEYS)]:
        comparison.step(step)


@pytest.mark.parametrize("ttl", [None, TTL])
@settings(deadline=None, max_examples=120)
@given(steps=steps_of(MAP_CALLS))
def test_a_map_is_a_dictionary_per_key(ttl: int | None, steps: list[Any]) -> None:
    """Whatever fails, is rolled back, falls out of the cache, or is swept away once it has expired."""
    comparison = Comparison(map_bench(ttl), lambda: MapModel(ttl), done_to_map, timed=True)
    for step in [*steps, "commit", "reload", *((key, 1, 0, [("items",)], False) for key in KEYS)]:
        comparison.step(step)

"""Timers: deadlines per key and tag, set, moved, cancelled and fired, against a dictionary."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kstate.keyspace import FULL_RANGE, KeyRange, slot_of
from kstate.state.values import NEVER
from tests.support.timed_rig import Rig, timer, value

LOW, HIGH = KeyRange(0, 0x8000), KeyRange(0x8000, 0x10000)
KEYS = ("a", "b", "c", "d", "e")
TAGS = ("", "s", "t")


def silent(*_: Any) -> None:
    """A handler that does nothing."""


def single(clock: str = "event") -> Rig:
    """One timer."""
    return Rig(timer("timer", silent, clock=clock))


def test_a_timer_has_one_deadline_which_set_replaces() -> None:
    """And cancel takes away."""
    rig = single()
    assert rig.call("a", lambda op: op.timer.get()) is None
    rig.call("a", lambda op: op.timer.set(at=7))
    rig.call("a", lambda op: op.timer.set(at=5))
    assert rig.call("a", lambda op: op.timer.get()) == 5
    assert rig.call("b", lambda op: op.timer.get()) is None
    rig.call("a", lambda op: op.timer.cancel())
    rig.call("a", lambda op: op.timer.cancel())
    assert rig.call("a", lambda op: op.timer.get()) is None
    rig.commit()
    assert (rig.stored(), rig.indexed()) == (0, [])


@pytest.mark.parametrize(
    ("at", "deadline"),
    [
        (7, 7),
        (datetime(1970, 1, 1, 0, 0, 1, 500, tzinfo=UTC), 1_000),
        (datetime(1970, 1, 1, 2, tzinfo=timezone(timedelta(hours=1))), 3_600_000),
    ],
)
def test_a_deadline_is_ms_since_the_epoch_or_a_time_with_zone(at: Any, deadline: int) -> None:
    """Of a time, whole milliseconds count."""
    rig = single()
    rig.call("a", lambda op: op.timer.set(at=at))
    assert rig.call("a", lambda op: op.timer.get()) == deadline


def test_after_counts_from_event_time_or_from_processing_time() -> None:
    """By the clock of the timer."""
    for clock, expected in (("event", 1_250), ("processing", 5_250)):
        rig = single(clock)
        rig.call("a", lambda op: op.timer.set(after=timedelta(milliseconds=250)), event_time=1_000, clock_ms=5_000)
        assert rig.call("a", lambda op: op.timer.get()) == expected


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({}, TypeError, "either at= or after="),
        ({"at": 1, "after": timedelta(1)}, TypeError, "either at= or after="),
        ({"at": datetime(2026, 1, 1)}, ValueError, "has no time zone"),  # noqa: DTZ001
        ({"at": 1.5}, TypeError, "not 1.5"),
        ({"at": True}, TypeError, "not True"),
        ({"at": "5"}, TypeError, "not '5'"),
        ({"after": 5}, TypeError, "after= is a timedelta, not 5"),
        ({"at": 0}, ValueError, "deadline 0 is not a time after 1970"),
        ({"at": -5}, ValueError, "deadline -5"),
        ({"at": NEVER}, ValueError, "fits 64 bits"),
        ({"at": 1 << 70}, ValueError, "fits 64 bits"),
        ({"after": timedelta(days=-1)}, ValueError, "after 1970"),
    ],
)
def test_what_is_no_deadline_is_refused(arguments: dict[str, Any], error: type[Exception], text: str) -> None:
    """The record is rejected; nothing was set, and the message names the timer."""
    for rig, act in (
        (single(), lambda op: op.timer.set(**arguments)),
        (Rig(timer("timer", silent, tag_type=str)), lambda op: op.timer.set("t", **arguments)),
    ):
        with pytest.raises(error, match=text) as raised:
            rig.call("a", act)
        assert "timer 'timer'" in str(raised.value)
        assert not rig.cache.changed


def test_tags_have_deadlines_of_their_own() -> None:
    """Listed in the order of the tags' bytes."""
    rig = Rig(timer("timer", silent, tag_type=int))
    rig.call("a", lambda op: [op.timer.set(tag, at=100 - tag) for tag in (3, 1, 2)])
    rig.commit()
    rig.forget()
    rig.call("a", lambda op: op.timer.cancel(1))
    assert rig.call("a", lambda op: list(op.timer.items())) == [(2, 98), (3, 97)]
    assert rig.call("a", lambda op: [op.timer.get(tag) for tag in (1, 2)]) == [None, 98]
    rig.call("a", lambda op: op.timer.clear())
    rig.commit()
    assert (rig.stored(), rig.indexed()) == (0, [])


def test_setting_the_same_deadline_again_changes_nothing() -> None:
    """It costs no write."""
    rig = Rig(timer("one", silent), timer("many", silent, tag_type=str))
    rig.call("a", lambda op: (op.one.set(at=5), op.many.set("t", at=6)))
    rig.commit()
    rig.call("a", lambda op: (op.one.set(at=5), op.many.set("t", at=6)))
    assert not rig.cache.changed


def test_a_failed_call_leaves_the_deadline_as_it_was() -> None:
    """Set, moved or cancelled: timers are state."""
    rig = Rig(timer("one", silent), timer("many", silent, tag_type=str))
    rig.call("a", lambda op: (op.one.set(at=5), op.many.set("t", at=6)))

    def fail(op: Any) -> None:
        op.one.set(at=9)
        op.many.set("t", at=3)
        op.many.set("u", at=2)
        op.one.cancel()
        op.many.clear()
        raise RuntimeError

    with pytest.raises(RuntimeError):
        rig.call("a", fail)
    assert rig.call("a", lambda op: (op.one.get(), list(op.many.items()))) == (5, [("t", 6)])


Place = tuple[str, str, str]
"""Name of the timer, key, tag."""


class Job:
    """Three timers on two clocks beside a dictionary; what a handler does follows from what it is called for.

    Handlers with an odd deadline fail after they set the timer again, those divisible by four set another one earlier.
    """

    def __init__(self, memory_items: int, *, halves: bool) -> None:
        self.fired: list[tuple[int, Place]] = []
        self.expected: list[tuple[int, Place]] = []
        self.live: dict[Place, int] = {}
        self.committed: dict[Place, int] = {}
        self.rig = Rig(
            timer("late", lambda op, ctx: self._called(op, "late", "", ctx)),
            timer("many", lambda op, tag, ctx: self._called(op, "many", tag, ctx), tag_type=str),
            timer("clock", lambda op, tag, ctx: self._called(op, "clock", tag, ctx), tag_type=str, clock="processing"),
            value("count"),
            ranges=(LOW, HIGH) if halves else (FULL_RANGE,),
            memory_items=memory_items,
        )

    def set(self, name: str, key: str, tag: str, at: int) -> None:
        place = _place(name, key, tag)
        self.rig.call(key, lambda op: _set(op, place, at))
        self.live[place] = at

    def cancel(self, name: str, key: str, tag: str) -> None:
        place = _place(name, key, tag)
        self.rig.call(key, lambda op: op.late.cancel() if name == "late" else getattr(op, name).cancel(tag))
        self.live.pop(place, None)

    def fail(self, name: str, key: str, tag: str, at: int) -> None:
        """A record that sets a timer and then fails."""

        def act(op: Any) -> None:
            _set(op, _place(name, key, tag), at)
            raise RuntimeError

        with pytest.raises(RuntimeError):
            self.rig.call(key, act)

    def fire(self, clock: str, upto: int) -> None:
        assert self.rig.fire(upto, clock, watermark=77)
        self._simulate(clock, upto)
        assert self.fired == self.expected
        assert all(piece.agendas[clock].next_at > upto for piece in self.rig.pieces)

    def commit(self) -> None:
        self.rig.commit()
        self.committed = dict(self.live)
        assert len(self.rig.indexed()) >= len(self.live)
        assert self.rig.stored() == len(self.live)

    def rollback(self) -> None:
        self.rig.rollback()
        self.live = dict(self.committed)

    def restart(self) -> None:
        self.rig.start()
        self.live = dict(self.committed)

    def forget(self) -> None:
        self.commit()
        self.rig.forget()

    def coalesce(self) -> None:
        if len(self.rig.pieces) > 1:
            self.rig.coalesce()

    def check(self) -> None:
        """Handles show what the dictionary has."""
        for key in KEYS:
            shown = self.rig.call(
                key, lambda op: {("late", "", op.late.get()), *_listed(op, "many"), *_listed(op, "clock")}
            )
            mine = {(name, tag, at) for (name, k, tag), at in self.live.items() if k == key}
            assert shown - {("late", "", None)} == mine

    def _called(self, op: Any, name: str, tag: str, ctx: Any) -> None:
        at, place = ctx.event_time, (name, op.key, tag)
        assert (ctx.watermark, ctx.batch, ctx.key_bytes) == (77, None, op.key.encode())
        self.fired.append((at, place))
        for other, deadline in _consequences(place, at):
            _set(op, other, deadline)
        if at % 2:
            raise ValueError("odd")

    def _simulate(self, clock: str, upto: int) -> None:
        for key_range in self.rig.ranges:
            while due := sorted(
                (at, place)
                for place, at in self.live.items()
                if at <= upto and (place[0] == "clock") == (clock == "processing")
                if slot_of(place[1].encode()) in key_range
            ):
                at, place = due[0]
                del self.live[place]
                self.expected.append((at, place))
                if at % 2 == 0:
                    self.live.update(_consequences(place, at))


def _consequences(place: Place, at: int) -> list[tuple[Place, int]]:
    """What the handler sets: itself again later, a tag of the same key earlier."""
    name, key, tag = place
    again = [(place, at + 3)] if at % 3 == 0 else []
    return again + (
        [(("many" if name != "clock" else name, key, tag + "x"), at // 2)] if at % 4 == 0 and at > 1 else []
    )


def _place(name: str, key: str, tag: str) -> Place:
    return name, key, "" if name == "late" else tag


def _set(op: Any, place: Place, at: int) -> None:
    name, _, tag = place
    if name == "late":
        op.late.set(at=at)
    else:
        getattr(op, name).set(tag, at=at)


def _listed(op: Any, name: str) -> list[tuple[str, str, int]]:
    return [(name, tag, at) for tag, at in getattr(op, name).items()]


places = st.tuples(st.sampled_from(["late", "many", "clock"]), st.sampled_from(KEYS), st.sampled_from(TAGS))
times = st.integers(1, 24)
sets = st.tuples(st.just("set"), places, times)
actions = st.one_of(
    sets,
    st.tuples(st.just("cancel"), places),
    st.tuples(st.just("fail"), places, times),
    st.tuples(st.just("fire"), st.tuples(st.sampled_from(["event", "processing"]), times)),
    st.tuples(st.sampled_from(["coalesce", "check"]), st.just(())),
)
ends = st.sampled_from([("commit",), ("commit", "restart"), ("commit", "restart"), ("rollback",), ("forget",)])
epochs = st.tuples(st.lists(sets, max_size=10), st.lists(actions, max_size=8), ends)


@settings(deadline=None, max_examples=150)
@given(st.lists(epochs, min_size=1, max_size=4), st.integers(1, 20), st.booleans())
def test_timers_fire_in_order_whatever_fails_restarts_or_moves(
    program: list[tuple[list[Any], list[Any], tuple[str, ...]]], memory_items: int, halves: bool
) -> None:
    """By (deadline, name, key, tag), each once, those set on the way among them."""
    job = Job(memory_items, halves=halves)
    for first, then, how in program:
        for name, arguments, *more in [*first, *then]:
            getattr(job, name)(*arguments, *more)
        for end in how:
            getattr(job, end)()
    job.check()
    job.fire("event", 100)
    job.fire("processing", 100)
    job.commit()
    job.restart()
    job.check()


def test_many_timers_of_one_key_survive_a_restart() -> None:
    """More than an agenda has in memory; by the time of their deadlines, not of their tags."""
    fired: list[int] = []
    specs = (timer("timer", lambda op, tag, ctx: fired.append(tag), tag_type=int),)
    rig = Rig(*specs, memory_items=500)
    count = 5_000
    rig.call("a", lambda op: [op.timer.set(tag, at=1 + (tag * 7919) % count) for tag in range(count)])
    rig.commit()
    again = Rig(*specs, store=rig.store, memory_items=500)
    for upto in range(1_000, count + 1, 1_000):
        assert again.fire(upto)
        assert len(fired) == upto
        again.commit()
    assert [1 + (tag * 7919) % count for tag in fired] == list(range(1, count + 1))
    assert (again.stored(), again.indexed()) == (0, [])

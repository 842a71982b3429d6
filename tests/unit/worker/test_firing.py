"""Firing: order, atomic calls, dead letters, epochs that are full, and values whose ttl is over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from kstate import Context, Input, Operator, Output, Timer
from kstate.api.windows import Tumbling
from kstate.config import FailureSettings
from kstate.errors import OperatorError, RetryableError
from kstate.state.layout import Item
from kstate.worker.firing import CHUNK
from tests.support.timed_rig import PARTITION, Rig, timer, value, window


def test_equal_deadlines_fire_by_name_key_and_tag() -> None:
    """The order is part of the contract."""
    fired: list[Any] = []
    rig = Rig(
        timer("z", lambda op, ctx: fired.append(("z", op.key))),
        timer("b", lambda op, tag, ctx: fired.append(("b", op.key, tag)), tag_type=str),
        window("m", Tumbling(timedelta(milliseconds=5)), lambda op, n, span, ctx: fired.append(("m", op.key))),
    )
    for key in ("k2", "k1"):
        rig.call(key, lambda op: (op.z.set(at=5), op.b.set("y", at=5), op.b.set("x", at=5), op.m.update(lambda n: n)))
    rig.fire(5)
    keys = [("b", "k1", "x"), ("b", "k1", "y"), ("b", "k2", "x"), ("b", "k2", "y"), ("m", "k1"), ("m", "k2")]
    assert fired == [*keys, ("z", "k1"), ("z", "k2")]


def test_a_handler_sees_the_deadline_as_event_time_and_no_record() -> None:
    """Of a window the last instant in it; the watermark is what made it due."""
    seen: list[Any] = []

    def note(op: Any, *rest: Any) -> None:
        ctx = rest[-1]
        seen.append((op.key, ctx.key_bytes, ctx.event_time, ctx.watermark, ctx.batch, ctx.partition, ctx.row))

    rig = Rig(timer("t", note), window("w", Tumbling(timedelta(milliseconds=5)), note))
    rig.call("k", lambda op: (op.t.set(at=7), op.w.update(lambda n: n)))
    rig.cursor.batch, rig.cursor.row, rig.cursor.event_times = None, 0, (3,)
    rig.fire(20)
    assert seen == [("k", b"k", 4, 20, None, PARTITION, 0), ("k", b"k", 7, 20, None, PARTITION, 0)]
    assert rig.cursor.event_times == (3,), "the record in hand goes on where it was"


def test_a_failing_handler_is_undone_and_its_timer_is_gone() -> None:
    """Its dead letter says which it was; those after it fire."""
    fired: list[str] = []

    def fail(op: Any, _ctx: Any) -> None:
        fired.append(op.key)
        op.n.set(5)
        op.t.set(at=50)
        if op.key == "a":
            raise ValueError("no luck")

    rig = Rig(timer("t", fail), value("n"))
    for key in "ab":
        rig.call(key, lambda op: (op.t.set(at=9), op.n.set(1)))
    rig.commit()
    assert rig.fire(10)
    assert fired == ["a", "b"]
    assert rig.rejects.handled == 2
    assert rig.call("a", lambda op: (op.n.get(), op.t.get())) == (1, None)
    assert rig.call("b", lambda op: (op.n.get(), op.t.get())) == (5, 50)
    (letter,) = rig.rejects.messages()
    assert (letter["key"], letter["value"], letter["timestamp"]) == (b"a", None, 9)
    assert {name: text.decode() for name, text in letter["headers"]} == {
        "kstate.operator": "timed",
        "kstate.reason": "no luck",
        "kstate.error": "ValueError",
        "kstate.topic": "",
        "kstate.partition": str(PARTITION),
        "kstate.offset": "-1",
        "kstate.timer": "t",
        "kstate.deadline": "9",
    }
    rig.commit()
    rig.start()
    assert rig.call("a", lambda op: op.t.get()) is None


def test_too_many_failing_timers_stop_the_job() -> None:
    """As records do; the message names the last of them."""
    rig = Rig(timer("t", lambda op, ctx: _divide(0)))
    for number in range(20):
        rig.call(f"k{number}", lambda op: op.t.set(at=9))
    rig.fire(10)
    with pytest.raises(OperatorError, match=r"20 of 20 .* the last at 't' due at 9 in partition 3 with ZeroDivision"):
        rig.rejects.check(FailureSettings(rejects_min=10))


def _divide(by: int) -> None:
    assert 1 / by


def test_a_failure_of_the_engine_is_not_the_timers_fault() -> None:
    """The epoch is rolled back, and the timer is there again."""
    trouble: list[Exception] = [RetryableError("disk full"), MemoryError()]

    def fail(_op: Any, _ctx: Any) -> None:
        if trouble:
            raise trouble.pop()

    rig = Rig(timer("t", fail))
    rig.call("a", lambda op: op.t.set(at=5))
    rig.commit()
    for kind in (MemoryError, RetryableError):
        with pytest.raises(kind):
            rig.fire(5)
        assert not rig.rejects.letters
        rig.rollback()
        assert rig.call("a", lambda op: op.t.get()) == 5
    assert rig.fire(5)
    assert rig.call("a", lambda op: op.t.get()) is None


def test_a_value_that_does_not_encode_is_found_when_careful() -> None:
    """The culprit becomes a dead letter instead of failing its epoch."""
    rig = Rig(timer("t", lambda op, ctx: op.n.set("no number" if op.key == "b" else 1)), value("n"))
    for key in "abc":
        rig.call(key, lambda op: op.t.set(at=5))
    rig.firing.careful = True
    rig.fire(5)
    assert [(letter.key, letter.timer) for letter in rig.rejects.letters] == [(b"b", Item(5, "t", b"b", b""))]
    assert "state 'n' of key 'b'" in rig.rejects.letters[0].reason
    rig.commit()
    assert [rig.call(key, lambda op: op.n.get()) for key in "abc"] == [1, None, 1]


@dataclass(frozen=True, slots=True)
class Order:
    """Something with a time."""

    id: str
    ts: int


class Remind(Operator[str], uid="remind"):
    """Says which orders are a minute old."""

    orders = Input(Order, topic="orders", key="id", event_time="ts")
    old = Output(Order, topic="old")
    timer = Timer()

    @orders.each
    def remember(self, order: Order, ctx: Context) -> None:
        self.timer.set(after=timedelta(minutes=1))

    @timer.fires
    def tell(self, ctx: Context) -> None:
        self.old.emit(Order(self.key, ctx.event_time))


def test_timers_set_in_one_epoch_fire_in_a_later_one(bench: Callable[..., Any]) -> None:
    """Many enough for the agenda to be read anew when the epoch is settled: by then they must be in the store."""
    b = bench(Remind)
    b.feed(*(b.row(Order(f"k{at}", at), b"k%d" % at) for at in range(1, 3_001)))
    b.commit()
    b.feed(b.row(Order("z", 1_000_000), b"z"))
    assert b.emitted("old") == [Order(f"k{at}", at + 60_000) for at in range(1, 3_001)]
    b.commit(1)
    assert [item.key for item in b.shard.pieces[0].agendas.event.peek(9, 10**9)] == [b"z"]


def test_a_full_epoch_ends_between_two_calls() -> None:
    """What is left fires in the next one, with the same watermark."""
    fired: list[str] = []
    rig = Rig(timer("t", lambda op, ctx: fired.append(op.key)))
    keys = sorted(f"k{number}" for number in range(2 * CHUNK + 1))
    for key in keys:
        rig.call(key, lambda op: op.t.set(at=5))
    rig.enough = True
    assert not rig.fire(5)
    assert fired == keys[:CHUNK]
    rig.commit()
    rig.start()
    assert not rig.fire(5)
    rig.commit()
    assert rig.fire(5)
    assert fired == keys
    rig.enough = False
    for key in keys:
        rig.call(key, lambda op: op.t.set(at=5))
    assert rig.fire(5)
    assert fired == keys * 2, "nobody asks to stop"


def test_what_fires_is_committed_with_its_epoch() -> None:
    """A marker must tell of it, though no record was read; stale items change nothing that is backed up."""
    rig = Rig(timer("t", lambda op, ctx: None))
    rig.call("a", lambda op: op.t.set(at=5))
    rig.commit()
    rig.call("a", lambda op: op.t.set(at=9))
    rig.commit()
    rig.pieces[0].touched = False
    rig.fire(8)
    assert not rig.pieces[0].touched
    rig.fire(9)
    assert rig.pieces[0].touched


def test_a_timer_that_the_job_no_longer_has_is_dropped() -> None:
    """Its entry in the index is stale."""
    rig = Rig(timer("old", lambda op, ctx: None))
    rig.call("a", lambda op: op.old.set(at=5))
    rig.commit()
    new = Rig(timer("new", lambda op, ctx: None), store=rig.store)
    assert new.fire(10)
    new.commit()
    assert new.indexed() == []


def test_values_are_swept_when_their_ttl_is_over() -> None:
    """At most so many at a time; what was written again since stays."""
    rig = Rig(value("n", ttl_ms=10))
    for number in range(5):
        rig.call(f"k{number}", lambda op: op.n.set(1), event_time=1 + number)
    rig.commit()
    rig.call("k0", lambda op: op.n.set(2), event_time=9)

    def sweep(watermark: int, limit: int) -> int:
        return rig.firing.sweep(rig.shard, rig.pieces[0], watermark, limit)

    assert sweep(10, 100) == 0
    assert sweep(12, 100) == 1
    assert rig.pieces[0].touched
    assert sweep(20, 2) == 2
    rig.commit()
    assert (rig.stored(), len(rig.indexed())) == (2, 2)
    rig.start()
    assert [rig.call(f"k{n}", lambda op: op.n.get(), event_time=12) for n in range(5)] == [2, None, None, None, 1]
    assert sweep(100, 100) == 2
    rig.commit()
    assert (rig.stored(), rig.indexed()) == (0, [])


def test_an_expiry_that_comes_back_after_it_was_found_stale_is_swept_all_the_same() -> None:
    """The epoch as a whole did not move it, so nothing else would put it into the index again."""
    rig = Rig(value("n", ttl_ms=10))
    rig.call("a", lambda op: op.n.set(1), event_time=5)
    rig.commit()
    rig.call("a", lambda op: op.n.set(2), event_time=9)
    assert rig.firing.sweep(rig.shard, rig.pieces[0], 15, 100) == 0
    rig.call("a", lambda op: op.n.set(3), event_time=5)
    rig.commit()
    rig.start()
    assert rig.firing.sweep(rig.shard, rig.pieces[0], 15, 100) == 1

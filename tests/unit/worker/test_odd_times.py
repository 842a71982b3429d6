"""Times that no record should have, and handlers between batches: dead letters at most, never a dead worker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from kstate import (
    BatchContext,
    Context,
    Input,
    Job,
    ListState,
    Operator,
    Output,
    Timer,
    Tumbling,
    ValueState,
    Window,
    WindowState,
)
from kstate.testing import Driver

TEN_SECONDS = timedelta(seconds=10)
LAST_INSTANT = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Number:
    n: int


@dataclass(frozen=True, slots=True)
class Other:
    n: int


def _time_of(number: Number) -> Any:
    """Raises for 0, and gives no int for 1."""
    return 10_000 // number.n if number.n != 1 else 1.5


class Timed(Operator[str], uid="timed"):
    numbers = Input(Number, topic="numbers", event_time=_time_of)
    counts = WindowState(int, Tumbling(TEN_SECONDS), default=0)

    @numbers.each
    def count(self, _number: Number, _ctx: Context) -> None:
        self.counts.update(lambda count: count + 1)

    @counts.closes
    def closed(self, _count: int, _window: Window, _ctx: Context) -> None: ...


def test_a_record_whose_event_time_cannot_be_told_becomes_a_dead_letter() -> None:
    """The function that tells it raises, or gives no int; the records beside it are handled."""
    with Driver(Job("odd", [Timed])) as run:
        run.send(Timed.numbers, Number(5), Number(0), Number(1), Number(5), key="k")
        failed, wrong = [letter.reason for letter in run.dead_letters(Timed)]
        assert "ZeroDivisionError" in failed
        assert "as an int, got 1.5" in wrong
        assert list(run.state(Timed.counts, "k").values()) == [2]


class Late(Operator[str], uid="late"):
    numbers = Input(Number, topic="numbers")
    last = Output(Number)

    @numbers.each
    def emit(self, number: Number, _ctx: Context) -> None:
        self.last.emit(number, event_time=LAST_INSTANT - number.n)


class Kept(Operator[str], uid="kept"):
    numbers = Input(Late.last)
    value = ValueState(int, default=0, ttl=TEN_SECONDS)
    values = ListState(int, ttl=TEN_SECONDS)

    @numbers.each
    def keep(self, number: Number, _ctx: Context) -> None:
        self.value.set(number.n)
        self.values.append(number.n)


def test_a_ttl_that_ends_beyond_all_times_never_ends() -> None:
    """The deadline would not fit into 64 bits, and the epoch could not be stored."""
    with Driver(Job("odd", [Late, Kept])) as run:
        run.send(Late.numbers, Number(5), key="k")
        run.crash(at="now")
        assert run.state(Kept.value, "k") == 5
        assert run.state(Kept.values, "k") == (5,)


class Mixed(Operator[str], uid="mixed"):
    """One input in batches, one record by record; its timer fires between batches."""

    numbers = Input(Number, topic="numbers")
    others = Input(Other, topic="others")
    pairs = Output(Number, topic="pairs")
    value = ValueState(int, default=0)
    timer = Timer(clock="processing")

    @numbers.each
    def set_timer(self, _number: Number, _ctx: Context) -> None:
        self.timer.set(after=timedelta(seconds=5))

    @others.batch
    def keep(self, others: Sequence[Other], ctx: BatchContext) -> None:
        self.value.set_many(ctx.keys, [other.n for other in others])

    @timer.fires
    def fired(self, _ctx: Context) -> None:
        self.pairs.emit_many([Number(1), Number(2)])


def test_a_timer_that_fires_after_a_batch_is_of_one_key() -> None:
    """It emits under its own key at its deadline, and sees nothing of the batch."""
    with Driver(Job("odd", [Mixed])) as run:
        run.send(Mixed.numbers, Number(1), key="k")
        run.send(Mixed.others, Other(1), Other(2), Other(3), key="other")
        run.advance(timedelta(seconds=20))
        assert run.read(Mixed.pairs) == [Number(1), Number(2)]

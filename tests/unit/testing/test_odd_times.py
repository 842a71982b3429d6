"""Records and clocks that are out of the ordinary, through whole workers: what happens is written in docs/time.md."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import pytest

from kstate import (
    Context,
    Input,
    Job,
    Operator,
    Output,
    Table,
    Timer,
    TimerMap,
    Tumbling,
    ValueState,
    Window,
    WindowState,
)
from kstate.testing import Driver
from kstate.testing.virtual_time import START_MS

MINUTE = timedelta(minutes=1)
MINUTE_MS = 60_000
T0 = START_MS - START_MS % MINUTE_MS - 10 * MINUTE_MS
"""The start of a minute, ten minutes before the clock of the tests."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something happened."""

    id: int
    ts: int


@dataclass(frozen=True, slots=True)
class Seen:
    """What an operator made of it: `at` is the event time it saw."""

    what: str
    n: int
    at: int


class PerMinute(Operator[str], uid="per-minute"):
    """Counts per minute; late events go to an output of their own."""

    events = Input(Event, topic="events", event_time="ts", lateness=timedelta(seconds=5))
    counts = Output(Seen, topic="counts")
    late = Output(Event, topic="late")
    n = WindowState(int, Tumbling(MINUTE), default=0)

    @events.each
    def add(self, event: Event, ctx: Context) -> None:
        if not self.n.update(lambda n: n + 1):
            self.late.emit(event)

    @n.closes
    def report(self, n: int, window: Window, ctx: Context) -> None:
        self.counts.emit(Seen("minute", n, window.start))


class Reminders(Operator[str], uid="reminders"):
    """A timer on each clock; an event with a negative id sets its event-time timer a minute into the past."""

    events = Input(Event, topic="events", event_time="ts")
    fired = Output(Seen, topic="fired")
    soon = Timer()
    by_clock = Timer(clock="processing")

    @events.each
    def remind(self, event: Event, ctx: Context) -> None:
        self.fired.emit(Seen("event", event.id, ctx.event_time))
        self.soon.set(at=ctx.event_time - MINUTE_MS if event.id < 0 else ctx.event_time + MINUTE_MS)
        self.by_clock.set(after=MINUTE)

    @soon.fires
    def on_time(self, ctx: Context) -> None:
        self.fired.emit(Seen("soon", 0, ctx.event_time))

    @by_clock.fires
    def on_clock(self, ctx: Context) -> None:
        self.fired.emit(Seen("clock", 0, 0), event_time=T0)


def test_a_late_record_is_told_apart_and_changes_nothing() -> None:
    """`update` says False, once per record; the window was reported once and stays as it was."""
    with Driver(Job("odd", [PerMinute], idle=timedelta(days=9))) as d:
        d.send(PerMinute.events, Event(1, T0 + 1), Event(2, T0 + 65_000), key="k")
        assert d.read(PerMinute.counts) == [Seen("minute", 1, T0)]
        d.send(PerMinute.events, Event(3, T0 + 2), key="k")
        assert (d.read(PerMinute.late), d.read(PerMinute.counts)) == ([Event(3, T0 + 2)], [])


@pytest.mark.parametrize("ts", [-1, 0, START_MS + 2 * 3_600_000, 253_402_300_800_000], ids=str)
def test_an_impossible_event_time_is_a_dead_letter_and_does_not_move_time(ts: int) -> None:
    """Negative, zero, hours ahead of the clock, in the year 10000: the records after it are not late."""
    with Driver(Job("odd", [PerMinute], idle=timedelta(days=9))) as d:
        d.send(PerMinute.events, Event(1, T0 + 1), Event(2, ts), Event(3, T0 + 2), Event(4, T0 + 65_000), key="k")
        assert d.read(PerMinute.counts) == [Seen("minute", 2, T0)]
        assert d.read(PerMinute.late) == []
        (letter,) = d.dead_letters(PerMinute)
        assert f"event time {ts}" in letter.reason


def test_a_timer_in_the_past_fires_when_the_call_that_set_it_is_over() -> None:
    """Before the next record of any key, with its deadline as event time; once."""
    with Driver(Job("odd", [Reminders], idle=timedelta(days=9))) as d:
        d.send(Reminders.events, Event(-1, T0), Event(2, T0 + 1), key="k")
        assert d.read(Reminders.fired) == [
            Seen("event", -1, T0),
            Seen("soon", 0, T0 - MINUTE_MS),
            Seen("event", 2, T0 + 1),
        ]


@pytest.mark.parametrize("jump", [timedelta(minutes=10), timedelta(minutes=-10)], ids=["ahead", "back"])
def test_a_clock_that_jumps_fires_a_timer_once(jump: timedelta) -> None:
    """Ahead: due timers fire at once. Back: the time that was read before holds until the clock has come up to it."""
    with Driver(Job("odd", [Reminders], idle=timedelta(days=9))) as d:
        clock = d._world.clock
        d.send(Reminders.events, Event(1, T0), key="k")
        clock.skew_ms = jump // timedelta(milliseconds=1)
        d.advance(timedelta(seconds=1))
        fired = [seen.what for seen in d.read(Reminders.fired)]
        assert fired == ["event", "clock"] if jump > timedelta(0) else fired == ["event"]
        clock.skew_ms = 0
        d.advance(timedelta(minutes=2))
        assert [seen.what for seen in d.read(Reminders.fired)] == ([] if jump > timedelta(0) else ["clock"])


def test_a_wall_clock_that_jumps_moves_no_event_time() -> None:
    """Idle inputs go by the time that passed, not by what a wall clock says."""
    with Driver(Job("odd", [PerMinute])) as d:
        d.send(PerMinute.events, Event(1, T0 + 1), key="k")
        d._world.clock.skew_ms = 3_600_000
        d.advance(timedelta(seconds=20))
        assert d.read(PerMinute.counts) == []
        d.advance(timedelta(minutes=2))
        assert d.read(PerMinute.counts) == [Seen("minute", 1, T0)]


class Known(Operator[str], uid="known"):
    """Looks a key up."""

    names = Table(Event, topic="names")
    asks = Input(Event, topic="asks")
    answers = Output(Seen, topic="answers")
    asked = ValueState(int, default=0)

    @asks.each
    def answer(self, ask: Event, ctx: Context) -> None:
        self.asked.set(self.asked.get() + 1)
        found = self.names.get()
        self.answers.emit(Seen("known" if found else "unknown", found.id if found else 0, self.asked.get()))


def test_a_table_key_may_be_deleted_and_made_again() -> None:
    """Absent in between, whatever crashes; state of the operator itself is not touched by it."""
    with Driver(Job("odd", [Known])) as d:
        d.send(Known.names, Event(7, T0), key="k")
        d.send(Known.asks, Event(1, T0), key="k")
        d.delete(Known.names, "k")
        d.crash(at="now")
        d.send(Known.asks, Event(2, T0), key="k")
        d.send(Known.names, Event(8, T0), key="k")
        d.crash(at="now")
        d.send(Known.asks, Event(3, T0), key="k")
        assert d.read(Known.answers) == [Seen("known", 7, 1), Seen("unknown", 0, 2), Seen("known", 8, 3)]


class Many(Operator[str], uid="many"):
    """Sets as many timers as the event says, all of one key."""

    events = Input(Event, topic="events", event_time="ts")
    fired = Output(Seen, topic="fired")
    marks = TimerMap(int)

    @events.each
    def start(self, event: Event, ctx: Context) -> None:
        for tag in range(event.id):
            self.marks.set(tag, after=timedelta(milliseconds=1 + tag % 1_000))

    @marks.fires
    def fire(self, tag: int, ctx: Context) -> None:
        self.fired.emit(Seen("mark", tag, ctx.event_time))


def test_many_timers_of_one_key_fire_each_once_in_order_across_a_crash() -> None:
    """More than one chunk of them, in (deadline, tag) order; the epoch may be cut between any two."""
    with Driver(Job("odd", [Many], idle=timedelta(days=9))) as d:
        d.send(Many.events, Event(20_000, T0), key="k")
        d.crash(at="before_commit")
        d.send(Many.events, Event(0, T0 + MINUTE_MS), key="k")
        expected = sorted((T0 + 1 + tag % 1_000, tag) for tag in range(20_000))
        assert [(seen.at, seen.n) for seen in d.read(Many.fired)] == expected


def test_a_test_that_fails_is_told_of_dead_letters() -> None:
    """They may well be why."""

    def failing() -> None:
        with Driver(Job("odd", [PerMinute])) as d:
            d.send(PerMinute.events, Event(1, -1), key="k")
            raise AssertionError("nothing came")

    with pytest.raises(AssertionError, match="nothing came") as failed:
        failing()
    assert "event time -1 is not after" in failed.value.__notes__[0]

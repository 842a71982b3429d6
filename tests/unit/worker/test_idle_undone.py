"""An epoch that is undone takes back what time did, too: nothing is idle that is to be read again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import pytest

from kstate import Context, Input, Job, Operator, Output, Timer, Tumbling, Window, WindowState
from kstate.clock import Step, Steps
from kstate.testing import Driver
from kstate.worker.running_epoch import RunningEpoch

START = 1_700_000_000_000
UNDECIDED = Step("undecided", wait=60)


@dataclass(frozen=True, slots=True)
class Event:
    n: int


@dataclass(frozen=True, slots=True)
class Seen:
    """A watermark, or a count, since the start."""

    n: int


class Watch(Operator[str], uid="watch"):
    """Counts in windows of a second, and notes the watermark once a minute."""

    events = Input(Event, topic="events")
    counts = Output(Seen, topic="counts")
    marks = Output(Seen, topic="marks")
    seconds = WindowState(int, Tumbling(timedelta(seconds=1)), default=0)
    minute = Timer(clock="processing")

    @events.each
    def count(self, _event: Event, ctx: Context) -> None:
        self.seconds.update(lambda count: count + 1)
        self.minute.set(after=timedelta(minutes=1))

    @seconds.closes
    def closed(self, count: int, _window: Window, _ctx: Context) -> None:
        self.counts.emit(Seen(count))

    @minute.fires
    def note(self, ctx: Context) -> None:
        self.marks.emit(Seen(ctx.watermark - START))
        self.minute.set(after=timedelta(minutes=1))


@pytest.fixture
def undo(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Makes the next epoch one that nobody knows of for a minute, and that then turns out not to be committed."""
    write = RunningEpoch._write

    def once(*_: object) -> Steps[None]:
        monkeypatch.setattr(RunningEpoch, "_write", write)
        yield UNDECIDED

    return lambda: monkeypatch.setattr(RunningEpoch, "_write", once)


@contextmanager
def watching() -> Iterator[Driver]:
    """A job whose input becomes idle after 5 seconds; one event is done."""
    with Driver(Job("undone", [Watch], idle=timedelta(seconds=5))) as run:
        run.send(Watch.events, Event(1), key="k", event_time=START)
        yield run


def test_an_input_is_not_idle_while_it_is_read_again(undo: Callable[[], None]) -> None:
    """It had been at its end for long when its records were undone; they are not late when they are done again."""
    with watching() as run:
        undo()
        run.send(Watch.events, Event(2), key="k", event_time=START + 100)
        run.advance(timedelta(seconds=20))
        assert run.read(Watch.counts) == [Seen(2)]


def test_time_that_was_undone_does_not_pass_twice(undo: Callable[[], None]) -> None:
    """The watermark of an idle piece never runs faster than the clock."""
    with watching() as run:
        for number in range(12):
            if number == 6:
                undo()
            run.advance(timedelta(seconds=20))
        marks = [seen.n for seen in run.read(Watch.marks)]
        assert len(marks) >= 3
        assert all(mark <= 61_000 * minute for minute, mark in enumerate(marks, 1))

"""What a piece tells those behind it is never ahead of what it still has to emit, and never left unsaid."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import pytest

from kstate import Context, Input, Job, Operator, Output, Timer, TimerMap, Tumbling, Window, WindowState
from kstate.config import EpochSettings, Settings
from kstate.testing import Driver, driver
from kstate.times import UNKNOWN_TIME
from kstate.worker.watermarks import Told, Watermarks
from tests.unit.worker.test_watermarks import VIEWS, piece, taken

START = 1_700_000_000_000


@dataclass(frozen=True, slots=True)
class Burst:
    """So many timers, a millisecond apart; `ticking`: and one that fires again and again, by the clock."""

    timers: int
    after_ms: int = 1_000
    ticking: bool = False


@dataclass(frozen=True, slots=True)
class Fired:
    """Timers that fired."""

    key: str
    count: int


class Bursts(Operator[str], uid="bursts"):
    """Emits a record per timer."""

    bursts = Input(Burst, topic="bursts")
    fired = Output(Fired, key="key")
    due = TimerMap(int)
    tick = Timer(clock="processing")

    @bursts.each
    def burst(self, burst: Burst, ctx: Context) -> None:
        for number in range(burst.timers):
            self.due.set(number, at=ctx.event_time + burst.after_ms + number)
        if burst.ticking:
            self.again(ctx)

    @due.fires
    def emit(self, _number: int, _ctx: Context) -> None:
        self.fired.emit(Fired("all", 1))

    @tick.fires
    def again(self, _ctx: Context) -> None:
        self.tick.set(after=timedelta(seconds=2))


class Counts(Operator[str], uid="counts"):
    """Counts them in windows."""

    fired = Input(Bursts.fired)
    counts = Output(Fired, topic="counts")
    half_seconds = WindowState(int, Tumbling(timedelta(milliseconds=500)), default=0)

    @fired.each
    def count(self, fired: Fired, _ctx: Context) -> None:
        self.half_seconds.update(lambda count: count + fired.count)

    @half_seconds.closes
    def closed(self, count: int, window: Window, _ctx: Context) -> None:
        self.counts.emit(Fired(str(window.start - START), count))


def counted(run: Driver) -> dict[str, int]:
    """What was counted so far, by half second."""
    return {fired.key: fired.count for fired in run.read(Counts.counts)}


@pytest.mark.parametrize("bytes_max", [1, 10_000_000])
def test_what_a_full_epoch_left_over_is_not_late_for_those_behind(
    monkeypatch: pytest.MonkeyPatch, bytes_max: int
) -> None:
    """An epoch that ends between timers that are due does not tell the watermark that made them due."""
    monkeypatch.setattr(driver, "Settings", lambda **given: Settings(**given, epoch=EpochSettings(bytes_max=bytes_max)))
    with Driver(Job("told", [Bursts, Counts])) as run:
        run.send(Bursts.bursts, Burst(3_000), key="k", event_time=START)
        run.send(Bursts.bursts, Burst(0), key="k", event_time=START + 10_000)
        assert counted(run) == {str(start): 500 for start in range(1_000, 4_000, 500)}


def test_an_idle_piece_that_commits_for_another_reason_still_tells_its_watermark() -> None:
    """Epochs without a frame, of a timer that goes by the clock, do not put the next frame off."""
    with Driver(Job("told", [Bursts, Counts], idle=timedelta(seconds=5))) as run:
        run.send(Bursts.bursts, Burst(1, after_ms=200_000, ticking=True), key="k", event_time=START)
        for _ in range(50):
            run.advance(timedelta(seconds=5))
        assert counted(run) == {"200000": 1}


def test_a_piece_tells_what_is_just_behind_the_first_deadline_left_over() -> None:
    """And does not call itself idle: those behind would go on without it."""
    marks: Watermarks = piece(VIEWS)
    assert marks.tells(5) == Told(UNKNOWN_TIME, idle=False)
    taken(marks, VIEWS, 100)
    assert (marks.tells(101), marks.tells(100)) == (Told(100, idle=False), Told(99, idle=False))
    marks.set_idle(VIEWS)
    assert (marks.tells(101), marks.tells(60)) == (Told(100, idle=True), Told(59, idle=False))
    assert marks.to_send(marks.tells(60)), "it was held back"
    assert not marks.to_send(marks.tells(60), 60)

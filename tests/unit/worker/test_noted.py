"""Whenever user code runs, the note says what it was given; afterwards there is none. A whole worker, in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, ClassVar

import pytest

from kstate import Context, Input, Job, Operator, Timer, ValueState
from kstate.keyspace import FULL_RANGE
from kstate.plan import Shard
from kstate.testing import Driver
from kstate.testing import cluster as testing_cluster
from kstate.testing.memory_notes import MemoryNotes
from kstate.worker.edges import WorkerEdges
from kstate.worker.in_hand import InHand, Place, decode_note
from kstate.worker.load import Load


@dataclass(frozen=True, slots=True)
class Ping:
    """A record."""

    id: int


class Noted(Operator[str], uid="noted"):
    """Looks at the note of its own worker."""

    pings = Input(Ping, topic="pings")
    seen = ValueState(int, default=0)
    alarm = Timer(clock="processing")
    notes: ClassVar[MemoryNotes]
    found: ClassVar[list[Place | None]]

    @pings.each
    def look(self, ping: Ping, ctx: Context) -> None:
        self.found.append(decode_note(self.notes.read()[0]))
        self.seen.set(self.seen.get() + 1)
        self.alarm.set(after=timedelta(seconds=5))

    @alarm.fires
    def ring(self, ctx: Context) -> None:
        self.found.append(decode_note(self.notes.read()[0]))


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Driver]:
    """One worker, whose notes the operator sees."""
    Noted.notes, Noted.found = MemoryNotes(), []

    made: list[WorkerEdges] = []

    def edges(*of: Any, **more: Any) -> WorkerEdges:
        made.append(replace(WorkerEdges(*of, **more), in_hand=InHand(Noted.notes, "build")))
        return made[-1]

    monkeypatch.setattr(testing_cluster, "WorkerEdges", edges)
    monkeypatch.setattr(
        testing_cluster, "Load", lambda app, member, host, pid, *_: Load(app, member, host, pid, made[-1])
    )
    with Driver(Job("app", [Noted])) as driver:
        yield driver


def place(offset: int, epoch: int | None = None) -> Place:
    """Of the only partition."""
    return Place(Shard("noted", 0), FULL_RANGE, "pings", offset, epoch)


def present() -> Place | None:
    """What is in hand."""
    return decode_note(Noted.notes.read()[0])


def test_the_note_names_records_by_committed_progress_until_they_are_committed(driver: Driver) -> None:
    """Two in one epoch were both in hand from the same offset on; the next epoch begins where that one ended."""
    driver.send(Noted.pings, Ping(1), Ping(2), key="a")
    assert Noted.found == [place(0)] * 2
    assert present() is None
    driver.send(Noted.pings, Ping(3), key="a")
    assert Noted.found[2:] == [place(2)]


def test_the_note_names_timers_by_the_epoch_before_them(driver: Driver) -> None:
    """There is no record in hand when time alone makes them due."""
    driver.send(Noted.pings, Ping(1), key="a")
    driver.advance(timedelta(seconds=6))
    assert Noted.found[1:] == [place(1, 1)]
    assert present() is None


@pytest.mark.parametrize(("at", "deaths"), [("processed", 1), ("committed", 1), ("polled", 0)])
def test_a_crash_with_something_in_hand_is_counted_until_it_is_passed(driver: Driver, at: str, deaths: int) -> None:
    """Also one between commit and store: that its epoch is committed the next incarnation finds out, and forgets."""
    counts: list[int] = []
    take_over = InHand._take_over

    def counting(self: InHand, *left: bytes) -> None:
        take_over(self, *left)
        counts.append(sum(fatality.deaths for fatality in self.fatalities))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(InHand, "_take_over", counting)
        driver.crash(at=at)
        driver.send(Noted.pings, Ping(1), key="a")
    assert counts == [deaths]
    assert InHand(Noted.notes, "build").fatalities == ()
    assert driver.state(Noted.seen, key="a") == 1

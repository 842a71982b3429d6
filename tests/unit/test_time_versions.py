"""What versions of a job change about time: a `ttl=` that comes or goes, event time that nobody went by before."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from kstate import Context, Input, Job, ListState, MapState, Operator, Output, Tumbling, ValueState, Window, WindowState
from tests.support.versions import CODECS, Deployment

START = 1_000_000


@dataclass(frozen=True, slots=True)
class Put:
    number: int
    at: int


def version(*, ttl: bool) -> Job:
    """Values, lists and maps with or without it, and a window beside them."""
    options: dict[str, Any] = {"ttl": timedelta(seconds=10)} if ttl else {}

    class Keeper(Operator[str], uid="keeper"):
        puts = Input(Put, topic="puts", event_time="at")
        seen = Output(Put, topic="seen")
        value = ValueState(int, default=0, **options)
        values = ListState(int, **options)
        entries = MapState(str, int, **options)
        counts = WindowState(int, Tumbling(timedelta(seconds=1)), default=0)

        @puts.each
        def put(self, put: Put, _ctx: Context) -> None:
            self.seen.emit(Put(self.value.get() * 100 + len(self.values) * 10 + len(self.entries), put.at))
            self.value.set(put.number)
            self.values.append(put.number)
            self.entries["a"] = put.number
            self.counts.update(lambda count: count + 1)

        @counts.closes
        def closed(self, _count: int, _window: Window, _ctx: Context) -> None: ...

    return Job("ttl", [Keeper], epoch=timedelta(milliseconds=50))


@pytest.mark.parametrize("keep_stores", [True, False])
@pytest.mark.parametrize(
    ("ttls", "last"),
    [((True, False), 221), ((True, False, True), 10), ((False, True), 10), ((False, True, False, True), 20)],
)
def test_a_ttl_may_come_and_go(ttls: tuple[bool, ...], last: int, keep_stores: bool) -> None:
    """Without it nothing expires, however the values were stored; values stored without one never do."""
    at = Deployment(["puts", "seen"], partitions=1, workers=1)
    for number, ttl in enumerate(ttls, 1):
        deployed = at.version(version(ttl=ttl))
        if not keep_stores:
            deployed.stores.clear()
        at.start(deployed, "leader", "w")
        at.settle()
        at.send("puts", "a", Put(number, START + number))
        at.settle()
        if number == len(ttls):
            at.send("puts", "b", Put(number, START + 500_000))
            at.run(1)
            assert not [p.result for p in at.world.processes if isinstance(p.result, Exception)]
            at.send("puts", "a", Put(number, START + 500_000))
            at.settle()
        at.stop("w", "leader")
    assert at.read("seen", Put)[-1].number == last


def counting(*, timed: bool) -> Job:
    """Counts in windows, or does not go by event time at all."""

    class Counter(Operator[str], uid="counter"):
        puts = Input(Put, topic="puts")
        seen = Output(Put, topic="seen", timestamp="now")
        if timed:
            counts = WindowState(int, Tumbling(timedelta(seconds=1)), default=0)

            @counts.closes
            def closed(self, _count: int, _window: Window, _ctx: Context) -> None: ...

        @puts.each
        def put(self, put: Put, _ctx: Context) -> None:
            if timed:
                open_yet = self.counts.update(lambda count: count + 1)
                self.seen.emit(Put(int(open_yet), put.at))

    return Job("later", [Counter], epoch=timedelta(milliseconds=50))


def test_an_operator_that_learns_of_event_time_does_not_begin_in_the_far_future() -> None:
    """A timestamp that it would refuse now was handled by the version before, and must not make all others late."""
    at = Deployment(["puts", "seen"], partitions=1, workers=1)
    for timed, offsets in ((False, (0, 10**12)), (True, (0,))):
        at.start(at.version(counting(timed=timed)), "leader", "w")
        at.settle()
        for offset in offsets:
            value, timestamp = CODECS.value(Put).encode(Put(1, 1)), at.world.clock.time_ms() + offset
            at.world.log.report("puts", {"key": b"a", "value": value, "partition": 0, "timestamp": timestamp})
        at.settle()
        at.stop("w", "leader")
    assert [put.number for put in at.read("seen", Put)] == [1]

"""A `ttl=` that a version of a job adds or takes away; local stores are kept, or lost."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from kstate import Context, Input, Job, ListState, MapState, Operator, Output, Tumbling, ValueState, Window, WindowState
from tests.support.versions import Deployment

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

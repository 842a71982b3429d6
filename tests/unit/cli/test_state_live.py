"""Asking the owners, as one after the other is known, silent, gone or wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO
from typing import BinaryIO

import pytest

from kstate.answers import Entry, Query, RangeGone, encode_answer, encode_end
from kstate.cli.state_live import Owners, Patience
from kstate.cli.state_past import NOW, Moment
from kstate.cli.state_rows import Rows
from kstate.coordinator.observed import Observed, control_read, report_read
from kstate.errors import ConfigError, RetryableError
from kstate.keyspace import FULL_RANGE, KeyRange
from kstate.messages import Heartbeat, PlanPublished
from kstate.plan import Plan, Registry, Shard, Tile
from kstate.state.layout import key_suffix
from kstate.testing.virtual_time import VirtualClock

COUNT = Shard("count", 0)
LOW, HIGH = KeyRange(0, 0x8000), KeyRange(0x8000, 0x10000)
PATIENCE_S = 5.0


def whole(query: Query) -> bytes:
    """An entry in the first slot of what is asked for."""
    entry: Entry = (key_suffix(query.key_range.lo, 1, b"k"), b"v", 9)
    return b"".join(encode_answer([entry]))


@dataclass
class Bench:
    """A plan, the addresses that are heard of, and what becomes of each question."""

    tiles: dict[KeyRange, str] = field(default_factory=lambda: {LOW: "a", HIGH: "b"})
    heard: dict[str, str] = field(default_factory=lambda: {"a": "host:1", "b": "host:2"})
    asked: list[tuple[str, KeyRange]] = field(default_factory=list)
    troubles: list[Callable[[], bytes]] = field(default_factory=list)
    """What happens instead of the next answers."""
    clock: VirtualClock = field(default_factory=VirtualClock)

    def look(self) -> Observed:
        tiles = tuple(Tile(COUNT, key_range, worker, 1) for key_range, worker in self.tiles.items())
        plan = Plan("app", 1, 1, (), (), tiles, Registry({"count": 7}, {}, {}), {}, {})
        observed = control_read(Observed(), PlanPublished(plan), 0)
        for worker, address in self.heard.items():
            observed = report_read(observed, Heartbeat(worker, worker, "host", 1, 1, 1, (), queries=address), 0)
        return observed

    def ask(self, address: str, query: Query, seconds: float) -> BinaryIO:
        assert (query.shard, query.operator_id, seconds) == (COUNT, 7, PATIENCE_S)
        self.asked.append((address, query.key_range))
        return BytesIO(self.troubles.pop(0)() if self.troubles else whole(query))

    def rows(self) -> Rows:
        """By the newest plan."""
        plan = self.look().control.plan
        assert plan is not None
        return Rows(plan, "count")

    def slots(self, key_range: KeyRange = FULL_RANGE, moment: Moment = NOW) -> list[int]:
        """Of the entries that come."""
        owners = Owners(self.rows(), self.look, self.ask, Patience(self.clock, PATIENCE_S))
        return [int.from_bytes(suffix[:2], "big") for suffix, _, _ in owners.entries(0, moment, key_range)]


def raising(error: Exception) -> Callable[[], bytes]:
    """Instead of an answer."""

    def answer() -> bytes:
        raise error

    return answer


def test_each_owner_is_asked_for_its_part() -> None:
    """In the order of slots, and for no more than is wanted."""
    bench = Bench()
    assert bench.slots() == [0, 0x8000]
    assert bench.slots(KeyRange(0x100, 0x8001)) == [0x100, 0x8000]
    parts = [LOW, HIGH, KeyRange(0x100, 0x8000), KeyRange(0x8000, 0x8001)]
    assert bench.asked == list(zip(["host:1", "host:2"] * 2, parts, strict=True))


@pytest.mark.parametrize(
    "trouble",
    [
        raising(RangeGone()),
        raising(RetryableError("not there")),
        raising(TimeoutError("silent")),
        lambda: encode_end(whole=False),
        lambda: b"torn",
    ],
)
def test_an_answer_that_does_not_come_or_count_is_asked_for_again(trouble: Callable[[], bytes]) -> None:
    """Of whoever owns the range by then; nothing of the first answer is shown."""
    bench = Bench()

    def moved() -> bytes:
        bench.tiles[LOW] = "b"
        return trouble()

    bench.troubles = [moved]
    assert bench.slots(LOW) == [0]
    assert bench.asked == [("host:1", LOW), ("host:2", LOW)]


def test_an_owner_that_is_never_heard_is_waited_for_only_so_long() -> None:
    """It is named."""
    bench = Bench(heard={"a": "host:1"})
    with pytest.raises(RetryableError, match=r"Nobody answers for count\[0\].*silent"):
        bench.slots()
    assert bench.clock.monotonic() >= PATIENCE_S


def test_what_can_never_be_answered_is_refused_at_once() -> None:
    """Workers that listen nowhere, another moment, a partition that is not there."""
    bench = Bench(heard={"a": "", "b": ""})
    with pytest.raises(ConfigError, match=r"Worker a answers no queries.*KSTATE_QUERIES__HOST"):
        bench.slots()
    with pytest.raises(ConfigError, match="the present only"):
        bench.slots(moment=Moment(offset=5))
    owners = Owners(bench.rows(), Observed, bench.ask, Patience(bench.clock, 1))
    with pytest.raises(ConfigError, match=r"no count\[0\]"):
        list(owners.entries(0, NOW, FULL_RANGE))
    assert bench.asked == []

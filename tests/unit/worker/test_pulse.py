"""How busy a worker is, and whether its user code goes on, seen from outside."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from kstate.clock import Step, Steps
from kstate.keyspace import FULL_RANGE
from kstate.plan import Shard
from kstate.testing.virtual_time import VirtualClock
from kstate.worker.in_hand import Held, InHand, Place
from kstate.worker.pulse import WINDOW_S, Pulse, Watchdog

LIMIT_S = 60.0
BEAT_S = 0.4


# -- busy


@dataclass
class Processor:
    """Processor time, as far as a test says that it was used."""

    used_s: float = 0.0

    def __call__(self) -> float:
        return self.used_s


@dataclass
class Thread:
    """A main thread that works, waits and is asked."""

    clock: VirtualClock = field(default_factory=VirtualClock)
    cpu: Processor = field(default_factory=Processor)

    def __post_init__(self) -> None:
        self.pulse = Pulse(self.clock, self.cpu)
        self.pulse.busy_percent()

    def work(self, seconds: float) -> None:
        self.clock.sleep(seconds)
        self.cpu.used_s += seconds

    def wait(self, seconds: float, *, unpacking: float = 0.0) -> None:
        with self.pulse:
            self.clock.sleep(seconds)
            self.work(unpacking)


@pytest.mark.parametrize(("work", "wait", "percent"), [(1.0, 0.0, 100), (0.0, 1.0, 0), (0.3, 0.1, 75)])
def test_busy_is_the_share_of_time_that_is_no_wait(work: float, wait: float, percent: int) -> None:
    """All, nothing, three quarters."""
    thread = Thread()
    for _ in range(10):
        thread.work(work)
        thread.wait(wait)
    assert thread.pulse.busy_percent() == percent


def test_a_handler_that_uses_no_processor_is_busy_all_the_same() -> None:
    """It calls another service: its worker can do nothing else."""
    thread = Thread()
    thread.clock.sleep(1)
    assert thread.pulse.busy_percent() == 100


def test_what_a_wait_for_records_needs_to_unpack_them_is_work() -> None:
    """A poll that waited 30 ms and then worked for 10."""
    thread = Thread()
    thread.wait(0.03, unpacking=0.01)
    assert thread.pulse.busy_percent() == 25


def test_only_the_last_seconds_count() -> None:
    """Idle for a minute, then busy: after the window nothing is left of the minute."""
    thread = Thread()
    said = []
    for _ in range(100):
        thread.wait(BEAT_S)
        said.append(thread.pulse.busy_percent())
    assert set(said) == {0}
    for _ in range(int(WINDOW_S / BEAT_S) + 1):
        thread.work(BEAT_S)
        said.append(thread.pulse.busy_percent())
    assert said[-1] == 100
    assert said[100] < 30, "the level follows, it does not jump"
    assert len(thread.pulse._samples) < 10


def test_a_wait_that_is_not_over_counts_as_far_as_it_is() -> None:
    """Another thread asks in the middle."""
    thread = Thread()
    with thread.pulse:
        thread.clock.sleep(1)
        assert thread.pulse.busy_percent() == 0


def test_steps_that_ask_to_wait_are_waits() -> None:
    """The others are not; the steps and their result are the same as without."""
    thread = Thread()

    def steps() -> Steps[str]:
        yield Step("worked")
        thread.work(0.5)
        yield Step("idle", wait=0.5)
        return "end"

    seen = []

    def run() -> Steps[None]:
        result = yield from thread.pulse.watched(steps(), InHand())
        seen.append(result)

    for step in run():
        seen.append(step.name)
        thread.clock.sleep(step.wait)
    assert seen == ["worked", "idle", "end"]
    assert thread.pulse.busy_percent() == 50


def test_without_a_clock_nothing_is_said() -> None:
    """As in the simulation, whose stories must not depend on it."""
    pulse = Pulse()
    with pulse:
        pass
    assert pulse.busy_percent() == 0


# -- the watchdog


@dataclass
class Handler:
    """User code under way, watched every heartbeat."""

    clock: VirtualClock = field(default_factory=VirtualClock)
    at: tuple[int, int] = (17, 3)

    def __post_init__(self) -> None:
        self.in_hand = InHand()
        self.watchdog = Watchdog(self.in_hand, int(LIMIT_S * 1000), self.clock)

    def give(self, number: int = 1) -> None:
        """A part is handed to the operator."""
        self.in_hand.held = Held(number, Place(Shard("count", 0), FULL_RANGE, "lines", 10), lambda: self.at)

    def watch(self, seconds: float, beat_s: float = BEAT_S) -> Held | None:
        """The first complaint within that time."""
        end = self.clock.now + seconds
        while self.clock.now < end:
            self.clock.sleep(beat_s)
            if held := self.watchdog.look():
                return held
        return None


def test_a_call_that_does_not_come_back_is_reported_in_time() -> None:
    """Not before, and not much later; it says what is in hand."""
    handler = Handler()
    handler.give()
    assert handler.watch(LIMIT_S - 1) is None
    held = handler.watch(3)
    assert held is not None
    assert held.place == Place(Shard("count", 0), FULL_RANGE, "lines", 10)
    assert handler.clock.now <= LIMIT_S + 3 * BEAT_S


def test_slow_calls_that_come_back_are_left_alone() -> None:
    """Each record takes half of the time; a batch of them many times as long."""
    handler = Handler()
    handler.give()
    for _ in range(10):
        assert handler.watch(LIMIT_S / 2) is None
        handler.at = (handler.at[0] + 1, 3)
    assert handler.watch(LIMIT_S + 1) is not None


def test_timers_that_come_back_are_left_alone() -> None:
    """They stand at no record, and are counted."""
    handler = Handler(at=(-1, 0))
    handler.give()
    for number in range(1, 5):
        assert handler.watch(LIMIT_S * 0.9) is None
        handler.at = (-1, number)


def test_the_same_mark_in_another_part_is_progress() -> None:
    """Two batches may end alike."""
    handler = Handler()
    for number in range(1, 5):
        handler.give(number)
        assert handler.watch(LIMIT_S * 0.9) is None


def test_with_nothing_in_hand_nobody_is_late() -> None:
    """Waiting for records, or for a broker that is away for an hour, is no endless loop."""
    handler = Handler()
    assert handler.watch(3600) is None
    handler.give()
    assert handler.watch(LIMIT_S * 0.9) is None
    handler.in_hand.released()
    assert handler.watch(3600) is None


def test_a_process_that_was_stopped_as_a_whole_is_not_blamed() -> None:
    """SIGSTOP for an hour: the time in which nobody could work counts a second."""
    handler = Handler()
    handler.give()
    assert handler.watch(10) is None
    handler.clock.sleep(3600)
    assert handler.watchdog.look() is None
    assert handler.watch(LIMIT_S - 15) is None
    assert handler.watch(10) is not None

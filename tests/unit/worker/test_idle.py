"""Which inputs are idle."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from kstate.errors import RetryableError
from kstate.plan import TopicPartition
from kstate.testing.memory_log import MemoryLog
from kstate.testing.virtual_time import VirtualClock
from kstate.worker.idle import LOOK_S, RETRY_S, IdleInputs

A, B = TopicPartition("a", 0), TopicPartition("b", 3)
IDLE_MS = 30_000


class Ends(MemoryLog):
    """A log that says where inputs end, and counts the questions."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__(clock)
        self.ends = {A: 10, B: 7}
        self.asked: list[list[TopicPartition]] = []
        self.away = False

    def end_offsets(self, partitions: Iterable[TopicPartition], *, committed: bool) -> dict[TopicPartition, int]:
        assert not committed, "the last stable end is what the reader knows already"
        self.asked.append(list(partitions))
        if self.away:
            raise RetryableError("nobody answers")
        return {source: self.ends[source] for source in self.asked[-1]}


@pytest.fixture
def clock() -> VirtualClock:
    """Moves when told so."""
    return VirtualClock()


@pytest.fixture
def log(clock: VirtualClock) -> Ends:
    """a[0] ends at 10, b[3] at 7."""
    return Ends(clock)


@pytest.fixture
def inputs(clock: VirtualClock, log: Ends) -> IdleInputs:
    """Idle after 30 s."""
    return IdleInputs(clock, IDLE_MS, log)


def test_an_input_at_its_end_for_long_is_idle(clock: VirtualClock, inputs: IdleInputs, log: Ends) -> None:
    """Not a moment before, and the log is asked once."""
    inputs.told({A: 10}, [])
    clock.now += 5
    inputs.told({A: 10, B: 7}, [])
    clock.now += 24.9
    assert inputs.look() == set()
    assert log.asked == []
    clock.now += 0.1
    assert inputs.look() == {A}
    clock.now += 5
    assert inputs.look() == {A, B}
    for _ in range(50):
        clock.now += 1
        inputs.told({A: 10, B: 7}, [])
        assert inputs.look() == {A, B}
    assert log.asked == [[A], [B]]


def test_an_input_is_idle_from_the_moment_it_was_due(clock: VirtualClock, inputs: IdleInputs, log: Ends) -> None:
    """However late somebody looked; one that had more behind its end, from when there was no more."""
    log.ends[B] = 9
    clock.now = 100
    inputs.told({A: 10, B: 7}, [])
    clock.now = 500
    assert inputs.look() == {A}
    inputs.told({A: 10, B: 9}, [])
    clock.now = 600
    assert inputs.look() == {A, B}
    assert [inputs.since(source) for source in (A, B)] == [130, 600]
    inputs.told({A: 11}, [A])
    with pytest.raises(KeyError):
        inputs.since(A)


def test_records_wake_an_input_at_once(clock: VirtualClock, inputs: IdleInputs) -> None:
    """Also when the reader is at the end again in the same poll; then 30 s begin anew."""
    inputs.told({A: 10, B: 7}, [])
    clock.now += 30
    assert inputs.look() == {A, B}
    inputs.told({A: 12, B: 7}, [A])
    assert inputs.look() == {B}
    inputs.told({A: 12}, [B])
    assert inputs.look() == set()


def test_a_reader_placed_anew_knows_nothing_of_idleness(clock: VirtualClock, inputs: IdleInputs) -> None:
    """After an assignment there may be much to read."""
    inputs.told({A: 10}, [])
    clock.now += 30
    assert inputs.look() == {A}
    inputs.told({}, [])
    assert inputs.look() == set()
    inputs.told({A: 10}, [])
    clock.now += 29
    assert inputs.look() == set()


def test_records_of_an_open_transaction_are_waited_for(clock: VirtualClock, inputs: IdleInputs, log: Ends) -> None:
    """They stand behind the last stable end. The log is asked again only when the reader got further."""
    log.ends[A] = 12
    inputs.told({A: 10}, [])
    for _ in range(100):
        clock.now += 10
        inputs.told({A: 10}, [])
        assert inputs.look() == set()
    assert log.asked == [[A]]
    log.ends[A] = 13
    inputs.told({A: 13}, [])
    clock.now += LOOK_S
    assert inputs.look() == {A}, "it was aborted: nothing was delivered in all this time"


def test_a_log_that_does_not_answer_makes_nobody_idle(clock: VirtualClock, inputs: IdleInputs, log: Ends) -> None:
    """It is asked again a second later, not at every look."""
    log.away = True
    inputs.told({A: 10}, [])
    clock.now += 30
    for _ in range(9):
        assert inputs.look() == set()
        clock.now += LOOK_S
    assert len(log.asked) == 1
    log.away = False
    clock.now += RETRY_S
    assert inputs.look() == {A}


def test_it_looks_ten_times_a_second_at_most(clock: VirtualClock, inputs: IdleInputs, log: Ends) -> None:
    """Workers ask at every turn of their loop."""
    assert inputs.look() == set()
    inputs.told({A: 10}, [])
    clock.now += 29.95
    assert inputs.look() == set()
    clock.now += 0.06
    assert inputs.look() == set()
    clock.now += 0.05
    assert inputs.look() == {A}
    assert log.asked == [[A]]

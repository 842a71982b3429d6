"""H: the fresh end of a log (rules S1 and S10)."""

from __future__ import annotations

from kstate.clock import Step, Steps
from kstate.interfaces import TopicSpec
from kstate.plan import TopicPartition
from kstate.state.freshness import fresh_end
from kstate.testing.memory_log import MemoryLog
from kstate.testing.virtual_time import VirtualClock

SOURCE = TopicPartition("app.count.backup", 0)


class Bench:
    """A log of one partition in virtual time."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.log = MemoryLog(self.clock, transaction_timeout_ms=3_600_000)
        self.log.create_topics([TopicSpec(SOURCE.topic, 1)])
        self.said: list[str] = []

    def begin(self, writer: str) -> None:
        """A record in a transaction that stays open."""
        self.producer = self.log.producer(writer)
        self.producer.open()
        self.producer.begin()
        self.producer.send(SOURCE.topic, [{"value": b"x", "partition": 0}])
        self.producer.flush()

    def steps(self) -> Steps[int]:
        return fresh_end(self.log, SOURCE, self.clock, 20_000, self.said.append)

    def take(self, steps: Steps[int], count: int) -> list[str]:
        """Names of the next steps, letting time pass where they ask for it."""
        names = []
        for _ in range(count):
            step: Step = next(steps)
            self.clock.sleep(step.wait)
            names.append(step.name)
        return names


def result(steps: Steps[int]) -> int:
    """What the steps end in, which must be at once."""
    try:
        step = next(steps)
    except StopIteration as end:
        return int(end.value)
    raise AssertionError(f"not done: {step}")


def test_a_quiet_log_is_fresh_at_once() -> None:
    """H is its end, control records included."""
    bench = Bench()
    bench.begin("w")
    bench.producer.commit()
    steps = bench.steps()
    assert bench.take(steps, 1) == ["h-taken"]
    assert result(steps) == 2


def test_it_waits_for_what_was_being_committed_when_it_asked() -> None:
    """The last stable offset alone would be too early an end (P1)."""
    bench = Bench()
    bench.begin("w")
    steps = bench.steps()
    assert bench.take(steps, 3) == ["h-taken", "await-stable", "await-stable"]
    bench.producer.commit()
    assert result(steps) == 1


def test_it_does_not_wait_for_what_is_written_later() -> None:
    """H is taken once."""
    bench = Bench()
    steps = bench.steps()
    assert bench.take(steps, 1) == ["h-taken"]
    bench.begin("w")
    assert result(steps) == 0


def test_a_stuck_log_is_named_again_and_again_and_waited_for() -> None:
    """Partition, offset and remedy; giving up would lose state."""
    bench = Bench()
    bench.begin("w")
    steps = bench.steps()
    bench.take(steps, 1)
    bench.take(steps, 1_990)
    assert bench.said == []
    bench.take(steps, 4_100)
    assert len(bench.said) == 3
    first = bench.said[0]
    assert "app.count.backup[0] is stuck" in first
    assert "stands at 0 for 20 s, 1 is needed" in first
    assert "kafka-transactions.sh abort --topic app.count.backup --partition 0 --start-offset 0" in first
    bench.producer.commit()
    assert result(steps) == 1


def test_a_log_that_moves_is_not_stuck() -> None:
    """However long it takes."""
    bench = Bench()
    for i in range(4):
        bench.begin(f"w-{i}")
        bench.producers = [*getattr(bench, "producers", []), bench.producer]  # type: ignore[attr-defined]
    steps = bench.steps()
    bench.take(steps, 1)
    for producer in bench.producers:  # type: ignore[attr-defined]
        bench.take(steps, 1_500)
        producer.commit()
    assert bench.said == []

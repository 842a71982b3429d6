"""After a taint: what the backup topic says of the epoch in doubt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from kstate import Context, Input, Operator, ValueState
from kstate.clock import run_steps
from kstate.errors import FencedError
from kstate.interfaces import TopicSpec
from kstate.plan import TopicPartition, backup_topic
from kstate.testing.memory_log import Call, Fault, MemoryLog
from kstate.testing.story import Story
from kstate.testing.virtual_time import VirtualClock
from kstate.worker.taint import look_for_epoch


@dataclass(frozen=True, slots=True)
class Add:
    """An amount."""

    amount: int


class Sum(Operator[str], uid="sum"):
    """Adds up per message key."""

    adds = Input(Add, topic="adds")
    total = ValueState(int, default=0)

    @adds.each
    def add(self, add: Add, ctx: Context) -> None:
        self.total.set(self.total.get() + add.amount)


@pytest.mark.parametrize("epochs", [0, 1])
def test_a_log_that_was_trimmed_past_the_epoch_gives_the_range_up(bench: Callable[..., Any], epochs: int) -> None:
    """S4: neither found nor refuted, now or later; whoever restores the range sees what is committed."""
    b = bench(Sum)
    for _ in range(epochs):
        b.feed(b.row(Add(1), b"k"))
        b.commit(offset=1)
    b.feed(b.row(Add(2), b"k"))
    clock = VirtualClock()
    log = MemoryLog(clock)
    backup = backup_topic("bench", "sum")
    log.create_topics([TopicSpec(backup, 1)])
    for _ in range(5):
        log.report(backup, {"value": b"", "partition": 0})
    log.delete_records({TopicPartition(backup, 0): 4})
    with pytest.raises(FencedError, match="gives its tiles up"):
        run_steps(look_for_epoch(log, clock, "bench", b.prepare()), clock)


@pytest.mark.parametrize("outcome", [Fault.APPLIED, Fault.NOT_APPLIED])
@pytest.mark.parametrize("stopped_at", ["tainted", "retry", "opened", "control-read", "h-taken", "looked"])
def test_a_stop_leaves_an_epoch_in_doubt_as_it_is(outcome: Fault, stopped_at: str) -> None:
    """It is not written a second time, whatever the producer's state: the next incarnation finds out."""
    story = Story()
    worker = story.process("w0")
    assert story.reach(worker, "flushed")
    story.fails(worker, "commit", outcome)
    assert story.reach(worker, "tainted")
    if stopped_at == "retry":
        story.cut(worker, lambda call: Fault.RETRYABLE if call == Call("open", worker.incarnation) else None)
    assert stopped_at == "tainted" or story.reach(worker, stopped_at)
    story.cluster.workers[worker].stop()
    story.until(lambda: worker not in story.world.running())
    assert worker.result == 0
    story.cluster.start_worker("w0")
    assert story.verdict() == set()

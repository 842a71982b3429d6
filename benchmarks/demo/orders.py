"""Orders to the leader, as `kstate split` and `kstate merge` give them: a report, repeated until control answers it."""

from __future__ import annotations

import time

from confluent_kafka import Producer

from benchmarks.demo.stage import Missed, Stage
from benchmarks.demo.standing import name_of
from benchmarks.demo.timeline import Carried, Deed
from kstate.cli.order_progress import LegState, Outcome, Progress, after
from kstate.messages import Order
from kstate.plan import reports_topic
from kstate.wire import encode_report

REPEAT_SECONDS = 1.0
DONE_SECONDS = 20.0
"""An order that takes longer is taken to have failed."""


class Desk:
    """Where orders are given."""

    def __init__(self, servers: str, app: str) -> None:
        self._topic = reports_topic(app)
        self._producer = Producer({"bootstrap.servers": servers, "linger.ms": 0, "log_level": 0})

    def give(self, order: Order, stage: Stage) -> Ordered:
        """Ask, and follow it to its end. Raises Missed where it does not come to the end that was ordered."""
        asked, position, due = time.monotonic(), len(stage.watch.decisions), 0.0
        progress = Progress(order)
        for _ in stage.ticks(DONE_SECONDS):
            for at, message in stage.watch.decisions[position:]:
                progress = after(progress, message, at - asked)
                position += 1
            if progress.is_over:
                break
            if not progress.is_answered and time.monotonic() >= due:
                self._producer.produce(self._topic, encode_report(order), partition=0)
                self._producer.poll(0)
                due = time.monotonic() + REPEAT_SECONDS
        if progress.outcome is not Outcome.DONE:
            raise Missed(f"{order.kind}: {progress.outcome}: {why(progress)}")
        return Ordered(asked, progress)


class Ordered:
    """An order that was carried out."""

    def __init__(self, asked: float, progress: Progress) -> None:
        self.asked = asked
        self.progress = progress

    @property
    def seconds(self) -> float:
        """From the order to the plan that ends the last of its moves, as control tells."""
        return max((leg.times[-1][1] for leg in self.progress.legs.values()), default=0.0)

    @property
    def moves(self) -> set[int]:
        """The ids of its moves."""
        return {leg.move.id for leg in self.progress.legs.values()}

    def deed(self, name: str, stage: Stage) -> Deed:
        """The order as an entry of the timeline."""
        beats, done = stage.beats, self.asked + self.seconds
        moved = tuple(
            Carried(leg.move.shard, leg.move.key_range, name_of(leg.move.source, beats), name_of(leg.target, beats))
            for leg in self.progress.legs.values()
        )
        return Deed(name, self.asked, done, done + stage.scale.after_s, moved, course(self.progress))


def course(progress: Progress) -> str:
    """When the last of the moves came to each of its states, in seconds since the order."""
    latest: dict[LegState, float] = {}
    for leg in progress.legs.values():
        for state, at in leg.times:
            latest[state] = max(at, latest.get(state, 0.0))
    states = [f"{state} {at:.2f}" for state, at in sorted(latest.items(), key=lambda each: each[1])]
    return f"{', '.join(states)} s" if states else ""


def why(progress: Progress) -> str:
    """Why an order took another end."""
    if progress.answer is not None:
        return progress.answer.reason
    if progress.halted is not None:
        return progress.halted
    if not progress.is_answered:
        return "nobody answered"
    states = [f"{leg.move}: {leg.state}{leg.reason and f', {leg.reason}'}" for leg in progress.legs.values()]
    return "; ".join(states) or progress.reason

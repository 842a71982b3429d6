"""A reader beside the job: a plain read_committed consumer, which sees what every consumer sees."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from confluent_kafka import OFFSET_BEGINNING, Consumer, Message, TopicPartition

from benchmarks.demo.evidence import Seen
from benchmarks.demo.gaps import Group, Grouping
from kstate.messages import Control, Heartbeat, JobHalted, OrderAnswered, PlanPublished, TermStarted, WorkerDied
from kstate.plan import Plan, control_topic, reports_topic
from kstate.wire import decode_control, decode_report

LOOK_SECONDS = 0.2
"""How often we look whether the job's own topics are there."""


@dataclass(frozen=True, slots=True)
class Watched:
    """Where the job runs, its application, and the topic of its results."""

    servers: str
    app: str
    outputs: str


class Watch(threading.Thread):
    """Follows outputs, control and reports of a job while it runs; its attributes may be read at any time."""

    def __init__(self, job: Watched, grouping: Grouping, tell: Callable[[str], None]) -> None:
        super().__init__(name="watch", daemon=True)
        self.counted = 0
        """Committed output records seen so far."""
        self.times: dict[Group, list[float]] = {group: [] for group in grouping.groups}
        """When outputs of each key group were seen, monotonic seconds."""
        self.decisions: list[tuple[float, Control]] = []
        """The control topic, each message with the moment at which it was seen."""
        self.beats: dict[str, Heartbeat] = {}
        """The newest heartbeat of each incarnation."""
        self.plan: Plan | None = None
        self.keeping = False
        """Whether each output is kept, too."""
        self.kept: deque[Seen] = deque()
        self.failure: Exception | None = None
        self._servers = job.servers
        self._app = job.app
        self._outputs = job.outputs
        self._grouping = grouping
        self._tell = tell
        self._over = threading.Event()

    def close(self) -> None:
        """End the thread."""
        self._over.set()
        if self.is_alive():
            self.join()

    def run(self) -> None:
        try:
            self._follow()
        except Exception as failure:  # noqa: BLE001 - shown by whoever looks at the thread
            self.failure = failure

    def _follow(self) -> None:
        consumer = Consumer(
            {
                "bootstrap.servers": self._servers,
                "group.id": "demo-watch",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "fetch.wait.max.ms": 20,
                "log_level": 0,
            }
        )
        waiting = {self._outputs, control_topic(self._app), reports_topic(self._app)}
        look_at = 0.0
        while not self._over.is_set():
            if waiting and time.monotonic() >= look_at:
                waiting -= _assign_existing(consumer, waiting)
                look_at = time.monotonic() + LOOK_SECONDS
            self._take(consumer.consume(5_000, 0.02) if len(waiting) < 3 else [])
        consumer.close()

    def _take(self, messages: list[Message]) -> None:
        now = time.monotonic()
        for message in messages:
            error = message.error()
            if error is not None:
                if not error.retriable():
                    raise RuntimeError(f"watching: {error}")
            elif message.topic() == self._outputs:
                self._counted(message, now)
            elif message.topic() == control_topic(self._app):
                self._decided(decode_control(message.value() or b""), now)
            elif isinstance(report := decode_report(message.value() or b""), Heartbeat):
                self.beats[report.incarnation] = report

    def _counted(self, message: Message, now: float) -> None:
        group = self._grouping(message.key() or b"")
        seen = self.times[group]
        if not seen or seen[-1] < now:
            seen.append(now)
        self.counted += 1
        if self.keeping:
            self.kept.append(Seen(now, message.partition() or 0, message.offset() or 0, group))

    def _decided(self, message: Control, now: float) -> None:
        self.decisions.append((now, message))
        match message:
            case TermStarted(term, leader):
                self._tell(f"term {term}: {leader} leads")
            case WorkerDied(_, incarnation, reason):
                self._tell(f"leader: {incarnation} is dead ({reason})")
            case JobHalted(_, reason, _):
                self._tell(f"leader: the job halts: {reason}")
            case OrderAnswered(_, _, accepted, reason):
                self._tell(f"leader: {'nothing to do' if accepted else 'order refused'}: {reason}")
            case PlanPublished(plan, reason):
                self.plan = plan
                self._tell(f"plan {plan.version}: {reason}")


def _assign_existing(consumer: Consumer, topics: set[str]) -> set[str]:
    """Start to read those topics that exist, from their beginning; returns them."""
    known = consumer.list_topics(timeout=10).topics
    found = {topic for topic in topics if topic in known}
    places = [TopicPartition(topic, p, OFFSET_BEGINNING) for topic in found for p in known[topic].partitions]
    if places:
        consumer.incremental_assign(places)
    return found

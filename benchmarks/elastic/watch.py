"""What the leader decides and what workers report, as a plain reader sees it, with the moment at which it was seen."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from confluent_kafka import OFFSET_BEGINNING, Consumer, Message, TopicPartition

from kstate.messages import Control, Heartbeat, PlanPublished, TilePhase, TileReport
from kstate.plan import Plan, Tile, control_topic, reports_topic
from kstate.progress import SlotMap
from kstate.wire import decode_control, decode_report

LOOK_S = 0.2
PAUSE_S = 0.05
"""Who waits looks so often: rarely, as it all runs on one machine. When things happened, others note."""


class Told(NamedTuple):
    """A message of the control topic, and when it was seen (seconds since the Unix epoch)."""

    at: float
    message: Control


class Watch(threading.Thread):
    """Follows control and reports of a job; its attributes may be read at any time."""

    def __init__(self, servers: str, app: str) -> None:
        super().__init__(name="watch", daemon=True)
        self.told: list[Told] = []
        self.plan: Plan | None = None
        self.beats: dict[str, Heartbeat] = {}
        """The newest of each incarnation."""
        self.failure: BaseException | None = None
        self.check: Callable[[], None] = lambda: None
        """Called while somebody waits; raises when there is nothing to wait for any more."""
        self._servers = servers
        self._topics = [control_topic(app), reports_topic(app)]
        self._over = threading.Event()

    def close(self) -> None:
        """End the thread."""
        self._over.set()
        if self.is_alive():
            self.join(10)

    def run(self) -> None:
        try:
            self._follow()
        except BaseException as failure:  # noqa: BLE001 - shown by whoever waits
            self.failure = failure

    def wait(self, condition: Callable[[], bool], seconds: float, what: str) -> float:
        """Until it holds; the moment at which that was seen. RuntimeError when it does not within the time."""
        deadline = time.monotonic() + seconds
        while not condition():
            if self.failure is not None:
                raise RuntimeError(f"the watch failed: {self.failure}") from self.failure
            self.check()
            if time.monotonic() > deadline:
                raise RuntimeError(f"not within {seconds:g} s: {what}")
            time.sleep(PAUSE_S)
        return time.time()

    def since(self, at: float) -> list[Told]:
        """What was told from that moment on."""
        return [told for told in self.told if told.at >= at]

    def runs(self, tile: Tile) -> bool:
        """Whether its owner reports the whole of it running."""
        return self._covers(tile, tile.worker, {TilePhase.RUNNING})

    def is_warm_elsewhere(self, tile: Tile) -> bool:
        """Whether another worker reports a copy of the whole of it close to the end of its log."""
        return any(self._covers(tile, i, {TilePhase.WARM}) for i in list(self.beats) if i != tile.worker)

    def _covers(self, tile: Tile, incarnation: str | None, phases: set[TilePhase]) -> bool:
        beat = self.beats.get(incarnation or "")
        if beat is None:
            return False
        covered: SlotMap[TileReport] = SlotMap()
        for report in beat.tiles:
            if report.shard == tile.shard and report.phase in phases:
                covered.assign(report.key_range, report)
        return sum(key_range.width for key_range, _ in covered.slice(tile.key_range)) == tile.key_range.width

    def _follow(self) -> None:
        consumer = Consumer(
            {
                "bootstrap.servers": self._servers,
                "group.id": "watch",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "fetch.wait.max.ms": 20,
                "fetch.queue.backoff.ms": 5,
                "log_level": 0,
            }
        )
        while not self._over.is_set() and not set(self._topics) <= set(consumer.list_topics(timeout=10).topics):
            time.sleep(LOOK_S)
        consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING) for topic in self._topics])
        while not self._over.is_set():
            for message in consumer.consume(100, 0) or consumer.consume(1, 0.1):
                self._take(message)
        consumer.close()

    def _take(self, message: Message) -> None:
        if error := message.error():
            if not error.retriable():
                raise RuntimeError(f"watching: {error}")
            return
        value = message.value() or b""
        if message.topic() == self._topics[0]:
            told = Told(time.time(), decode_control(value))
            if isinstance(told.message, PlanPublished):
                self.plan = told.message.plan
            self.told.append(told)
        elif isinstance(report := decode_report(value), Heartbeat):
            self.beats[report.incarnation] = report

"""The demo's load: lines of text at a steady pace, as long as the acts take, and the truth about what was written.

A machine that is too slow for the pace would need minutes to do what it is behind: the load is held back while the job
is too far behind, and what was really written per second stands with the results.
"""

from __future__ import annotations

import io
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import cycle

from confluent_kafka import Producer
from fastavro import schemaless_writer

from benchmarks.demo.topics import schema_of

TICK_SECONDS = 0.005
FLUSH_SECONDS = 30.0


class Truth:
    """What a run that never fails would count: each word's occurrences in the lines taken so far."""

    def __init__(self) -> None:
        self.lines = 0
        self.words = 0
        self.counts: Counter[str] = Counter()

    def take(self, line: str) -> None:
        """One more line; a word is what stands between white space, in lower case."""
        found = line.lower().split()
        self.lines += 1
        self.words += len(found)
        self.counts.update(found)


def paced(lines: Iterable[str], truth: Truth, words_due: int) -> Iterator[str]:
    """The next lines, until so many words were taken in all; they are in the truth when they come."""
    for line in lines:
        truth.take(line)
        yield line
        if truth.words >= words_due:
            return


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast words are written, and at how many words behind the job the load waits for it."""

    words_per_s: int
    behind_max: int

    def due(self, due: float, seconds: float, behind: int) -> float:
        """How many words are due in all, so many seconds after so many were."""
        return due if behind > self.behind_max else due + seconds * self.words_per_s


class Load(threading.Thread):
    """Writes lines, over and over, to a topic in turn to each partition; `counted` tells how far the job is."""

    def __init__(
        self, servers: str, topic: str, source: tuple[str, ...], pace: Pace, counted: Callable[[], int], partitions: int
    ) -> None:
        super().__init__(name="load", daemon=True)
        if not any(line.split() for line in source):
            raise ValueError("the source has no words")
        self.truth = Truth()
        self.failure: Exception | None = None
        self.seconds = 0.0
        """For how long it has been writing."""
        self._topic = topic
        self._partitions = partitions
        self._lines = cycle(source)
        self._pace = pace
        self._counted = counted
        self._schema = schema_of("line")
        self._refused: list[object] = []
        self._over = threading.Event()
        self._producer = Producer(
            {"bootstrap.servers": servers, "enable.idempotence": True, "linger.ms": 5, "log_level": 0}
        )

    def close(self) -> None:
        """End it; RuntimeError unless every line is in the topic."""
        self._over.set()
        if self.is_alive():
            self.join()
        left = self._producer.flush(FLUSH_SECONDS)
        if self.failure:
            raise self.failure
        if left or self._refused:
            raise RuntimeError(f"writing {self._topic}: {left} lines are left, refused: {self._refused[:1]}")

    def run(self) -> None:
        try:
            self._write()
        except Exception as failure:  # noqa: BLE001 - shown by whoever ends the thread
            self.failure = failure

    def _write(self) -> None:
        began, due = time.monotonic(), 0.0
        while not self._over.wait(TICK_SECONDS):
            passed = time.monotonic() - began - self.seconds
            self.seconds += passed
            due = self._pace.due(due, passed, self.truth.words - self._counted())
            if due > self.truth.words:
                for line in paced(self._lines, self.truth, int(due)):
                    self._send(line)
            self._producer.poll(0)

    def _send(self, line: str) -> None:
        out = io.BytesIO()
        schemaless_writer(out, self._schema, {"text": line, "ts": time.time_ns() // 1_000_000})
        self._producer.produce(
            self._topic,
            out.getvalue(),
            partition=self.truth.lines % self._partitions,
            on_delivery=lambda error, _: self._refused.append(error) if error else None,
        )

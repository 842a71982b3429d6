"""The load of a chaos run, in a process of its own: so many records per second for the whole time, whatever happens.

    python -m tests.support.chaos_feed '{"servers": …, "topic": …, "start_ms": …, "count": …, "rate": …, "counter": …}'

Most records are written by an idempotent producer; every few seconds some go in a transaction instead, one in three of
which is aborted: its records never were. After the last record it writes the closing ones. SIGTERM ends the feed where
it stands: then the closing records follow at once. The number of records written so far stands in the counter file.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType

from confluent_kafka import KafkaException, Producer

from tests.support.chaos_records import Feed

TICK_SECONDS = 0.02
CATCH_UP = 2.0
"""After a pause, for example because the broker was away, it goes up to that many times faster."""
TRANSACTION_EVERY_S = 4.0
TRANSACTION_RECORDS = 300
ABORTED_OF = 3
PAUSE = ".pause"
"""Suffix of a file beside the counter: while it is there only a trickle is written, and the rest is not made up for."""
TRICKLE = 0.05
"""Of the rate: an input must not fall idle, or its watermark would go by the clock and the next records were late."""
FLUSH_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Orders:
    """What the feed is to do."""

    servers: str
    topic: str
    start_ms: int
    count: int
    """It ends by itself after so many."""
    rate: int
    """Records per second."""
    counter: str

    def written(self) -> str:
        return json.dumps(asdict(self))


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the feed is, as the counter file tells."""

    written: int
    """Records, those in aborted transactions included."""
    ended: int
    """Number of records before the closing ones, once the feed has ended; else -1."""
    dropped: int
    """Records whose transaction was aborted, or may have been."""
    closed: bool
    """All of it is in the log."""

    @staticmethod
    def read(path: Path) -> Progress:
        """Nothing yet is a progress, too."""
        try:
            return Progress(**json.loads(path.read_text()))
        except (FileNotFoundError, ValueError):
            return Progress(0, -1, 0, closed=False)


class _Writer:
    """Two producers on one topic, one after the other: what one has written is flushed before the other writes."""

    def __init__(self, orders: Orders) -> None:
        self._orders = orders
        self._plain = Producer({**self._common(), "enable.idempotence": True, "linger.ms": 5})
        self._transactional: Producer | None = None
        self._transactions = 0
        self._failed: list[object] = []
        self.dropped = 0

    def _common(self) -> dict[str, str | int]:
        return {
            "bootstrap.servers": self._orders.servers,
            "partitioner": "murmur2_random",
            "compression.type": "lz4",
            "log_level": 0,
            "message.timeout.ms": 300_000,
        }

    def write(self, records: list[tuple[bytes, bytes]]) -> None:
        for key, value in records:
            self._produce(self._plain, key, value, tracked=True)
        self._plain.poll(0)
        if self._failed:
            raise RuntimeError(f"records were not written: {self._failed[:3]}")

    def write_at_once(self, records: list[tuple[bytes, bytes]]) -> None:
        """In a transaction; whether it commits shows in the log."""
        self.flush()
        self._transactions += 1
        try:
            producer = self._opened()
            producer.begin_transaction()
            for key, value in records:
                self._produce(producer, key, value)
            if self._transactions % ABORTED_OF == 0:
                self.dropped += len(records)
                producer.abort_transaction(30)
            else:
                producer.commit_transaction(30)
        except KafkaException as error:
            print(f"a transaction of the feed failed: {error}", file=sys.stderr, flush=True)  # noqa: T201
            self.dropped += len(records)
            self._transactional = None  # the next one fences this one, and what it had open is aborted

    def flush(self) -> None:
        if self._plain.flush(FLUSH_SECONDS):
            raise RuntimeError(f"the broker took no records for {FLUSH_SECONDS} s")

    def close(self) -> None:
        """Nothing stays open."""
        for _ in range(5):
            try:
                self._opened()
                break
            except KafkaException:
                self._transactional = None
        self.flush()

    def _opened(self) -> Producer:
        if self._transactional is None:
            own = {"transactional.id": f"{self._orders.topic}-feed", "transaction.timeout.ms": 20_000}
            producer = Producer({**self._common(), **own, "message.timeout.ms": 15_000})
            producer.init_transactions(30)
            self._transactional = producer
        return self._transactional

    def _produce(self, producer: Producer, key: bytes, value: bytes, *, tracked: bool = False) -> None:
        tell = self._delivered if tracked else _nobody
        while True:
            try:
                producer.produce(self._orders.topic, value, key, on_delivery=tell)
                return
            except BufferError:
                producer.poll(0.1)

    def _delivered(self, error: object, _: object) -> None:
        if error is not None:
            self._failed.append(error)


def _nobody(error: object, message: object) -> None:
    """Whether a transaction took place shows in the log."""


class FeedProcess:
    """What the process does."""

    def __init__(self, orders: Orders) -> None:
        self._orders = orders
        self._feed = Feed(orders.start_ms, orders.count)
        self._writer = _Writer(orders)
        self._counter = Path(orders.counter)
        self._stopping = False
        self.next = 0

    def stop(self, number: int, frame: FrameType | None) -> None:
        """SIGTERM."""
        self._stopping = True

    def run(self) -> None:
        orders, credit = self._orders, 0.0
        before = transaction_at = time.monotonic()
        while not self._stopping and self.next < orders.count:
            time.sleep(TICK_SECONDS)
            now, paused = time.monotonic(), self._counter.with_suffix(PAUSE).exists()
            rate = orders.rate * TRICKLE if paused else orders.rate
            credit = min(credit + (now - before) * rate, rate * 60.0)
            size = min(int(credit), int(CATCH_UP * rate * (now - before)), orders.count - self.next)
            size = max(size, 0)  # a transaction may have been ahead of time
            before = now
            credit -= size
            self._write(size)
            if now - transaction_at > TRANSACTION_EVERY_S and orders.count - self.next > TRANSACTION_RECORDS:
                transaction_at = now
                credit -= TRANSACTION_RECORDS
                self._write(TRANSACTION_RECORDS, at_once=True)
        self._end()

    def _write(self, size: int, *, at_once: bool = False) -> None:
        records = self._feed.records(self.next, self.next + size)
        if at_once:
            self._writer.write_at_once(records)
        else:
            self._writer.write(records)
        self.next += size
        self._tell(Progress(self.next, -1, self._writer.dropped, closed=False))

    def _end(self) -> None:
        """The closing records, of a feed that ends here."""
        ended = Feed(self._orders.start_ms, self.next)
        self._writer.write(ended.records(ended.count, ended.end))
        self._writer.close()
        self._tell(Progress(self.next, self.next, self._writer.dropped, closed=True))

    def _tell(self, progress: Progress) -> None:
        draft = self._counter.with_suffix(".draft")
        draft.write_text(json.dumps(asdict(progress)))
        draft.rename(self._counter)


def main(orders: str) -> None:
    """The process."""
    feed = FeedProcess(Orders(**json.loads(orders)))
    signal.signal(signal.SIGTERM, feed.stop)
    feed.run()


if __name__ == "__main__":
    main(sys.argv[1])
    sys.stdout.flush()
    os._exit(0)  # a broker that is away must not hold us up

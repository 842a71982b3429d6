"""The load, in a process of its own: readings at a fixed rate, whatever becomes of them; or state to be stored.

    python -m benchmarks.elastic.load SERVERS TOPIC PARENT rate RECORDS_PER_S SECONDS KEYS_PER_GROUP
    python -m benchmarks.elastic.load SERVERS TOPIC PARENT fill KEYS_PER_GROUP BALLAST_BYTES
    python -m benchmarks.elastic.load SERVERS TOPIC PARENT burst RECORDS KEYS_PER_GROUP

The rate is kept open-loop, in ticks; a record's `at` is the moment at which it is handed to the client. How far the
process itself fell behind its timetable is printed at the end, in seconds.
"""

from __future__ import annotations

import random
import struct
import sys
import time
from collections.abc import Sequence

from confluent_kafka import Producer

from benchmarks.elastic.keys import PARTITIONS, PARTS, keys
from kstate.adapters.process import die_with

TICK_S = 0.005
CHUNK = 20_000
FILL_BYTES_PER_S = 40_000_000
"""As much as a small machine stores without falling behind: what is measured comes later."""
AMOUNT = 21.5


class Load:
    """Hands readings to a producer, the keys in turn."""

    def __init__(self, servers: str, topic: str, per_group: int) -> None:
        self._producer = Producer(
            {
                "bootstrap.servers": servers,
                "enable.idempotence": True,
                "linger.ms": 1,
                "compression.type": "lz4",
                "queue.buffering.max.kbytes": 262_144,
                "log_level": 3,
            }
        )
        self._topic = topic
        self._keys = keys(per_group)
        self._turn = 0

    def hand(self, count: int, ballast: Sequence[bytes] = ()) -> None:
        """The next so many readings, now."""
        at = time.time()
        plain = _value(at, b"")
        messages: list[list[dict[str, bytes]]] = [[] for _ in range(PARTITIONS)]
        total = len(self._keys)
        for number in range(count):
            place = (self._turn + number) % total
            value = _value(at, ballast[number]) if ballast else plain
            messages[place // PARTS % PARTITIONS].append({"key": self._keys[place], "value": value})
        self._turn += count
        for partition, batch in enumerate(messages):
            waiting = batch
            while waiting:
                accepted = self._producer.produce_batch(self._topic, waiting, partition)
                waiting = [message for message in waiting if "_error" in message] if accepted < len(waiting) else []
                self._producer.poll(0.01 if waiting else 0)

    def at_rate(self, per_second: float, seconds: float) -> float:
        """Keep a rate for so long; how far it fell behind at worst, in seconds."""
        began, handed, worst = time.perf_counter(), 0, 0.0
        while (now := time.perf_counter()) < began + seconds:
            due = int((now - began) * per_second) - handed
            worst = max(worst, due / per_second - TICK_S)
            self.hand(due)
            handed += due
            time.sleep(max(0.0, TICK_S - (time.perf_counter() - now)))
        return worst

    def fill(self, ballast_bytes: int) -> None:
        """One reading with ballast for every key."""
        rng = random.Random(7)
        left = len(self._keys)
        size = max(1, min(CHUNK, 4_000_000 // max(1, ballast_bytes)))
        while left:
            count = min(left, size)
            self.hand(count, [rng.randbytes(ballast_bytes) for _ in range(count)])
            left -= count
            time.sleep(count * ballast_bytes / FILL_BYTES_PER_S)

    def close(self) -> None:
        """Wait until everything is delivered."""
        if left := self._producer.flush(120):
            raise SystemExit(f"load: {left} readings were not delivered")


def _value(at: float, ballast: bytes) -> bytes:
    """A `Reading` in Avro."""
    head = struct.pack("<dd", at, AMOUNT)
    length = len(ballast) << 1
    while length > 0x7F:
        head += bytes(((length & 0x7F) | 0x80,))
        length >>= 7
    return head + bytes((length,)) + ballast


def main() -> None:
    """As the arguments say."""
    servers, topic, parent, mode, *numbers = sys.argv[1:]
    die_with(int(parent))
    worst = 0.0
    if mode == "rate":
        load = Load(servers, topic, int(numbers[2]))
        worst = load.at_rate(float(numbers[0]), float(numbers[1]))
    elif mode == "fill":
        load = Load(servers, topic, int(numbers[0]))
        load.fill(int(numbers[1]))
    else:
        load = Load(servers, topic, int(numbers[1]))
        for begin in range(0, int(numbers[0]), CHUNK):
            load.hand(min(CHUNK, int(numbers[0]) - begin))
    load.close()
    print(worst)


if __name__ == "__main__":
    main()

"""A plain consumer that goes on whatever happens to the broker: one that stands still is replaced by another.

librdkafka's consumer may read a partition no further after a broker went away in the wrong moment, without any error
(its issue 4492). Whoever judges a job must not be deceived by that: what stays silent though the log goes on is read on
by a new consumer, from the same place.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress

from confluent_kafka import KafkaException, Message, TopicPartition

from tests.support.oracle import reader

SILENT_SECONDS = 5.0
ASK_SECONDS = 2.0

Place = tuple[str, int]
"""Topic and partition."""


class SteadyReader:
    """Reads partitions from given offsets, read_committed."""

    def __init__(self, servers: str, starts: Mapping[Place, int]) -> None:
        self.replaced = 0
        """How often a consumer stood still."""
        self._servers = servers
        self._positions = dict(starts)
        self._heard = dict.fromkeys(starts, time.monotonic())
        self._checked = time.monotonic()
        self._suspected: dict[Place, int] = {}
        """Where it was silent when it was looked at last, and where the log ended then."""
        self._consumer = reader(servers)
        self._assign()

    def consume(self, count_max: int, seconds: float) -> list[Message]:
        """Records, in order of each partition."""
        messages = self._consumer.consume(count_max, seconds)
        found, now = [], time.monotonic()
        for message in messages:
            place, offset = (message.topic() or "", message.partition() or 0), message.offset() or 0
            error = message.error()
            if error is None:
                self._positions[place], self._heard[place] = offset + 1, now
                found.append(message)
            elif error.name() == "_PARTITION_EOF":
                self._positions[place], self._heard[place] = max(offset, self._positions[place]), now
        if now - self._checked > SILENT_SECONDS:
            self._checked = now
            with suppress(KafkaException):
                self._check(now)
        return found

    def close(self) -> None:
        self._consumer.close()

    def _assign(self) -> None:
        self._consumer.assign([TopicPartition(topic, p, offset) for (topic, p), offset in self._positions.items()])

    def _check(self, now: float) -> None:
        """Replace the consumer if it still is not where the log ended when it was silent before."""
        stuck = [place for place, end in self._suspected.items() if self._positions[place] < end]
        self._suspected = {}
        if stuck:
            self.replaced += 1
            self._consumer, old = reader(self._servers), self._consumer
            self._heard = dict.fromkeys(self._positions, now)
            self._assign()
            old.close()
            return
        silent = [place for place, heard in self._heard.items() if now - heard > SILENT_SECONDS]
        if silent:
            self._suspected = self._ends(silent)

    def _ends(self, places: list[Place]) -> dict[Place, int]:
        asked = reader(self._servers)
        try:
            found = {p: asked.get_watermark_offsets(TopicPartition(*p), timeout=ASK_SECONDS) for p in places}
        finally:
            asked.close()
        return {place: end for place, (_, end) in found.items()}

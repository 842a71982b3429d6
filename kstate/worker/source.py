"""The inputs of a worker: one reader over all topic-partitions that its shards need.

Two shards may read the same topic-partition at different progress: the reader stands at the least and every shard skips
what it has done (kstate.worker.ownership).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from kstate.interfaces import Batch, Reader
from kstate.plan import TopicPartition
from kstate.worker.ownership import OwnedShard


class Inputs:
    """Polls bounded batches and hands each to the shards that consume its topic-partition."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._consumers: dict[TopicPartition, list[OwnedShard]] = {}

    def place(self, shards: Iterable[OwnedShard]) -> None:
        """Read what these shards need, from where they stand; called when ownership changed or an epoch was undone."""
        self._consumers = {}
        positions: dict[TopicPartition, int] = {}
        for shard in shards:
            for topic, offset in shard.positions().items():
                source = TopicPartition(topic, shard.shard.partition)
                self._consumers.setdefault(source, []).append(shard)
                positions[source] = min(offset, positions.get(source, offset))
        self._reader.assign(positions)

    def partitions(self) -> Iterable[TopicPartition]:
        """What is read."""
        return self._consumers.keys()

    def poll(
        self, max_records: int, timeout: float, ends: Mapping[tuple[str, TopicPartition], int]
    ) -> list[tuple[OwnedShard, Batch]]:
        """Batches with their consumer, cut at the end offsets of a bounded run ((operator uid, source) → offset)."""
        routed = []
        for batch in self._reader.poll(max_records, timeout):
            for shard in self._consumers.get(batch.source, ()):
                end = ends.get((shard.shard.operator, batch.source))
                routed.append((shard, batch if end is None or batch.next_offset <= end else cut(batch, end)))
        return routed

    def at_end(self) -> Mapping[TopicPartition, int]:
        """What is read to its end, with the position."""
        return self._reader.at_end()

    def close(self) -> None:
        self._reader.close()


def cut(batch: Batch, end: int) -> Batch:
    """The part of a batch below an offset."""
    count = sum(1 for offset in batch.offsets if offset < end)
    return batch.head(count, min(end, batch.next_offset))

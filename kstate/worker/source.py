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
        self._positions: dict[TopicPartition, int] | None = {}
        """Where the reader stands, by what it gave out; None when that is not known. Invariant: never above the least
        progress of any consumer, once placed."""

    def place(self, shards: Iterable[OwnedShard]) -> None:
        """Read what these shards need; called when ownership changed or an epoch was undone.

        Only what must change is placed anew: what is new, what nobody needs any more, and what was read further than
        the shards stand, say in an epoch that was undone. All else goes on with what was fetched of it.
        """
        self._consumers = {}
        needed: dict[TopicPartition, int] = {}
        for shard in shards:
            for topic, offset in shard.positions().items():
                source = TopicPartition(topic, shard.shard.partition)
                self._consumers.setdefault(source, []).append(shard)
                needed[source] = min(offset, needed.get(source, offset))
        before, self._positions = self._positions, None
        if before is None:
            self._reader.assign(needed)
            self._positions = needed
            return
        gone = before.keys() - needed.keys()
        back = {source: offset for source, offset in needed.items() if offset < before.get(source, offset + 1)}
        if gone or back:
            self._reader.reassign(back, gone)
        self._positions = {source: back.get(source, before.get(source, offset)) for source, offset in needed.items()}

    def renew(self, reader: Reader) -> None:
        """Read with another client from now on; `place` is to follow.

        After trouble with the broker: the library may have lost track of what the old one was to read.
        """
        self._reader.close()
        self._reader, self._positions = reader, None

    def partitions(self) -> Iterable[TopicPartition]:
        """What is read."""
        return self._consumers.keys()

    def poll(
        self, max_records: int, timeout: float, ends: Mapping[tuple[str, TopicPartition], int]
    ) -> list[tuple[OwnedShard, Batch]]:
        """Batches with their consumer, cut at the end offsets of a bounded run ((operator uid, source) → offset)."""
        routed = []
        for batch in self._read(max_records, timeout):
            for shard in self._consumers.get(batch.source, ()):
                end = ends.get((shard.shard.operator, batch.source))
                routed.append((shard, batch if end is None or batch.next_offset <= end else cut(batch, end)))
        return routed

    def _read(self, max_records: int, timeout: float) -> list[Batch]:
        positions, self._positions = self._positions, None  # a poll that fails may have moved the reader
        batches = self._reader.poll(max_records, timeout)
        if positions is not None:
            for batch in batches:
                positions[batch.source] = batch.next_offset
        self._positions = positions
        return batches

    def at_end(self) -> Mapping[TopicPartition, int]:
        """What is read to its end, with the position."""
        return self._reader.at_end()

    def close(self) -> None:
        self._reader.close()


def cut(batch: Batch, end: int) -> Batch:
    """The part of a batch below an offset."""
    count = sum(1 for offset in batch.offsets if offset < end)
    return batch.head(count, min(end, batch.next_offset))

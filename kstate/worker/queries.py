"""What a worker answers to queries of its state: any other thread may ask, the main thread is not stopped.

The store holds what is committed and nothing else, and a scan of it sees one moment: so an answer is the state of the
last epoch that was written to the store before. Whether the range runs here is asked before and after: between two
owners nobody answers for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from kstate.answers import Entry, Query, RangeGone
from kstate.interfaces import Store
from kstate.keyspace import KeyRange
from kstate.messages import Heartbeat, TilePhase
from kstate.progress import SlotMap
from kstate.state.layout import shard_bounds, shard_prefix
from kstate.state.lineage import stored_lineage, watermark_of


class Queries:
    """Answers from a worker's store; `snapshot` is what the worker reports of itself."""

    def __init__(self, store: Store, snapshot: Callable[[], Heartbeat]) -> None:
        self._store = store
        self._snapshot = snapshot

    def answer(self, query: Query) -> Iterator[Entry]:
        """Entries in the order of slots and keys. Raises RangeGone, at the end too: then what came does not count."""
        before = self._grants(query)
        operator_id, partition = query.operator_id, query.shard.partition
        lineage = stored_lineage(self._store, operator_id, partition)
        prefix = len(shard_prefix(operator_id, partition))
        for key, value in self._store.scan(*shard_bounds(operator_id, partition, query.key_range)):
            suffix = key[prefix:]
            yield suffix, value, watermark_of(lineage, suffix)
        if self._grants(query) != before:
            raise RangeGone

    def _grants(self, query: Query) -> list[tuple[KeyRange, int]]:
        """Under which grants the whole range runs here."""
        running: SlotMap[int] = SlotMap()
        for tile in self._snapshot().tiles:
            if tile.phase is TilePhase.RUNNING and tile.shard == query.shard:
                running.assign(tile.key_range, tile.grant)
        if running.gaps(query.key_range):
            raise RangeGone
        return list(running.slice(query.key_range))

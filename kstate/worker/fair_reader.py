"""A reader that gives every partition its share, however far some of them are behind.

The client hands records out in the order in which they were fetched: behind a partition with a backlog, as one that was
lost and is back, the few records of all others would stand for as long as the backlog lasts.

    client ──▶ one queue of batches per partition, bounded ──▶ polls: from each an equal share of what is asked for
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping

from kstate.errors import KstateError
from kstate.interfaces import Batch, Reader
from kstate.plan import TopicPartition

AHEAD_POLLS = 4
"""Records kept, in multiples of the largest poll."""
AHEAD_BYTES = 16 << 20
"""And not more than so many bytes, where records are large: they are kept beside what the client holds."""


class FairReader:
    """`Reader` over another one, which is always asked for as much as the largest poll may want."""

    def __init__(self, reader: Reader, poll_records: int) -> None:
        """`poll_records`: the most that is asked for at once."""
        self._reader = reader
        self._poll_records = poll_records
        self._kept: dict[TopicPartition, deque[Batch]] = {}
        self._records = 0
        self._bytes = 0
        self._fault: KstateError | None = None
        """What a read raised: told when all that came before it is given out."""
        self._positions: dict[TopicPartition, int] = {}
        """Behind what was given out."""

    def assign(self, positions: Mapping[TopicPartition, int]) -> None:
        self._drop(list(self._kept))
        self._fault = None
        self._positions = dict(positions)
        self._reader.assign(positions)

    def reassign(self, positions: Mapping[TopicPartition, int], gone: Iterable[TopicPartition] = ()) -> None:
        gone = list(gone)
        self._positions = {s: at for s, at in self._positions.items() if s not in gone} | dict(positions)
        if self._fault is not None:  # of which partition is not known: if it is still read, it is met again
            self.assign(self._positions)
            return
        self._drop([*positions, *gone])
        self._reader.reassign(positions, gone)

    def poll(self, max_records: int, timeout: float) -> list[Batch]:
        if self._fault is None and self._has_room:
            self._fetch(self._poll_records, 0.0 if self._kept else timeout)
        if self._kept:
            given = self._shares(max_records)
            self._positions.update((batch.source, batch.next_offset) for batch in given)
            return given
        if self._fault is not None:
            fault, self._fault = self._fault, None
            raise fault
        return []

    def at_end(self) -> Mapping[TopicPartition, int]:
        ends = self._reader.at_end()
        return {source: end for source, end in ends.items() if source not in self._kept} if self._kept else ends

    def close(self) -> None:
        self._drop(list(self._kept))
        self._reader.close()

    @property
    def _has_room(self) -> bool:
        return self._records < AHEAD_POLLS * self._poll_records and self._bytes < AHEAD_BYTES

    def _fetch(self, max_records: int, timeout: float) -> None:
        try:
            batches = self._reader.poll(max_records, timeout)
        except KstateError as error:
            self._fault = error
            return
        for batch in batches:
            self._kept.setdefault(batch.source, deque()).append(batch)
            self._records += len(batch)
            self._bytes += _size(batch)

    def _shares(self, max_records: int) -> list[Batch]:
        """From the partitions with least first, so that what they leave goes to the others."""
        waiting = sorted(self._kept, key=lambda source: sum(map(len, self._kept[source])))
        given: list[Batch] = []
        left = max_records
        for number, source in enumerate(waiting):
            share = -(-left // (len(waiting) - number))
            for batch in self._take(source, share):
                left -= len(batch)
                given.append(batch)
        return given

    def _take(self, source: TopicPartition, share: int) -> list[Batch]:
        """At most so many records of a partition, in order; a batch without records is given with those before it."""
        kept, taken = self._kept[source], []
        while kept and (share > 0 or not len(kept[0])):
            batch = kept.popleft()
            if len(batch) > share:
                kept.appendleft(batch.tail(share))
                batch = batch.head(share, batch.offsets[share])
            share -= len(batch)
            self._records -= len(batch)
            self._bytes -= _size(batch)
            taken.append(batch)
        if not kept:
            del self._kept[source]
        return taken

    def _drop(self, sources: Iterable[TopicPartition]) -> None:
        for source in sources:
            for batch in self._kept.pop(source, ()):
                self._records -= len(batch)
                self._bytes -= _size(batch)


def _size(batch: Batch) -> int:
    return sum(map(len, filter(None, batch.values)))

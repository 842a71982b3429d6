"""One reader for all copies that follow their logs: a client per copy would cost threads and a fetch of its own.

    copy ── lease of one partition ──▶ SharedReader ──▶ one client for all leased partitions
                                          │
                                          └── a second position in a leased partition: a client of its own

Who polls receives what came for everybody; each lease gives out its own, in order. A lease that is not polled for long
does not fill the memory: its partition is left, and read again from where its records end.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from kstate.errors import KstateError, RetryableError
from kstate.interfaces import Batch, Reader
from kstate.plan import TopicPartition

KEPT_RECORDS = 64
"""Waiting for one lease, before its partition is left; records hold up to 512 KiB each."""


@dataclass(slots=True, eq=False)
class _Leased:
    """A leased partition: what came for its lease, and where to go on while it is left."""

    came: deque[Batch] = field(default_factory=deque)
    left_at: int | None = None

    @property
    def records(self) -> int:
        return sum(map(len, self.came))


class SharedReader:
    """Leases positions in partitions, one per partition, over one client made by `make`."""

    def __init__(self, make: Callable[[], Reader]) -> None:
        self.make = make
        self._reader: Reader | None = None
        self._leased: dict[TopicPartition, _Leased] = {}
        self._alone: set[TopicPartition] = set()
        """What was leased when something went wrong: whose fault it is shows when each has a client of its own."""

    def reader(self) -> Reader:
        """A reader of one partition, which it shares with nobody else as far as its user can see."""
        return _Lease(self)

    def take(self, source: TopicPartition, offset: int) -> bool:
        """Lease a position; False when the partition must be read by a client of its own."""
        if source in self._leased or source in self._alone:
            return False
        if self._reader is None:
            self._reader = self.make()
        self._reader.reassign({source: offset})
        self._leased[source] = _Leased()
        return True

    def give_back(self, source: TopicPartition) -> None:
        """End a lease; the last one closes the client."""
        if self._leased.pop(source, None) is None or self._reader is None:
            return
        if self._leased:
            self._reader.reassign({}, [source])
        else:
            self._reader.close()
            self._reader = None

    def poll(self, source: TopicPartition, max_records: int, timeout: float) -> list[Batch]:
        """What came for a lease. RetryableError when all leases ended because something went wrong for one."""
        leased = self._leased.get(source)
        if leased is None:
            raise RetryableError(f"The client that read {source} for several copies failed; it gets its own.")
        if not leased.came:
            self._return_to(source, leased)
            self._fetch(max_records, timeout)
        found: list[Batch] = []
        while leased.came and sum(map(len, found)) < max_records:
            found.append(leased.came.popleft())
        return found

    def end_of(self, source: TopicPartition) -> Mapping[TopicPartition, int]:
        """The position, if a lease was given all up to the stable end."""
        leased, reader = self._leased.get(source), self._reader
        if leased is None or leased.came or leased.left_at is not None or reader is None:
            return {}
        at_end = reader.at_end().get(source)
        return {} if at_end is None else {source: at_end}

    def _return_to(self, source: TopicPartition, leased: _Leased) -> None:
        if leased.left_at is not None and self._reader is not None:
            self._reader.reassign({source: leased.left_at})
            leased.left_at = None

    def _fetch(self, max_records: int, timeout: float) -> None:
        """Hand everybody what came."""
        assert self._reader is not None
        try:
            batches = self._reader.poll(max_records, timeout)
        except RetryableError:
            raise
        except KstateError as error:
            self._dissolve()
            raise RetryableError(f"Reading several backup logs at once failed: {error}") from error
        for batch in batches:
            leased = self._leased[batch.source]
            leased.came.append(batch)
            if leased.records >= KEPT_RECORDS and leased.left_at is None:
                leased.left_at = batch.next_offset
                self._reader.reassign({}, [batch.source])

    def _dissolve(self) -> None:
        assert self._reader is not None
        self._alone |= self._leased.keys()
        self._leased.clear()
        self._reader.close()
        self._reader = None


class _Lease:
    """`Reader` of one partition."""

    def __init__(self, shared: SharedReader) -> None:
        self._shared = shared
        self._source: TopicPartition | None = None
        self._own: Reader | None = None

    def assign(self, positions: Mapping[TopicPartition, int]) -> None:
        self.close()
        if len(positions) == 1:
            ((source, offset),) = positions.items()
            if self._shared.take(source, offset):
                self._source = source
                return
        self._own = self._shared.make()
        self._own.assign(positions)

    def reassign(self, positions: Mapping[TopicPartition, int], gone: Iterable[TopicPartition] = ()) -> None:
        raise NotImplementedError("a lease is of one partition; assign another one instead")

    def poll(self, max_records: int, timeout: float) -> list[Batch]:
        if self._own is not None:
            return self._own.poll(max_records, timeout)
        return [] if self._source is None else self._shared.poll(self._source, max_records, timeout)

    def at_end(self) -> Mapping[TopicPartition, int]:
        if self._own is not None:
            return self._own.at_end()
        return {} if self._source is None else self._shared.end_of(self._source)

    def close(self) -> None:
        if self._own is not None:
            self._own.close()
        if self._source is not None:
            self._shared.give_back(self._source)
        self._own = self._source = None

"""Kafka's transactions on one thread: partitions, commit markers, last stable offset, producer epochs.

What is modelled, and no more (sources: KIP-98, KIP-360, KIP-588, and the broker's TransactionCoordinator):

- a transaction has a *decision* (at the coordinator) and one *marker* per partition, which arrives later, in any order;
  a marker is a record and takes an offset;
- the *last stable offset* of a partition is the first offset of a transaction whose marker is not there yet;
- `init` bumps the epoch of a transactional id, aborts what an earlier holder left open, completes what was decided, and
  waits for the markers; whatever comes with an older epoch is fenced;
- a request that ends a transaction names id and epoch, but not *which* transaction: a stray one ends the next, as there
  is no KIP-890;
- a partition takes records of a transaction only while the coordinator knows it as part of it (partition verification);
- a transaction that is open for too long is aborted by the broker, which bumps the epoch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from kstate.adapters.kafka_errors import out_of_range
from kstate.errors import FencedError, KstateError
from kstate.interfaces import Batch, OutMessage
from kstate.plan import TopicPartition


class InvalidTransactionError(KstateError):
    """The coordinator knows no such open transaction (Kafka's INVALID_TXN_STATE)."""


class Record(NamedTuple):
    """A data record as stored; `transaction` is None for one written outside any transaction."""

    offset: int
    key: bytes | None
    value: bytes | None
    timestamp: int
    headers: tuple[tuple[str, bytes], ...]
    transaction: Transaction | None


@dataclass(slots=True, eq=False)
class Transaction:
    """One transaction at its coordinator; `committed` is None until it is decided."""

    owner: str
    epoch: int
    deadline: float
    partitions: dict[TopicPartition, PartitionLog] = field(default_factory=dict)
    committed: bool | None = None


class PartitionLog:
    """One partition. Invariant: `entries[i]` is the record at offset `start + i`, None for a marker."""

    __slots__ = ("entries", "open", "source", "start")

    def __init__(self, source: TopicPartition) -> None:
        self.source = source
        self.start = 0
        self.entries: list[Record | None] = []
        self.open: dict[Transaction, int] = {}
        """Transactions without their marker here → first offset; in order of first offsets, as dicts keep insertion."""

    @property
    def end(self) -> int:
        """The high watermark."""
        return self.start + len(self.entries)

    @property
    def stable_end(self) -> int:
        """The last stable offset: the end for read_committed readers."""
        return max(self.start, next(iter(self.open.values()))) if self.open else self.end

    def append(self, message: OutMessage, time_ms: int, transaction: Transaction | None) -> int:
        """Store a record and return its offset."""
        offset = self.end
        if transaction is not None:
            self.open.setdefault(transaction, offset)
        headers = tuple(message.get("headers", ()))
        timestamp = message.get("timestamp", time_ms)
        self.entries.append(Record(offset, message.get("key"), message.get("value"), timestamp, headers, transaction))
        return offset

    def mark(self, transaction: Transaction) -> None:
        """Write the marker that ends a transaction here."""
        self.entries.append(None)
        self.open.pop(transaction, None)

    def records(self, position: int, end: int) -> list[Record]:
        """The data records in [position, end) but those of aborted transactions."""
        entries = self.entries[position - self.start : end - self.start]
        return [r for r in entries if r is not None and (r.transaction is None or r.transaction.committed is not False)]

    def read(self, position: int, count_max: int) -> Batch:
        """What a read_committed reader gets at a position; DataLossError outside of the log."""
        if not self.start <= position <= self.end:
            raise out_of_range(self.source, position, self.start, self.end)
        stable = self.stable_end
        if position >= stable:
            return Batch(self.source, position)
        records = self.records(position, stable)
        next_offset = stable if len(records) <= count_max else records[count_max].offset
        return self._batch(records[:count_max], next_offset)

    def _batch(self, records: list[Record], next_offset: int) -> Batch:
        return Batch(
            self.source,
            next_offset,
            [r.offset for r in records],
            [r.key for r in records],
            [r.value for r in records],
            [r.timestamp for r in records],
        )

    def delete_before(self, offset: int) -> None:
        """Move the log start (DeleteRecords); never back, never past the end."""
        offset = min(max(offset, self.start), self.end)
        del self.entries[: offset - self.start]
        self.start = offset


@dataclass(slots=True)
class _Identity:
    """A transactional id at its coordinator."""

    epoch: int = -1
    ongoing: Transaction | None = None
    last: Transaction | None = None
    """The transaction that was decided last: ending it again in the same way succeeds."""


class MemoryBroker:
    """Topics and the transaction coordinator; every method takes effect at once and as a whole.

    Invariants: the epoch of an id never goes back; a transaction is decided once and marked once in each partition.
    """

    def __init__(self, now: Callable[[], float], transaction_timeout: float, *, auto_deliver: bool) -> None:
        """`now` in seconds, as the timeout; `auto_deliver`: markers follow the decision at once."""
        self.topics: dict[str, list[PartitionLog]] = {}
        self.markers: list[tuple[Transaction, PartitionLog]] = []
        """Decided but not yet written."""
        self.auto_deliver = auto_deliver
        self.written = 0
        """Records of transactions, ever: nothing new is there to look at while it stands still."""
        self._now = now
        self._timeout = transaction_timeout
        self._identities: dict[str, _Identity] = {}
        self._ongoing: dict[Transaction, None] = {}

    def create_topic(self, name: str, partitions: int) -> None:
        """Make a topic, empty; one of that name goes first, its open transactions lose what they wrote there."""
        self.topics[name] = [PartitionLog(TopicPartition(name, index)) for index in range(partitions)]

    def init(self, transactional_id: str) -> int:
        """InitProducerId: the new epoch, once everything of earlier holders is ended and marked."""
        identity = self._identities.setdefault(transactional_id, _Identity())
        identity.epoch += 1
        if identity.ongoing is not None:
            self._decide(identity, committed=False)
        self._settle(transactional_id)
        return identity.epoch

    def add_partition(self, transactional_id: str, epoch: int, log: PartitionLog) -> None:
        """AddPartitionsToTxn: makes a partition part of the open transaction, opening one when there is none."""
        identity = self._checked(transactional_id, epoch)
        if identity.ongoing is None:
            self._settle(transactional_id)
            identity.ongoing = Transaction(transactional_id, epoch, self._now() + self._timeout)
            self._ongoing[identity.ongoing] = None
        identity.ongoing.partitions[log.source] = log

    def append(self, transactional_id: str, epoch: int, log: PartitionLog, message: OutMessage, time_ms: int) -> int:
        """Produce one record of the open transaction."""
        transaction = self._checked(transactional_id, epoch).ongoing
        if transaction is None or log.source not in transaction.partitions:
            raise InvalidTransactionError(f"{log.source} is not part of an open transaction of {transactional_id!r}.")
        self.written += 1
        return log.append(message, time_ms, transaction)

    def end(self, transactional_id: str, epoch: int, *, committed: bool) -> None:
        """EndTxn: decide whatever transaction is open; the same decision twice is one."""
        identity = self._checked(transactional_id, epoch)
        if identity.ongoing is not None:
            self._decide(identity, committed=committed)
        elif identity.last is None or identity.last.committed is not committed or identity.last.epoch != epoch:
            raise InvalidTransactionError(f"{transactional_id!r} has no open transaction to end.")

    def write_marker(self, index: int) -> None:
        """One of the outstanding markers arrives at its partition."""
        transaction, log = self.markers.pop(index)
        log.mark(transaction)

    def expire(self) -> None:
        """Abort transactions that are open for longer than their timeout and fence their holders."""
        while self._ongoing and (oldest := next(iter(self._ongoing))).deadline <= self._now():
            identity = self._identities[oldest.owner]
            identity.epoch += 1
            self._decide(identity, committed=False)

    def epoch(self, transactional_id: str) -> int:
        """The present epoch of an id, -1 when it was never used."""
        return self._identities.get(transactional_id, _Identity()).epoch

    def _checked(self, transactional_id: str, epoch: int) -> _Identity:
        self.expire()
        identity = self._identities[transactional_id]
        if epoch != identity.epoch:
            raise FencedError(f"Epoch {epoch} of {transactional_id!r} is fenced: the epoch is {identity.epoch} now.")
        return identity

    def _decide(self, identity: _Identity, *, committed: bool) -> None:
        transaction = identity.ongoing
        assert transaction is not None
        assert transaction.committed is None
        transaction.committed = committed
        identity.ongoing, identity.last = None, transaction
        del self._ongoing[transaction]
        self.markers += [(transaction, log) for log in transaction.partitions.values()]
        if self.auto_deliver:
            self._settle(transaction.owner)

    def _settle(self, transactional_id: str) -> None:
        """The client waits (CONCURRENT_TRANSACTIONS) until all markers of the id are written: so write them."""
        for transaction, log in self.markers:
            if transaction.owner == transactional_id:
                log.mark(transaction)
        self.markers = [marker for marker in self.markers if marker[0].owner != transactional_id]

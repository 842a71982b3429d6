"""The log in memory, with Kafka's transaction semantics and faults on demand: for the simulation and the test driver.

Everything takes effect at once on the calling thread; nothing waits, nothing is random. A simulation decides

- when markers arrive: `MemoryLog(auto_deliver=False)`, then `pending_markers()` and `deliver_marker(i)`;
- which calls fail and how: `log.faults`, asked at every call, or `log.inject` for the next one;
- when a late EndTxn or a late report arrives: `pending_requests()`, `deliver_request(i)`, `drop_request(i)`.

| fault | where | what happens |
|---|---|---|
| RETRYABLE | any call | nothing is done; RetryableError, within a transaction TaintedError |
| DENIED | any call | ConfigError; `deny` does the same for a topic or id until `allow` |
| NOT_APPLIED | commit, abort, flush | the request is lost, TaintedError |
| APPLIED | commit, abort; open, fence | done, but the reply is lost: TaintedError; RetryableError |
| APPLIED_LATE | commit, abort | on its way: a pending request; TaintedError |
| APPLIED_TWICE | commit, abort | done, and a second copy is a pending request; TaintedError |
| TAINTED | begin | the client's log shows trouble: TaintedError |
| REFUSED | send | only the first half is accepted; TaintedError (S11) |
| UNDELIVERED | send | half is lost behind the client's back; flush finds it: TaintedError (S11) |
| LOST, DELAYED | report | dropped; a pending request |
| EMPTY, SHORT | poll | nothing, or one record, is fetched in time, though there may be more |
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import Enum, auto
from typing import NamedTuple

from kstate.adapters.kafka_errors import out_of_range, oversize, unknown_partition
from kstate.clock import Clock
from kstate.errors import ConfigError, DataLossError, FencedError, RetryableError, TaintedError
from kstate.interfaces import Batch, OutMessage, TopicSpec
from kstate.plan import TopicPartition
from kstate.testing.memory_broker import InvalidTransactionError, MemoryBroker, PartitionLog, Record


class Fault(Enum):
    """What can go wrong in one call; the table of the module says what each does."""

    RETRYABLE = auto()
    DENIED = auto()
    NOT_APPLIED = auto()
    APPLIED = auto()
    APPLIED_LATE = auto()
    APPLIED_TWICE = auto()
    TAINTED = auto()
    REFUSED = auto()
    UNDELIVERED = auto()
    LOST = auto()
    DELAYED = auto()
    EMPTY = auto()
    SHORT = auto()


class Call(NamedTuple):
    """A call that may fail: the method's name, and the transactional id or topic it is about ("" for neither)."""

    operation: str
    subject: str


class PendingMarker(NamedTuple):
    """A decided transaction's marker on its way to one partition."""

    source: TopicPartition
    transactional_id: str
    committed: bool


class Opened(NamedTuple):
    """A transactional id was opened: by a producer of its own, or by somebody who fences it."""

    transactional_id: str
    by_owner: bool


class PendingRequest(NamedTuple):
    """A late EndTxn or report that may still arrive."""

    operation: str
    subject: str
    arrive: Callable[[], None]


_MESSAGE_BYTES_MAX = 1_040_000
"""message.max.bytes of our clients."""


class MemoryLog:
    """`Log` in memory; see the module for what a simulation can do with it."""

    def __init__(self, clock: Clock, *, transaction_timeout_ms: int = 10_000, auto_deliver: bool = True) -> None:
        self.broker = MemoryBroker(clock.monotonic, transaction_timeout_ms / 1000, auto_deliver=auto_deliver)
        self.faults: Callable[[Call], Fault | None] = lambda _: None
        self._clock = clock
        self._injected: list[tuple[Call, Fault]] = []
        self._denied: set[str] = set()
        self._requests: list[PendingRequest] = []
        self.opens: list[Opened] = []
        """Every open and fence that took effect, in order."""

    # -- Log

    def cluster_id(self) -> str:
        return "memory"

    def reader(self) -> MemoryReader:
        return MemoryReader(self)

    def producer(self, transactional_id: str) -> MemoryProducer:
        return MemoryProducer(self, transactional_id)

    def report(self, topic: str, message: OutMessage) -> None:
        fault = self.fault("report", topic)

        def arrive() -> None:
            if topic in self.broker.topics:
                self.partition(TopicPartition(topic, message["partition"])).append(message, self.time_ms(), None)

        if fault is Fault.DELAYED:
            self._requests.append(PendingRequest("report", topic, arrive))
        elif fault is not Fault.LOST:
            arrive()

    def fence(self, transactional_id: str) -> None:
        self._init("fence", transactional_id)

    def partitions(self, topics: Iterable[str]) -> dict[str, int | None]:
        self.fault("partitions")
        known = self.broker.topics
        return {topic: len(known[topic]) if topic in known else None for topic in topics}

    def create_topics(self, topics: Sequence[TopicSpec]) -> None:
        self.fault("create_topics")
        for spec in topics:
            if spec.name not in self.broker.topics:
                self.broker.create_topic(spec.name, spec.partitions)

    def start_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        self.fault("start_offsets")
        return {source: self.partition(source).start for source in partitions}

    def end_offsets(self, partitions: Iterable[TopicPartition], *, committed: bool) -> dict[TopicPartition, int]:
        self.fault("end_offsets")
        self.broker.expire()
        logs = {source: self.partition(source) for source in partitions}
        return {source: log.stable_end if committed else log.end for source, log in logs.items()}

    def offsets_at(self, partitions: Iterable[TopicPartition], time_ms: int) -> dict[TopicPartition, int]:
        self.fault("offsets_at")
        return {source: self._offset_at(self.partition(source), time_ms) for source in partitions}

    # -- what a simulation does to it

    def inject(self, operation: str, fault: Fault, subject: str = "") -> None:
        """The next call of an operation (about this id or topic, if given) meets a fault."""
        self._injected.append((Call(operation, subject), fault))

    def deny(self, subject: str) -> None:
        """Refuse access to a topic or transactional id."""
        self._denied.add(subject)

    def allow(self, subject: str) -> None:
        """Undo `deny`."""
        self._denied.discard(subject)

    def pending_markers(self) -> list[PendingMarker]:
        """Markers that have not arrived yet, oldest decision first."""
        return [PendingMarker(log.source, t.owner, bool(t.committed)) for t, log in self.broker.markers]

    def deliver_marker(self, index: int = 0) -> None:
        """Let one marker arrive."""
        self.broker.write_marker(index)

    def pending_requests(self) -> list[PendingRequest]:
        """Late EndTxn requests and reports, oldest first."""
        return list(self._requests)

    def deliver_request(self, index: int = 0) -> None:
        """Let one late request arrive; whatever it then does is done, or it is fenced and does nothing."""
        self._requests.pop(index).arrive()

    def drop_request(self, index: int = 0) -> None:
        """Lose one late request."""
        self._requests.pop(index)

    def delete_records(self, before: Mapping[TopicPartition, int]) -> None:
        """Move log starts (DeleteRecords, or retention)."""
        for source, offset in before.items():
            self.partition(source).delete_before(offset)

    def recreate_topic(self, name: str, partitions: int) -> None:
        """Somebody deletes the topic and makes it anew: it is empty and starts at offset 0."""
        self.broker.create_topic(name, partitions)

    def delete_topic(self, name: str) -> None:
        """Somebody deletes the topic."""
        del self.broker.topics[name]

    def records(self, source: TopicPartition, *, committed: bool = True) -> list[Record]:
        """The data records of a partition, headers too: as a read_committed reader sees them, or all."""
        log = self.partition(source)
        if committed:
            return log.records(log.start, log.stable_end)
        return [record for record in log.entries if record is not None]

    # -- for readers and producers

    def time_ms(self) -> int:
        """The time of a record that is written without one."""
        return self._clock.time_ms()

    def fault(self, operation: str, subject: str = "") -> Fault | None:
        """The fault this call meets; raises those that mean the same in every call."""
        fault = self._injection(operation, subject) or self.faults(Call(operation, subject))
        if fault is Fault.DENIED or subject in self._denied:
            raise ConfigError(f"{operation}: access to {subject!r} is denied.", hint="grant it to this user (ACLs).")
        if fault is Fault.RETRYABLE:
            raise RetryableError(f"{operation} {subject!r}: the broker does not answer.")
        return fault

    def partition(self, source: TopicPartition) -> PartitionLog:
        """The partition; ConfigError when there is none."""
        if source.topic in self._denied:
            raise ConfigError(f"Access to topic {source.topic!r} is denied.", hint="grant it to this user (ACLs).")
        logs = self.broker.topics.get(source.topic)
        if logs is None or not 0 <= source.partition < len(logs):
            raise unknown_partition(source, None if logs is None else len(logs))
        return logs[source.partition]

    def request_late(self, operation: str, transactional_id: str, epoch: int, *, committed: bool) -> None:
        """An EndTxn that is still on its way."""

        def arrive() -> None:
            try:
                self.broker.end(transactional_id, epoch, committed=committed)
            except (FencedError, InvalidTransactionError):
                return

        self._requests.append(PendingRequest(operation, transactional_id, arrive))

    def open(self, transactional_id: str) -> int:
        """Take a transactional id over; its new epoch."""
        return self._init("open", transactional_id)

    def _init(self, operation: str, transactional_id: str) -> int:
        fault = self.fault(operation, transactional_id)
        if fault is Fault.NOT_APPLIED:
            raise RetryableError(f"{operation} of {transactional_id!r}: no answer.")
        epoch = self.broker.init(transactional_id)
        self.opens.append(Opened(transactional_id, by_owner=operation == "open"))
        if fault is Fault.APPLIED:
            raise RetryableError(f"{operation} of {transactional_id!r}: no answer.")
        return epoch

    def _injection(self, operation: str, subject: str) -> Fault | None:
        for index, (call, fault) in enumerate(self._injected):
            if call.operation == operation and call.subject in ("", subject):
                del self._injected[index]
                return fault
        return None

    def _offset_at(self, log: PartitionLog, time_ms: int) -> int:
        visible = log.records(log.start, log.stable_end)
        return next((record.offset for record in visible if record.timestamp >= time_ms), log.stable_end)


class MemoryReader:
    """`Reader` over a MemoryLog; never waits."""

    def __init__(self, log: MemoryLog) -> None:
        self._log = log
        self._positions: dict[TopicPartition, int] = {}
        self._at_end: dict[TopicPartition, int] = {}
        self._seen: dict[TopicPartition, PartitionLog] = {}

    def assign(self, positions: Mapping[TopicPartition, int]) -> None:
        self._positions = dict(positions)
        self._at_end = {}
        self._seen = {}

    def reassign(self, positions: Mapping[TopicPartition, int], gone: Iterable[TopicPartition] = ()) -> None:
        for source in {*positions, *gone}:
            self._positions.pop(source, None)
            self._at_end.pop(source, None)
            self._seen.pop(source, None)
        self._positions |= positions

    def poll(self, max_records: int, timeout: float) -> list[Batch]:  # noqa: ARG002 (virtual time: the caller waits)
        fault = self._log.fault("poll", self._subject())
        if fault is Fault.EMPTY:
            return []
        if fault is Fault.SHORT:
            max_records = 1
        self._log.broker.expire()
        batches = []
        for source, position in list(self._positions.items()):
            if max_records <= 0:
                break
            log = self._partition(source, position)
            try:
                batch = log.read(position, max_records)
            except DataLossError:  # told once: the partition is not read any more before it is assigned anew
                del self._positions[source]
                raise
            self._at_end.pop(source, None)
            if batch.next_offset >= log.stable_end:
                self._at_end[source] = batch.next_offset
            if batch.next_offset != position:
                batches.append(batch)
                max_records -= len(batch)
                del self._positions[source]  # to the back of the queue: a busy partition must not starve the others
                self._positions[source] = batch.next_offset
        return batches

    def at_end(self) -> Mapping[TopicPartition, int]:
        return self._at_end

    def close(self) -> None:
        self._positions, self._at_end = {}, {}

    def _partition(self, source: TopicPartition, position: int) -> PartitionLog:
        """The partition; a live reader knows a topic that was made anew by its id, and refuses it."""
        log = self._log.partition(source)
        if self._seen.setdefault(source, log) is not log:
            raise out_of_range(source, position, log.start, log.end)
        return log

    def _subject(self) -> str:
        """The topic that is read, when it is one."""
        topics = {source.topic for source in self._positions}
        return topics.pop() if len(topics) == 1 else ""


class _Phase(Enum):
    """NEW → READY ⇄ OPEN; TAINTED, FENCED and CLOSED are final."""

    NEW = "not open"
    READY = "open, without a transaction"
    OPEN = "in a transaction"
    TAINTED = "tainted"
    FENCED = "fenced"
    CLOSED = "closed"


class MemoryProducer:
    """`Producer` over a MemoryLog.

    A simulation that shows what a rule is worth may patch `_taint` (S4) and `_check_counts` (S11), or call `forgive`.
    """

    def __init__(self, log: MemoryLog, transactional_id: str) -> None:
        self._log = log
        self._id = transactional_id
        self._epoch = -1
        self._phase = _Phase.NEW
        self._reset()

    @property
    def transactional_id(self) -> str:
        return self._id

    def open(self) -> None:
        self._expect(_Phase.NEW)
        self._epoch = self._log.open(self._id)
        self._phase = _Phase.READY

    def begin(self) -> None:
        self._expect(_Phase.READY)
        if self._log.fault("begin", self._id) is Fault.TAINTED:
            raise self._taint("the client's log shows trouble since the last transaction")
        self._reset()
        self._phase = _Phase.OPEN

    def send(self, topic: str, messages: list[OutMessage], *, tracked: bool = False) -> None:
        self._expect(_Phase.OPEN)
        fault = self._fault("send")
        kept = messages if fault not in {Fault.REFUSED, Fault.UNDELIVERED} else messages[: len(messages) // 2]
        with self._fencing():
            for message in kept:
                self._append(TopicPartition(topic, message["partition"]), message, tracked=tracked)
        self._handed += len(messages)
        self._accepted += len(kept) if fault is Fault.REFUSED else len(messages)
        self._delivered += len(kept)
        if fault is Fault.REFUSED:
            self._check_counts()

    def flush(self) -> Mapping[TopicPartition, Sequence[int]]:
        self._expect(_Phase.OPEN)
        if self._fault("flush") is Fault.NOT_APPLIED:
            raise self._taint("messages are not delivered in time")
        self._check_counts()
        return {place: tuple(offsets) for place, offsets in self._tracked.items()}

    def commit(self) -> None:
        self._end("commit", committed=True)

    def abort(self) -> None:
        self._end("abort", committed=False)

    def close(self) -> None:
        self._phase = _Phase.CLOSED

    def forgive(self) -> None:
        """Go on with a tainted producer, as an application without rule S4 would: abort what is left, then reuse it."""
        self._phase = _Phase.READY
        try:
            self._log.broker.end(self._id, self._epoch, committed=False)
        except (FencedError, InvalidTransactionError):
            return

    def _append(self, source: TopicPartition, message: OutMessage, *, tracked: bool) -> None:
        size = len(message.get("key") or b"") + len(message.get("value") or b"")
        if size > _MESSAGE_BYTES_MAX:
            raise oversize(source.topic, size, _MESSAGE_BYTES_MAX)
        log, broker = self._log.partition(source), self._log.broker
        if source not in self._added:
            broker.add_partition(self._id, self._epoch, log)
            self._added.add(source)
        offset = broker.append(self._id, self._epoch, log, message, self._log.time_ms())
        if tracked:
            self._tracked[source].append(offset)

    def _end(self, operation: str, *, committed: bool) -> None:
        """End the transaction; one without messages never reaches the broker, so it proves nothing."""
        self._expect(_Phase.OPEN)
        if committed:
            self._check_counts()
        if self._added:
            with self._fencing():
                self._request_end(operation, committed=committed)
        self._phase = _Phase.READY

    def _request_end(self, operation: str, *, committed: bool) -> None:
        fault = self._fault(operation)
        if fault in {Fault.APPLIED_LATE, Fault.APPLIED_TWICE}:
            self._log.request_late(operation, self._id, self._epoch, committed=committed)
        if fault not in {Fault.NOT_APPLIED, Fault.APPLIED_LATE}:
            self._log.broker.end(self._id, self._epoch, committed=committed)
        if fault in {Fault.NOT_APPLIED, Fault.APPLIED, Fault.APPLIED_LATE, Fault.APPLIED_TWICE}:
            raise self._taint(f"no answer to {operation}")

    def _check_counts(self) -> None:
        """S11: what was handed over has been accepted and delivered."""
        if not self._handed == self._accepted == self._delivered:
            counts = f"{self._handed} messages handed over, {self._accepted} accepted, {self._delivered} delivered"
            raise self._taint(counts)

    def _taint(self, reason: str) -> TaintedError:
        self._phase = _Phase.TAINTED
        return TaintedError(f"Producer {self._id!r}: {reason}; open anew and look for the markers (S4).")

    def _fault(self, operation: str) -> Fault | None:
        """Within a transaction there is no harmless failure."""
        try:
            return self._log.fault(operation, self._id)
        except RetryableError as error:
            raise self._taint(str(error)) from error

    @contextmanager
    def _fencing(self) -> Iterator[None]:
        try:
            yield
        except FencedError:
            self._phase = _Phase.FENCED
            raise
        except InvalidTransactionError as error:
            raise self._taint(str(error)) from error

    def _expect(self, phase: _Phase) -> None:
        if self._phase is _Phase.TAINTED:
            raise self._taint("it was tainted before")
        if self._phase is _Phase.FENCED:
            raise FencedError(f"Producer {self._id!r} was fenced.")
        if self._phase is not phase:
            raise RuntimeError(f"producer {self._id!r} is {self._phase.value}, expected: {phase.value}")

    def _reset(self) -> None:
        """Forget what belongs to one transaction."""
        self._added: set[TopicPartition] = set()
        self._tracked: defaultdict[TopicPartition, list[int]] = defaultdict(list)
        self._handed = self._accepted = self._delivered = 0

"""The transactional producer: rules S4 and S11 over librdkafka, told apart from the library itself.

What librdkafka and its Python binding do not do, or do silently, and what is done about it here:

- a batch call ignores the partition of a message and drops its headers, raises for a timestamp, and returns short on a
  full queue: batches go per partition, messages with a time or headers one by one, refused ones again (S11);
- EndTxn is repeated silently: the client's log is read before and after (S4, see `kafka_watch`);
- a callback per message costs 0.6 µs: one per partition and call is asked for; the others are counted by librdkafka,
  which refuses to commit after any failed delivery, and by the flush, which returns 0 only after every message was
  reported.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import Enum
from typing import Any, Final, Protocol, cast

from kstate.adapters.kafka_errors import oversize, translated, unknown_partition
from kstate.adapters.kafka_settings import MESSAGE_BYTES_MAX
from kstate.adapters.kafka_watch import ClientCallError, ClientError, ClientWatch
from kstate.clock import Clock
from kstate.config import FailureSettings
from kstate.errors import ConfigError, FencedError, KstateError, RetryableError, TaintedError
from kstate.interfaces import OutMessage
from kstate.plan import TopicPartition

_ROOM_PAUSE: Final = 0.05
_EXTENDED: Final = frozenset({"timestamp", "headers"})


class Delivered(Protocol):
    """A delivered message, in its report."""

    def topic(self) -> str: ...

    def partition(self) -> int: ...

    def offset(self) -> int: ...


Callback = Callable[[ClientError | None, Any], None]


class ProducerClient(Protocol):
    """What is used of librdkafka's producer; every method may raise ClientCallError, also for an older, fatal one."""

    def init(self, seconds: float) -> None: ...

    def begin(self) -> None: ...

    def batch(self, topic: str, partition: int, messages: list[dict[str, Any]], callback: Callback | None) -> int:
        """Number of accepted messages; the others are marked with "_error"."""
        ...

    def single(self, topic: str, message: OutMessage, callback: Callback | None) -> None: ...

    def poll(self, seconds: float) -> int:
        """Serve callbacks and the log; the number of those served."""
        ...

    def flush(self, seconds: float) -> int:
        """Number of messages that are still not reported."""
        ...

    def commit(self, seconds: float) -> None: ...

    def abort(self, seconds: float) -> None: ...

    def discard(self) -> None:
        """End the client at once; nothing more is sent, an open transaction stays open."""
        ...


class Cluster(Protocol):
    """What a producer needs of its log."""

    def connect(self, transactional_id: str, watch: ClientWatch) -> ProducerClient: ...

    def partitions(self, topics: Iterable[str]) -> dict[str, int | None]: ...


def initialise(client: ProducerClient, watch: ClientWatch, seconds: float, doing: str) -> None:
    """init_transactions; it waits for the markers of earlier holders of the id, which takes 0.5 to 1 s."""
    try:
        client.init(seconds)
    except ClientCallError as fault:
        raise watch.judged(fault, doing) from fault


class _Phase(Enum):
    """NEW → READY ⇄ OPEN; TAINTED, FENCED and CLOSED are final."""

    NEW = "not open"
    READY = "open, without a transaction"
    OPEN = "in a transaction"
    TAINTED = "tainted"
    FENCED = "fenced"
    CLOSED = "closed"


class KafkaProducer:
    """`Producer` on Kafka.

    Invariants: READY and OPEN imply a client whose log told of no trouble; once TAINTED or FENCED, never usable again.
    """

    def __init__(
        self,
        transactional_id: str,
        settings: FailureSettings,
        clock: Clock,
        watch: ClientWatch,
        cluster: Cluster,
    ) -> None:
        self._id = transactional_id
        self._clock = clock
        self._watch = watch
        self._cluster = cluster
        self._seconds = settings.transaction_timeout_ms / 1000
        self._slow = settings.commit_slow_ms / 1000
        self._client: ProducerClient | None = None
        self._phase = _Phase.NEW
        self._known: dict[str, int] = {}
        self._reset()

    @property
    def transactional_id(self) -> str:
        return self._id

    def open(self) -> None:
        self._expect(_Phase.NEW)
        self._client = self._cluster.connect(self._id, self._watch)
        initialise(self._live, self._watch, self._seconds, f"opening {self._id!r}")
        self._drain()
        self._watch.clear()
        self._phase = _Phase.READY

    def begin(self) -> None:
        self._expect(_Phase.READY)
        self._inspect("between transactions")
        with self._calling("beginning"):
            self._live.begin()
        self._reset()
        self._phase = _Phase.OPEN

    def send(self, topic: str, messages: list[OutMessage], *, tracked: bool = False) -> None:
        self._expect(_Phase.OPEN)
        parts: defaultdict[int, list[OutMessage]] = defaultdict(list)
        for message in messages:
            parts[message["partition"]].append(message)
        self._check_known(topic, parts)
        singly = not all(map(_EXTENDED.isdisjoint, messages))
        self._flushed = False
        with self._calling(f"sending to {topic!r}"):
            for partition, part in parts.items():
                self._handed += len(part)
                if singly:
                    self._send_singly(topic, part, tracked=tracked)
                else:
                    self._send_batch(topic, partition, part, tracked=tracked)

    def flush(self) -> Mapping[TopicPartition, Sequence[int]]:
        self._expect(_Phase.OPEN)
        with self._calling("delivering"):
            left = self._live.flush(self._seconds)
        self._inspect("delivering")
        if left or self._failures or self._handed != self._accepted:
            counts = f"{self._handed} messages handed over, {self._accepted} accepted, {left} not delivered in time"
            raise self._tainted(f"{counts}; failed: {self._failures or 'none'}")
        self._flushed = True
        return {place: tuple(offsets) for place, offsets in self._offsets.items()}

    def commit(self) -> None:
        self._expect(_Phase.OPEN)
        if not self._flushed:
            self.flush()
        self._end("committing", lambda: self._live.commit(self._slow))

    def abort(self) -> None:
        self._expect(_Phase.OPEN)
        self._end("aborting", lambda: self._live.abort(self._slow))

    def close(self) -> None:
        if self._client is not None:
            self._client.discard()
            self._client = None
        self._phase = _Phase.CLOSED

    # -- sending

    def _send_batch(self, topic: str, partition: int, part: list[OutMessage], *, tracked: bool) -> None:
        """A batch of one partition; unless tracked, only its last message reports (see the module)."""
        messages = cast("list[dict[str, Any]]", part)
        if not tracked:
            messages[-1]["callback"] = self._on_delivery
        callback = self._on_tracked if tracked else None
        deadline = self._clock.monotonic() + self._seconds
        try:
            while True:
                accepted = self._live.batch(topic, partition, messages, callback)
                self._accepted += accepted
                if accepted == len(messages):
                    return
                messages = self._refused(topic, messages)
                self._await_room(deadline, len(messages))
        finally:
            part[-1].pop("callback", None)  # type: ignore[typeddict-item]

    def _refused(self, topic: str, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Those to hand over again because the queue was full; raises for any other refusal."""
        again = [message for message in messages if "_error" in message]
        for message in again:
            error = message.pop("_error")
            if error.name() == "MSG_SIZE_TOO_LARGE":
                raise oversize(topic, _size(cast("OutMessage", message)), MESSAGE_BYTES_MAX)
            if error.name() != "_QUEUE_FULL":
                raise ClientCallError(error.name(), error.str())
        return again

    def _await_room(self, deadline: float, waiting: int) -> None:
        if self._clock.monotonic() >= deadline:
            raise self._tainted(f"the queue stayed full, {waiting} messages were not accepted")
        self._live.poll(_ROOM_PAUSE)

    def _send_singly(self, topic: str, part: list[OutMessage], *, tracked: bool) -> None:
        """Messages with a time or headers, which the batch call does not carry."""
        deadline = self._clock.monotonic() + self._seconds
        callback = self._on_tracked if tracked else self._on_delivery
        for message in part:
            while not self._single(topic, message, callback):
                self._await_room(deadline, self._handed - self._accepted)
            self._accepted += 1

    def _single(self, topic: str, message: OutMessage, callback: Callback) -> bool:
        """Hand over one message; False when the queue is full."""
        try:
            self._live.single(topic, message, callback)
        except ClientCallError as fault:
            if fault.code == "_QUEUE_FULL":
                return False
            if fault.code == "MSG_SIZE_TOO_LARGE":
                raise oversize(topic, _size(message), MESSAGE_BYTES_MAX) from fault
            raise
        return True

    def _on_delivery(self, error: ClientError | None, _: Delivered) -> None:
        if error:
            self._failures.append(error.name())

    def _on_tracked(self, error: ClientError | None, message: Delivered) -> None:
        if error:
            self._failures.append(error.name())
        else:
            # An idempotent producer delivers, and reports, in the order of sending within a partition.
            self._offsets[TopicPartition(message.topic(), message.partition())].append(message.offset())

    def _check_known(self, topic: str, partitions: Iterable[int]) -> None:
        """A topic or partition that does not exist would only fail much later, and without a reason."""
        highest = max(partitions, default=-1)
        if highest >= self._known.get(topic, 0):
            try:
                count = self._cluster.partitions([topic])[topic]
            except RetryableError as error:  # a transaction that is under way cannot be begun again
                raise self._tainted(str(error)) from error
            if count is None or highest >= count:
                raise unknown_partition(TopicPartition(topic, highest), count)
            self._known[topic] = count

    # -- ending, and rule S4

    def _end(self, doing: str, call: Callable[[], None]) -> None:
        begun = self._clock.monotonic()
        with self._calling(doing):
            call()
        took = self._clock.monotonic() - begun
        self._inspect(doing)
        if took > self._slow:
            raise self._tainted(f"{doing} took {took:.1f} s")
        self._phase = _Phase.READY

    def _inspect(self, doing: str) -> None:
        """Read the client's log to its end; raises when it tells of anything but success."""
        self._drain()
        if self._watch.fenced:
            raise self._judged(ClientCallError("_FENCED", "a newer producer of this id was opened"), doing)
        if self._watch.refusal:
            self._phase = _Phase.TAINTED
            raise translated(*self._watch.refusal, f"{self._id!r}, {doing}")
        if self._watch.troubles:
            raise self._tainted(f"{doing}, the client saw trouble: {self._watch.troubles[0]}")

    def _drain(self) -> None:
        for _ in range(100):
            try:
                if not self._live.poll(0):
                    return
            except ClientCallError as fault:  # a fatal error comes as an exception, over and over
                self._watch.note(fault)
                if self._watch.fenced:
                    return

    @contextmanager
    def _calling(self, doing: str) -> Iterator[None]:
        try:
            yield
        except ClientCallError as fault:
            self._drain()
            raise self._judged(fault, doing) from fault

    def _judged(self, fault: ClientCallError, doing: str) -> KstateError:
        """Within a transaction every failure but fencing and refusal leaves its outcome in doubt."""
        judged = self._watch.judged(fault, f"{self._id!r}, {doing}")
        if isinstance(judged, FencedError):
            self._phase = _Phase.FENCED
        elif isinstance(judged, ConfigError):
            self._phase = _Phase.TAINTED
        else:
            return self._tainted(str(judged))
        return judged

    def _tainted(self, reason: str) -> TaintedError:
        self._phase = _Phase.TAINTED
        return TaintedError(f"Producer {self._id!r}: {reason}; open anew and look for the markers (S4).")

    def _expect(self, phase: _Phase) -> None:
        if self._phase is _Phase.TAINTED:
            raise self._tainted("it was tainted before")
        if self._phase is _Phase.FENCED:
            raise FencedError(f"Producer {self._id!r} was fenced.")
        if self._phase is not phase:
            raise RuntimeError(f"producer {self._id!r} is {self._phase.value}, expected: {phase.value}")

    @property
    def _live(self) -> ProducerClient:
        assert self._client is not None
        return self._client

    def _reset(self) -> None:
        """Forget what belongs to one transaction."""
        self._handed = self._accepted = 0
        self._flushed = True
        self._failures: list[str] = []
        self._offsets: defaultdict[TopicPartition, list[int]] = defaultdict(list)


def _size(message: OutMessage) -> int:
    return len(message.get("key") or b"") + len(message.get("value") or b"")

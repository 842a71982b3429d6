"""The log on Apache Kafka, through confluent-kafka (librdkafka). Nothing else imports it.

What the client does not do by itself, or does silently, and what is done about it here:

- `list_offsets` gives -1001 instead of an error when the broker does not answer: no offset below zero is believed;
- what concerns transactions: see `kafka_producer`;
- `close()` of a producer aborts its transaction: a producer is discarded by dropping the last reference to it;
- a fatal error comes out of whatever call serves callbacks next, also as the cause of a SystemError.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial, wraps
from itertools import groupby
from typing import Any, Final, ParamSpec, TypeVar, cast

from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, Message, Producer, TopicCollection
from confluent_kafka import TopicPartition as ClientPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec

from kstate.adapters.kafka_errors import (
    NOT_THERE,
    SETTLING,
    Meaning,
    meaning,
    translated,
    unknown_partition,
    unreachable,
)
from kstate.adapters.kafka_producer import Callback, KafkaProducer, initialise
from kstate.adapters.kafka_reader import Event, KafkaReader, Run
from kstate.adapters.kafka_settings import (
    REQUEST_SECONDS,
    Properties,
    admin_properties,
    producer_properties,
    reader_properties,
    report_properties,
)
from kstate.adapters.kafka_watch import ClientCallError, ClientWatch
from kstate.clock import Clock
from kstate.config import Settings
from kstate.errors import FencedError, KstateError, RetryableError
from kstate.interfaces import OutMessage, TopicSpec
from kstate.plan import TopicPartition

P = ParamSpec("P")
T = TypeVar("T")

_SETTLE_PAUSE: Final = 0.05
_LEADERS_SECONDS: Final = 15.0
"""How long new topics may take until all partitions have leaders."""
_REPORTS_SECONDS: Final = 1.0
_SLICE_SECONDS: Final = 0.5
_SLICE_PAUSE: Final = 0.01
_STALE: Final = frozenset({"FENCED_LEADER_EPOCH", "UNKNOWN_LEADER_EPOCH"})
"""An administrator that learnt epochs while the broker was starting asks with them for 15 s; a new one learns anew."""
_CLIENT_ERRORS: Final[tuple[type[Exception], ...]] = (
    KafkaException,
    cast("type[Exception]", KafkaError),  # no exception by its bases, but raised bare out of a callback
    SystemError,
    BufferError,
)


class KafkaLog:
    """`Log` on Kafka; clients are made at first use. `close` hands over the last reports."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self.settings = settings
        self.clock = clock
        self._watch = ClientWatch(settings)
        self._admin: AdminClient | None = None
        self._reports: _Producer | None = None
        self._init_seconds = settings.failure.transaction_timeout_ms / 1000
        self._lock = threading.Lock()  # reports come from the thread of the heartbeats

    def cluster_id(self) -> str:
        return self._ask("the cluster's id", lambda: self._administrator().cluster_id(REQUEST_SECONDS))

    def reader(self) -> KafkaReader:
        watch = ClientWatch(self.settings)
        return KafkaReader(_Consumer(reader_properties(self.settings), watch), watch, self.clock, self)

    def producer(self, transactional_id: str) -> KafkaProducer:
        failure = self.settings.failure
        return KafkaProducer(transactional_id, failure, self.clock, ClientWatch(self.settings), self)

    def report(self, topic: str, message: OutMessage) -> None:
        with self._lock:
            self._reports = self._reports or _Producer(report_properties(self.settings), self._watch)
        try:
            self._reports.single(topic, message, None)
            self._reports.poll(0)
        except ClientCallError as fault:  # reports are level-triggered: the next one says it all again
            self._watch.log(logging.DEBUG, "report dropped: %s", fault)

    def fence(self, transactional_id: str) -> None:
        watch = ClientWatch(self.settings)
        client = self.connect(transactional_id, watch)
        try:
            initialise(client, watch, self._init_seconds, f"fencing {transactional_id!r}")
        except FencedError as error:
            raise RetryableError(f"Fencing {transactional_id!r} was itself overtaken; it is to be repeated.") from error
        finally:
            client.discard()

    def partitions(self, topics: Iterable[str]) -> dict[str, int | None]:
        names = list(topics)
        described = self._ask(f"partitions of {names}", lambda: self._described(names)) if names else {}
        return {name: None if found is None else len(found) for name, found in described.items()}

    def create_topics(self, topics: Sequence[TopicSpec]) -> None:
        known = self.partitions(spec.name for spec in topics)
        missing = [spec for spec in topics if known[spec.name] is None]
        if missing:
            self._ask(f"making topics {[spec.name for spec in missing]}", lambda: self._create(missing))
        self._await_leaders([spec.name for spec in topics])

    def start_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        return self._offsets(list(partitions), OffsetSpec.earliest(), IsolationLevel.READ_UNCOMMITTED)

    def end_offsets(self, partitions: Iterable[TopicPartition], *, committed: bool) -> dict[TopicPartition, int]:
        isolation = IsolationLevel.READ_COMMITTED if committed else IsolationLevel.READ_UNCOMMITTED
        return self._offsets(list(partitions), OffsetSpec.latest(), isolation)

    def delete_records(self, before: Mapping[TopicPartition, int]) -> None:
        places = [ClientPartition(source.topic, source.partition, offset) for source, offset in before.items()]
        self._ask(f"trimming {', '.join(map(str, before))}", lambda: self._delete_records(places))

    def offsets_at(self, partitions: Iterable[TopicPartition], time_ms: int) -> dict[TopicPartition, int]:
        sources = list(partitions)
        found = self._offsets(sources, OffsetSpec.for_timestamp(time_ms), IsolationLevel.READ_COMMITTED, lowest=-1)
        ends = self.end_offsets([source for source, offset in found.items() if offset < 0], committed=True)
        return found | ends

    def close(self) -> None:
        """Wait shortly until the last reports are delivered; the log can still be used."""
        if self._reports is not None:
            try:
                self._reports.flush(_REPORTS_SECONDS)
            except ClientCallError as fault:
                self._watch.log(logging.DEBUG, "reports dropped: %s", fault)

    # -- for readers and producers (their `Cluster`)

    def connect(self, transactional_id: str, watch: ClientWatch) -> _Producer:
        """A transactional client that has not said anything yet."""
        return _Producer(producer_properties(self.settings, transactional_id), watch)

    def offsets_now(self, source: TopicPartition) -> tuple[int | None, int | None]:
        """Log start and end of a partition for an error's text, None where nobody answers."""
        try:
            return self.start_offsets([source])[source], self.end_offsets([source], committed=False)[source]
        except KstateError:
            return None, None

    def check_existence(self, sources: list[TopicPartition]) -> None:
        """ConfigError for the first partition that does not exist."""
        counts = self.partitions({source.topic for source in sources})
        for source in sources:
            count = counts[source.topic]
            if count is None or source.partition >= count:
                raise unknown_partition(source, count)

    # -- the administrator's requests

    def _administrator(self) -> AdminClient:
        if self._admin is None:
            self._admin = _created(AdminClient, admin_properties(self.settings), self._watch)
        return self._admin

    def _ask(self, doing: str, request: Callable[[], T]) -> T:
        """Put a question again while the cluster is settling, for as long as one request may take."""
        deadline = self.clock.monotonic() + REQUEST_SECONDS
        while True:
            try:
                answer = request()
            except TimeoutError as error:
                raise self._judged(ClientCallError("_TIMED_OUT", "no answer in time"), doing) from error
            except _CLIENT_ERRORS as error:
                fault = _fault(error)
                if fault.code not in SETTLING or self.clock.monotonic() >= deadline:
                    raise self._judged(fault, doing) from error
                if fault.code in _STALE:
                    self._admin = None
            else:
                self._watch.clear()
                return answer
            self.clock.sleep(_SETTLE_PAUSE)

    def _judged(self, fault: ClientCallError, doing: str) -> KstateError:
        """Our own error; why nobody answers (login, certificate, address) the client tells only when it is polled."""
        with suppress(*_CLIENT_ERRORS):
            self._administrator().poll(0)
        return self._watch.judged(fault, doing)

    def _described(self, names: list[str]) -> dict[str, list[Any] | None]:
        """The partitions of topics, None for a topic that does not exist."""
        futures = self._administrator().describe_topics(TopicCollection(names), request_timeout=REQUEST_SECONDS)
        found: dict[str, list[Any] | None] = {}
        for name, future in futures.items():
            try:
                found[name] = future.result(REQUEST_SECONDS + 1).partitions
            except KafkaException as error:
                if _fault(error).code != "UNKNOWN_TOPIC_OR_PART":
                    raise
                found[name] = None
        return found

    def _create(self, topics: list[TopicSpec]) -> None:
        new = [NewTopic(t.name, t.partitions, self.settings.replication, config=dict(t.config)) for t in topics]
        futures = self._administrator().create_topics(new, request_timeout=REQUEST_SECONDS)
        for future in futures.values():
            try:
                future.result(REQUEST_SECONDS + 1)
            except KafkaException as error:
                if _fault(error).code != "TOPIC_ALREADY_EXISTS":
                    raise

    def _await_leaders(self, names: list[str]) -> None:
        deadline = self.clock.monotonic() + _LEADERS_SECONDS
        while waiting := self._leaderless(names):
            if self.clock.monotonic() >= deadline:
                raise RetryableError(f"Topics {waiting} have partitions without a leader after {_LEADERS_SECONDS} s.")
            self.clock.sleep(_SETTLE_PAUSE)

    def _leaderless(self, names: list[str]) -> list[str]:
        described = self._ask(f"leaders of {names}", lambda: self._described(names)) if names else {}
        return [n for n, found in described.items() if not found or any(p.leader is None for p in found)]

    def _offsets(
        self, sources: list[TopicPartition], spec: OffsetSpec, isolation: IsolationLevel, lowest: int = 0
    ) -> dict[TopicPartition, int]:
        doing = f"offsets of {', '.join(map(str, sources[:5]))}{' …' if len(sources) > 5 else ''}"
        found = self._ask(doing, lambda: self._list_offsets(sources, spec, isolation)) if sources else {}
        if any(offset < lowest for offset in found.values()):
            raise unreachable(self.settings.bootstrap_servers, doing, self._watch.trouble)
        return found

    def _delete_records(self, places: list[ClientPartition]) -> None:
        futures = self._administrator().delete_records(places, request_timeout=REQUEST_SECONDS)
        for future in futures.values():
            future.result(REQUEST_SECONDS + 1)

    def _list_offsets(
        self, sources: list[TopicPartition], spec: OffsetSpec, isolation: IsolationLevel
    ) -> dict[TopicPartition, int]:
        asked = {ClientPartition(s.topic, s.partition): s for s in sources}
        futures = self._administrator().list_offsets(
            dict.fromkeys(asked, spec), isolation_level=isolation, request_timeout=REQUEST_SECONDS
        )
        try:
            return {asked[key]: future.result(REQUEST_SECONDS + 1).offset for key, future in futures.items()}
        except KafkaException as error:
            if _fault(error).code in {"_NOENT", *NOT_THERE}:
                self.check_existence(sources)
            raise


def _guarded(call: Callable[P, T]) -> Callable[P, T]:
    """Turn the library's exceptions into ClientCallError."""

    @wraps(call)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return call(*args, **kwargs)
        except _CLIENT_ERRORS as error:
            raise _fault(error) from error

    return guarded


class _Consumer:
    """`ConsumerClient` over confluent_kafka.Consumer: messages become columns without a line of Python for each."""

    def __init__(self, properties: Properties, watch: ClientWatch) -> None:
        self._make = partial(_created, Consumer, properties, watch)
        self._client: Consumer | None = self._make()

    @_guarded
    def renew(self) -> None:
        self._client = self._make()

    @_guarded
    def assign(self, positions: Mapping[TopicPartition, int]) -> None:
        self._live.assign(_places(positions))

    @_guarded
    def reassign(self, positions: Mapping[TopicPartition, int], gone: Collection[TopicPartition]) -> None:
        """The library numbers the places of a partition and drops what was fetched for an earlier one."""
        if gone:
            self._live.incremental_unassign([ClientPartition(s.topic, s.partition) for s in gone])
        if positions:
            self._live.incremental_assign(_places(positions))

    @_guarded
    def consume(self, count_max: int, seconds: float) -> list[Run | Event]:
        messages = self._live.consume(count_max, seconds)
        errors = list(map(Message.error, messages))
        if not any(errors):
            return list(_runs(messages))
        found: list[Run | Event] = []
        begin = 0
        for index, error in enumerate(errors):
            if error:
                found += [*_runs(messages[begin:index]), _event(messages[index], error)]
                begin = index + 1
        return [*found, *_runs(messages[begin:])]

    def discard(self) -> None:
        """Drop the only reference: the library then ends the client without saying goodbye to a group."""
        self._client = None

    @property
    def _live(self) -> Consumer:
        if self._client is None:
            raise RuntimeError("the reader is closed")
        return self._client


def _places(positions: Mapping[TopicPartition, int]) -> list[ClientPartition]:
    return [ClientPartition(s.topic, s.partition, offset) for s, offset in positions.items()]


def _runs(messages: list[Message]) -> Iterator[Run]:
    """Records as columns, cut where the partition changes."""
    pairs = zip(map(Message.topic, messages), map(Message.partition, messages), strict=True)
    offsets = cast("list[int]", list(map(Message.offset, messages)))
    keys, values = list(map(Message.key, messages)), list(map(Message.value, messages))
    stamps = [stamp[1] for stamp in map(Message.timestamp, messages)]
    lo = 0
    for (topic, partition), run in groupby(cast("Iterator[tuple[str, int]]", pairs)):
        hi = lo + sum(1 for _ in run)
        yield Run(TopicPartition(topic, partition), offsets[lo:hi], keys[lo:hi], values[lo:hi], stamps[lo:hi])
        lo = hi


def _event(message: Message, error: KafkaError) -> Event:
    source = TopicPartition(message.topic() or "", cast("int", message.partition()))
    return Event(source, error.name(), error.str(), cast("int", message.offset()))


class _Producer:
    """`ProducerClient` over confluent_kafka.Producer."""

    def __init__(self, properties: Properties, watch: ClientWatch) -> None:
        self._client: Producer | None = _created(Producer, properties, watch)

    def init(self, seconds: float) -> None:
        """In slices: between them signals are handled, and a further call goes on where the last one was.

        A slice that is over says what it waited for last, say the markers of an earlier holder; so any trouble that
        may pass is waited for until the time is up.
        """
        until = time.monotonic() + seconds
        while True:
            try:
                return self._init(min(_SLICE_SECONDS, seconds))
            except ClientCallError as fault:
                if meaning(fault.code) is not Meaning.RETRY or time.monotonic() >= until:
                    raise
                time.sleep(_SLICE_PAUSE)

    @_guarded
    def _init(self, seconds: float) -> None:
        self._live.init_transactions(seconds)

    @_guarded
    def begin(self) -> None:
        self._live.begin_transaction()

    @_guarded
    def batch(self, topic: str, partition: int, messages: list[dict[str, Any]], callback: Callback | None) -> int:
        return self._live.produce_batch(topic, messages, partition, on_delivery=callback)

    @_guarded
    def single(self, topic: str, message: OutMessage, callback: Callback | None) -> None:
        self._live.produce(
            topic,
            message.get("value"),
            message.get("key"),
            message["partition"],
            on_delivery=callback,
            timestamp=message.get("timestamp", 0),
            headers=cast("Any", message.get("headers")),
        )

    @_guarded
    def poll(self, seconds: float) -> int:
        return self._live.poll(seconds)

    @_guarded
    def flush(self, seconds: float) -> int:
        return self._live.flush(seconds)

    @_guarded
    def commit(self, seconds: float) -> None:
        self._live.commit_transaction(seconds)

    @_guarded
    def abort(self, seconds: float) -> None:
        self._live.abort_transaction(seconds)

    def discard(self) -> None:
        """Drop the only reference: the library then ends the client without flush, abort or close."""
        self._client = None

    @property
    def _live(self) -> Producer:
        if self._client is None:
            raise RuntimeError("the producer is closed")
        return self._client


def _created(kind: Callable[..., T], properties: Properties, watch: ClientWatch) -> T:
    """A client; ConfigError when it does not like its properties."""
    try:
        return kind(dict(properties) | {"error_cb": watch.error}, logger=watch)
    except (KafkaException, TypeError, ValueError) as error:
        text = watch.scrubbed(str(error.args[0] if error.args else error))
        raise translated("_INVALID_ARG", text, "making a Kafka client") from None


def _fault(error: object) -> ClientCallError:
    """The library's error without the library; a fatal one may hide behind the SystemError of a callback."""
    cause = error.args[0] if isinstance(error, KafkaException) else error
    if isinstance(cause, KafkaError):
        return ClientCallError(cause.name(), cause.str())
    if isinstance(error, BufferError):
        return ClientCallError("_QUEUE_FULL", "the queue is full")
    if isinstance(error, SystemError) and error.__cause__ is not None:
        return _fault(error.__cause__)
    raise cast("Exception", error)

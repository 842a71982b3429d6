"""The contracts of the edges: log, store, codecs, and the log of events that people read. Log and store have one suite
each in tests/contract, run over memory and the real thing.

Everything here is batch-wise. Nothing blocks for long: waiting is done by the caller, between named steps
(kstate.clock).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypedDict, TypeVar, runtime_checkable

from kstate.plan import TopicPartition

T = TypeVar("T")


@dataclass(slots=True)
class Batch:
    """A run of records of one topic-partition, as columns of equal length, in offset order.

    `next_offset` is the reader's position behind the batch: past control records too once the end was reached. A batch
    without records only moves the position.
    """

    source: TopicPartition
    next_offset: int
    offsets: list[int] = field(default_factory=list)
    keys: list[bytes | None] = field(default_factory=list)
    values: list[bytes | None] = field(default_factory=list)
    timestamps: list[int] = field(default_factory=list)
    """Kafka's record timestamps, ms since the epoch."""
    placed_keys: list[bytes | None] | None = None
    """Message keys as they stand in the topic, where `keys` are canonical ones instead (`key_format="confluent"`)."""

    @property
    def message_keys(self) -> list[bytes | None]:
        """The keys as their producer wrote them: what decided the partition, and what a dead letter keeps."""
        return self.keys if self.placed_keys is None else self.placed_keys

    def __len__(self) -> int:
        return len(self.offsets)

    def head(self, count: int, next_offset: int) -> Batch:
        """The first `count` records, as a batch that ends at `next_offset`."""
        return Batch(
            self.source,
            next_offset,
            self.offsets[:count],
            self.keys[:count],
            self.values[:count],
            self.timestamps[:count],
            self.placed_keys and self.placed_keys[:count],
        )

    def tail(self, count: int) -> Batch:
        """All but the first `count` records; ends where this batch does."""
        return Batch(
            self.source,
            self.next_offset,
            self.offsets[count:],
            self.keys[count:],
            self.values[count:],
            self.timestamps[count:],
            self.placed_keys and self.placed_keys[count:],
        )


class OutMessage(TypedDict, total=False):
    """A record to produce; `partition` is always given: kstate computes it (kstate.keyspace.partition_of)."""

    key: bytes | None
    value: bytes | None
    partition: int
    timestamp: int
    headers: list[tuple[str, bytes]]


class Reader(Protocol):
    """A read_committed consumer with manual assignment and no consumer group."""

    def assign(self, positions: Mapping[TopicPartition, int]) -> None:
        """Read exactly these partitions, each from this offset; replaces the assignment and drops what was fetched."""
        ...

    def reassign(self, positions: Mapping[TopicPartition, int], gone: Iterable[TopicPartition] = ()) -> None:
        """Read also these partitions, each from this offset (one that is read already: go back or forward to it), and
        no longer those that are gone; all others stay as they are, with what was fetched of them.

        A partition that is in both is read.
        """
        ...

    def poll(self, max_records: int, timeout: float) -> list[Batch]:
        """At most `max_records` records in batches; waits up to `timeout` seconds for the first.

        Raises DataLossError for a position outside the log, ConfigError (access denied, topic gone), RetryableError.
        """
        ...

    def at_end(self) -> Mapping[TopicPartition, int]:
        """Partitions read to their last stable end, as far as polls have told since the assignment → position.

        Records of an open transaction may stand behind it. Nobody is asked, and the mapping lives: copy what you keep.
        """
        ...

    def close(self) -> None: ...


class Producer(Protocol):
    """A transactional producer with one transactional id (rules S3, S4, S11)."""

    @property
    def transactional_id(self) -> str: ...

    def open(self) -> None:
        """init_transactions: fences every earlier holder of the id. Raises FencedError, ConfigError, RetryableError."""
        ...

    def begin(self) -> None:
        """Start a transaction; TaintedError when the log of the client shows trouble since the last one."""
        ...

    def send(self, topic: str, messages: list[OutMessage], *, tracked: bool = False) -> None:
        """Hand over messages of the open transaction; all are accepted or it raises (S11). Tracked ones report
        offsets.
        """
        ...

    def flush(self) -> Mapping[TopicPartition, Sequence[int]]:
        """Wait until every message is delivered; the offsets of the tracked ones, by partition in sending order.

        Raises TaintedError unless delivered = accepted = handed over (S11).
        """
        ...

    def commit(self) -> None:
        """Commit. Returns only when it is sure; FencedError when fenced, TaintedError whenever the outcome is in
        doubt.
        """
        ...

    def abort(self) -> None:
        """Abort the open transaction; TaintedError when the outcome is in doubt."""
        ...

    def close(self) -> None:
        """Discard the producer without touching its transaction."""
        ...


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """A topic to create."""

    name: str
    partitions: int
    config: Mapping[str, str] = field(default_factory=dict)


class Log(Protocol):
    """Kafka, as kstate needs it. Every method may raise RetryableError and ConfigError (authorization, unknown
    topic).
    """

    def cluster_id(self) -> str: ...

    def reader(self) -> Reader: ...

    def producer(self, transactional_id: str) -> Producer:
        """A producer that is not open yet."""
        ...

    def report(self, topic: str, message: OutMessage) -> None:
        """Send one record outside any transaction, without waiting (heartbeats only)."""
        ...

    def fence(self, transactional_id: str) -> None:
        """init_transactions on somebody else's id, then forget it (S2): returns only after it succeeded."""
        ...

    def partitions(self, topics: Iterable[str]) -> dict[str, int | None]:
        """Partition count by topic, None for a topic that does not exist."""
        ...

    def create_topics(self, topics: Sequence[TopicSpec]) -> None:
        """Create those that do not exist yet; returns when their partitions have leaders."""
        ...

    def start_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """The log start of each partition."""
        ...

    def end_offsets(self, partitions: Iterable[TopicPartition], *, committed: bool) -> dict[TopicPartition, int]:
        """The end of each partition: the last stable offset when `committed`, else the high watermark (H of S1)."""
        ...

    def delete_records(self, before: Mapping[TopicPartition, int]) -> None:
        """Move the log start of each partition up to an offset; one that is further on already stays."""
        ...

    def offsets_at(self, partitions: Iterable[TopicPartition], time_ms: int) -> dict[TopicPartition, int]:
        """The first offset at or after a time, the end where there is none."""
        ...


class Store(Protocol):
    """The local ordered key-value store of a worker; keys and values are bytes, order is bytewise.

    A `write` is atomic and durable in write order after the next `flush` (no write-ahead log): after a crash the
    content is that of some prefix of the writes. Raises CorruptStateError when the files are damaged.
    """

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]: ...

    def write(self, keys: Sequence[bytes], values: Sequence[bytes | None]) -> None:
        """Put, or delete where the value is None, all in one atomic batch."""
        ...

    def scan(self, lo: bytes, hi: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Pairs with lo <= key < hi, in order, as of the call; raises CorruptStateError instead of ending early."""
        ...

    def delete_range(self, lo: bytes, hi: bytes) -> None:
        """Delete lo <= key < hi."""
        ...

    def ingest(self, pairs: Iterable[tuple[bytes, bytes | None]]) -> None:
        """Add sorted pairs at once and durably, over what is there; None deletes."""
        ...

    def flush(self) -> None:
        """Make all writes durable."""
        ...

    def close(self) -> None: ...


class Codec(Protocol[T]):
    """Objects of one type to bytes and back (schemaless Avro). Raises DecodeError, and ValueError when encoding
    fails.
    """

    @property
    def schema(self) -> str:
        """Canonical schema text, as kept in the plan."""
        ...

    @property
    def fingerprint(self) -> bytes:
        """Of the schema, 8 bytes (kstate.schemas)."""
        ...

    def encode(self, value: T) -> bytes: ...

    def decode(self, data: bytes) -> T: ...

    def encode_many(self, values: Sequence[T]) -> list[bytes]: ...

    def decode_many(self, data: Sequence[bytes]) -> list[T]: ...


class KeyCodec(Protocol[T]):
    """Keys to canonical key bytes and back. Raises DecodeError, and ValueError when encoding fails."""

    def encode(self, key: T) -> bytes: ...

    def decode(self, data: bytes) -> T: ...


@runtime_checkable
class FramedCodec(Codec[T], Protocol[T]):
    """A codec of records framed with the id of their schema: a zero byte, the id as a u32, the Avro body.

    It reads what was written with any schema that resolves to its own.
    """

    def learn(self, values: Sequence[bytes | None]) -> None:
        """Fetch the schemas of all ids in these records that are not known yet; to be called before they are decoded.

        Raises RetryableError while the registry is away, ConfigError when a schema cannot be read as the record class.
        An id that the registry does not know is an error of its records: `decode` raises DecodeError.
        """
        ...

    def claim(self) -> int:
        """Register the schema of what is written, return its id. Raises RetryableError, ConfigError."""
        ...


class KeyFrames(Protocol):
    """Framed message keys of one input to canonical key bytes."""

    def canonical(self, keys: Sequence[bytes | None]) -> list[bytes | None]:
        """A key that cannot be read stays the object that it is, see `fault`. Raises RetryableError, ConfigError."""
        ...

    def fault(self, key: bytes) -> str:
        """Why a key cannot be read."""
        ...


class Registry(Protocol):
    """Schemas by id. Every method may raise RetryableError (it is away) and ConfigError (it refuses)."""

    @property
    def name(self) -> str:
        """As shown to people: the URL without credentials, or the folder."""
        ...

    def schema(self, schema_id: int) -> str | None:
        """The text of a schema, None for an id that is not there."""
        ...

    def register(self, subject: str, schema: str) -> int:
        """The id of a schema under a subject, registered if it is not there yet; ConfigError when that is refused."""
        ...


class Codecs(Protocol):
    """Where codecs come from: by Python type, as written in the operator's declarations."""

    def value(self, type_: Any) -> Codec[Any]:
        """For a record class or a state's type; ConfigError when the type has no Avro form."""
        ...

    def resolving(self, type_: Any, writer: str) -> Callable[[Sequence[bytes]], list[Any]]:
        """Reads values that another schema (canonical text) wrote as the type's; ConfigError when it cannot."""
        ...

    def key(self, type_: Any) -> KeyCodec[Any]:
        """For a key type; ConfigError for one without canonical bytes (kstate.keys)."""
        ...

    def framed(self, type_: Any, topic: str) -> FramedCodec[Any]:
        """For the framed values of a topic, subject `<topic>-value`; ConfigError when no registry is set.

        The first `encode` claims the schema's id.
        """
        ...

    def key_frames(self, type_: Any, topic: str) -> KeyFrames:
        """For the framed keys of a topic; NoneType: of any type, by the schemas they were written with."""
        ...


class EventLog(Protocol):
    """A structured logger for people: what happened, with fields; `reason` is the field that says why."""

    def debug(self, event: str, **fields: Any) -> object: ...

    def info(self, event: str, **fields: Any) -> object: ...

    def warning(self, event: str, **fields: Any) -> object: ...

    def error(self, event: str, **fields: Any) -> object: ...

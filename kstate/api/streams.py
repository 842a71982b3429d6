"""Inputs and outputs: the typed ends of an operator, and the edges between operators.

`Input(Record, topic="t")` reads a user's topic, `Input(Other.output)` what another operator emits: an internal stream,
or an ordinary topic when that output names one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Generic, Literal, TypeVar, overload

from kstate.api.context import BatchContext, Context
from kstate.api.declaration import Declaration

R = TypeVar("R")
O = TypeVar("O")

WireFormat = Literal["raw", "confluent"]
"""How records stand in a topic: schemaless Avro, or framed with the id of their schema in a registry."""

Partitioner = Literal["murmur2", "crc32", "unchecked"]
"""How the records of a topic were placed: as Java producers do, as librdkafka does by default, or do not check."""


@dataclass(frozen=True, slots=True)
class OutputOptions:
    """An output as declared."""

    record: Any
    topic: str | None = None
    key: str | Callable[[Any], Any] | None = None
    timestamp: Literal["event", "now"] = "event"
    format: WireFormat = "raw"


@dataclass(frozen=True, slots=True)
class InputOptions:
    """An input as declared; `source` is a record class or the output of another operator."""

    source: Any
    topic: str | None = None
    key: str | None = None
    event_time: str | Callable[[Any], int] | None = None
    lateness: timedelta = timedelta(0)
    ahead: timedelta = timedelta(hours=1)
    start: Literal["earliest", "latest"] | datetime = "earliest"
    rekey: str | Callable[[Any], Any] | None = None
    partitioner: Partitioner = "murmur2"
    format: WireFormat = "raw"
    key_format: WireFormat = "raw"


@dataclass(frozen=True, slots=True)
class TableOptions:
    """A table as declared."""

    record: Any
    topic: str
    partitioner: Partitioner = "murmur2"
    format: WireFormat = "raw"
    key_format: WireFormat = "raw"
    name: str | None = None


class Output(Declaration[OutputOptions], Generic[R]):
    """Where an operator emits records of one class; without `topic=` an internal stream to other operators.

    `key=` is the field, or a function of the record, that gives the message key; without it the key is the current key.
    `timestamp="now"` writes the broker's clock instead of the event time into a user's topic, which is faster.
    `format="confluent"` frames records with their schema's id in the registry.
    """

    def __init__(
        self,
        record: type[R],
        /,
        *,
        topic: str | None = None,
        key: str | Callable[[R], Any] | None = None,
        timestamp: Literal["event", "now"] = "event",
        format: WireFormat = "raw",  # noqa: A002 - the word that users know
    ) -> None:
        self.declared = OutputOptions(record, topic, key, timestamp, format)

    def emit(self, record: R, /, *, event_time: int | None = None) -> None:
        """Send a record when the epoch commits; `event_time` in ms since the epoch, by default that of the call."""
        self.unbound("emit", record, event_time)

    def emit_many(
        self, records: Sequence[R], /, *, keys: Sequence[Any] | None = None, event_times: Sequence[int] | None = None
    ) -> None:
        """Send records when the epoch commits; `keys` and `event_times` have one item per record.

        In a `.batch` handler there is no current key: an output without `key=` needs `keys`, and without `event_times`
        the records must be as many as the batch has, each takes the event time of its row.
        """
        self.unbound("emit_many", records, keys, event_times)


class Input(Declaration[InputOptions], Generic[R]):
    """Where an operator reads records of one class; `@input.each` or `@input.batch` attaches the handler.

    `key=` names the field that must equal the message key (a record that differs is rejected). `event_time=` is a field
    (int, ms since the epoch, or a timestamp) or a function that gives ms (one that raises fails its record); without it
    the event time is Kafka's timestamp, which the watermark follows then. `lateness=` is how much out of order event
    times may be; a record more than `ahead=` ahead of the worker's clock is rejected, it would make all others late.
    `start=` is where a job begins that has not read the topic before. `rekey=` is the field, or a function of the
    record, to read by instead of the message key: a hop through a topic of kstate's own (kstate.api.rekey).
    `partitioner=` is how foreign producers placed the records, `format=` and `key_format=` how values and keys stand in
    the topic.

    `Input(Other.output)` takes `rekey=` only: event time comes with the records, format and topic from the output. Of
    an output that names a topic it is an ordinary input of that topic, whose event time is Kafka's timestamp.
    """

    @overload
    def __init__(self, source: Output[R], /, *, rekey: str | Callable[[R], Any] | None = None) -> None: ...
    @overload
    def __init__(
        self,
        source: type[R],
        /,
        *,
        topic: str,
        key: str | None = None,
        event_time: str | Callable[[R], int] | None = None,
        lateness: timedelta = timedelta(0),
        ahead: timedelta = timedelta(hours=1),
        start: Literal["earliest", "latest"] | datetime = "earliest",
        rekey: str | Callable[[R], Any] | None = None,
        partitioner: Partitioner = "murmur2",
        format: WireFormat = "raw",
        key_format: WireFormat = "raw",
    ) -> None: ...
    def __init__(self, source: Any, /, **options: Any) -> None:
        if isinstance(source, Output) and (foreign := sorted(options.keys() - {"rekey"})):
            raise TypeError(
                f"Input({source}) takes rekey= only, not {', '.join(f'{name}=' for name in foreign)}: time, format and "
                "place of these records are decided where they are read from a topic first."
            )
        if unknown := sorted(options.keys() - set(InputOptions.__match_args__)):
            known = ", ".join(f"{name}=" for name in InputOptions.__match_args__[1:])
            raise TypeError(f"Input() has no option {', '.join(f'{name}=' for name in unknown)}: they are {known}")
        self.declared = InputOptions(source, **options)
        self.handlers: tuple[Callable[[Any, Any, Context], None], ...] = ()
        self.batch_handlers: tuple[Callable[[Any, Any, BatchContext], None], ...] = ()

    def each(self, handler: Callable[[O, R, Context], None], /) -> Callable[[O, R, Context], None]:
        """Decorator: call the method once per record; the call is atomic."""
        self.handlers = (*self.handlers, handler)
        return handler

    def batch(
        self, handler: Callable[[O, Sequence[R], BatchContext], None], /
    ) -> Callable[[O, Sequence[R], BatchContext], None]:
        """Decorator: call the method with many records of many keys, in order; never across a due timer.

        The call is atomic. When it raises it is repeated with halves of the batch until the culprits are found, so what
        it does to a record must not depend on which others it comes with.
        """
        self.batch_handlers = (*self.batch_handlers, handler)
        return handler


class Table(Declaration[TableOptions], Generic[R]):
    """The latest record of each key of a compacted topic that is partitioned like the operator's inputs.

    At a start it is read to its end before the first record of the inputs; afterwards there is no order between them. A
    record without value (tombstone) deletes its key. It does not count for the watermark.
    """

    def __init__(
        self,
        record: type[R],
        /,
        *,
        topic: str,
        partitioner: Partitioner = "murmur2",
        format: WireFormat = "raw",  # noqa: A002 - the word that users know
        key_format: WireFormat = "raw",
        name: str | None = None,
    ) -> None:
        self.declared = TableOptions(record, topic, partitioner, format, key_format, name)
        self.handlers: tuple[Callable[[Any, Any, Context], None], ...] = ()

    def get(self) -> R | None:
        """The record of the current key, None when it has none."""
        self.unbound("get")

    def get_many(self, keys: Sequence[Any], /) -> list[R | None]:
        """The record of each of these keys of the current batch."""
        self.unbound("get_many", keys)

    def changed(self, handler: Callable[[O, R | None, Context], None], /) -> Callable[[O, R | None, Context], None]:
        """Decorator: call the method after a record was taken in, with None after a deletion; the call is atomic."""
        self.handlers = (*self.handlers, handler)
        return handler

"""Inputs and outputs: the typed ends of an operator, and the edges between operators.

`Input(Record, topic="t")` reads a user's topic, `Input(Other.output)` what another operator emits: an internal stream,
or an ordinary topic when that output names one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Generic, Literal, TypeVar, overload

from kstate.api.context import Context
from kstate.api.declaration import Declaration

R = TypeVar("R")
O = TypeVar("O")

Partitioner = Literal["murmur2", "crc32", "unchecked"]
"""How the records of a topic were placed: as Java producers do, as librdkafka does by default, or do not check."""


@dataclass(frozen=True, slots=True)
class OutputOptions:
    """An output as declared."""

    record: Any
    topic: str | None = None
    key: str | Callable[[Any], Any] | None = None
    timestamp: Literal["event", "now"] = "event"


@dataclass(frozen=True, slots=True)
class InputOptions:
    """An input as declared; `source` is a record class or the output of another operator."""

    source: Any
    topic: str | None = None
    key: str | None = None
    event_time: str | Callable[[Any], int] | None = None
    lateness: timedelta = timedelta(0)
    start: Literal["earliest", "latest"] | datetime = "earliest"
    partitioner: Partitioner = "murmur2"


class Output(Declaration[OutputOptions], Generic[R]):
    """Where an operator emits records of one class; without `topic=` an internal stream to other operators.

    `key=` is the field, or a function of the record, that gives the message key; without it the key is the current key.
    `timestamp="now"` writes the broker's clock instead of the event time into a user's topic, which is faster.
    """

    def __init__(
        self,
        record: type[R],
        /,
        *,
        topic: str | None = None,
        key: str | Callable[[R], Any] | None = None,
        timestamp: Literal["event", "now"] = "event",
    ) -> None:
        self.declared = OutputOptions(record, topic, key, timestamp)

    def emit(self, record: R, /, *, event_time: int | None = None) -> None:
        """Send a record when the epoch commits; `event_time` in ms since the epoch, by default that of the call."""
        self.unbound("emit", record, event_time)


class Input(Declaration[InputOptions], Generic[R]):
    """Where an operator reads records of one class; `@input.each` attaches the handler.

    `key=` names the field that must equal the message key (a record that differs is rejected). `event_time=` is a field
    or function, ms since the epoch, by default Kafka's timestamp; `lateness=` how much out of order it may be. `start=`
    is where a new application begins. `partitioner=` is how foreign producers placed the records.
    """

    @overload
    def __init__(self, source: Output[R], /) -> None: ...
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
        start: Literal["earliest", "latest"] | datetime = "earliest",
        partitioner: Partitioner = "murmur2",
    ) -> None: ...
    def __init__(self, source: Any, /, **options: Any) -> None:
        self.declared = InputOptions(source, **options)
        self.handlers: tuple[Callable[[Any, Any, Context], None], ...] = ()

    def each(self, handler: Callable[[O, R, Context], None], /) -> Callable[[O, R, Context], None]:
        """Decorator: call the method once per record; the call is atomic."""
        self.handlers = (*self.handlers, handler)
        return handler

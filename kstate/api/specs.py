"""A job as plain values: what the engine is built from, free of the classes that users wrote it with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from kstate.api.context import Context
from kstate.api.operator import Operator

Handler = Callable[[Any, Any, Context], None]
"""(operator instance, record, context), as a plain function."""


@dataclass(frozen=True, slots=True)
class InputSpec:
    """Where an operator reads; `name` is the attribute."""

    name: str
    topic: str
    record: Any
    internal: bool
    """An internal stream: framed records with event time, watermarks in-band."""
    key_field: str | None
    """Field that must equal the message key; a record that differs is rejected."""
    event_time: Callable[[Any], int] | None
    """Record → ms since the epoch; None: Kafka's timestamp, on internal streams that of the frame."""
    lateness_ms: int
    start: Literal["earliest", "latest"] | datetime
    partitioner: Literal["murmur2", "crc32", "unchecked"]
    handler: Handler
    source_uid: str | None
    """The operator at the other end of an internal stream."""


@dataclass(frozen=True, slots=True)
class OutputSpec:
    """Where an operator emits; `name` is the attribute."""

    name: str
    topic: str
    record: Any
    key: str | Callable[[Any], Any] | None
    """Field or function that gives the message key; None: the current key, its bytes as they came in."""
    key_type: Any | None
    """Type of the message key; Any: as the function returns it; None: unknown, the bytes that came in."""
    internal: bool
    timestamp: Literal["event", "now"]


@dataclass(frozen=True, slots=True)
class StateSpec:
    """A state: `name` is its identity in the backups, `attribute` where the handle goes."""

    name: str
    attribute: str
    type: Any
    has_default: bool
    default: Any


@dataclass(frozen=True, slots=True)
class OperatorSpec:
    """An operator; `key_type` is NoneType for Operator[None]."""

    uid: str
    cls: type[Operator[Any]]
    key_type: Any
    inputs: tuple[InputSpec, ...]
    outputs: tuple[OutputSpec, ...]
    states: tuple[StateSpec, ...]


@dataclass(frozen=True, slots=True)
class Topology:
    """A job whose wiring holds.

    Invariants: uids are unique, an operator reads a topic once, every internal stream has one writer and a reader.
    """

    app: str
    operators: tuple[OperatorSpec, ...]
    epoch_ms: int

    def operator(self, uid: str) -> OperatorSpec:
        """The operator with this uid; KeyError when there is none."""
        for spec in self.operators:
            if spec.uid == uid:
                return spec
        raise KeyError(uid)

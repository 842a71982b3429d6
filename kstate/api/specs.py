"""A job as plain values: what the engine is built from, free of the classes that users wrote it with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TypeVar

from kstate.api.operator import Operator
from kstate.api.streams import Partitioner, WireFormat
from kstate.api.timers import TimeScale
from kstate.api.windows import Hopping, Session, Tumbling

Handler = Callable[[Any, Any, Any], None]
"""(operator instance, record or records, context), as a plain function."""

S = TypeVar("S", bound="StateSpec")


@dataclass(frozen=True, slots=True, kw_only=True)
class InputSpec:
    """Where an operator reads; `name` is the attribute."""

    name: str
    topic: str
    record: Any
    internal: bool
    """An internal stream: framed records with event time, watermarks in-band."""
    key_field: str | None = None
    """Field that must equal the message key; a record that differs is rejected."""
    event_time: Callable[[Any], int] | None = None
    """Record → ms since the epoch; None: Kafka's timestamp, on internal streams that of the frame."""
    lateness_ms: int = 0
    ahead_ms: int = 3_600_000
    """How far an event time may be ahead of the worker's clock."""
    start: Literal["earliest", "latest"] | datetime = "earliest"
    partitioner: Partitioner = "murmur2"
    format: WireFormat = "raw"
    key_format: WireFormat = "raw"
    handler: Handler | None
    """None: a table without `.changed`."""
    batch: bool = False
    """The handler takes a sequence of records."""
    source_uid: str | None = None
    """The operator at the other end of an internal stream."""
    table: str | None = None
    """Attribute of the state that its records go to: a table."""


@dataclass(frozen=True, slots=True, kw_only=True)
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
    timestamp: Literal["event", "now"] = "event"
    format: WireFormat = "raw"
    timed: bool = False
    """An internal stream whose reader, or one further down, goes by event time: it carries watermarks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StateSpec:
    """A state: `name` is its identity in the backups, `attribute` where the handle goes, `type` that of its values.

    Each kind of state is a class of its own; `form` is a text that changes when stored values of one kind cannot be
    read as the other.
    """

    name: str
    attribute: str
    type: Any

    @property
    def form(self) -> str:
        """What is stored, beside the schema of the values."""
        return "value"


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueSpec(StateSpec):
    """One value per key."""

    has_default: bool
    default: Any
    ttl_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TableSpec(StateSpec):
    """The record of a compacted topic, per key."""

    @property
    def form(self) -> str:
        return "table"


@dataclass(frozen=True, slots=True, kw_only=True)
class ListSpec(StateSpec):
    """A list per key; subkey: the complement of the element's number (kstate.state.cells)."""

    ttl_ms: int | None = None

    @property
    def form(self) -> str:
        return "list"


@dataclass(frozen=True, slots=True, kw_only=True)
class MapSpec(StateSpec):
    """A mapping per key; subkey: the canonical bytes of the key within the map."""

    key_type: Any
    ttl_ms: int | None = None

    @property
    def form(self) -> str:
        return "map"


@dataclass(frozen=True, slots=True, kw_only=True)
class PartialSpec(StateSpec):
    """One object per key range."""

    initial: Callable[[], Any]

    @property
    def form(self) -> str:
        return "partial"


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowSpec(StateSpec):
    """A value per key and window; subkey: end and start of the window."""

    window: Tumbling | Hopping | Session
    default: Any
    merge: Callable[[Any, Any], Any] | None
    handler: Callable[..., None] | None
    """(operator instance, value, window, context)."""

    @property
    def form(self) -> str:
        return "window"


@dataclass(frozen=True, slots=True, kw_only=True)
class TimerSpec(StateSpec):
    """A deadline per key, or one per key and tag; the deadline is the expiry of an empty value (`type` NoneType)."""

    clock: TimeScale
    tag_type: Any
    """None: one deadline per key."""
    handler: Callable[..., None]
    """(operator instance, context), with tags (operator instance, tag, context)."""

    @property
    def form(self) -> str:
        return f"{self.clock} timer" if self.tag_type is None else f"{self.clock} timers"


@dataclass(frozen=True, slots=True)
class OperatorSpec:
    """An operator; `key_type` is NoneType for Operator[None]."""

    uid: str
    cls: type[Operator[Any]]
    key_type: Any
    inputs: tuple[InputSpec, ...]
    outputs: tuple[OutputSpec, ...]
    states: tuple[StateSpec, ...]
    hop_of: tuple[str, str] | None = None
    """(uid, input) of the operator whose `rekey=` made this one."""

    @property
    def timed(self) -> bool:
        """Whether the watermark decides anything here: windows, event-time timers, expiry."""
        return any(
            isinstance(state, WindowSpec)
            or (isinstance(state, TimerSpec) and state.clock == "event")
            or getattr(state, "ttl_ms", None) is not None
            for state in self.states
        )

    def states_of(self, kind: type[S]) -> list[S]:
        """The states of one kind, in order of declaration."""
        return [state for state in self.states if isinstance(state, kind)]


@dataclass(frozen=True, slots=True)
class Topology:
    """A job whose wiring holds.

    Invariants: uids are unique, an operator reads a topic once, every internal stream has one writer and a reader.
    """

    app: str
    operators: tuple[OperatorSpec, ...]
    epoch_ms: int
    dropped: tuple[str, ...] = ()
    on_error: Literal["dead-letter", "stop"] = "dead-letter"
    idle_ms: int = 30_000

    def operator(self, uid: str) -> OperatorSpec:
        """The operator with this uid; KeyError when there is none."""
        for spec in self.operators:
            if spec.uid == uid:
                return spec
        raise KeyError(uid)

    def hop_of(self, uid: str, name: str) -> OperatorSpec | None:
        """The operator that re-keys an input; its only input reads what the user declared. None without `rekey=`."""
        return next((spec for spec in self.operators if spec.hop_of == (uid, name)), None)

"""Windows: one value per key and span of event time, closed once, when the watermark has reached the span's end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Generic, NamedTuple, TypeVar

from kstate.api.context import Context
from kstate.api.declaration import Declaration

T = TypeVar("T")
O = TypeVar("O")


class Window(NamedTuple):
    """A half-open span of event time, ms since the epoch: start <= t < end."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Tumbling:
    """Windows side by side, aligned to 1970-01-01T00:00Z; each record is in one."""

    size: timedelta


@dataclass(frozen=True, slots=True)
class Hopping:
    """Windows of `size` that begin every `step`, aligned to 1970-01-01T00:00Z; a record is in size ÷ step of them."""

    size: timedelta
    step: timedelta


@dataclass(frozen=True, slots=True)
class Session:
    """Windows that end when no record has come for `gap`: [first, last + gap)."""

    gap: timedelta


@dataclass(frozen=True, slots=True)
class WindowOptions:
    """A window state as declared."""

    type: Any
    window: Tumbling | Hopping | Session
    default: Any
    merge: Callable[[Any, Any], Any] | None
    name: str | None


class WindowState(Declaration[WindowOptions], Generic[T]):
    """One value per key and window, from `default` on; `@state.closes` is called once per window, in order of its end.

    A window closes when the watermark reaches its end. Session windows that a record joins become one, their values by
    `merge=` (earlier, later).
    """

    def __init__(
        self,
        type_: type[T],
        window: Tumbling | Hopping | Session,
        /,
        *,
        default: T,
        merge: Callable[[T, T], T] | None = None,
        name: str | None = None,
    ) -> None:
        self.declared = WindowOptions(type_, window, default, merge, name)
        self.handlers: tuple[Callable[[Any, Any, Window, Context], None], ...] = ()

    def update(self, change: Callable[[T], T], /) -> bool:
        """Change the value of every window that the current event time is in and that is still open.

        False when none is: the record is late, nothing was changed (and the record is counted as late).
        """
        self.unbound("update", change)

    def items(self) -> Iterator[tuple[Window, T]]:
        """The open windows of the current key with their values, in order of their ends."""
        self.unbound("items")

    def closes(self, handler: Callable[[O, T, Window, Context], None], /) -> Callable[[O, T, Window, Context], None]:
        """Decorator: call the method with the last value of each window; its event time is end − 1."""
        self.handlers = (*self.handlers, handler)
        return handler

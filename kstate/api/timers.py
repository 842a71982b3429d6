"""Timers: a call at a later time, for the key that asked for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Generic, Literal, TypeVar

from kstate.api.context import Context
from kstate.api.declaration import Declaration

O = TypeVar("O")
K = TypeVar("K")

TimeScale = Literal["event", "processing"]
"""Which clock a timer follows: the watermark, or the worker's clock as read once per epoch."""


@dataclass(frozen=True, slots=True)
class TimerOptions:
    """A timer as declared; `tag_type` is None for one deadline per key."""

    clock: TimeScale
    name: str | None
    tag_type: Any = None


class Timer(Declaration[TimerOptions]):
    """One deadline per key: `set` replaces it, `@timer.fires` is called once when it is reached.

    An event-time timer fires before the first record that moves the watermark to its deadline or beyond; one set in the
    past fires as soon as the present call is over. Handlers see the deadline as event time. Timers are state: they
    survive crashes and move with their key. Those due together fire in order of (deadline, name, key, tag).
    """

    def __init__(self, *, clock: TimeScale = "event", name: str | None = None) -> None:
        self.declared = TimerOptions(clock, name)
        self.handlers: tuple[Callable[[Any, Context], None], ...] = ()

    def set(self, *, at: int | datetime | None = None, after: timedelta | None = None) -> None:
        """Fire `at` an instant (ms since the epoch, or a datetime with time zone), or `after` so long.

        `after` counts from the event time of the call, for a processing-time timer from the present processing time.
        """
        self.unbound("set", at, after)

    def get(self) -> int | None:
        """The deadline of the current key in ms since the epoch, None when it has none."""
        self.unbound("get")

    def cancel(self) -> None:
        """Forget the deadline of the current key."""
        self.unbound("cancel")

    def fires(self, handler: Callable[[O, Context], None], /) -> Callable[[O, Context], None]:
        """Decorator: call the method when a deadline is reached; the call is atomic."""
        self.handlers = (*self.handlers, handler)
        return handler


class TimerMap(Declaration[TimerOptions], Generic[K]):
    """Any number of deadlines per key, one per tag; otherwise as Timer. Tags are of the types message keys may have."""

    def __init__(self, tag_type: type[K], /, *, clock: TimeScale = "event", name: str | None = None) -> None:
        self.declared = TimerOptions(clock, name, tag_type)
        self.handlers: tuple[Callable[[Any, Any, Context], None], ...] = ()

    def set(self, tag: K, /, *, at: int | datetime | None = None, after: timedelta | None = None) -> None:
        """The deadline of a tag; see Timer.set."""
        self.unbound("set", tag, at, after)

    def get(self, tag: K, /) -> int | None:
        """The deadline of a tag in ms since the epoch, None when it has none."""
        self.unbound("get", tag)

    def cancel(self, tag: K, /) -> None:
        """Forget the deadline of a tag."""
        self.unbound("cancel", tag)

    def items(self) -> Iterator[tuple[K, int]]:
        """The tags of the current key with their deadlines, in the order of the tags' canonical bytes."""
        self.unbound("items")

    def clear(self) -> None:
        """Forget all deadlines of the current key."""
        self.unbound("clear")

    def fires(self, handler: Callable[[O, K, Context], None], /) -> Callable[[O, K, Context], None]:
        """Decorator: call the method with the tag when a deadline is reached; the call is atomic."""
        self.handlers = (*self.handlers, handler)
        return handler

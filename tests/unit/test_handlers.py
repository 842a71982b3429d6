"""Handlers that could never do their work are found before anything starts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from kstate import Context, Input, Job, Operator, Timer
from kstate.api.topology import examine


@dataclass(frozen=True, slots=True)
class Event:
    """Something happened."""

    id: int


def test_a_handler_that_could_never_work_is_refused() -> None:
    """Coroutines and generators would swallow every record in silence; a wrong number of arguments fails each."""

    class Wrong(Operator[str], uid="wrong"):
        asked = Input(Event, topic="asked")
        yielded = Input(Event, topic="yielded")
        short = Input(Event, topic="short")
        many = Input(Event, topic="many")
        tick = Timer()

        @asked.each  # type: ignore[arg-type]
        async def on_asked(self, event: Event, ctx: Context) -> None: ...

        @yielded.each  # type: ignore[arg-type]
        def on_yielded(self, event: Event, ctx: Context) -> Iterator[Event]:
            yield event

        @short.each  # type: ignore[arg-type]
        def on_short(self, event: Event) -> None: ...

        @many.batch
        def on_many(self, *everything: object) -> None: ...

        @tick.fires  # type: ignore[arg-type]
        def on_tick(self, tag: str, ctx: Context) -> None: ...

    found = [str(fault) for fault in examine(Job("wrong", [Wrong]))[1]]
    assert [each.split(", ", 1)[1].split(": ", 1)[0] for each in found] == [
        "input 'asked'",
        "input 'yielded'",
        "input 'short'",
        "timer 'tick'",
    ]
    assert "is async" in found[0]
    assert "instead of yield" in found[1]
    assert "is called with (self, record, ctx)" in found[2]
    assert "is called with (self, ctx)" in found[3]


def test_operators_come_in_a_list() -> None:
    """A class alone is an easy slip."""
    (fault,) = examine(Job("slip", Operator))[1]  # type: ignore[arg-type]
    assert "Job('slip', [Split, Count])" in str(fault)

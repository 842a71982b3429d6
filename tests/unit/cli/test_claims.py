"""The schemas of framed outputs have their ids before a worker joins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from kstate import Context, Input, Job, Operator, Output
from kstate.adapters.avro import AvroCodecs
from kstate.api.topology import resolve
from kstate.cli import running
from kstate.cli.running import RunnableJob, claim_schemas
from kstate.config import Settings
from kstate.testing.memory_registry import MemoryRegistry


@dataclass(frozen=True, slots=True)
class Line:
    text: str


class Copy(Operator[None], uid="copy"):
    """Two framed outputs and one that is not."""

    lines = Input(Line, topic="lines")
    one = Output(Line, topic="one", format="confluent")
    two = Output(Line, topic="two", format="confluent")
    bare = Output(Line, topic="bare")

    @lines.each
    def copy(self, line: Line, ctx: Context) -> None: ...


class Told:
    """A logger that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def debug(self, event: str, **fields: Any) -> None:
        self.lines.append(f"{event} {fields['topic']}")

    warning = debug


def test_a_registry_that_is_away_at_the_start_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """And said so, by the topic that needs it; each output is claimed once."""
    registry = MemoryRegistry()
    registry.away = True
    pauses: list[float] = []

    class Clock:
        def sleep(self, seconds: float) -> None:
            pauses.append(seconds)
            registry.away = len(pauses) < 3

    monkeypatch.setattr(running, "SystemClock", Clock)
    told = Told()
    codecs = AvroCodecs(registry)
    claim_schemas(RunnableJob(resolve(Job("copies", [Copy])), Settings(), codecs), told)
    waiting = "waiting for the schema registry one"
    assert told.lines == [waiting, waiting, waiting, "schema claimed one", "schema claimed two"]
    registry.away = True
    assert codecs.framed(Line, "one").encode(Line("x")) == b"\0\0\0\0\1\2x"

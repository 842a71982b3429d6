"""A job in a few lines: what each operator reads, keeps and writes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

from kstate.api.specs import (
    ListSpec,
    MapSpec,
    PartialSpec,
    StateSpec,
    TableSpec,
    TimerSpec,
    Topology,
    WindowSpec,
)
from kstate.api.windows import Hopping, Session, Tumbling
from kstate.typeinfo import type_name


def summary(topology: Topology) -> Iterator[str]:
    """The job in a few lines: what each operator reads, keeps and writes."""
    for spec in topology.operators:
        hop = f"re-keys {'.'.join(spec.hop_of)}" if spec.hop_of else f"key {type_name(spec.key_type)}"
        yield f"  {spec.uid}  {hop}"
        for given in spec.inputs:
            kind = "  table" if given.table else "  batches" if given.batch else ""
            yield f"    reads  {given.topic}  {type_name(given.record)}{kind}"
        yield from (f"    keeps  {each.name}  {_kept(each)}" for each in spec.states if not isinstance(each, TableSpec))
        for output in spec.outputs:
            key = "" if output.key is None else f"  key {_named(output.key)}"
            yield f"    writes {output.topic}  {type_name(output.record)}{key}"


def _kept(state: StateSpec) -> str:
    """A state in a few words."""
    kind = type_name(state.type)
    match state:
        case ListSpec():
            text = f"list of {kind}"
        case MapSpec():
            text = f"map of {type_name(state.key_type)} to {kind}"
        case WindowSpec():
            text = f"{kind} per {_window(state.window)}"
        case PartialSpec():
            text = f"{kind} per key range"
        case TimerSpec():
            by = "" if state.tag_type is None else f" by {type_name(state.tag_type)}"
            text = f"{state.form}{by}"
        case _:
            text = kind
    ttl_ms = getattr(state, "ttl_ms", None)
    return text if ttl_ms is None else f"{text}, ttl {_span(timedelta(milliseconds=ttl_ms))}"


def _window(window: Tumbling | Hopping | Session) -> str:
    match window:
        case Tumbling(size):
            return f"window of {_span(size)}"
        case Hopping(size, step):
            return f"window of {_span(size)} every {_span(step)}"
        case Session(gap):
            return f"session with gaps below {_span(gap)}"


def _span(span: timedelta) -> str:
    return str(span).removesuffix(", 0:00:00")


def _named(key: str | Callable[[Any], Any]) -> str:
    """A field's or function's name."""
    return key if isinstance(key, str) else getattr(key, "__name__", repr(key)).replace("<lambda>", "by function")

"""States as declared - values, collections, windows, timers, tables, partial state - to their specs."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from types import NoneType
from typing import Any

from kstate.api.declaration import Declaration
from kstate.api.faults import Faults
from kstate.api.specs import (
    ListSpec,
    MapSpec,
    PartialSpec,
    StateSpec,
    TableSpec,
    TimerSpec,
    ValueSpec,
    WindowSpec,
)
from kstate.api.state import ListState, MapState, PartialState, ValueState
from kstate.api.streams import Table
from kstate.api.timers import Timer, TimerMap, TimeScale
from kstate.api.windows import Hopping, Session, Tumbling, WindowState
from kstate.keys import key_fault
from kstate.typeinfo import type_name


def state_spec(cls: type[Any], declared: Declaration[Any], faults: Faults) -> StateSpec | None:
    """The spec of a state; None for declarations that are none."""
    kind = next((kind for kind in _MAKERS if isinstance(declared, kind)), None)
    if kind is None:
        return None
    name = declared.declared.name
    where = f"operator {cls.uid!r}, {_WORDS.get(kind, 'state')} {declared.attribute!r}"
    if name is not None and not re.fullmatch(r"\S+", name):
        faults.add(where, f"name={name!r} is no name", "use a word without spaces")
    place = {"name": declared.attribute if name is None else name, "attribute": declared.attribute}
    return _MAKERS[kind](where, cls, declared, place, faults)


def _value(where: str, _cls: type[Any], declared: ValueState[Any], place: dict[str, str], faults: Faults) -> ValueSpec:
    options = declared.declared
    return ValueSpec(
        **place,
        type=options.type,
        has_default=options.has_default,
        default=options.default,
        ttl_ms=_ttl_ms(where, options.ttl, faults),
    )


def _list(where: str, _cls: type[Any], declared: ListState[Any], place: dict[str, str], faults: Faults) -> ListSpec:
    return ListSpec(**place, type=declared.declared.type, ttl_ms=_ttl_ms(where, declared.declared.ttl, faults))


def _map(where: str, _cls: type[Any], declared: MapState[Any, Any], place: dict[str, str], faults: Faults) -> MapSpec:
    options = declared.declared
    if fault := key_fault(options.key_type):
        faults.add(where, f"keys within the map: {fault}", "change the map's key type")
    ttl_ms = _ttl_ms(where, options.ttl, faults)
    return MapSpec(**place, type=options.type, key_type=options.key_type, ttl_ms=ttl_ms)


def _table(_where: str, _cls: type[Any], declared: Table[Any], place: dict[str, str], _faults: Faults) -> TableSpec:
    return TableSpec(**place, type=declared.declared.record)


def _partial(
    where: str, _cls: type[Any], declared: PartialState[Any], place: dict[str, str], faults: Faults
) -> PartialSpec:
    options = declared.declared
    missing = [name for name in ("split", "merge") if not callable(getattr(options.type, name, None))]
    if missing:
        what = f"{type_name(options.type)} has no method {' and no method '.join(missing)}"
        faults.add(where, what, "say how it is divided and joined: split(fraction) -> two objects, merge(other) -> one")
    if not callable(options.default):
        mend = f"initial={type_name(options.type)} or a function that makes the first object"
        faults.add(where, f"initial={options.default!r} cannot be called", mend)
    return PartialSpec(**place, type=options.type, initial=options.default)


def _window(
    where: str, cls: type[Any], declared: WindowState[Any], place: dict[str, str], faults: Faults
) -> WindowSpec:
    options, handler = declared.declared, None
    _window_faults(where, options.window, options.merge, faults)
    if options.default is None:
        faults.add(where, "its default is None, which is no value", "use the value of an empty window, such as 0 or ()")
    if declared.handlers:
        handler = faults.handler(where, cls, declared.handlers, f"{declared.attribute}.closes", "value, window, ctx")
    return WindowSpec(
        **place, type=options.type, window=options.window, default=options.default, merge=options.merge, handler=handler
    )


def _timer(
    where: str, cls: type[Any], declared: Timer | TimerMap[Any], place: dict[str, str], faults: Faults
) -> TimerSpec:
    options = declared.declared
    faults.choice(where, "clock", options.clock, TimeScale)
    if isinstance(declared, TimerMap) and (fault := key_fault(options.tag_type)):
        faults.add(where, f"its tags: {fault}", "change the type of the tags")
    taken = "tag, ctx" if isinstance(declared, TimerMap) else "ctx"
    handler = faults.handler(where, cls, declared.handlers, f"{declared.attribute}.fires", taken)
    return TimerSpec(**place, type=NoneType, clock=options.clock, tag_type=options.tag_type, handler=handler)


def _window_faults(where: str, window: Any, merge: object, faults: Faults) -> None:
    """Spans of nothing, gaps between windows, sessions that cannot become one."""
    match window:
        case Tumbling(size):
            faults.span_ms(where, "size", size)
        case Hopping(size, step):
            before = len(faults.found)
            faults.span_ms(where, "size", size)
            faults.span_ms(where, "step", step)
            if len(faults.found) == before and step > size:
                what = f"its step of {step} is longer than its size of {size}: what lies between would be in no window"
                faults.add(where, what, "use a step of at most the size")
        case Session(gap):
            faults.span_ms(where, "gap", gap)
        case _:
            faults.add(where, f"{window!r} is no window", "use Tumbling(size), Hopping(size, step) or Session(gap)")
    if isinstance(window, Session) and not callable(merge):
        mend = "merge=lambda earlier, later: … says what becomes of their values"
        faults.add(where, "sessions that a record joins become one, and it has no merge=", mend)
    elif merge is not None and isinstance(window, Tumbling | Hopping):
        faults.add(
            where, f"{type(window).__name__} windows never become one, merge= would not be called", "leave it out"
        )


def _ttl_ms(where: str, ttl: timedelta | None, faults: Faults) -> int | None:
    return None if ttl is None else faults.span_ms(where, "ttl", ttl)


_MAKERS: dict[type[Any], Callable[..., StateSpec]] = {
    ValueState: _value,
    ListState: _list,
    MapState: _map,
    Table: _table,
    PartialState: _partial,
    WindowState: _window,
    Timer: _timer,
    TimerMap: _timer,
}

_WORDS = {Table: "table", Timer: "timer", TimerMap: "timers"}
"""What a declaration is called in a fault where it is not 'state'."""

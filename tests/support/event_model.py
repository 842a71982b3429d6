"""What event time means, in the plainest words: one input partition, one record after the other, all in dicts.

A record raises the watermark, then what is due is called in order of (deadline, name, key, tag), then the record's
handler, then what that made due. No batches, epochs, key ranges, caches or stores: whatever those do, the engine must
answer as this does. The operator's own code runs on handles of this module.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial, reduce
from typing import Any

from kstate import UNKNOWN_TIME, Hopping, Job, Operator, Session, Tumbling, Window
from kstate.adapters.avro import AvroCodecs
from kstate.api.specs import ListSpec, MapSpec, OperatorSpec, StateSpec, TimerSpec, ValueSpec, WindowSpec
from kstate.api.topology import resolve
from tests.support.event_jobs import FAR_AHEAD, Event, Given, Heard

_CODECS = AvroCodecs()
_MS = timedelta(milliseconds=1)

Answer = tuple[str, int, Any]
"""Key, event time and record of an output."""


@dataclass(slots=True)
class Outcome:
    """What an input becomes."""

    answers: list[Answer] = field(default_factory=list)
    letters: list[tuple[str | None, str]] = field(default_factory=list)
    """Dead letters of calls that failed: key and reason."""
    late: int = 0
    """Updates that found no open window."""

    def by_key(self) -> dict[str, list[tuple[int, Any]]]:
        """The answers of each key, in order."""
        found: dict[str, list[tuple[int, Any]]] = {}
        for key, event_time, record in self.answers:
            found.setdefault(key, []).append((event_time, record))
        return found


class Model:
    """One operator with one external input over one of its partitions. It is its own context."""

    def __init__(self, operator: type[Operator[Any]]) -> None:
        (spec,) = resolve(Job("model", [operator])).operators
        self.spec: OperatorSpec = spec
        self.outcome = Outcome()
        self.event_time = 0
        self.watermark = UNKNOWN_TIME
        self.key = ""
        self.states: dict[str, dict[str, dict[Any, tuple[int, Any]]]] = {}
        """Key → state name → tag or window → (expiry, value)."""
        self._instance: Any = operator()
        self._due: dict[str, Callable[[Any, Any], None]] = {}
        for state in spec.states:
            setattr(self._instance, state.attribute, self._handle(state))
        for output in spec.outputs:
            setattr(self._instance, output.name, self)

    def run(self, given: Iterable[Given]) -> Outcome:
        """All records of the partition, in order."""
        (source,) = self.spec.inputs
        handler = source.handler
        assert handler is not None
        for each in given:
            event = each.event
            if event is None or each.key is None or not 0 < event.ts < FAR_AHEAD:
                continue
            self.watermark = max(self.watermark, event.ts - source.lateness_ms)
            self._fire()
            self._call(each.key, event.ts, partial(handler, self._instance, event, self))
            self._fire()
        return self.outcome

    # -- as context and output

    def emit(self, record: Heard, *, event_time: int | None = None) -> None:
        """An answer of the present call."""
        self.outcome.answers.append((self.key, self.event_time if event_time is None else event_time, record))

    def cells(self, name: str) -> dict[Any, tuple[int, Any]]:
        """Of the present key."""
        return self.states.setdefault(self.key, {}).setdefault(name, {})

    def sees(self, at: int) -> bool:
        """Whether what expires then is still there."""
        return self.event_time < at and self.watermark < at

    def expiry(self, ttl_ms: int | None) -> int:
        """When what is set now expires."""
        return 1 << 62 if ttl_ms is None else self.event_time + ttl_ms

    # -- what happens

    def _fire(self) -> None:
        while due := self._next_due():
            (at, name, _, _), key, tag = due
            spec = next(state for state in self.spec.states if state.name == name)
            assert isinstance(spec, TimerSpec | WindowSpec)
            _, value = self.states[key][name].pop(tag)
            handler = spec.handler
            if handler is None:
                continue
            arguments: tuple[Any, ...] = ()
            if isinstance(spec, WindowSpec):
                arguments = (value, tag)
            elif spec.tag_type is not None:
                arguments = (tag,)
            lead = 1 if isinstance(spec, WindowSpec) else 0
            self._call(key, at - lead, partial(handler, self._instance, *arguments, self))

    def _next_due(self) -> tuple[tuple[int, str, bytes, bytes], str, Any] | None:
        timed = {state.name: state for state in self.spec.states if isinstance(state, TimerSpec | WindowSpec)}
        found = [
            ((at, name, key.encode(), _subkey(timed[name], tag)), key, tag)
            for key, states in self.states.items()
            for name, cells in states.items()
            if name in timed
            for tag, (at, _) in cells.items()
            if at <= self.watermark
        ]
        return min(found, key=lambda item: item[0]) if found else None

    def _call(self, key: str, event_time: int, call: Callable[[], None]) -> None:
        """Atomically: a call that raises has changed nothing."""
        self.key = self._instance.key = key
        self.event_time = event_time
        before, answers = deepcopy(self.states.get(key, {})), len(self.outcome.answers)
        try:
            call()
        except ValueError as error:
            self.states[key] = before
            del self.outcome.answers[answers:]
            self.outcome.letters.append((key, str(error)))

    def _handle(self, state: StateSpec) -> Any:
        match state:
            case ValueSpec():
                return _Value(self, state)
            case ListSpec():
                return _List(self, state)
            case MapSpec():
                return _Map(self, state)
            case TimerSpec():
                return _Timers(self, state)
            case WindowSpec():
                return _Windows(self, state)
            case _:
                raise NotImplementedError(state)


class _Value:
    def __init__(self, model: Model, spec: ValueSpec) -> None:
        self._model, self._spec = model, spec

    def get(self) -> Any:
        at, value = self._model.cells(self._spec.name).get(None, (0, None))
        return value if self._model.sees(at) else self._spec.default

    def set(self, value: Any) -> None:
        self._model.cells(self._spec.name)[None] = (self._model.expiry(self._spec.ttl_ms), value)

    def pop(self) -> Any:
        value = self.get()
        self._model.cells(self._spec.name).clear()
        return value


class _List:
    """By number."""

    def __init__(self, model: Model, spec: ListSpec) -> None:
        self._model, self._spec = model, spec

    def get(self) -> tuple[Any, ...]:
        cells = self._model.cells(self._spec.name)
        return tuple(value for _, (at, value) in sorted(cells.items()) if self._model.sees(at))

    def append(self, value: Any) -> None:
        cells = self._model.cells(self._spec.name)
        cells[max(cells, default=0) + 1] = (self._model.expiry(self._spec.ttl_ms), value)

    def extend(self, values: Iterable[Any]) -> None:
        for value in values:
            self.append(value)

    def clear(self) -> None:
        self._model.cells(self._spec.name).clear()


class _Map:
    def __init__(self, model: Model, spec: MapSpec) -> None:
        self._model, self._spec = model, spec

    def __setitem__(self, key: Any, value: Any) -> None:
        self._model.cells(self._spec.name)[key] = (self._model.expiry(self._spec.ttl_ms), value)

    def items(self) -> Iterator[tuple[Any, Any]]:
        cells = self._model.cells(self._spec.name)
        in_order = sorted(cells.items(), key=lambda item: _CODECS.key(str).encode(item[0]))
        return iter([(key, value) for key, (at, value) in in_order if self._model.sees(at)])

    def pop(self, key: Any) -> None:
        self._model.cells(self._spec.name).pop(key, None)


class _Timers:
    """Of a Timer the only tag is None."""

    def __init__(self, model: Model, spec: TimerSpec) -> None:
        self._model, self._spec = model, spec

    def set(self, tag: Any = None, *, at: int | None = None, after: timedelta | None = None) -> None:
        deadline = self._model.event_time + after // _MS if after is not None else at
        assert deadline is not None
        self._cells[tag] = (deadline, None)

    def get(self, tag: Any = None) -> int | None:
        return self._cells.get(tag, (None, None))[0]

    def cancel(self, tag: Any = None) -> None:
        self._cells.pop(tag, None)

    def items(self) -> Iterator[tuple[Any, int]]:
        in_order = sorted(self._cells.items(), key=lambda item: _subkey(self._spec, item[0]))
        return iter([(tag, at) for tag, (at, _) in in_order])

    @property
    def _cells(self) -> dict[Any, tuple[int, Any]]:
        return self._model.cells(self._spec.name)


class _Windows:
    def __init__(self, model: Model, spec: WindowSpec) -> None:
        self._model, self._spec = model, spec

    def update(self, change: Callable[[Any], Any]) -> bool:
        cells = self._model.cells(self._spec.name)
        if isinstance(self._spec.window, Session):
            return self._update_session(cells, self._spec.window.gap // _MS, change)
        windows = [window for window in self._aligned() if window.end > self._model.watermark]
        for window in windows:
            _, value = cells.get(window, (0, self._spec.default))
            cells[window] = (window.end, change(value))
        return self._told(bool(windows))

    def items(self) -> Iterator[tuple[Window, Any]]:
        cells = self._model.cells(self._spec.name)
        in_order = sorted(cells.items(), key=lambda item: (item[0].end, item[0].start))
        return iter([(window, value) for window, (_, value) in in_order if window.end > self._model.watermark])

    def _aligned(self) -> Sequence[Window]:
        kind, now = self._spec.window, self._model.event_time
        assert isinstance(kind, Tumbling | Hopping)
        size = kind.size // _MS
        step = size if isinstance(kind, Tumbling) else kind.step // _MS
        return [Window(start, start + size) for start in range(now - size + 1, now + 1) if start % step == 0]

    def _update_session(self, cells: dict[Any, tuple[int, Any]], gap: int, change: Callable[[Any], Any]) -> bool:
        now = self._model.event_time
        met = [w for w, _ in self.items() if w.start < now + gap and now < w.end]
        if not met and now + gap <= self._model.watermark:
            return self._told(is_open=False)
        values = [cells.pop(window)[1] for window in met]
        merge = self._spec.merge
        assert merge is not None
        value = change(reduce(merge, values) if values else self._spec.default)
        session = Window(min([now, *(w.start for w in met)]), max([now + gap, *(w.end for w in met)]))
        cells[session] = (session.end, value)
        return self._told(is_open=True)

    def _told(self, is_open: bool) -> bool:
        self._model.outcome.late += not is_open
        return is_open


def _subkey(spec: StateSpec, tag: Any) -> bytes:
    """What orders the tags of a key that are due at the same instant."""
    if isinstance(spec, WindowSpec):
        return b"%020d%020d" % (tag.end, tag.start)
    assert isinstance(spec, TimerSpec)
    return b"" if tag is None else _CODECS.key(spec.tag_type).encode(tag)


def rows(given: Sequence[Given]) -> list[tuple[bytes | None, bytes | None]]:
    """As they stand in the topic: (message key, value)."""
    encode = _CODECS.value(Event).encode
    return [
        (None if each.key is None else each.key.encode(), b"\xff" if each.event is None else encode(each.event))
        for each in given
    ]

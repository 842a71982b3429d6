"""From a job as written to a topology the engine can run, or to one error that lists every mistake with its mend."""

from __future__ import annotations

import inspect
import operator
import re
import typing
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from types import NoneType
from typing import Any

from kstate.api.job import Job
from kstate.api.operator import Operator, declarations, key_type_of
from kstate.api.specs import Handler, InputSpec, OperatorSpec, OutputSpec, StateSpec, Topology, ValueSpec
from kstate.api.state import ValueState
from kstate.api.streams import Input, Output
from kstate.api.wiring import Fault, app_faults, duplicates, edge_faults, operator_faults
from kstate.errors import ConfigError
from kstate.plan import stream_topic
from kstate.typeinfo import record_fields, type_name

EPOCH_MIN = timedelta(milliseconds=10)
"""A commit takes 6-30 ms; below this an epoch is nothing but commits."""


def resolve(job: Job) -> Topology:
    """The topology of a job; raises one ConfigError that lists every fault of the wiring with its mend."""
    topology, faults = examine(job)
    if faults:
        listed = "".join(f"\n  {number}. {fault}" for number, fault in enumerate(faults, 1))
        raise ConfigError(f"Job {job.app!r} has {len(faults)} fault{'s' * (len(faults) > 1)} in its wiring:{listed}")
    return topology


def examine(job: Job) -> tuple[Topology, list[Fault]]:
    """The topology as far as it can be made, and every fault of the wiring; it is usable only without faults."""
    faults = [*app_faults(job.app), *_job_faults(job)]
    builder = _Builder(job.app, faults)
    operators = tuple(builder.operator(cls) for cls in dict.fromkeys(job.operators) if _runnable(cls))
    for spec in operators:
        faults.extend(operator_faults(job.app, spec))
    faults.extend(edge_faults(job.app, operators))
    return Topology(job.app, operators, job.epoch // timedelta(milliseconds=1)), faults


def _job_faults(job: Job) -> Iterator[Fault]:
    """Faults of the job itself: what it lists, and its epoch."""
    if job.epoch < EPOCH_MIN:
        yield Fault(
            "job", f"epoch is {job.epoch}, shorter than {EPOCH_MIN}", "use 50 ms or more; the default is one second"
        )
    if not job.operators:
        yield Fault("job", "it has no operators", "list their classes: Job('app', [Split, Count])")
    listed: list[Any] = list(job.operators)
    for cls in listed:
        if not (isinstance(cls, type) and issubclass(cls, Operator)):
            yield Fault(
                f"job, {cls!r}", "it is no operator class", "list classes that derive from Operator, not instances"
            )
        elif cls.uid is None:
            mend = f"class {cls.__name__}(…, uid='name'); a class without uid is an abstract base"
            yield Fault(f"operator class {cls.__qualname__}", "it has no uid", mend)
        elif fault := _constructor_fault(cls):
            yield Fault(f"operator {cls.uid!r}", fault, "make parameters class attributes and set up in open()")
    for uid in duplicates([cls.uid for cls in job.operators if _runnable(cls) and cls.uid]):
        classes = ", ".join(
            dict.fromkeys(cls.__qualname__ for cls in job.operators if _runnable(cls) and cls.uid == uid)
        )
        yield Fault(
            f"operator {uid!r}",
            f"its uid occurs twice in the job ({classes})",
            "a uid is an identity: give each its own",
        )


def _runnable(cls: Any) -> bool:
    return isinstance(cls, type) and issubclass(cls, Operator) and cls.uid is not None


def _constructor_fault(cls: type[Any]) -> str | None:
    """Why an operator cannot be made without arguments."""
    needed = inspect.signature(cls).parameters.values()
    names = [p.name for p in needed if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    return f"the engine makes it without arguments, but __init__ needs {', '.join(names)}" if names else None


class _Builder:
    """Makes specs of declarations; what is wrong goes to `faults`, and the spec gets a harmless stand-in."""

    def __init__(self, app: str, faults: list[Fault]) -> None:
        self._app = app
        self._faults = faults

    def operator(self, cls: type[Operator[Any]]) -> OperatorSpec:
        """The spec of an operator class that has a uid."""
        declared = declarations(cls)
        key_type = key_type_of(cls)
        uid = cls.uid or ""
        return OperatorSpec(
            uid,
            cls,
            key_type,
            tuple(self._input(cls, d, key_type) for d in declared.values() if isinstance(d, Input)),
            tuple(self._output(uid, d, key_type) for d in declared.values() if isinstance(d, Output)),
            tuple(self._state(uid, d) for d in declared.values() if isinstance(d, ValueState)),
        )

    def _input(self, cls: type[Operator[Any]], declared: Input[Any], key_type: Any) -> InputSpec:
        where = f"operator {cls.uid!r}, input {declared.attribute!r}"
        options = declared.declared
        record, topic, source_uid = options.source, options.topic or "", None
        if isinstance(options.source, Output):
            record, topic, source_uid = self._source(where, options.source)
        elif not options.topic:
            self._fault(where, "it has no topic", f"Input({type_name(record)}, topic='…')")
        if options.lateness < timedelta(0):
            self._fault(where, f"lateness is {options.lateness}", "use 0 or more: how much out of order records may be")
        self._start_fault(where, options.start)
        self._key_field_fault(where, record, options.key, key_type)
        return InputSpec(
            name=declared.attribute,
            topic=topic,
            record=record,
            internal=source_uid is not None,
            key_field=options.key,
            event_time=self._event_time(where, record, options.event_time),
            lateness_ms=max(0, options.lateness // timedelta(milliseconds=1)),
            start=options.start,
            partitioner=options.partitioner,
            handler=self._handler(where, cls, declared),
            source_uid=source_uid,
        )

    def _source(self, where: str, output: Output[Any]) -> tuple[Any, str, str | None]:
        """Record, topic and, of an internal stream, the upstream uid of `Input(Other.output)`."""
        options = output.declared
        if options.topic is not None:
            return options.record, options.topic, None
        uid = getattr(output.owner, "uid", None)
        if uid is None:
            mend = "read the output of a class that has a uid and is in the job"
            self._fault(where, f"its source {output} is an output of an abstract operator", mend)
            uid = type_name(output.owner)
        return options.record, stream_topic(self._app, uid, output.attribute), uid

    def _output(self, uid: str, declared: Output[Any], key_type: Any) -> OutputSpec:
        where = f"operator {uid!r}, output {declared.attribute!r}"
        options = declared.declared
        topic = stream_topic(self._app, uid, declared.attribute) if options.topic is None else options.topic
        if options.key is None:
            emitted = None if key_type is NoneType else key_type
        elif isinstance(options.key, str):
            emitted = self._field_type(where, options.record, options.key, "key=")
        else:
            emitted = _returned_type(options.key)
        return OutputSpec(
            name=declared.attribute,
            topic=topic,
            record=options.record,
            key=options.key,
            key_type=emitted,
            internal=options.topic is None,
            timestamp=options.timestamp,
        )

    def _state(self, uid: str, declared: ValueState[Any]) -> StateSpec:
        options = declared.declared
        if options.name is not None and not re.fullmatch(r"\S+", options.name):
            where = f"operator {uid!r}, state {declared.attribute!r}"
            self._fault(where, f"name={options.name!r} is no name", "use a word without spaces")
        name = declared.attribute if options.name is None else options.name
        return ValueSpec(
            name=name,
            attribute=declared.attribute,
            type=options.type,
            has_default=options.has_default,
            default=options.default,
            ttl_ms=None if options.ttl is None else options.ttl // timedelta(milliseconds=1),
        )

    def _handler(self, where: str, cls: type[Any], declared: Input[Any]) -> Handler:
        """The input's handler; a subclass that overrides the method by its name is heard."""
        if len(declared.handlers) != 1:
            name = declared.attribute
            what = "it has no handler" if not declared.handlers else f"it has {len(declared.handlers)} handlers"
            self._fault(
                where,
                what,
                f"decorate exactly one method with @{name}.each (an inherited one: {name}.each(Base.method))",
            )
            return _no_handler
        handler = declared.handlers[0]
        name = getattr(handler, "__name__", "")
        overridable = any(vars(base).get(name) is handler for base in cls.__mro__)
        return typing.cast(Handler, getattr(cls, name)) if overridable else handler

    def _event_time(
        self, where: str, record: Any, event_time: str | Callable[[Any], int] | None
    ) -> Callable[[Any], int] | None:
        if not isinstance(event_time, str):
            return event_time
        kind = self._field_type(where, record, event_time, "event_time=")
        if kind is datetime:
            return _milliseconds_of(event_time)
        if kind not in (int, Any):
            what = f"event_time={event_time!r} is a field of type {type_name(kind)}"
            self._fault(
                where, what, "use a field of type int, milliseconds since the epoch, a timestamp, or a function"
            )
        return operator.attrgetter(event_time)

    def _key_field_fault(self, where: str, record: Any, key: str | None, key_type: Any) -> None:
        if key is None:
            return
        kind = self._field_type(where, record, key, "key=")
        if Any not in (kind, key_type) and key_type is not NoneType and kind != key_type:
            what = f"key={key!r} is a field of type {type_name(kind)}, the operator's key is {type_name(key_type)}"
            self._fault(where, what, "name the field that is the message key, or change K of Operator[K]")

    def _start_fault(self, where: str, start: object) -> None:
        if isinstance(start, datetime):
            if start.tzinfo is None:
                self._fault(where, f"start={start} has no time zone", "datetime(…, tzinfo=UTC)")
        elif start not in ("earliest", "latest"):
            self._fault(where, f"start={start!r}", "use 'earliest', 'latest' or a datetime with time zone")

    def _field_type(self, where: str, record: Any, name: str, option: str) -> Any:
        """Type of a record's field; Any, after a fault, when it has none of this name."""
        fields = record_fields(record) or {}
        if name not in fields:
            known = ", ".join(fields) or "none"
            self._fault(where, f"{option}{name!r} is no field of {type_name(record)}", f"its fields are: {known}")
        return fields.get(name, Any)

    def _fault(self, where: str, what: str, mend: str) -> None:
        self._faults.append(Fault(where, what, mend))


def _returned_type(function: Callable[..., Any]) -> Any:
    """What a key function says it returns; Any when it says nothing, as a lambda does."""
    try:
        return typing.get_type_hints(function).get("return", Any)
    except (NameError, TypeError):
        return Any


def _milliseconds_of(name: str) -> Callable[[Any], int]:
    field = operator.attrgetter(name)
    epoch, step = datetime(1970, 1, 1, tzinfo=UTC), timedelta(milliseconds=1)
    return lambda record: int((field(record) - epoch) // step)


def _no_handler(_operator: Any, _record: Any, _context: Any) -> None:
    raise AssertionError("a topology with faults is never run")

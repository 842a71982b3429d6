"""Inputs, tables and outputs as declared to their specs."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from types import NoneType
from typing import Any, Literal, TypeVar

from kstate.api.faults import Faults, returned_type
from kstate.api.operator import Operator
from kstate.api.specs import InputSpec, OutputSpec
from kstate.api.streams import Input, Output, Partitioner, Table, WireFormat
from kstate.plan import stream_topic
from kstate.times import since_epoch_ms
from kstate.typeinfo import type_name


def input_spec(app: str, cls: type[Operator[Any]], declared: Input[Any], key_type: Any, faults: Faults) -> InputSpec:
    """The spec of an input as it is declared, without regard to `rekey=`."""
    where = f"operator {cls.uid!r}, input {declared.attribute!r}"
    options = declared.declared
    spec = _source(app, where, declared, faults)
    _start_fault(where, options.start, faults)
    _key_fault(where, spec.record, options.key, key_type, faults)
    for name, format_ in (("format", options.format), ("key_format", options.key_format)):
        faults.choice(where, name, format_, WireFormat)
    faults.choice(where, "partitioner", options.partitioner, Partitioner)
    batch, attribute = bool(declared.batch_handlers), declared.attribute
    decorator, taken = f"{attribute}.each", "record, ctx"
    if batch and not declared.handlers:
        decorator, taken = f"{attribute}.batch", "records, ctx"
    handler = faults.handler(where, cls, (*declared.handlers, *declared.batch_handlers), decorator, taken)
    return replace(
        spec,
        key_field=options.key,
        event_time=_event_time(where, spec.record, options.event_time, faults),
        lateness_ms=faults.span_ms(where, "lateness", options.lateness, timedelta(0)),
        ahead_ms=faults.span_ms(where, "ahead", options.ahead),
        start=options.start,
        partitioner=options.partitioner,
        key_format=options.key_format,
        handler=handler,
        batch=batch,
    )


def table_spec(cls: type[Operator[Any]], declared: Table[Any], faults: Faults) -> InputSpec:
    """The input that a table is fed by."""
    where = f"operator {cls.uid!r}, table {declared.attribute!r}"
    options, handler = declared.declared, None
    for name, format_ in (("format", options.format), ("key_format", options.key_format)):
        faults.choice(where, name, format_, WireFormat)
    faults.choice(where, "partitioner", options.partitioner, Partitioner)
    if declared.handlers:
        handler = faults.handler(where, cls, declared.handlers, f"{declared.attribute}.changed", "record, ctx")
    return InputSpec(
        name=declared.attribute,
        topic=options.topic,
        record=options.record,
        internal=False,
        partitioner=options.partitioner,
        format=options.format,
        key_format=options.key_format,
        handler=handler,
        table=declared.attribute,
    )


def output_spec(app: str, uid: str, declared: Output[Any], key_type: Any, faults: Faults) -> OutputSpec:
    """The spec of an output."""
    where = f"operator {uid!r}, output {declared.attribute!r}"
    options = declared.declared
    faults.choice(where, "timestamp", options.timestamp, Literal["event", "now"])
    faults.choice(where, "format", options.format, WireFormat)
    if options.topic is None and options.format != "raw":
        faults.add(
            where, f"format={options.format!r} is of no use on an internal stream", "leave it out, or set topic="
        )
    if options.key is None:
        emitted = None if key_type is NoneType else key_type
    else:
        emitted = key_type_of_option(where, options.record, options.key, "key=", faults)
    return OutputSpec(
        name=declared.attribute,
        topic=stream_topic(app, uid, declared.attribute) if options.topic is None else options.topic,
        record=options.record,
        key=options.key,
        key_type=emitted,
        internal=options.topic is None,
        timestamp=options.timestamp,
        format=options.format,
    )


def key_type_of_option(where: str, record: Any, key: str | Callable[[Any], Any], option: str, faults: Faults) -> Any:
    """Type of the key that a field or function gives; Any when nothing is known."""
    if isinstance(key, str):
        return faults.field_type(where, record, key, option)
    faults.function(where, option, key)
    return returned_type(key)


def _source(app: str, where: str, declared: Input[Any], faults: Faults) -> InputSpec:
    """Record, topic and format: of a user's topic, or of the output that is read."""
    options = declared.declared
    if not isinstance(options.source, Output):
        source, topic, uid, format_ = options.source, options.topic or "", None, options.format
    else:
        output = options.source.declared
        source, topic, uid, format_ = output.record, output.topic or "", None, output.format
        if output.topic is None:
            uid = _writer(where, options.source, faults)
            topic = stream_topic(app, uid, options.source.attribute)
    return InputSpec(
        name=declared.attribute,
        topic=topic,
        record=source,
        internal=uid is not None,
        source_uid=uid,
        format=format_,
        handler=None,
    )


def _writer(where: str, output: Output[Any], faults: Faults) -> str:
    """The uid of the operator that writes an internal stream."""
    uid = getattr(output.owner, "uid", None)
    if uid is None:
        mend = "read the output of a class that has a uid and is in the job"
        faults.add(where, f"its source {output} is an output of an abstract operator", mend)
        return type_name(output.owner)
    return str(uid)


def _event_time(
    where: str, record: Any, event_time: str | Callable[[Any], int] | None, faults: Faults
) -> Callable[[Any], int] | None:
    if event_time is None:
        return None
    if not isinstance(event_time, str):
        faults.function(where, "event_time=", event_time)
        return _whole_milliseconds(event_time)
    kind = faults.field_type(where, record, event_time, "event_time=")
    if kind is datetime:
        return _milliseconds_of(event_time)
    if kind not in (int, Any):
        what = f"event_time={event_time!r} is a field of type {type_name(kind)}"
        faults.add(where, what, "use a field of type int, milliseconds since the epoch, a timestamp, or a function")
    return operator.attrgetter(event_time)


def _key_fault(where: str, record: Any, key: str | None, key_type: Any, faults: Faults) -> None:
    """The field that must equal the message key is of the key's type."""
    if key is None:
        return
    kind = faults.field_type(where, record, key, "key=")
    if Any not in (kind, key_type) and key_type is not NoneType and kind != key_type:
        if isinstance(key_type, TypeVar):
            return
        what = f"key={key!r} is a field of type {type_name(kind)}, the operator's key is {type_name(key_type)}"
        faults.add(where, what, "name the field that is the message key, or change K of Operator[K]")


def _start_fault(where: str, start: object, faults: Faults) -> None:
    if isinstance(start, datetime):
        if start.tzinfo is None:
            faults.add(where, f"start={start} has no time zone", "datetime(…, tzinfo=UTC)")
    elif start not in ("earliest", "latest"):
        faults.add(where, f"start={start!r}", "use 'earliest', 'latest' or a datetime with time zone")


def _whole_milliseconds(event_time: Callable[[Any], Any]) -> Callable[[Any], int]:
    """A user's function, which may return anything: what is no int fails its record."""

    def checked(record: Any) -> int:
        found = event_time(record)
        if not isinstance(found, int):
            raise TypeError(f"expected milliseconds since the epoch as an int, got {found!r}")
        return found

    return checked


def _milliseconds_of(name: str) -> Callable[[Any], int]:
    field = operator.attrgetter(name)
    return lambda record: since_epoch_ms(field(record))

"""Mistakes in a job: each with its place and its mend, gathered so that one run shows them all."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from kstate.times import MILLISECOND
from kstate.typeinfo import record_fields, type_name


@dataclass(frozen=True, slots=True)
class Fault:
    """A mistake in a job: where it is, what it is, how to mend it."""

    where: str
    what: str
    mend: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}. Mend: {self.mend}."


@dataclass(slots=True)
class Faults:
    """What is wrong so far; each question answers with a harmless stand-in when it has found a fault."""

    found: list[Fault] = field(default_factory=list)

    def add(self, where: str, what: str, mend: str) -> None:
        """Note one mistake."""
        self.found.append(Fault(where, what, mend))

    def field_type(self, where: str, record: Any, name: str, option: str) -> Any:
        """Type of a record's field; Any when it has none of this name."""
        fields = record_fields(record) or {}
        if name not in fields:
            known = ", ".join(fields) or "none"
            self.add(where, f"{option}{name!r} is no field of {type_name(record)}", f"its fields are: {known}")
        return fields.get(name, Any)

    def span_ms(self, where: str, option: str, span: Any, least: timedelta = MILLISECOND) -> int:
        """Milliseconds of a timedelta that must be `least` or more."""
        if not isinstance(span, timedelta):
            self.add(where, f"{option} is {span!r}", f"use a timedelta, {option}=timedelta(seconds=…)")
        elif span < least:
            wanted = "0 or more" if not least else "more than zero"
            self.add(where, f"{option} is {span}", f"use a span of {wanted}")
        elif span % MILLISECOND:
            self.add(where, f"{option} is {span}, no whole number of milliseconds", "event times are no finer")
        else:
            return span // MILLISECOND
        return max(least // MILLISECOND, 1)

    def choice(self, where: str, option: str, value: object, allowed: Any) -> None:
        """The option must be one of a Literal's values."""
        if value not in typing.get_args(allowed):
            listed = " or ".join(repr(each) for each in typing.get_args(allowed))
            self.add(where, f"{option}={value!r}", f"use {listed}")

    def function(self, where: str, option: str, value: object) -> None:
        """The option must be a function of the record, where it names no field."""
        if not callable(value):
            self.add(where, f"{option}{value!r}", "name a field of the record, or give a function of the record")

    def handler(
        self, where: str, cls: type[Any], handlers: Sequence[Callable[..., Any]], decorator: str, arguments: str
    ) -> Any:
        """The one handler, None after a fault; a subclass that overrides the method by its name is heard.

        `arguments`: what it is called with behind self, for people.
        """
        if len(handlers) != 1:
            what = f"it has {len(handlers)} handlers" if handlers else "it has no handler"
            mend = f"decorate exactly one method with @{decorator} (an inherited one: {decorator}(Base.method))"
            self.add(where, what, mend)
            return None
        name = getattr(handlers[0], "__name__", "")
        overridable = any(vars(base).get(name) is handlers[0] for base in cls.__mro__)
        handler = getattr(cls, name) if overridable else handlers[0]
        if fault := _call_fault(handler, arguments):
            self.add(where, *fault)
            return None
        return handler


def _call_fault(handler: Callable[..., Any], arguments: str) -> tuple[str, str] | None:
    """Why calling a handler would do nothing, or fail every time; and the mend."""
    name = f"its handler {getattr(handler, '__name__', repr(handler))}()"
    if inspect.iscoroutinefunction(handler):
        return f"{name} is async, and nobody would await it", "write def; the engine overlaps its own input and output"
    if inspect.isgeneratorfunction(handler) or inspect.isasyncgenfunction(handler):
        return f"{name} is a generator, and nobody would run it", "emit: self.output.emit(record) instead of yield"
    try:
        inspect.signature(handler).bind(None, *arguments.split(", "))
    except (TypeError, ValueError):
        taken = ", ".join(inspect.signature(handler).parameters)
        return f"{name} takes ({taken}), and is called with (self, {arguments})", f"def …(self, {arguments})"
    return None


def returned_type(function: Callable[..., Any]) -> Any:
    """What a key function says it returns; Any when it says nothing, as a lambda does."""
    try:
        return typing.get_type_hints(function).get("return", Any)
    except (NameError, TypeError):
        return Any

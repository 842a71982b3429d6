"""Records of any Avro type: made up at random with few different values, or read from JSON as people write it.

In JSON, bytes are text of code points 0 to 255 as in Avro's own JSON, times are ISO 8601 text or Avro's number,
decimals text or a number, and a field that is left out has its class's default.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from random import Random
from typing import Any
from uuid import UUID

from kstate.adapters.avro_types import Choice, Many, Nullable, Record, Scalar, Shape
from kstate.errors import ConfigError
from kstate.testing.virtual_time import START_MS

WORDS = ("ant", "bee", "cat", "dog", "emu", "fox", "gnu", "hen")
"""Few, so that keys meet again."""
ITEMS_MAX = 3
NULL_SHARE = 0.2
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def some_value(shape: Shape, rng: Random) -> Any:
    """A value at random."""
    match shape:
        case Scalar():
            return _some_scalar(shape, rng)
        case Choice(members):
            return rng.choice(members)
        case Nullable(item):
            return None if rng.random() < NULL_SHARE else some_value(item, rng)
        case Many(item, keyed=True):
            return {word: some_value(item, rng) for word in rng.sample(WORDS, rng.randint(0, ITEMS_MAX))}
        case Many(item):
            return tuple(some_value(item, rng) for _ in range(rng.randint(0, ITEMS_MAX)))
        case Record(cls, fields):
            return cls(**{name: some_value(part, rng) for name, part in fields})


def time_value(shape: Shape, at_ms: int) -> Any:
    """An instant (ms since the epoch) as a value of a field that holds event times; None when it cannot be one."""
    match shape:
        case Nullable(item):
            return time_value(item, at_ms)
        case Scalar("long" | "int" | "double", ""):
            return at_ms
        case Scalar("long", logical) if "timestamp" in logical:
            return _instant(timedelta(milliseconds=at_ms), logical)
    return None


def from_json(shape: Shape, value: Any, where: str) -> Any:
    """What a JSON value says; ConfigError that names the place when it is of another form."""
    match shape, value:
        case Nullable(), None:
            return None
        case Nullable(item), _:
            return from_json(item, value, where)
        case Many(item, keyed=True), dict():
            return {key: from_json(item, part, f"{where}.{key}") for key, part in value.items()}
        case Many(item, keyed=False), list():
            return tuple(from_json(item, part, f"{where}[{n}]") for n, part in enumerate(value))
        case Record(), dict():
            return _record(shape, value, where)
        case Choice(members), _:
            if (member := next((each for each in members if each.value == value), None)) is not None:
                return member
        case Scalar(), _ if not isinstance(value, dict | list):
            try:
                return _scalar(shape, value)
            except (ValueError, TypeError, ArithmeticError):
                pass
    raise ConfigError(f"{where} is {value!r}, which is no {_named(shape)}.", hint="mend the file.")


def _record(shape: Record, value: Mapping[str, Any], where: str) -> Any:
    parts = dict(shape.fields)
    if unknown := [name for name in value if name not in parts]:
        what = f"{where} has {unknown[0]!r}, which is no field of {shape.cls.__name__}."
        raise ConfigError(what, hint=f"its fields are {', '.join(parts)}.")
    given = {name: from_json(parts[name], part, f"{where}.{name}") for name, part in value.items()}
    try:
        return shape.cls(**given)
    except TypeError as error:
        raise ConfigError(f"{where} makes no {shape.cls.__name__}: {error}.", hint="give every field.") from error


def _some_scalar(scalar: Scalar, rng: Random) -> Any:
    small = rng.randint(0, 9)
    if scalar.logical:
        return _LOGICAL[scalar.logical](scalar, small)
    match scalar.avro:
        case "null":
            return None
        case "boolean":
            return rng.random() < 0.5
        case "int" | "long":
            return small
        case "float" | "double":
            return small / 4
        case "string":
            return rng.choice(WORDS)
        case "fixed":
            return bytes([small]) * scalar.size
    return rng.choice(WORDS).encode()


def _instant(since: timedelta, logical: str) -> datetime:
    found = _EPOCH + since
    return found.replace(tzinfo=None) if logical.startswith("local") else found


def _decimal(scalar: Scalar, small: int) -> Decimal:
    return Decimal(min(small, 10**scalar.precision - 1)).scaleb(-scalar.scale)


_LOGICAL: Mapping[str, Callable[[Scalar, int], Any]] = {
    "uuid": lambda _, small: UUID(int=small),
    "date": lambda _, small: date(2025, 6, 1 + small),
    "decimal": _decimal,
    "time-millis": lambda _, small: time(small),
    "time-micros": lambda _, small: time(small),
    "timestamp-millis": lambda s, small: _instant(timedelta(milliseconds=START_MS, seconds=small), s.logical),
    "timestamp-micros": lambda s, small: _instant(timedelta(milliseconds=START_MS, seconds=small), s.logical),
    "local-timestamp-millis": lambda s, small: _instant(timedelta(milliseconds=START_MS, seconds=small), s.logical),
    "local-timestamp-micros": lambda s, small: _instant(timedelta(milliseconds=START_MS, seconds=small), s.logical),
}


_IN_JSON: Mapping[str, tuple[type, ...]] = {
    "null": (type(None),),
    "boolean": (bool,),
    "int": (int,),
    "long": (int,),
    "float": (float, int),
    "double": (float, int),
}
"""Avro type → types of JSON values; all others are text."""


def _scalar(scalar: Scalar, value: Any) -> Any:
    """Raises ValueError, TypeError or ArithmeticError."""
    if scalar.logical:
        return _logical(scalar, value)
    if not isinstance(value, _IN_JSON.get(scalar.avro, (str,))) or (
        scalar.avro != "boolean" and isinstance(value, bool)
    ):
        raise TypeError
    match scalar.avro:
        case "float" | "double":
            return float(str(value))
        case "bytes" | "fixed":
            return str(value).encode("latin-1")
    return value


def _logical(scalar: Scalar, value: Any) -> Any:
    logical = scalar.logical
    if logical == "uuid":
        return UUID(value)
    if logical == "decimal":
        return Decimal(str(value))
    if isinstance(value, str):
        kinds: Mapping[str, Any] = {"date": date, "time": time}
        return kinds.get(logical.partition("-")[0], datetime).fromisoformat(value)
    unit = {"millis": timedelta(milliseconds=value), "micros": timedelta(microseconds=value)}
    since = unit.get(logical.rpartition("-")[2], timedelta(days=value))
    if logical == "date":
        return (_EPOCH + since).date()
    return (_EPOCH + since).time() if logical.startswith("time-") else _instant(since, logical)


def _named(shape: Shape) -> str:
    match shape:
        case Scalar(avro, logical):
            return logical or avro
        case Choice(members):
            return f"one of {', '.join(str(member.value) for member in members)}"
        case Many(keyed=True) | Record():
            return "object" if isinstance(shape, Many) else f"object with the fields of {shape.cls.__name__}"
        case Many():
            return "array"
        case Nullable(item):
            return _named(item)

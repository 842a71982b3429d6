"""Python types and Avro schemas, side by side: which schema a type has, and which type each part of a schema becomes.

A generated record class carries its schema in `__avro_schema__`; for other types it is derived: int is long, Int32 int,
float double, `tuple[T, ...]` an array, `Mapping[str, T]` a map, `T | None` a nullable union, a NamedTuple or frozen
dataclass a record, None alone null. A *shape* is a schema with the Python type of each of its parts; codecs are
compiled from shapes.
"""

from __future__ import annotations

import dataclasses
import json
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from types import NoneType
from typing import Any
from uuid import UUID

from kstate.adapters.avro_defaults import json_default
from kstate.errors import ConfigError
from kstate.keys import Int32
from kstate.typeinfo import element_of, is_enum, nullable_of, record_fields, type_name

SCHEMA_ATTRIBUTE = "__avro_schema__"

LOGICAL: Mapping[tuple[str, str], type[Any]] = {
    ("string", "uuid"): UUID,
    ("fixed", "uuid"): UUID,
    ("int", "date"): date,
    ("int", "time-millis"): time,
    ("long", "time-micros"): time,
    ("long", "timestamp-millis"): datetime,
    ("long", "timestamp-micros"): datetime,
    ("long", "local-timestamp-millis"): datetime,
    ("long", "local-timestamp-micros"): datetime,
    ("bytes", "decimal"): Decimal,
    ("fixed", "decimal"): Decimal,
}
"""(Avro type, logical type) → Python type.

A logical type that is not listed is read as its Avro type, as Avro asks: timestamp-nanos as an int (a datetime has no
nanoseconds), duration as 12 bytes (a timedelta has no months).
"""

UUID_BYTES = 16

_PRIMITIVE: Mapping[str, tuple[Any, ...]] = {
    "boolean": (bool,),
    "int": (Int32, int),
    "long": (int,),
    "float": (float,),
    "double": (float,),
    "string": (str,),
    "bytes": (bytes,),
}

_DERIVED: Mapping[Any, Any] = {
    bool: "boolean",
    Int32: "int",
    int: "long",
    float: "double",
    str: "string",
    bytes: "bytes",
    UUID: {"type": "string", "logicalType": "uuid"},
    date: {"type": "int", "logicalType": "date"},
    time: {"type": "long", "logicalType": "time-micros"},
    datetime: {"type": "long", "logicalType": "timestamp-micros"},
}


@dataclass(frozen=True, slots=True)
class Scalar:
    """A value without parts: a primitive, fixed or logical type; `avro` and `logical` are Avro's names."""

    avro: str
    logical: str = ""
    size: int = 0
    """Bytes of a fixed."""
    precision: int = 0
    scale: int = 0
    """Digits of a decimal: all, and those behind the point."""


@dataclass(frozen=True, slots=True)
class Choice:
    """An enumeration; `members[i]` is the member of symbol i."""

    members: tuple[Enum, ...]


@dataclass(frozen=True, slots=True)
class Many:
    """An array (a tuple) or a map with string keys (a read-only mapping) of items."""

    item: Shape
    keyed: bool


@dataclass(frozen=True, slots=True)
class Nullable:
    """A union of null, at index `null`, and an item."""

    item: Shape
    null: int


@dataclass(frozen=True, slots=True)
class Record:
    """A record and the class it becomes; fields in the schema's order, which is the constructor's."""

    cls: type[Any]
    fields: tuple[tuple[str, Shape], ...]


Shape = Scalar | Choice | Many | Nullable | Record


def schema_of(kind: Any) -> Any:
    """The schema of a type, as JSON; ConfigError, with the mend, when it has none."""
    return "null" if kind is NoneType else _derive(kind, {})


def shape_of(schema: Any, kind: Any) -> Shape:
    """Schema (canonical) and type joined; ConfigError where they disagree."""
    if kind is NoneType and schema == "null":  # only as a whole: millions of them as items take no bytes
        return Scalar("null")
    return _Walk().shape(schema, kind, type_name(kind))


def logical_type(avro: str, schema: Mapping[str, Any]) -> type[Any] | None:
    """The Python type of an Avro type with a logical type; None where it is read as the Avro type."""
    logical = str(schema.get("logicalType", ""))
    if (avro, logical) == ("fixed", "uuid") and schema.get("size") != UUID_BYTES:
        return None
    return LOGICAL.get((avro, logical))


def loss_in(shape: Shape) -> str | None:
    """What a value of this shape may lose on the way to bytes and back, None for nothing.

    A lossy type must not be kept as state: after a crash it would be another value than before.
    """
    match shape:
        case Scalar("float"):
            return "an Avro float keeps 7 digits of a Python float's 16; use double"
        case Many(item) | Nullable(item):
            return loss_in(item)
        case Record(_, fields):
            return next((f"field {name!r}: {loss}" for name, part in fields if (loss := loss_in(part))), None)
        case _:
            return None


def _derive(kind: Any, defined: dict[str, Any]) -> Any:
    """The schema of a type; `defined` are the named types that the schema has defined so far, with their classes."""
    if kind in _DERIVED:
        return _DERIVED[kind]
    if text := vars(kind).get(SCHEMA_ATTRIBUTE) if isinstance(kind, type) else None:
        return _attached(kind, json.loads(text), defined)
    if (item := nullable_of(kind)) is not None:
        return ["null", _derive(item, defined)]
    if (item := element_of(kind)) is not None:
        return {"type": "array", "items": _derive(item, defined)}
    if _is_mapping(kind):
        key, item = typing.get_args(kind)
        if key is str:
            return {"type": "map", "values": _derive(item, defined)}
    if is_enum(kind):
        return _derive_enum(kind, defined)
    if (fields := record_fields(kind)) is not None:
        return _derive_record(kind, fields, defined)
    raise ConfigError(f"Type {type_name(kind)} has no Avro form.", hint=_mend(kind))


def _attached(kind: type[Any], schema: Any, defined: dict[str, Any]) -> Any:
    """A generated class's own schema, or its name where it stands already."""
    name = str(schema["name"])
    if defined.get(name) is kind:
        return name
    defined[name] = kind
    return schema


def _derive_enum(kind: type[Enum], defined: dict[str, Any]) -> Any:
    if not all(isinstance(member.value, str) for member in kind):
        raise ConfigError(f"Enum {type_name(kind)} has values that are no str.", hint="derive it from StrEnum.")
    symbols = [str(member.value) for member in kind]
    return _define(kind, {"type": "enum", "name": kind.__name__, "symbols": symbols}, defined)


def _derive_record(kind: type[Any], fields: Mapping[str, Any], defined: dict[str, Any]) -> Any:
    if dataclasses.is_dataclass(kind) and not kind.__dataclass_params__.frozen:  # type: ignore[attr-defined]
        raise ConfigError(
            f"Record class {type_name(kind)} can be changed in place, which state and replay must not see.",
            hint="@dataclass(frozen=True, slots=True).",
        )
    if kind in defined.values():
        return kind.__name__
    schema: dict[str, Any] = {"type": "record", "name": kind.__name__, "fields": []}
    known = _define(kind, schema, defined)
    for name, item in fields.items():
        part = _derive(item, defined)
        schema["fields"].append({"name": name, "type": part, **json_default(kind, name, part)})
    return known


def _define(kind: type[Any], schema: dict[str, Any], defined: dict[str, Any]) -> Any:
    name = kind.__name__
    if defined.setdefault(name, kind) is not kind:
        raise ConfigError(f"Two different types named {name!r} in one schema.", hint="rename one of them.")
    return schema


def _mend(kind: Any) -> str:
    origin = typing.get_origin(kind) or kind
    if origin in (list, set, frozenset):
        return "use tuple[T, ...]: values are immutable."
    if origin is tuple:
        return "use tuple[T, ...] for many of one type, a NamedTuple for a fixed number."
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return "use Mapping[str, T]: Avro maps have string keys."
    if origin is Decimal:
        return "write an .avsc file with precision and scale, and generate its class."
    return (
        "use a generated record class, a NamedTuple, or bool, int, Int32, float, str, bytes, UUID, datetime, T | None."
    )


def _is_mapping(kind: Any) -> bool:
    """Whether a type is `Mapping[K, V]`; dict would promise that it can be changed."""
    return typing.get_origin(kind) is Mapping


class _Walk:
    """One pass over a schema and the type it becomes."""

    def __init__(self) -> None:
        self._named: dict[str, Shape] = {}
        self._open: set[str] = set()

    def shape(self, schema: Any, kind: Any, where: str) -> Shape:
        match schema:
            case str() if schema in _PRIMITIVE:
                return self._scalar(Scalar(schema), _PRIMITIVE[schema], kind, where)
            case str():
                return self._reference(schema, kind, where)
            case [a, b] if "null" in (a, b):
                return self._nullable(schema, kind, where)
            case list():
                raise self._refused(where, "a union of other than null and one type", "split it into nullable fields")
            case {"type": "array", "items": items}:
                return Many(self._part(items, element_of(kind), kind, f"{where}[]"), keyed=False)
            case {"type": "map", "values": values}:
                args = typing.get_args(kind)
                item = args[1] if len(args) == 2 and _is_mapping(kind) else None
                return Many(self._part(values, item, kind, f"{where}[…]"), keyed=True)
            case {"type": "record", "name": name}:
                return self._define(name, lambda: self._record(schema, kind, where))
            case {"type": "enum", "name": name}:
                return self._define(name, lambda: self._choice(schema["symbols"], kind, where))
            case {"type": str(avro)}:
                return self._object(avro, schema, kind, where)
        raise self._refused(where, f"Avro type {schema!r}", "use another type")

    def _object(self, avro: str, schema: dict[str, Any], kind: Any, where: str) -> Shape:
        """A fixed, or a primitive with or without a logical type."""
        python = logical_type(avro, schema)
        expected = (python,) if python else (bytes,) if avro == "fixed" else _PRIMITIVE.get(avro)
        if expected is None:
            raise self._refused(where, f"Avro type {avro!r}", "use another type")
        sizes = (int(schema.get(key, 0)) for key in ("size", "precision", "scale"))
        logical = str(schema["logicalType"]) if python else ""
        scalar = self._scalar(Scalar(avro, logical, *sizes), expected, kind, where)
        return self._define(schema["name"], lambda: scalar) if avro == "fixed" else scalar

    def _part(self, schema: Any, item: Any | None, kind: Any, where: str) -> Shape:
        if item is None:
            raise self._disagree(where, schema, kind)
        return self.shape(schema, item, where)

    def _scalar(self, scalar: Scalar, expected: tuple[Any, ...], kind: Any, where: str) -> Scalar:
        if kind not in expected:
            raise self._disagree(where, scalar.logical or scalar.avro, kind)
        return scalar

    def _nullable(self, schema: list[Any], kind: Any, where: str) -> Shape:
        null = schema.index("null")
        return Nullable(self._part(schema[1 - null], nullable_of(kind), kind, where), null)

    def _record(self, schema: Any, kind: Any, where: str) -> Shape:
        types = record_fields(kind) or {}
        names = [field["name"] for field in schema["fields"]]
        if list(types) != names:
            raise self._disagree(where, f"record {schema['name']!r} with fields {', '.join(names)}", kind)
        parts = ((f["name"], self.shape(f["type"], types[f["name"]], f"{where}.{f['name']}")) for f in schema["fields"])
        return Record(kind, tuple(parts))

    def _choice(self, symbols: list[str], kind: Any, where: str) -> Shape:
        if not is_enum(kind) or [member.value for member in kind] != symbols:
            raise self._disagree(where, f"enum of {', '.join(symbols)}", kind)
        return Choice(tuple(kind))

    def _define(self, name: str, make: typing.Callable[[], Shape]) -> Shape:
        self._open.add(name)
        self._named[name] = shape = make()
        self._open.discard(name)
        return shape

    def _reference(self, name: str, kind: Any, where: str) -> Shape:
        if name in self._open:
            raise self._refused(where, f"record {name!r} inside itself", "keep the parts under keys of their own")
        shape = self._named.get(name)
        match shape:
            case Record(cls) if cls is kind:
                return shape
            case Choice(members) if type(members[0]) is kind:
                return shape
            case Scalar(avro, logical) if kind is LOGICAL.get((avro, logical), bytes):
                return shape
        raise self._disagree(where, f"type {name!r}", kind)

    def _refused(self, where: str, what: str, mend: str) -> ConfigError:
        return ConfigError(f"{where}: kstate does not support {what}.", hint=f"{mend}.")

    def _disagree(self, where: str, schema: Any, kind: Any) -> ConfigError:
        return ConfigError(
            f"{where}: the schema says {schema if isinstance(schema, str) else json.dumps(schema)}, "
            f"the class says {type_name(kind)}.",
            hint="run `kstate schema generate`.",
        )

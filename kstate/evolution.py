"""Whether values written with one Avro schema can be read with another, and how: Avro's schema resolution, made safe.

Pure, over canonical texts (kstate.schemas). The rules are Avro's but for these: what Avro allows although something
may be lost (long read as double, bytes as string) is refused; timestamps and times in millis are read as micros, which
Avro would take for another instant; decimals may grow. Names of records, enums and fixed are not compared, so that a
class may be renamed: fields are matched by name, symbols by name, fixed by size. A field that the reader does not have
is left out, one that the writer did not have needs a default.

The leader refuses a job by these rules, and workers read by them: both call `resolution`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from kstate.schemas import PRIMITIVES

Convert = Callable[[Any], Any]
"""From a value as the writer's schema reads it (plain: dict, list, datetime, …) to one as the reader's would."""

DefaultOf = Callable[[Any, Any], Any]
"""(schema of a field, its default as JSON) → the plain value."""

_Kind = tuple[str, str]
"""(Avro type, logical type or "")."""

_LOGICAL = frozenset(
    {
        "uuid",
        "date",
        "decimal",
        "duration",
        "time-millis",
        "time-micros",
        "timestamp-millis",
        "timestamp-micros",
        "timestamp-nanos",
        "local-timestamp-millis",
        "local-timestamp-micros",
        "local-timestamp-nanos",
    }
)
"""Others are read as their Avro type, as Avro asks."""

_WIDENED: Mapping[tuple[_Kind, _Kind], Convert | None] = {
    (("int", ""), ("long", "")): None,
    (("int", ""), ("double", "")): float,
    (("float", ""), ("double", "")): None,
    (("string", ""), ("bytes", "")): str.encode,
    (("string", "uuid"), ("string", "")): str,
    (("string", "uuid"), ("fixed", "uuid")): lambda value: value.bytes,
    (("fixed", "uuid"), ("string", "uuid")): lambda data: UUID(bytes=data),
    (("int", "time-millis"), ("long", "time-micros")): None,
    (("long", "timestamp-millis"), ("long", "timestamp-micros")): None,
    (("long", "local-timestamp-millis"), ("long", "local-timestamp-micros")): None,
}
"""(written, read) without loss, and how the plain value changes; None: it stays."""

_MORE_THAN_FITS = "larger numbers would not fit"
_LOSSY: Mapping[tuple[_Kind, _Kind], str] = {
    (("long", ""), ("int", "")): _MORE_THAN_FITS,
    (("long", ""), ("double", "")): "Avro would allow it, but a double keeps only 53 bits of a number",
    (("long", ""), ("float", "")): "Avro would allow it, but a float keeps only 24 bits of a number",
    (("int", ""), ("float", "")): "Avro would allow it, but a float keeps only 24 bits of a number",
    (("double", ""), ("float", "")): "a float keeps 7 digits of 16",
    (("bytes", ""), ("string", "")): "Avro would allow it, but bytes that are no UTF-8 could not be read",
    (("long", "time-micros"), ("int", "time-millis")): "microseconds would be lost",
    (("long", "timestamp-micros"), ("long", "timestamp-millis")): "microseconds would be lost",
    (("long", "local-timestamp-micros"), ("long", "local-timestamp-millis")): "microseconds would be lost",
}
"""(written, read) → what would be lost."""


@dataclass(frozen=True, slots=True)
class Resolution:
    """How values of a writer's schema are read with a reader's; `convert` and `left_out` count without faults only."""

    faults: tuple[str, ...]
    """Each says which field, what it was and is, and why that cannot be read."""
    left_out: tuple[str, ...]
    """Fields that the reader does not have."""
    convert: Convert | None
    """None: the plain values are the same."""


def resolution(writer: str, reader: str, default_of: DefaultOf = lambda _, default: default) -> Resolution:
    """Resolve two canonical schema texts; `default_of` gives the plain value of a field that was not written."""
    walk = _Walk(json.loads(writer), json.loads(reader), default_of)
    convert = walk.resolved(walk.written, walk.read, "")
    return Resolution(tuple(walk.faults), tuple(walk.left_out), convert)


class _Walk:
    """One pass over a writer's and a reader's schema, side by side."""

    def __init__(self, written: Any, read: Any, default_of: DefaultOf) -> None:
        self.written = written
        self.read = read
        self.faults: list[str] = []
        self.left_out: list[str] = []
        self._default_of = default_of
        self._written_types = named_types(written)
        self._read_types = named_types(read)
        self._open: list[tuple[str, str]] = []

    def resolved(self, written: Any, read: Any, where: str) -> Convert | None:
        """How a part is converted; faults are collected."""
        written = self._written_types.get(written, written) if isinstance(written, str) else written
        read = self._read_types.get(read, read) if isinstance(read, str) else read
        if isinstance(written, list) or isinstance(read, list):
            return self._union(written, read, where)
        match kind_of(written), kind_of(read):
            case ("record" | "error", _), ("record" | "error", _):
                return self._record(written, read, where)
            case ("enum", _), ("enum", _):
                return self._enum(written, read, where)
            case ("array", _), ("array", _):
                return _each(self.resolved(written["items"], read["items"], f"{where}[]"))
            case ("map", _), ("map", _):
                return _each_value(self.resolved(written["values"], read["values"], f"{where}[…]"))
            case (_, "decimal"), (_, "decimal"):
                return self._decimal(written, read, where)
            case ("fixed", ""), ("fixed", "") if written["size"] != read["size"]:
                return self._refuse(where, written, read, "a fixed keeps its size")
            case kinds:
                return self._scalar(written, read, where, kinds)

    def _scalar(self, written: Any, read: Any, where: str, kinds: tuple[_Kind, _Kind]) -> Convert | None:
        before, now = kinds
        if before == now:
            return None
        if kinds in _WIDENED:
            return _WIDENED[kinds]
        return self._refuse(where, written, read, _LOSSY.get(kinds, "one cannot be read as the other"))

    def _union(self, written: Any, read: Any, where: str) -> Convert | None:
        """A value becomes nullable, or stays so; nothing else becomes a union."""
        before, now = _item_of(written), _item_of(read)
        if before is None or now is None:
            same = written == read
            return None if same else self._refuse(where, written, read, "only a union of null and one type can change")
        if isinstance(written, list) and not isinstance(read, list):
            return self._refuse(where, written, read, "a null could not be read")
        inner = self.resolved(before, now, where)
        return None if inner is None else lambda value: None if value is None else inner(value)

    def _record(self, written: Any, read: Any, where: str) -> Convert | None:
        names = (written["name"], read["name"])
        if names in self._open:
            return self._refuse(where, written["name"], read["name"], "a record inside itself is not supported")
        self._open.append(names)
        before = {field["name"]: field["type"] for field in written["fields"]}
        parts: dict[str, Convert | None] = {}
        defaults: dict[str, Any] = {}
        for field in read["fields"]:
            name, place = field["name"], f"{where}.{field['name']}" if where else field["name"]
            if name in before:
                parts[name] = self.resolved(before.pop(name), field["type"], place)
            elif "default" in field:
                parts[name] = None
                defaults[name] = self._default_of(_whole(field["type"], self._read_types), field["default"])
            else:
                self.faults.append(f"field '{place}' is new and has no default: what was stored before lacks it")
        self.left_out += [f"{where}.{name}" if where else name for name in before]
        self._open.pop()
        same = [field["name"] for field in written["fields"]] == list(parts) and not any(parts.values())
        return None if same else _fields(parts, defaults)

    def _enum(self, written: Any, read: Any, where: str) -> Convert | None:
        gone = [symbol for symbol in written["symbols"] if symbol not in read["symbols"]]
        if not gone:
            return None
        if (default := read.get("default")) is None:
            listed = ", ".join(f"'{symbol}'" for symbol in gone)
            self.faults.append(f"{_named(where)} lost the symbols {listed} and has no default symbol to read them as")
            return None
        return lambda symbol: default if symbol in gone else symbol

    def _decimal(self, written: Any, read: Any, where: str) -> Convert | None:
        scale, digits = written.get("scale", 0), written["precision"]
        scale_now, digits_now = read.get("scale", 0), read["precision"]
        if scale_now < scale:
            return self._refuse(where, written, read, "digits behind the point would be lost")
        if digits_now - scale_now < digits - scale:
            return self._refuse(where, written, read, _MORE_THAN_FITS)
        return None

    def _refuse(self, where: str, written: Any, read: Any, why: str) -> Convert | None:
        self.faults.append(f"{_named(where)} was {_shown(written)} and is {_shown(read)} now: {why}")
        return None


def without_defaults(text: str) -> str:
    """A canonical text without the defaults of fields: they say nothing of the bytes."""

    def stripped(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        return {key: value for key, value in pairs if key != "default"}

    return json.dumps(json.loads(text, object_pairs_hook=stripped), sort_keys=True, separators=(",", ":"))


def kind_of(schema: Any) -> tuple[str, str]:
    """(Avro type, logical type or "") of a schema that is no union."""
    if isinstance(schema, str):
        return schema, ""
    logical = str(schema.get("logicalType", ""))
    return schema["type"], logical if logical in _LOGICAL else ""


def named_types(schema: Any) -> dict[str, Any]:
    """Every record, enum and fixed that a canonical schema defines, by full name."""
    found: dict[str, Any] = {}
    match schema:
        case list():
            for branch in schema:
                found |= named_types(branch)
        case {"type": "record" | "error", "name": str(name), "fields": fields}:
            found[name] = schema
            for field in fields:
                found |= named_types(field["type"])
        case {"name": str(name)}:
            found[name] = schema
        case {"items": inner} | {"values": inner}:
            found |= named_types(inner)
    return found


def _whole(schema: Any, types: Mapping[str, Any]) -> Any:
    """A part of a schema that can be read by itself: a name defined elsewhere is replaced by its definition."""
    if isinstance(schema, str) and schema not in PRIMITIVES:
        return types.get(schema, schema)
    return [_whole(branch, types) for branch in schema] if isinstance(schema, list) else schema


def _item_of(schema: Any) -> Any | None:
    """The type beside null; a type that is no union is its own; None for another union."""
    if not isinstance(schema, list):
        return schema
    items = [branch for branch in schema if branch != "null"]
    return items[0] if len(items) == 1 and len(schema) == 2 else None


def _each(inner: Convert | None) -> Convert | None:
    return None if inner is None else lambda values: [inner(value) for value in values]


def _each_value(inner: Convert | None) -> Convert | None:
    return None if inner is None else lambda values: {key: inner(value) for key, value in values.items()}


def _fields(parts: Mapping[str, Convert | None], defaults: Mapping[str, Any]) -> Convert:
    """The reader's fields in its order; those that were not written have their defaults."""

    def convert(record: Mapping[str, Any]) -> dict[str, Any]:
        made = {}
        for name, part in parts.items():
            value = record[name] if name in record else defaults[name]
            made[name] = part(value) if part else value
        return made

    return convert


def _named(where: str) -> str:
    return f"field '{where}'" if where else "the value"


def _shown(schema: Any) -> str:
    """A schema in a few words."""
    match schema:
        case str():
            return schema
        case list():
            return " or ".join(_shown(branch) for branch in schema)
        case {"type": str(avro), "logicalType": "decimal", "precision": precision}:
            return f"decimal({precision}, {schema.get('scale', 0)}) in {avro}"
        case {"type": str(avro), "logicalType": str(logical)}:
            return f"{logical} in {avro}"
        case {"type": "fixed", "size": size}:
            return f"fixed({size})"
        case {"type": str(avro), "name": str(name)}:
            return f"{avro} {name}"
        case {"type": str(avro)}:
            return avro
    return json.dumps(schema)

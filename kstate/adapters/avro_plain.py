"""Stored keys and values as JSON knows them, by what the plan says of their types: no class of the user is needed.

Bytes become "0x…", instants ISO 8601 text, decimals and UUIDs text, composite keys lists.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date, datetime, time
from decimal import Decimal
from io import BytesIO
from itertools import count
from typing import Any, Final
from uuid import UUID

from fastavro import parse_schema, schemaless_reader, schemaless_writer
from fastavro.types import Schema

from kstate.adapters.avro_codec import READ_ERRORS
from kstate.adapters.avro_writer import WRITE_ERRORS
from kstate.errors import ConfigError, DecodeError
from kstate.keys import Int32, plain_key_codec, shown

_PLAIN_KEYS: Final = {"str": str, "int": int, "Int32": Int32, "bytes": bytes, "UUID": UUID}
_PARTS: Final = {
    "str": "string",
    "int": "long",
    "Int32": "int",
    "bytes": "bytes",
    "bool": "boolean",
    "UUID": "string",
}
"""Key type within a composite key → Avro type."""


class PlainValues:
    """Reads the values of one schema."""

    def __init__(self, schema: str) -> None:
        """`schema`: canonical text, as the plan's registry has it."""
        self._parsed: Schema = parse_schema(json.loads(schema))

    def decode(self, data: bytes) -> Any:
        """The value; DecodeError unless the bytes are exactly one of the schema."""
        return plain(_read(data, self._parsed))


class PlainKeys:
    """Reads and writes the keys of an operator, or of a map."""

    def __init__(self, signature: str) -> None:
        """`signature`: see `kstate.keys.key_signature`."""
        self._signature = signature
        self._codec = plain_key_codec(_PLAIN_KEYS.get(signature))
        self._schema = None if self._codec or signature == "none" else _composite(signature)

    def decode(self, data: bytes) -> Any:
        """The key; DecodeError unless the bytes are one. Keys of an operator without key type are shown as bytes."""
        if self._codec is not None:
            return plain(self._codec.decode(data))
        if self._schema is None:
            return plain(data)
        return _listed(_read(data, self._schema))

    def encode(self, text: str) -> bytes:
        """Canonical key bytes of what a person types: plain text, a number, 0x…, or JSON. Raises ConfigError."""
        try:
            return self._encode(text)
        except (*WRITE_ERRORS, ConfigError) as error:
            raise ConfigError(
                f"{text!r} is no key of type {self._signature}: {error}.", hint=f"write it as {self._sample}."
            ) from error

    def _encode(self, text: str) -> bytes:
        if self._schema is not None:
            stream = BytesIO()
            schemaless_writer(stream, self._schema, _record(self._schema, json.loads(text)))
            return stream.getvalue()
        if self._codec is None or self._signature == "bytes":
            return bytes.fromhex(text.removeprefix("0x"))
        read: dict[str, Callable[[str], Any]] = {"str": str, "int": _number, "Int32": _number, "UUID": UUID}
        return self._codec.encode(read[self._signature](text))

    @property
    def _sample(self) -> str:
        samples = {"str": "text", "int": "42", "Int32": "42", "UUID": str(UUID(int=0)), "bytes": "0x00ff"}
        return samples.get(self._signature, "0x00ff" if self._schema is None else 'JSON, as ["berlin", 42]')


def plain(value: Any) -> Any:
    """A value as JSON knows it."""
    match value:
        case bytes():
            return f"0x{value.hex()}"
        case datetime() | date() | time():
            return value.isoformat()
        case Decimal() | UUID():
            return str(value)
        case dict():
            return {name: plain(each) for name, each in value.items()}
        case list() | tuple():
            return [plain(each) for each in value]
    return value


def _read(data: bytes, schema: Schema) -> Any:
    stream = BytesIO(data)
    try:
        value = schemaless_reader(stream, schema, None)
    except READ_ERRORS as error:
        raise DecodeError(f"{shown(data)} is not of its schema: {str(error) or type(error).__name__}.") from error
    if left := len(data) - stream.tell():
        raise DecodeError(f"{shown(data)} is not of its schema: {left} bytes left over.")
    return value


def _number(text: str) -> int:
    return int(text, 0)


def _composite(signature: str) -> Schema:
    """The Avro schema of a composite key; its fields and types have no names in a signature, so they are numbered."""
    numbers = count(1)
    schema, rest = _part(signature, numbers)
    if rest:
        raise ConfigError(f"{signature!r} is no key type that this release knows.", hint="use the job's release.")
    return parse_schema(schema)


def _part(text: str, numbers: count[int]) -> tuple[Any, str]:
    """The schema of the type that a text begins with, and the rest of the text."""
    if text.startswith("["):
        items, rest = _part(text[1:], numbers)
        return {"type": "array", "items": items}, rest.removeprefix("]")
    if text.startswith("enum("):
        values, _, rest = text.removeprefix("enum(").partition(")")
        return {"type": "enum", "name": f"Part{next(numbers)}", "symbols": values.split(",")}, rest
    if text.startswith("("):
        return _fields(text, numbers)
    name = next((name for name in _PARTS if text.startswith(name)), "")
    if not name:
        raise ConfigError(f"{text!r} is no key type that this release knows.", hint="use the job's release.")
    return _PARTS[name], text[len(name) :]


def _fields(text: str, numbers: count[int]) -> tuple[Any, str]:
    name, fields, rest = f"Part{next(numbers)}", list[Any](), text
    while rest[:1] in ("(", ","):
        schema, rest = _part(rest[1:], numbers)
        fields.append({"name": f"f{len(fields)}", "type": schema})
    return {"type": "record", "name": name, "fields": fields}, rest.removeprefix(")")


def _listed(value: Any) -> Any:
    """What was read of a composite key, its records as lists."""
    match value:
        case dict():
            return [_listed(each) for each in value.values()]
        case list():
            return [_listed(each) for each in value]
    return plain(value)


def _record(schema: Any, value: Any) -> Any:
    """The inverse, as far as `schemaless_writer` needs it."""
    match schema:
        case {"type": "record", "fields": fields}:
            if not isinstance(value, list) or len(value) != len(fields):
                raise ValueError(f"expected a list of {len(fields)} parts")
            return {field["name"]: _record(field["type"], each) for field, each in zip(fields, value, strict=True)}
        case {"type": "array", "items": items}:
            return [_record(items, each) for each in value]
        case "bytes":
            return bytes.fromhex(value.removeprefix("0x"))
    return value

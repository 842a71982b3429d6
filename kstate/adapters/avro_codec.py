"""The codec of one Python type: schemaless Avro, read by fastavro, or by columns where the type allows it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from types import MappingProxyType
from typing import Any
from uuid import UUID

from fastavro import parse_schema, schemaless_reader
from fastavro.schema import SchemaParseException, UnknownType
from fastavro.types import Schema

from kstate.adapters.avro_columns import batch_reader_of, constructor_of
from kstate.adapters.avro_types import Choice, Many, Nullable, Record, Scalar, Shape, loss_in, schema_of, shape_of
from kstate.adapters.avro_writer import WRITE_ERRORS, writer_of
from kstate.errors import ConfigError, DecodeError
from kstate.interfaces import Codec
from kstate.keys import shown
from kstate.schemas import canonical, fingerprint
from kstate.typeinfo import type_name

BATCH_MIN = 64
"""Below this the fixed cost of reading by columns outweighs its speed."""

SHOWN_MAX = 200
"""Characters of a value that an error message repeats."""

Convert = Callable[[Any], Any]
"""From fastavro's form of a value to ours."""

READ_ERRORS = (*WRITE_ERRORS, IndexError, EOFError, MemoryError)
"""What fastavro and our converters raise for bytes that are no value."""


class AvroCodec:
    """Values of one type to schemaless Avro and back; satisfies `interfaces.Codec`."""

    def __init__(self, type_: Any) -> None:
        self._name = type_name(type_)
        try:
            self.schema = canonical(schema_of(type_))
            self._parsed: Schema = parse_schema(json.loads(self.schema))
        except (ValueError, SchemaParseException, UnknownType) as error:
            raise ConfigError(
                f"The schema of {self._name} is not legal Avro: {error}.", hint="change the class, or its schema file."
            ) from error
        self.fingerprint = fingerprint(self.schema)
        self.shape = shape = shape_of(json.loads(self.schema), type_)
        self.loss = loss_in(shape)
        """What a value may lose on the way to bytes and back, None for nothing; a lossy type must not be state."""
        self._convert = _converter(shape)
        self._write = writer_of(shape)
        self._read_batch = batch_reader_of(shape)

    def encode(self, value: Any) -> bytes:
        """Bytes; ValueError when the value is not of the type or out of its range."""
        try:
            return self._write(value)
        except WRITE_ERRORS as error:
            raise ValueError(f"{_shown_value(value)} cannot be written as {self._name}: {error}") from error

    def decode(self, data: bytes) -> Any:
        """The value; DecodeError unless the bytes are exactly one."""
        stream = BytesIO(data)
        try:
            value = self.from_plain(schemaless_reader(stream, self._parsed, None))
        except READ_ERRORS as error:
            reason = str(error) or type(error).__name__
            raise DecodeError(f"{shown(data)} is no {self._name}: {reason}.") from error
        if stream.tell() != len(data):
            raise DecodeError(f"{shown(data)} is no {self._name}: {len(data) - stream.tell()} bytes left over.")
        return value

    def from_plain(self, value: Any) -> Any:
        """The object of what fastavro returns for the schema; raises one of READ_ERRORS."""
        return self._convert(value) if self._convert else value

    def encode_many(self, values: Sequence[Any]) -> list[bytes]:
        """`encode` of each; when one fails, which is not said: encode them one by one to find it."""
        try:
            return list(map(self._write, values))
        except WRITE_ERRORS as error:
            raise ValueError(f"one of {len(values)} values cannot be written as {self._name}: {error}") from error

    def decode_many(self, data: Sequence[bytes]) -> list[Any]:
        """`decode` of each; when one fails, which is not said: decode them one by one to find it."""
        found = self.decode_behind(b"", data)
        return [self.decode(each) for each in data] if found is None else found

    def decode_behind(self, head: bytes, data: Sequence[bytes]) -> list[Any] | None:
        """`decode_many` of what stands behind the same head of all, without cutting it off.

        None where columns do not serve: they are few, not flat, or one begins otherwise.
        """
        if self._read_batch is None or len(data) < BATCH_MIN:
            return None
        try:
            return self._read_batch(data, head)
        except READ_ERRORS as error:
            raise DecodeError(f"One of {len(data)} values is no {self._name}: {error}.") from error


class AvroKeyCodec:
    """Composite keys as schemaless Avro; satisfies `interfaces.KeyCodec`."""

    def __init__(self, codec: Codec[Any]) -> None:
        self._codec = codec
        self.encode = codec.encode

    def decode(self, data: bytes) -> Any:
        """The key; DecodeError for bytes that `encode` would not have made: one key must not have two slots."""
        key = self._codec.decode(data)
        if self._codec.encode(key) != data:
            raise DecodeError(f"Key bytes {shown(data)} are not in canonical form.")
        return key


def _converter(shape: Shape) -> Convert | None:
    """From what fastavro returns to a value of the shape; None when they are the same."""
    match shape:
        case Scalar("fixed", "uuid"):
            return lambda data: UUID(bytes=data)
        case Scalar():
            return None
        case Choice(members):
            return {member.value: member for member in members}.__getitem__
        case Nullable(item):
            inner = _converter(item)
            return inner and (lambda value: None if value is None else inner(value))
        case Many(item, keyed):
            return _map_converter(_converter(item)) if keyed else _array_converter(_converter(item))
        case Record(cls, fields):
            return _record_converter(cls, {name: _converter(part) for name, part in fields})


def _array_converter(inner: Convert | None) -> Convert:
    return (lambda values: tuple(map(inner, values))) if inner else tuple


def _map_converter(inner: Convert | None) -> Convert:
    if inner is None:
        return MappingProxyType
    return lambda values: MappingProxyType({key: inner(value) for key, value in values.items()})


def _record_converter(cls: type[Any], inner: Mapping[str, Convert | None]) -> Convert:
    """From a dict with the fields, in any order, to the record."""
    make = constructor_of(cls)
    parts = tuple(inner.items())
    if not any(inner.values()):
        return lambda fields: make(*[fields[name] for name, _ in parts])
    return lambda fields: make(*[part(fields[name]) if part else fields[name] for name, part in parts])


def _shown_value(value: object) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN_MAX else f"{text[:SHOWN_MAX]}…"

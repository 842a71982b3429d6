"""Reads values that were written with another schema: an older build's state, another team's records.

fastavro reads the bytes with the writer's schema; `kstate.evolution` says how what it returns becomes what the reader's
schema would have given, and the reader's own codec makes the object of it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from io import BytesIO
from typing import Any

from fastavro import parse_schema, schemaless_reader, schemaless_writer
from fastavro.types import Schema

from kstate.adapters.avro_codec import READ_ERRORS, AvroCodec
from kstate.errors import ConfigError, DecodeError
from kstate.evolution import resolution
from kstate.keys import shown


class ResolvingDecoder:
    """Decodes what one schema wrote to values of a codec's type."""

    def __init__(self, codec: AvroCodec, writer: str) -> None:
        """Raises ConfigError, naming both schemas, when the codec's schema cannot read what `writer` wrote."""
        found = resolution(writer, codec.schema, _default_value)
        if found.faults:
            raise ConfigError(
                f"What was written with schema {writer} cannot be read with schema {codec.schema}: "
                f"{'; '.join(found.faults)}.",
                hint="keep the types of fields that exist, and give new ones a default.",
            )
        self._codec = codec
        self._parsed: Schema = parse_schema(json.loads(writer))
        self._convert = found.convert

    def decode(self, data: bytes) -> Any:
        """The value; DecodeError unless the bytes are exactly one of the writer's schema."""
        stream = BytesIO(data)
        try:
            plain = schemaless_reader(stream, self._parsed, None)
            value = self._codec.from_plain(self._convert(plain) if self._convert else plain)
        except READ_ERRORS as error:
            reason = str(error) or type(error).__name__
            raise DecodeError(f"{shown(data)} is not of its writer's schema: {reason}.") from error
        if left := len(data) - stream.tell():
            raise DecodeError(f"{shown(data)} is not of its writer's schema: {left} bytes left over.")
        return value

    def decode_many(self, data: Sequence[bytes]) -> list[Any]:
        """`decode` of each."""
        return list(map(self.decode, data))


def _default_value(schema: Any, default: Any) -> Any:
    """A default as fastavro would read it: written by the Avro type, where JSON is exact, read by the logical one."""
    stream = BytesIO()
    schemaless_writer(stream, parse_schema(_without_logical(schema)), _binary(schema, default))
    stream.seek(0)
    return schemaless_reader(stream, parse_schema(schema), None)


def _without_logical(schema: Any) -> Any:
    match schema:
        case dict():
            return {
                key: _without_logical(part) for key, part in schema.items() if key not in ("logicalType", "default")
            }
        case list():
            return [_without_logical(part) for part in schema]
    return schema


def _binary(schema: Any, default: Any) -> Any:
    """JSON has no bytes: Avro writes them as a text of the code points 0 to 255."""
    match schema, default:
        case (("bytes" | {"type": "bytes" | "fixed"}), str()):
            return default.encode("latin-1")
        case {"type": "record", "fields": fields}, dict():
            given = {field["name"]: default.get(field["name"], field.get("default")) for field in fields}
            return {field["name"]: _binary(field["type"], given[field["name"]]) for field in fields}
        case {"items": items}, list():
            return [_binary(items, each) for each in default]
        case {"values": values}, dict():
            return {key: _binary(values, each) for key, each in default.items()}
        case list(), str():
            branch = next((part for part in schema if part != "null"), "null")
            return _binary(branch, default)
    return default

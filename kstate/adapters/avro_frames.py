"""Records and keys framed with the id of their schema, as Confluent's serializers do.

    0  1  zero
    1  4  schema id u32, big-endian
    5  …  Avro, written with that schema

A body is read with the schema it was written with and resolved to the record class; a batch is read by groups of equal
id, and where the fields are flat, by columns.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any

from fastavro.schema import SchemaParseException, UnknownType

from kstate.adapters.avro_codec import AvroCodec
from kstate.adapters.avro_evolved import EvolvedDecoder, layout
from kstate.adapters.avro_resolution import ResolvingDecoder
from kstate.errors import ConfigError, DecodeError
from kstate.evolution import kind_of
from kstate.interfaces import KeyCodec, Registry
from kstate.keys import Int32, plain_key_codec, shown
from kstate.schemas import canonical

HEAD_BYTES = 5

KEY_MEMO_MAX = 200_000
"""Remembered framed key → canonical key pairs per input; a dictionary hit instead of a decoded and encoded key."""

_HEAD = struct.Struct(">BI")
_head_of = itemgetter(slice(0, HEAD_BYTES))


class Schemas:
    """The schemas of one subject: texts by id, and ids of what is written."""

    def __init__(self, registry: Registry, subject: str) -> None:
        self._registry = registry
        self._subject = subject

    def id_in(self, data: bytes, what: str) -> int:
        """The id in front of a value or key; DecodeError when there is none."""
        if len(data) < HEAD_BYTES or data[0] != 0:
            raise DecodeError(
                f"{shown(data)} is not framed with the id of a schema: its first byte is not 0.",
                hint=f'declare {what}="raw" if the topic holds bare Avro.',
            )
        return int(_HEAD.unpack_from(data)[1])

    def text(self, schema_id: int) -> str:
        """The canonical text of a schema; DecodeError for an id that is not there."""
        text = self._registry.schema(schema_id)
        if text is None:
            raise DecodeError(
                f"Schema id {schema_id}, expected under subject {self._subject!r}, is not in the registry "
                f"{self._registry.name}."
            )
        try:
            return canonical(json.loads(text))
        except ValueError as error:
            raise ConfigError(f"{self.named(schema_id)} is no Avro schema: {error}.", hint="mend it.") from error

    def reader(self, schema_id: int, codec: AvroCodec) -> AvroCodec | EvolvedDecoder:
        """What reads bodies with this id as the codec's type; ConfigError, naming both schemas, when nothing can."""
        written = self.text(schema_id)
        try:
            resolving = ResolvingDecoder(codec, written)
            return codec if layout(written) == layout(codec.schema) else EvolvedDecoder(codec, resolving, written)
        except ConfigError as error:
            raise ConfigError(
                f"{self.named(schema_id)} and the class that is to read it do not fit. {error.what}",
                hint="generate the class from a schema that can read all that stands in the topic: types stay, new "
                "fields have a default.",
            ) from error
        except (ValueError, SchemaParseException, UnknownType) as error:
            raise ConfigError(f"{self.named(schema_id)} is not legal Avro: {error}.", hint="mend it.") from error

    def claim(self, schema: str) -> int:
        """The id under which this schema's values are written."""
        return self._registry.register(self._subject, schema)

    def named(self, schema_id: int) -> str:
        return f"Schema {schema_id} of subject {self._subject!r} in the registry {self._registry.name}"


class FramedAvroCodec:
    """Framed values of one type and topic; satisfies `interfaces.FramedCodec`."""

    def __init__(self, codec: AvroCodec, schemas: Schemas) -> None:
        self.schema = codec.schema
        self.fingerprint = codec.fingerprint
        self._codec = codec
        self._schemas = schemas
        self._readers: dict[bytes, AvroCodec | EvolvedDecoder] = {}
        self._head = b""

    def claim(self) -> int:
        """Register the schema of what is written, return its id. Raises RetryableError, ConfigError."""
        if not self._head:
            self._head = _HEAD.pack(0, self._schemas.claim(self.schema))
        return int(_HEAD.unpack(self._head)[1])

    def encode(self, value: Any) -> bytes:
        """Framed bytes; ValueError when the value is not of the type or out of its range."""
        if not self._head:
            self.claim()
        return self._head + self._codec.encode(value)

    def encode_many(self, values: Sequence[Any]) -> list[bytes]:
        """`encode` of each; when one fails, which is not said."""
        self.claim()
        return [self._head + data for data in self._codec.encode_many(values)]

    def learn(self, values: Sequence[bytes | None]) -> None:
        """Fetch the schemas of all ids that are not known yet. Raises RetryableError, ConfigError."""
        known: Sequence[Any] = [data for data in values if data is not None] if None in values else values
        for head in set(map(_head_of, known)) - self._readers.keys():
            try:
                self._reader(head)
            except DecodeError:
                continue  # an error of the records that have it

    def decode(self, data: bytes) -> Any:
        """The value; DecodeError unless it is framed, its id known, and the body exactly one."""
        return self._reader(data[:HEAD_BYTES]).decode(data[HEAD_BYTES:])

    def decode_many(self, data: Sequence[bytes]) -> list[Any]:
        """`decode` of each; when one fails, which is not said: decode them one by one to find it."""
        if data and self._readers.get(head := data[0][:HEAD_BYTES]) is self._codec:
            found = self._codec.decode_behind(head, data)
            if found is not None:  # the usual batch: all have the id of the class's own schema
                return found
        values: list[Any] = [None] * len(data)
        rows_of: dict[bytes, list[int]] = {}
        for row, head in enumerate(map(_head_of, data)):
            rows_of.setdefault(head, []).append(row)
        for head, rows in rows_of.items():
            bodies = [data[row][HEAD_BYTES:] for row in rows]
            for row, value in zip(rows, self._reader(head).decode_many(bodies), strict=True):
                values[row] = value
        return values

    def _reader(self, head: bytes) -> AvroCodec | EvolvedDecoder:
        reader = self._readers.get(head)
        if reader is None:
            schema_id = self._schemas.id_in(head, "format")
            reader = self._readers[head] = self._schemas.reader(schema_id, self._codec)
        return reader


class AvroKeyFrames:
    """Framed keys of one input to canonical key bytes; satisfies `interfaces.KeyFrames`.

    Keys of a declared type must all have one id: a producer places a record by its whole framed key, so a second id
    puts the same key into another partition, and gives it a second state.
    """

    def __init__(self, schemas: Schemas, codec: AvroCodec | None, key_codec: KeyCodec[Any] | None) -> None:
        """Codecs of the key type: of its Avro form and of its canonical bytes; None for keys of any type."""
        self._schemas = schemas
        self._codec = codec
        self._key_codec = key_codec
        self._known: dict[bytes | None, bytes | None] = {}
        self._canonizers: dict[int, Callable[[bytes], bytes]] = {}

    def canonical(self, keys: Sequence[bytes | None]) -> list[bytes | None]:
        """Canonical key bytes; a key that cannot be read stays the object that it is, see `fault`.

        Raises RetryableError while the registry is away, ConfigError for a second id or a schema that does not fit.
        """
        known = self._known
        found = list(map(known.get, keys))
        if None not in found:
            return found
        for row, key in enumerate(keys):
            if found[row] is None and key is not None:
                found[row] = self._canonical_or_same(key)
        return found

    def fault(self, key: bytes) -> str:
        """Why a key cannot be read."""
        try:
            self._canonical(key)
        except DecodeError as error:
            return str(error)
        return "its schema was not in the registry a moment ago"

    def _canonical_or_same(self, key: bytes) -> bytes:
        try:
            made = self._canonical(key)
        except DecodeError:
            return key
        if len(self._known) >= KEY_MEMO_MAX:
            self._known.clear()
        self._known[key] = made
        return made

    def _canonical(self, key: bytes) -> bytes:
        schema_id = self._schemas.id_in(key, "key_format")
        canonize = self._canonizers.get(schema_id)
        if canonize is None:
            canonize = self._canonizer(schema_id)
            self._canonizers[schema_id] = canonize
        return canonize(key[HEAD_BYTES:])

    def _canonizer(self, schema_id: int) -> Callable[[bytes], bytes]:
        if self._codec is None or self._key_codec is None:
            return _canonizer_of(self._schemas.text(schema_id))
        decode = self._schemas.reader(schema_id, self._codec).decode
        for other in self._canonizers:
            raise ConfigError(
                f"{self._schemas.named(schema_id)}: the topic's keys were written with schema {other}, too; one key "
                "would have two partitions and two states.",
                hint="declare rekey= on this input: its records are placed anew by the key itself.",
            )
        encode = self._key_codec.encode
        return lambda body: encode(decode(body))


def _canonizer_of(text: str) -> Callable[[bytes], bytes]:
    """By the writer's schema alone: a string to UTF-8, long and int to 8 and 4 bytes, anything else as it stands."""
    schema = json.loads(text)
    if isinstance(schema, list):
        return bytes
    kind = {"string": str, "long": int, "int": Int32, "bytes": bytes}.get(kind_of(schema)[0])
    plain = plain_key_codec(kind)
    if kind is None or plain is None:
        return bytes
    codec, encode = AvroCodec(kind), plain.encode
    return lambda body: encode(codec.decode(body))

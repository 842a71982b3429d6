"""Codecs by Python type: of values and keys, bare or framed with the id of their schema."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import NoneType
from typing import Any

from fastavro import parse_schema
from fastavro.schema import SchemaParseException, UnknownType

from kstate.adapters.avro_codec import AvroCodec, AvroKeyCodec
from kstate.adapters.avro_frames import AvroKeyFrames, FramedAvroCodec, Schemas
from kstate.adapters.avro_resolution import ResolvingDecoder
from kstate.errors import ConfigError
from kstate.interfaces import KeyCodec, Registry
from kstate.keys import key_fault, plain_key_codec
from kstate.typeinfo import type_name


def schema_fault(schema: Any) -> str | None:
    """Why a schema (parsed JSON) is not legal Avro, None when it is."""
    try:
        parse_schema(schema)
    except (ValueError, SchemaParseException, UnknownType) as error:
        return str(error)
    return None


class AvroCodecs:
    """The codecs of a process, made once per type; satisfies `interfaces.Codecs`."""

    def __init__(self, registry: Registry | None = None) -> None:
        """Without a registry no topic can be framed."""
        self.registry = registry
        self._values: dict[Any, AvroCodec] = {}
        self._resolving: dict[tuple[Any, str], Callable[[Sequence[bytes]], list[Any]]] = {}
        self._keys: dict[Any, KeyCodec[Any]] = {}
        self._framed: dict[tuple[Any, str], FramedAvroCodec] = {}

    def value(self, type_: Any) -> AvroCodec:
        """For a record class or a state's type; ConfigError when the type has no Avro form."""
        if type_ not in self._values:
            self._values[type_] = AvroCodec(type_)
        return self._values[type_]

    def resolving(self, type_: Any, writer: str) -> Callable[[Sequence[bytes]], list[Any]]:
        """Reads values that another schema (canonical text) wrote as the type's; ConfigError when it cannot."""
        if (type_, writer) not in self._resolving:
            self._resolving[type_, writer] = ResolvingDecoder(self.value(type_), writer).decode_many
        return self._resolving[type_, writer]

    def key(self, type_: Any) -> KeyCodec[Any]:
        """For a key type; ConfigError for one without canonical bytes. Any: encodes by the key's own type."""
        if type_ not in self._keys:
            self._keys[type_] = plain_key_codec(type_) or self._composite_key(type_)
        return self._keys[type_]

    def _composite_key(self, type_: Any) -> KeyCodec[Any]:
        if fault := key_fault(type_):
            raise ConfigError(f"Key type {type_name(type_)}: {fault}.", hint="take another type as key.")
        return AvroKeyCodec(self.value(type_))

    def framed(self, type_: Any, topic: str) -> FramedAvroCodec:
        """For the framed values of a topic; ConfigError when no registry is set. The first `encode` registers."""
        if (type_, topic) not in self._framed:
            subject = f"{topic}-value"
            schemas = Schemas(self._registry_for(topic), subject)
            self._framed[type_, topic] = FramedAvroCodec(self.value(type_), schemas)
        return self._framed[type_, topic]

    def key_frames(self, type_: Any, topic: str) -> AvroKeyFrames:
        """For the framed keys of a topic; NoneType: of any type, by the schemas they were written with."""
        schemas = Schemas(self._registry_for(topic), f"{topic}-key")
        if type_ is NoneType:
            return AvroKeyFrames(schemas, None, None)
        return AvroKeyFrames(schemas, self.value(type_), self.key(type_))

    def _registry_for(self, topic: str) -> Registry:
        if self.registry is None:
            raise ConfigError(
                f"Topic {topic!r} is declared with format 'confluent', and no schema registry is set.",
                hint="set KSTATE_REGISTRY, or `registry` in kstate.toml, to its URL or to a folder.",
            )
        return self.registry

"""Keys to canonical key bytes and back; part of the stored format, so it never changes.

str is UTF-8, int 8 and Int32 4 bytes big-endian (two's complement), bytes as they are, UUID its lower-case text: the
bytes that Kafka's own Java serializers make. A NamedTuple or record is schemaless Avro (kstate.adapters.avro). Key
bytes carry no schema id: slot, partition and state of a key must not depend on a registry.
"""

from __future__ import annotations

import struct
import typing
from collections.abc import Callable, Mapping
from types import NoneType
from typing import TYPE_CHECKING, Any, Generic, NewType, TypeVar
from uuid import UUID

from kstate.errors import DecodeError
from kstate.typeinfo import element_of, is_enum, nullable_of, record_fields, type_name

K = TypeVar("K")

if TYPE_CHECKING:  # pyright takes no NewType where a class is asked for, as in ValueState(Int32)

    class Int32(int): ...  # noqa: D101 (its text stands below)
else:
    Int32 = NewType("Int32", int)
"""A 32-bit integer: Avro `int`, as a key four bytes. A plain int is Avro `long`, as a key eight bytes."""

_LONG = struct.Struct(">q")
_INT = struct.Struct(">i")


class PlainKeyCodec(Generic[K]):
    """The codec of a key type that Kafka's own serializers know, too; satisfies `interfaces.KeyCodec`."""

    __slots__ = ("_name", "_read", "_write")

    def __init__(self, name: str, write: Callable[[K], bytes], read: Callable[[bytes], K]) -> None:
        self._name = name
        self._write = write
        self._read = read

    def encode(self, key: K) -> bytes:
        """Canonical bytes; ValueError when the key is of another type or out of range."""
        try:
            return self._write(key)
        except (TypeError, AttributeError, ValueError, struct.error) as error:
            # The message of a wrong type is about this module's insides; that of a wrong value tells something.
            why = f"it is a {type(key).__name__}" if isinstance(error, TypeError | AttributeError) else str(error)
            raise ValueError(f"key {key!r} is not a key of type {self._name}: {why}") from error

    def decode(self, data: bytes) -> K:
        """The key; DecodeError unless the bytes are exactly what `encode` makes."""
        try:
            return self._read(data)
        except (ValueError, struct.error) as error:
            raise DecodeError(f"Key bytes {shown(data)} are not a key of type {self._name}: {error}.") from error


def plain_key_codec(key_type: Any) -> PlainKeyCodec[Any] | None:
    """The codec of str, int, Int32, bytes or UUID; of Any (encodes by the key's own type); None for other types."""
    return _PLAIN.get(key_type) if _hashable(key_type) else None


def key_fault(key_type: Any) -> str | None:
    """Why a type cannot be a key, None when it can; of a composite, its first field that cannot."""
    if key_type is not Any and plain_key_codec(key_type):
        return None
    if fault := _common_fault(key_type):
        return fault
    fields = record_fields(key_type)
    if not fields:
        name = type_name(key_type)
        return f"{name} has no canonical key bytes; keys are str, int, Int32, bytes, UUID or a NamedTuple of them"
    faults = ((name, _part_fault(kind)) for name, kind in fields.items())
    return next((f"field {name!r} of {type_name(key_type)}: {fault}" for name, fault in faults if fault), None)


def key_signature(key_type: Any) -> str:
    """A text that changes exactly when the bytes of equal keys change; names of fields and classes are not in it."""
    if key_type in (None, NoneType):
        return "none"
    if (element := element_of(key_type)) is not None:
        return f"[{key_signature(element)}]"
    if is_enum(key_type):
        return f"enum({','.join(str(member.value) for member in key_type)})"
    if (fields := record_fields(key_type)) is not None:
        return f"({','.join(map(key_signature, fields.values()))})"
    return type_name(key_type)


def shown(data: bytes, limit: int = 32) -> str:
    """Bytes for a message, cut to a readable length."""
    return repr(data) if len(data) <= limit else f"{data[:limit]!r}… ({len(data)} bytes)"


def _part_fault(kind: Any) -> str | None:
    """Why a type cannot be part of a composite key."""
    if kind is bool or is_enum(kind):
        return None
    if (element := element_of(kind)) is not None:
        return _part_fault(element)
    return key_fault(kind)


def _common_fault(kind: Any) -> str | None:
    """The refusals that have a reason of their own."""
    if kind is float:
        return "a float is no key: 0.0 and -0.0 are equal but differ in bytes, NaN equals nothing; use int or str"
    if kind is bool:
        return "a bool is no key: two slots cannot share load; use a NamedTuple with more than it"
    if nullable_of(kind) is not None or kind in (None, NoneType):
        return f"{type_name(kind)} may be null, and a null key has no slot; use Operator[None] for records without key"
    if isinstance(origin := typing.get_origin(kind) or kind, type) and issubclass(origin, Mapping):
        return "a map is no key: its entries have no order; use a NamedTuple or a tuple of entries"
    return None


def _write_bytes(key: bytes) -> bytes:
    if not isinstance(key, bytes):
        raise TypeError(f"expected bytes, got {type(key).__name__}")
    return key


def _write_uuid(key: UUID) -> bytes:
    if not isinstance(key, UUID):
        raise TypeError(f"expected UUID, got {type(key).__name__}")
    return str(key).encode()


def _read_uuid(data: bytes) -> UUID:
    key = UUID(data.decode())
    if str(key).encode() != data:
        raise ValueError("a UUID key is 36 characters of lower-case text")
    return key


def _write_any(key: object) -> bytes:
    for kind in (str, int, bytes, UUID):
        if isinstance(key, kind) and not isinstance(key, bool):
            return _PLAIN[kind].encode(key)
    raise TypeError(
        f"a {type(key).__name__} is no key; use str, int, bytes or UUID, or annotate what the key function returns"
    )


def _read_any(_data: bytes) -> object:
    raise ValueError("the type of the key is not declared")


def _hashable(kind: Any) -> bool:
    try:
        hash(kind)
    except TypeError:
        return False
    return True


_PLAIN: dict[Any, PlainKeyCodec[Any]] = {
    str: PlainKeyCodec[str]("str", str.encode, bytes.decode),
    int: PlainKeyCodec[int]("int", _LONG.pack, lambda data: int(_LONG.unpack(data)[0])),
    Int32: PlainKeyCodec[int]("Int32", _INT.pack, lambda data: int(_INT.unpack(data)[0])),
    bytes: PlainKeyCodec[bytes]("bytes", _write_bytes, bytes),
    UUID: PlainKeyCodec[UUID]("UUID", _write_uuid, _read_uuid),
    Any: PlainKeyCodec[object]("declared", _write_any, _read_any),
}

"""Stored values: a small header before the encoded value, so that expiry and schema evolution need no migration.

    0  1  format: bit 0 = has an expiry, all other bits 0
    1  2  schema id u16, big-endian, from the plan's registry (from 1)
    3  8  expiry i64, big-endian: event time in ms since the epoch; only with bit 0
       …  payload: schemaless Avro

The same bytes stand in the local store and in the blocks of the backup log.
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

from kstate.errors import DecodeError

_PLAIN = struct.Struct(">BH")
_EXPIRING = struct.Struct(">BHq")
_HAS_EXPIRY = 1

NEVER = (1 << 63) - 1
"""The expiry of a value that has none; it is not stored."""


class Expiring(NamedTuple):
    """A decoded value with its expiry, `at`: ms since the epoch; deadline of a timer, end of a window, end of a ttl."""

    value: Any
    at: int


def expiring(value: Any, since: int, ttl_ms: int) -> Expiring:
    """A value that is forgotten so long after an event time; never, when that is beyond 64 bits."""
    return Expiring(value, min(since + ttl_ms, NEVER))


class StoredValue(NamedTuple):
    """A stored value, taken apart; `expiry` is event time in ms since the epoch, None = never."""

    schema_id: int
    expiry: int | None
    payload: bytes


def value_prefix(schema_id: int, expiry: int | None = None) -> bytes:
    """The header of a stored value; a stored value is this plus its payload."""
    if expiry is None:
        return _PLAIN.pack(0, schema_id)
    return _EXPIRING.pack(_HAS_EXPIRY, schema_id, expiry)


def split_value(data: bytes) -> StoredValue:
    """The inverse: header and payload of a stored value; DecodeError when it is none."""
    header = _EXPIRING if data[:1] == b"\x01" else _PLAIN
    if len(data) < header.size or data[0] > _HAS_EXPIRY:
        raise DecodeError(f"Stored value {data[:16].hex()} has no header of format 0 or 1.")
    fields = header.unpack_from(data)
    if fields[1] == 0:
        raise DecodeError(f"Stored value {data[:16].hex()} has schema id 0, expected at least 1.")
    return StoredValue(fields[1], fields[2] if header is _EXPIRING else None, data[header.size :])

"""Keys of the local store: one key range of one shard is one contiguous range of keys.

    stored key = prefix + suffix                          all numbers big-endian
    prefix     = operator id u16 | partition u32           operator id 1…65534, from the plan's registry
    suffix     = slot u16 | state id u16 | key length (LEB128 varint) | key | subkey

Operator id 0 is the store's own: entries that say whose store this is, how far it is, and what falls due when.

    identity   = 00 00 | 01
    lineage    = 00 00 | 02 | operator id u16 | partition u32
    time index = 00 00 | 03 | operator id u16 | partition u32 | timeline u8
               | at u64 = deadline + 2^63 | state name UTF-8 | 00 | key, each 00 as 00 FF | 00 00 | subkey

The backup log holds suffixes only: operator and partition are those of its topic-partition. The time index is never in
it: one entry with an empty value for every stored value with an expiry, derived from suffix and header. Its order is
the order in which things fire: (deadline, state name, key, subkey). It may hold more than that: an entry counts only
while the value it stands for has this expiry (kstate.state.agenda).
"""

from __future__ import annotations

import json
import struct
from typing import Literal, NamedTuple, TypeAlias

from kstate.errors import DecodeError
from kstate.keyspace import SLOTS, KeyRange

STORE_FORMAT = 2
"""Format of keys and values in the local store; a store of another format is wiped and restored."""

Timeline: TypeAlias = Literal["event", "processing", "ttl"]
"""Which clock a deadline follows: the watermark, the worker's clock, or the watermark without anyone being called."""

IDENTITY_KEY = b"\x00\x00\x01"
_LINEAGE = b"\x00\x00\x02"
_TIMELINES: dict[Timeline, int] = {"event": 1, "processing": 2, "ttl": 3}
_INDEX = b"\x00\x00\x03"
_PREFIX = struct.Struct(">HI")
_HEAD = struct.Struct(">HH")
_TIME = struct.Struct(">HIBQ")
_AT = struct.Struct(">Q")
_NAME_AT = len(_INDEX) + _TIME.size
_TIME_AT = _NAME_AT - _AT.size
_TIME_BIAS = 1 << 63


class Suffix(NamedTuple):
    """The parts of a key below its shard; `key` are canonical key bytes, `subkey` is empty but for maps and lists."""

    slot: int
    state_id: int
    key: bytes
    subkey: bytes


class Item(NamedTuple):
    """Something that falls due: the order of these tuples is the order in which they fire.

    `at` is the deadline, the end of the window, or the expiry, ms since the epoch; `name` the state's, `key` the
    canonical key bytes, `subkey` empty but for tags, windows and elements.
    """

    at: int
    name: str
    key: bytes
    subkey: bytes


def shard_prefix(operator_id: int, partition: int) -> bytes:
    """The first 6 bytes of every key of a shard."""
    return _PREFIX.pack(operator_id, partition)


def key_suffix(slot: int, state_id: int, key: bytes, subkey: bytes = b"") -> bytes:
    """What follows the shard's prefix."""
    length = len(key)
    if length < 0x80:
        return _HEAD.pack(slot, state_id) + bytes((length,)) + key + subkey
    return _HEAD.pack(slot, state_id) + _varint(length) + key + subkey


def parse_suffix(data: bytes) -> Suffix:
    """The inverse of `key_suffix`; DecodeError for anything that it does not make."""
    if len(data) <= _HEAD.size:
        raise DecodeError(f"State key {data[:16].hex()} has {len(data)} bytes, expected more than {_HEAD.size}.")
    slot, state_id = _HEAD.unpack_from(data)
    length, start = _parse_varint(data, _HEAD.size)
    if start + length > len(data):
        raise DecodeError(f"State key {data[:16].hex()}… ends within its key of {length} bytes.")
    return Suffix(slot, state_id, data[start : start + length], data[start + length :])


def shard_bounds(operator_id: int, partition: int, key_range: KeyRange) -> tuple[bytes, bytes]:
    """The store keys lo <= key < hi of a key range of a shard."""
    prefix = shard_prefix(operator_id, partition)
    lo = prefix + key_range.lo.to_bytes(2, "big")
    if key_range.hi == SLOTS:
        return lo, shard_prefix(operator_id, partition + 1)
    return lo, prefix + key_range.hi.to_bytes(2, "big")


def lineage_key(operator_id: int, partition: int) -> bytes:
    """Where the lineage of a shard is kept (kstate.state.lineage)."""
    return _LINEAGE + shard_prefix(operator_id, partition)


def index_key(operator_id: int, partition: int, timeline: Timeline, item: Item) -> bytes:
    """Where the time index holds an item; a state's name has no NUL character."""
    at, name, key, subkey = item
    head = _TIME.pack(operator_id, partition, _TIMELINES[timeline], at + _TIME_BIAS)
    return b"%b%b%b\x00%b\x00\x00%b" % (_INDEX, head, name.encode(), key.replace(b"\x00", b"\x00\xff"), subkey)


def parse_index_key(data: bytes) -> Item:
    """The item of a key of the time index; DecodeError for anything that `index_key` does not make."""
    try:
        (at,) = _AT.unpack_from(data, _TIME_AT)
        name_end = data.index(b"\x00", _NAME_AT)
        key_end = data.index(b"\x00\x00", name_end + 1)
        name = data[_NAME_AT:name_end].decode()
    except (struct.error, ValueError):
        raise DecodeError(f"Key {data[:64].hex()} is none of the time index: a part of it is missing.") from None
    key = data[name_end + 1 : key_end].replace(b"\x00\xff", b"\x00")
    return Item(at - _TIME_BIAS, name, key, data[key_end + 2 :])


def index_bounds(operator_id: int, partition: int, timeline: Timeline, since: int = -_TIME_BIAS) -> tuple[bytes, bytes]:
    """The store keys lo <= key < hi of what a shard has on one timeline, from the instant `since` on."""
    number = _TIMELINES[timeline]
    lo = _INDEX + _TIME.pack(operator_id, partition, number, since + _TIME_BIAS)
    return lo, _INDEX + _TIME.pack(operator_id, partition, number + 1, 0)


def identity_entry(app: str, worker: str, cluster_id: str) -> tuple[bytes, bytes]:
    """Key and value of the entry that says whose store this is: another value means a foreign or stale store."""
    identity = {"app": app, "cluster": cluster_id, "format": STORE_FORMAT, "worker": worker}
    return IDENTITY_KEY, json.dumps(identity, sort_keys=True).encode()


def _varint(number: int) -> bytes:
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _parse_varint(data: bytes, start: int) -> tuple[int, int]:
    """The number at `start` and the position behind it; at most 5 bytes, no padded forms."""
    number = 0
    for i, byte in enumerate(data[start : start + 5]):
        number |= (byte & 0x7F) << 7 * i
        if byte < 0x80:
            if byte == 0 and i:
                break
            return number, start + i + 1
    raise DecodeError(f"State key {data[:16].hex()}: its key length is not a canonical varint.")

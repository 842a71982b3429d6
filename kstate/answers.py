"""Answers to queries of state: the committed entries of a key range, as one stream of bytes over any connection.

    entry     suffix length u32 | value length u32 | watermark i64 | key suffix | stored value
    the end   FFFFFFFF | 1 the range was run by who answers until here, 0 it went away meanwhile

Numbers are big-endian. Key suffixes are those of kstate.state.layout, values those of kstate.state.values; the
watermark is that of the entry's key range, by which it may have expired. An answer without its end is torn.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from kstate.errors import DecodeError
from kstate.keyspace import KeyRange
from kstate.plan import Shard

Entry = tuple[bytes, bytes, int]
"""Key suffix, stored value, and the watermark that its key range stands at."""

_HEAD = struct.Struct(">II")
_WATERMARK = struct.Struct(">q")
_END = 0xFFFFFFFF
LENGTH_MAX = 1 << 24
"""Neither keys nor values are longer: whatever is has been misread."""


@dataclass(frozen=True, slots=True)
class Query:
    """All that an operator has of a key range of one of its partitions; `operator_id` is that of the plan."""

    shard: Shard
    operator_id: int
    key_range: KeyRange


class RangeGone(Exception):  # noqa: N818 (an answer, not a fault)
    """Who was asked does not run the key range, or did so no more when it had read it."""


def encode_entry(entry: Entry) -> bytes:
    """An entry of an answer."""
    suffix, value, watermark = entry
    return _HEAD.pack(len(suffix), len(value)) + _WATERMARK.pack(watermark) + suffix + value


def encode_end(*, whole: bool) -> bytes:
    """The end of an answer."""
    return _HEAD.pack(_END, int(whole))


def encode_answer(entries: Iterable[Entry]) -> Iterator[bytes]:
    """An answer in chunks; its end says whether the entries came to theirs, or RangeGone."""
    try:
        yield from map(encode_entry, entries)
    except RangeGone:
        yield encode_end(whole=False)
    else:
        yield encode_end(whole=True)


def decode_answer(data: BinaryIO) -> Iterator[Entry]:
    """The entries of an answer. Raises RangeGone at the end of one that does not count, DecodeError when it is torn."""
    while True:
        suffix_bytes, value_bytes = _HEAD.unpack(_exactly(data, _HEAD.size))
        if suffix_bytes == _END:
            if value_bytes != 1:
                raise RangeGone
            return
        if max(suffix_bytes, value_bytes) > LENGTH_MAX:
            raise DecodeError(f"an answer names an entry of {suffix_bytes} and {value_bytes} bytes")
        (watermark,) = _WATERMARK.unpack(_exactly(data, _WATERMARK.size))
        yield _exactly(data, suffix_bytes), _exactly(data, value_bytes), watermark


def _exactly(data: BinaryIO, size: int) -> bytes:
    """A file or a connection may give less than it is asked for."""
    found = data.read(size)
    while len(found) < size:
        if not (more := data.read(size - len(found))):
            raise DecodeError(f"an answer ends after {len(found)} of {size} bytes")
        found += more
    return found

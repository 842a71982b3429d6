"""Blocks: the changed entries of one piece in one epoch, as columns.

Behind the frame header (kstate.state.frames), all numbers big-endian:

    16      4  lo u32, first slot of the key range covered
    20      4  hi u32, slot behind the last, at most 65536
    24      8  epoch u64
    32      8  writer u64: xxh3_64 of the incarnation
    40      8  fingerprint of the writer's state schemas, zeros when not given; every value names its own schema id too
    48      4  index u32: place among the blocks of its marker, from 0
    52      1  block kind: 1 delta, 2 base
    53      3  zero
    56      4  n u32: number of entries, at least 1
    60     4n  suffix lengths u32
    60+4n  4n  value lengths u32, FFFFFFFF = the key is deleted
    60+8n   …  suffixes (kstate.state.layout), one after the other
            …  values (kstate.state.values), one after the other

A delta block changes keys. The base blocks of a marker together *replace* the slots of their key ranges: those slots
are emptied first, then all blocks of the marker are applied in index order.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kstate.config import BLOCK_BYTES_MAX
from kstate.errors import DecodeError
from kstate.keyspace import KeyRange
from kstate.state.frames import FRAME_HEADER_BYTES, FrameKind, seal, unseal
from kstate.state.layout import parse_suffix
from kstate.state.markers import Marker, decode_marker

_FIXED = struct.Struct(">IIQQ8sIB3sI")
_COLUMNS_AT = FRAME_HEADER_BYTES + _FIXED.size
_PAYLOAD_MAX = BLOCK_BYTES_MAX - _COLUMNS_AT
_ENTRY_BYTES = 8
_SUFFIX_BYTES_MIN = 5
_DELETED = 0xFFFFFFFF

Lengths = NDArray[np.int64]


class BlockKind(IntEnum):
    """Whether a block changes keys or replaces whole slots."""

    DELTA = 1
    BASE = 2


@dataclass(frozen=True, slots=True)
class BlockHeader:
    """What all blocks of one piece and epoch share."""

    operator_id: int
    key_range: KeyRange
    kind: BlockKind
    epoch: int
    writer: int
    fingerprint: bytes = bytes(8)


@dataclass(frozen=True, slots=True)
class Block:
    """A block whose columns are known to be sound; its entries are taken apart only when they are asked for."""

    header: BlockHeader
    index: int
    count: int
    frame: bytes

    @property
    def checksum(self) -> bytes:
        """The frame's checksum, of which the marker's is made."""
        return self.frame[8:FRAME_HEADER_BYTES]

    def entries(self) -> tuple[list[bytes], list[bytes | None]]:
        """Suffixes and values, None = deleted, as two lists of equal length."""
        suffix_lengths, value_lengths, deleted = _lengths(self.frame, self.count)
        start = _COLUMNS_AT + _ENTRY_BYTES * self.count
        suffixes = _split(self.frame, start, suffix_lengths)
        values: list[bytes | None] = [*_split(self.frame, start + int(suffix_lengths.sum()), value_lengths)]
        for i in np.flatnonzero(deleted).tolist():
            values[i] = None
        return suffixes, values


def encode_blocks(
    header: BlockHeader, suffixes: list[bytes], values: list[bytes | None], first_index: int = 0
) -> list[bytes]:
    """Frames of at most BLOCK_BYTES_MAX for these entries, in their order; none for no entries.

    Raises ValueError for an entry that fits into no block; `value_bytes_max` is checked earlier, where values are set.
    """
    if not suffixes:
        return []
    suffix_lengths = np.fromiter(map(len, suffixes), np.int64, len(suffixes))
    value_lengths = np.array([_DELETED if value is None else len(value) for value in values], np.int64)
    sizes = suffix_lengths + np.where(value_lengths == _DELETED, 0, value_lengths) + _ENTRY_BYTES
    if sizes[largest := int(sizes.argmax())] > _PAYLOAD_MAX:
        raise ValueError(_too_large(suffixes[largest], int(sizes[largest])))
    # The length columns are made once; each block takes its part of their bytes.
    suffix_column, value_column = suffix_lengths.astype(">u4").tobytes(), value_lengths.astype(">u4").tobytes()
    frames = []
    for index, (lo, hi) in enumerate(pairwise(_cuts(sizes)), first_index):
        lengths = suffix_column[4 * lo : 4 * hi], value_column[4 * lo : 4 * hi]
        body = _pack_fixed(header, index, hi - lo), *lengths, *suffixes[lo:hi], *filter(None, values[lo:hi])
        frames.append(seal(FrameKind.BLOCK, header.operator_id, b"".join(body)))
    return frames


def decode_frame(frame: bytes) -> Block | Marker:
    """A frame of the backup log. DecodeError for anything that kstate does not write."""
    kind, operator_id = unseal(frame)
    if kind is FrameKind.MARKER:
        return decode_marker(frame, operator_id)
    return _decode_block(frame, operator_id)


def _cuts(sizes: Lengths) -> list[int]:
    """Where blocks begin and end: each as full as the limit allows."""
    ends = sizes.cumsum()
    cuts = [0]
    while cuts[-1] < len(sizes):
        before = int(ends[cuts[-1] - 1]) if cuts[-1] else 0
        cuts.append(int(ends.searchsorted(before + _PAYLOAD_MAX, side="right")))
    return cuts


def _pack_fixed(header: BlockHeader, index: int, count: int) -> bytes:
    lo, hi = header.key_range.lo, header.key_range.hi
    kind, zeros = int(header.kind), bytes(3)
    return _FIXED.pack(lo, hi, header.epoch, header.writer, header.fingerprint, index, kind, zeros, count)


def _decode_block(frame: bytes, operator_id: int) -> Block:
    if len(frame) < _COLUMNS_AT:
        raise DecodeError(f"Block has {len(frame)} bytes, expected at least {_COLUMNS_AT}.")
    fields: tuple[Any, ...] = _FIXED.unpack_from(frame, FRAME_HEADER_BYTES)
    lo, hi, epoch, writer, fingerprint, index, kind, zeros, count = fields
    if any(zeros) or not count:
        raise DecodeError(f"Block of epoch {epoch} has {count} entries and {zeros.hex()} where zeros are reserved.")
    try:
        header = BlockHeader(operator_id, KeyRange(lo, hi), BlockKind(kind), epoch, writer, fingerprint)
    except ValueError as error:
        raise DecodeError(f"Block of epoch {epoch} is not valid: {error}.") from None
    if fault := _column_fault(frame, count, header.key_range):
        raise DecodeError(f"Block {index} of epoch {epoch} for {header.key_range}: {fault}.")
    return Block(header, index, count, frame)


def _column_fault(frame: bytes, count: int, key_range: KeyRange) -> str | None:
    """What is wrong with the columns, None when nothing is."""
    payload_at = _COLUMNS_AT + _ENTRY_BYTES * count
    if payload_at > len(frame):
        return f"{count} entries do not fit {len(frame)} bytes"
    suffix_lengths, value_lengths, _ = _lengths(frame, count)
    size = payload_at + int(suffix_lengths.sum() + value_lengths.sum())
    if size != len(frame):
        return f"its columns end at byte {size} of {len(frame)}"
    if suffix_lengths.min() < _SUFFIX_BYTES_MIN:
        return f"a key has {suffix_lengths.min()} bytes, expected at least {_SUFFIX_BYTES_MIN}"
    starts = payload_at + suffix_lengths.cumsum() - suffix_lengths
    octets = np.frombuffer(frame, np.uint8)
    slots = octets[starts].astype(np.int64) << 8 | octets[starts + 1]
    if slots.min() < key_range.lo or slots.max() >= key_range.hi:
        return f"its slots are {slots.min():#06x} to {slots.max():#06x}"
    return None


def _lengths(frame: bytes, count: int) -> tuple[Lengths, Lengths, NDArray[np.bool_]]:
    """Lengths of suffixes and of values, and which values are deletions (with length 0)."""
    lengths = np.frombuffer(frame, ">u4", 2 * count, _COLUMNS_AT).astype(np.int64)
    deleted = lengths[count:] == _DELETED
    return lengths[:count], np.where(deleted, 0, lengths[count:]), deleted


def _split(frame: bytes, start: int, lengths: Lengths) -> list[bytes]:
    cuts = (start + np.concatenate(([0], lengths.cumsum()))).tolist()
    return [frame[lo:hi] for lo, hi in pairwise(cuts)]


def _too_large(suffix: bytes, size: int) -> str:
    slot, state_id, key, _ = parse_suffix(suffix)
    return f"entry of state {state_id}, key {key[:64]!r}, slot {slot} needs {size} bytes; a block holds {_PAYLOAD_MAX}"

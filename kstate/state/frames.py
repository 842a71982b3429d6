"""Frames of the backup log, and the strict reading of their fields. All numbers are big-endian.

     0  4  magic 4B 53 42 4C ("KSBL")
     4  1  format version: 1 of blocks, 2 of markers
     5  1  frame kind: 1 block, 2 marker
     6  2  operator id u16
     8  8  checksum u64: xxh3_64 of the bytes from 16 to the end, seeded with bytes 0…7 as u64
    16  …  fields: see kstate.state.blocks and kstate.state.markers

A checksum over everything, because Kafka checks its own only up to the client: what is wrong must be known as wrong
before it is applied to state (rule S5).

Each kind has a version of its own: what did not change keeps its bytes, and a reader refuses exactly what it does not
know. Markers of version 1 are still read.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from enum import IntEnum

from xxhash import xxh3_64_intdigest

from kstate.errors import DecodeError
from kstate.keyspace import KeyRange
from kstate.times import Times, Upstream

FRAME_HEADER_BYTES = 16

_MAGIC = b"KSBL"
_HEADER = struct.Struct(">4sBBHQ")
_NUMBER = struct.Struct(">q")
_COUNT = struct.Struct(">H")
_TIMES = struct.Struct(">qq")
_PARTS = struct.Struct(">I")
_PART = struct.Struct(">IIIIQqB")


class FrameKind(IntEnum):
    """What a frame holds."""

    BLOCK = 1
    MARKER = 2


_VERSIONS = {FrameKind.BLOCK: 1, FrameKind.MARKER: 2}


def seal(kind: FrameKind, operator_id: int, body: bytes) -> bytes:
    """A frame around the fields of a block or marker."""
    start = _HEADER.pack(_MAGIC, _VERSIONS[kind], kind, operator_id, 0)[:8]
    return b"".join((start, xxh3_64_intdigest(body, int.from_bytes(start, "big")).to_bytes(8, "big"), body))


def unseal(frame: bytes) -> tuple[FrameKind, int]:
    """Kind and operator id of a frame whose checksum is right; DecodeError for anything else."""
    if len(frame) < FRAME_HEADER_BYTES:
        raise DecodeError(f"Frame has {len(frame)} bytes, expected at least {FRAME_HEADER_BYTES}.")
    magic, version, kind, operator_id, checksum = _HEADER.unpack_from(frame)
    if magic != _MAGIC:
        raise DecodeError(f"Frame begins with {magic.hex()}, expected {_MAGIC.hex()}.")
    newest = _VERSIONS.get(kind, max(_VERSIONS.values()))
    if not 1 <= version <= newest:
        raise DecodeError(f"Frame of kind {kind} has format version {version}, this release reads 1 to {newest}.")
    actual = xxh3_64_intdigest(memoryview(frame)[FRAME_HEADER_BYTES:], int.from_bytes(frame[:8], "big"))
    if actual != checksum:
        raise DecodeError(f"Frame has checksum {checksum:016x}, its bytes give {actual:016x}.")
    if kind not in (FrameKind.BLOCK, FrameKind.MARKER):
        raise DecodeError(f"Frame is of kind {kind}, expected 1 (block) or 2 (marker).")
    return FrameKind(kind), operator_id


def pack_text(text: str) -> bytes:
    """A text as u16 length and UTF-8."""
    data = text.encode()
    return _COUNT.pack(len(data)) + data


def pack_numbers(numbers: Mapping[str, int]) -> bytes:
    """A map topic → i64 as u16 count and, in ascending order of the topics, text and number."""
    items = sorted(numbers.items())
    return _COUNT.pack(len(items)) + b"".join(pack_text(topic) + _NUMBER.pack(number) for topic, number in items)


def pack_times(times: Times) -> bytes:
    """Where a piece stands in time, as laid out in kstate.state.markers."""
    parts = [_TIMES.pack(times.watermark, times.clock_ms), pack_numbers(times.inputs), _COUNT.pack(len(times.idle))]
    parts += map(pack_text, sorted(times.idle))
    parts.append(_COUNT.pack(len(times.streams)))
    for topic, upstreams in sorted(times.streams.items()):
        parts += (pack_text(topic), _PARTS.pack(len(upstreams)))
        parts += (
            _PART.pack(u.partition, u.of, u.key_range.lo, u.key_range.hi, u.grant, u.watermark, u.idle)
            for u in upstreams
        )
    return b"".join(parts)


class FieldReader:
    """Reads fields one after the other; whatever does not fit is a DecodeError that names what was read."""

    def __init__(self, data: bytes, start: int, what: str) -> None:
        self._data = data
        self._at = start
        self._what = what

    def take(self, fields: struct.Struct) -> tuple[int, ...]:
        """The numbers of a struct."""
        self._need(fields.size)
        values = fields.unpack_from(self._data, self._at)
        self._at += fields.size
        return values

    def text(self) -> str:
        (length,) = self.take(_COUNT)
        self._need(length)
        self._at += length
        try:
            return self._data[self._at - length : self._at].decode()
        except UnicodeDecodeError as error:
            raise DecodeError(f"{self._what}: text at byte {self._at - length} is not UTF-8: {error.reason}.") from None

    def numbers(self) -> dict[str, int]:
        """The inverse of `pack_numbers`."""
        numbers: dict[str, int] = {}
        for topic in self._topics():
            (numbers[topic],) = self.take(_NUMBER)
        return numbers

    def times(self) -> Times:
        """The inverse of `pack_times`."""
        watermark, clock_ms = self.take(_TIMES)
        inputs, idle = self.numbers(), frozenset(self._topics())
        streams = {}
        for topic in self._topics():
            (count,) = self.take(_PARTS)
            streams[topic] = tuple(self._upstream() for _ in range(count))
        try:
            return Times(watermark, clock_ms, inputs, idle, streams)
        except ValueError as error:
            raise DecodeError(f"{self._what}: {error}.") from None

    def _upstream(self) -> Upstream:
        partition, of, lo, hi, grant, watermark, flags = self.take(_PART)
        try:
            if flags > 1:
                raise ValueError(f"flags {flags} of an upstream, expected 0 or 1 (idle)")
            return Upstream(partition, of, KeyRange(lo, hi), grant, watermark, bool(flags))
        except ValueError as error:
            raise DecodeError(f"{self._what}: {error}.") from None

    def _topics(self) -> Iterator[str]:
        """A count, then topics in ascending order; what belongs to a topic is read before the next one is asked for."""
        (count,) = self.take(_COUNT)
        last = ""
        for i in range(count):
            topic = self.text()
            if i and topic <= last:
                raise DecodeError(f"{self._what}: topic {topic!r} follows {last!r}, expected ascending order.")
            yield topic
            last = topic

    def key_range(self, fields: struct.Struct) -> tuple[KeyRange, tuple[int, ...]]:
        """A struct that begins with lo and hi: the key range, and the other numbers."""
        lo, hi, *rest = self.take(fields)
        try:
            return KeyRange(lo, hi), tuple(rest)
        except ValueError as error:
            raise DecodeError(f"{self._what}: {error}.") from None

    def end(self) -> None:
        """Nothing may follow."""
        if self._at != len(self._data):
            raise DecodeError(f"{self._what} has {len(self._data)} bytes, its fields end at byte {self._at}.")

    def _need(self, size: int) -> None:
        if self._at + size > len(self._data):
            raise DecodeError(f"{self._what} ends at byte {len(self._data)}, {size} more expected at {self._at}.")

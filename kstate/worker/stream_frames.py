"""Frames of internal streams: records with their event time, and in-band watermarks.

`produce_batch` carries no headers, so what travels with a record of an internal stream travels in front of it. All
numbers are big-endian, times in ms since the epoch:

    0  1  kind: 0 record
    1  8  event time i64
    9  …  payload: schemaless Avro

    0  1  kind: 1 watermark; the message has no key
    1  8  watermark i64 of a piece of the writing operator (-2⁶³: unknown)
    9  1  flags: 1 idle, none of its inputs has anything to read
   10  4  partition u32 of the writer's shard
   14  4  of u32, number of the writer's shards
   18  4  lo u32, first slot of the piece
   22  4  hi u32, slot behind the last, at most 65536
   26  8  grant u64: the plan version that gave the tile to the writer
   34  …  uid of the writing operator, UTF-8

A piece writes its frame into every partition of a stream, at the end of an epoch and behind the epoch's records: a
record that follows the frame is not expected to be earlier than its watermark.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kstate.errors import DecodeError
from kstate.interfaces import OutMessage
from kstate.keyspace import KeyRange

RECORD = 0
WATERMARK = 1
HEADER_BYTES = 9
_RECORD_KIND = bytes((RECORD,))
_WATERMARK = struct.Struct(">BqBIIIIQ")
_IDLE = 1


@dataclass(frozen=True, slots=True)
class WatermarkFrame:
    """What the piece `key_range` of shard `partition` (one of `of`) of operator `uid` says of its event time."""

    uid: str
    partition: int
    of: int
    key_range: KeyRange
    grant: int
    watermark: int
    idle: bool


def record_frame(event_time_ms: int, payload: bytes) -> bytes:
    """A framed record."""
    return _RECORD_KIND + event_time_ms.to_bytes(8, "big", signed=True) + payload


def split_record_frames(frames: list[bytes]) -> tuple[list[int], list[bytes]]:
    """Event times and payloads of framed records; DecodeError for anything else."""
    for frame in frames:
        if len(frame) < HEADER_BYTES or frame[0] != RECORD:
            raise DecodeError(
                f"a frame of {len(frame)} bytes and kind {frame[:1].hex() or 'none'} is not a record frame"
            )
    times = [int.from_bytes(frame[1:HEADER_BYTES], "big", signed=True) for frame in frames]
    return times, [frame[HEADER_BYTES:] for frame in frames]


def watermark_rows(values: Sequence[bytes | None]) -> list[int]:
    """The rows of a batch of an internal stream that are watermark frames, or claim to be."""
    return [row for row, value in enumerate(values) if value and value[0] == WATERMARK]


def encode_watermark(frame: WatermarkFrame) -> bytes:
    """The value of a watermark's message."""
    numbers = (frame.partition, frame.of, frame.key_range.lo, frame.key_range.hi, frame.grant)
    return _WATERMARK.pack(WATERMARK, frame.watermark, _IDLE * frame.idle, *numbers) + frame.uid.encode()


def decode_watermark(value: bytes) -> WatermarkFrame:
    """The inverse; DecodeError for anything that `encode_watermark` does not make."""
    if len(value) <= _WATERMARK.size:
        raise DecodeError(f"Watermark frame has {len(value)} bytes, expected more than {_WATERMARK.size}.")
    kind, watermark, flags, partition, of, lo, hi, grant = _WATERMARK.unpack_from(value)
    try:
        if kind != WATERMARK or flags > _IDLE:
            raise ValueError(f"kind {kind} and flags {flags}, expected kind {WATERMARK} and flags 0 or {_IDLE}")
        if partition >= of:
            raise ValueError(f"partition {partition} of {of}")
        uid = value[_WATERMARK.size :].decode()
        return WatermarkFrame(uid, partition, of, KeyRange(lo, hi), grant, watermark, bool(flags))
    except ValueError as error:  # UnicodeDecodeError is one
        raise DecodeError(f"Watermark frame is not valid: {error}.") from None


def frames_of(frame: WatermarkFrame, streams: Mapping[str, int]) -> list[tuple[str, list[OutMessage]]]:
    """A piece's frame as messages for every partition of its internal streams (topic → number of partitions)."""
    value = encode_watermark(frame)
    return [
        (topic, [OutMessage(key=None, value=value, partition=partition) for partition in range(count)])
        for topic, count in streams.items()
    ]

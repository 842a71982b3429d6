"""Frames of internal streams: kind (1 byte), event time (int64, big-endian, ms since the epoch), payload.

`produce_batch` carries no headers, so what travels with a record of an internal stream travels in front of it. Kind 0
is a record; kind 1 is reserved for watermark frames.
"""

from __future__ import annotations

from kstate.errors import DecodeError

RECORD = 0
HEADER_BYTES = 9
_RECORD_KIND = bytes((RECORD,))


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

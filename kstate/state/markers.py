"""Markers: the record that ends one piece's part of an epoch in the backup log.

Behind the frame header (kstate.state.frames), in format version 2, all numbers big-endian:

    16  4  lo u32, first slot of the key range
    20  4  hi u32, slot behind the last, at most 65536
    24  8  epoch u64 = 1 + the largest previous epoch, 1 when there is none
    32  8  grant u64: the plan version that gave the tile to the writer
    40  8  base u64: log offset where the last finished re-base cycle began, 0 = the start of the log
    48  8  move id u64, 0 = none
    56  8  checksum u64: xxh3_64 of its blocks' frame checksums (8 bytes each, in index order)
    64  4  number of blocks u32
    68  4  number of entries in them u32
    72  1  marker kind: 1 epoch, 2 release
    73  1  zero
    74  …  incarnation: u16 length, UTF-8
        …  previous: u32 count, then lo u32, hi u32, epoch u64 each, ascending, without overlap
        …  progress: u16 count, then per topic in ascending order u16 length, UTF-8, next offset i64
        …  times: watermark i64 in ms (-2⁶³: unknown), clock i64 in ms
        …  watermarks of users' topics: as progress, event time i64 in ms
        …  idle ones of them: u16 count, then per topic in ascending order u16 length, UTF-8
        …  internal streams: u16 count, then per topic in ascending order u16 length, UTF-8, and what was heard of its
           upstreams: u32 count, then partition u32, of u32, lo u32, hi u32, grant u64, watermark i64, u8 (1 = idle)
           each, ascending by partition and lo, without overlap

Version 1 had, instead of all that belongs to times, only the watermarks of users' topics.

Blocks and marker are in one partition and one transaction, blocks first: they become visible together and in order.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from xxhash import xxh3_64_intdigest

from kstate.errors import DecodeError
from kstate.keyspace import KeyRange
from kstate.progress import Progress
from kstate.state.frames import FRAME_HEADER_BYTES, FieldReader, FrameKind, pack_numbers, pack_text, pack_times, seal
from kstate.times import Times

_FIXED = struct.Struct(">IIQQQQQIIBB")
_COUNT = struct.Struct(">I")
_PREVIOUS = struct.Struct(">IIQ")
_VERSION_AT = 4


class MarkerKind(IntEnum):
    """Whether the writer goes on owning the range (rule S6)."""

    EPOCH = 1
    RELEASE = 2


@dataclass(frozen=True, slots=True)
class Marker:
    """One piece's part of a committed epoch.

    Invariants (ValueError): epoch = 1 + the largest previous one; previous ranges ascend without overlap within the key
    range; progress is not negative; a release, and nothing else, names its move.
    """

    operator_id: int
    key_range: KeyRange
    kind: MarkerKind
    epoch: int
    incarnation: str
    grant: int
    progress: Progress
    times: Times
    previous: tuple[tuple[KeyRange, int], ...]
    base: int
    blocks: int
    entries: int
    checksum: int
    move: int | None = None

    def __post_init__(self) -> None:
        if fault := _fault(self):
            raise ValueError(f"marker of epoch {self.epoch} for {self.key_range}: {fault}")

    @property
    def writer(self) -> int:
        """How the blocks name its incarnation."""
        return writer_id(self.incarnation)


def writer_id(incarnation: str) -> int:
    """The short form of an incarnation in block headers: xxh3_64 of its UTF-8."""
    return int(xxh3_64_intdigest(incarnation.encode()))


def joint_checksum(checksums: Iterable[bytes]) -> int:
    """A marker's checksum from the frame checksums of its blocks, in index order."""
    return int(xxh3_64_intdigest(b"".join(checksums)))


def encode_marker(marker: Marker) -> bytes:
    """The frame of a marker."""
    fixed = _FIXED.pack(
        *(marker.key_range.lo, marker.key_range.hi, marker.epoch, marker.grant, marker.base, marker.move or 0),
        *(marker.checksum, marker.blocks, marker.entries, marker.kind, 0),
    )
    previous = [_PREVIOUS.pack(key_range.lo, key_range.hi, epoch) for key_range, epoch in marker.previous]
    parts = (fixed, pack_text(marker.incarnation), _COUNT.pack(len(previous)), *previous)
    body = b"".join((*parts, pack_numbers(marker.progress), pack_times(marker.times)))
    return seal(FrameKind.MARKER, marker.operator_id, body)


def decode_marker(frame: bytes, operator_id: int) -> Marker:
    """The marker of an unsealed frame; DecodeError unless it is exactly what `encode_marker` makes, or has
    made in an earlier release.
    """
    fields = FieldReader(frame, FRAME_HEADER_BYTES, "Marker")
    key_range, (epoch, grant, base, move, checksum, blocks, entries, kind, zero) = fields.key_range(_FIXED)
    incarnation = fields.text()
    previous = _previous(fields)
    progress = fields.numbers()
    times = Times(inputs=fields.numbers()) if frame[_VERSION_AT] == 1 else fields.times()
    fields.end()
    if zero:
        raise DecodeError(f"Marker has {zero} where 0 is reserved.")
    try:
        return Marker(
            *(operator_id, key_range, MarkerKind(kind), epoch, incarnation, grant, progress, times),
            *(previous, base, blocks, entries, checksum, move or None),
        )
    except ValueError as error:
        raise DecodeError(f"Marker is not valid: {error}.") from None


def _previous(fields: FieldReader) -> tuple[tuple[KeyRange, int], ...]:
    (count,) = fields.take(_COUNT)
    previous = []
    for _ in range(count):
        key_range, (epoch,) = fields.key_range(_PREVIOUS)
        previous.append((key_range, epoch))
    return tuple(previous)


def _fault(marker: Marker) -> str | None:
    """What breaks an invariant, None when nothing does."""
    if marker.epoch != 1 + max((epoch for _, epoch in marker.previous), default=0):
        return f"expected 1 + the largest of its previous epochs {[epoch for _, epoch in marker.previous]}"
    if (marker.kind is MarkerKind.RELEASE) != (marker.move is not None):
        return f"kind {marker.kind.name} with move id {marker.move}"
    if not marker.incarnation:
        return "it has no incarnation"
    if any(offset < 0 for offset in marker.progress.values()):
        return f"negative progress {dict(marker.progress)}"
    ends = [marker.key_range.lo]
    for key_range, epoch in marker.previous:
        if key_range.lo < ends[-1] or key_range.hi > marker.key_range.hi or epoch < 1:
            return f"previous epoch {epoch} of {key_range} is out of place"
        ends.append(key_range.hi)
    return None

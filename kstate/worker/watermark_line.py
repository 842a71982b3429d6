"""The records of one partition in the order in which they move a piece's watermark.

The watermark of an external input advances with *every* record of the partition, whether or not the piece owns its key:
two halves of a split shard must see a timer fall due at the same record, else the results of a key would depend on
where its shard was cut.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from kstate.interfaces import Batch
from kstate.worker.decode import Decoded, select
from kstate.worker.ownership import Part, Piece
from kstate.worker.stream_frames import WatermarkFrame, decode_watermark, watermark_rows


@dataclass(frozen=True, slots=True)
class WatermarkLine:
    """Records that count, in offset order: `watermarks[i]` is the piece's watermark once it advanced by record i."""

    offsets: Sequence[int]
    times: Sequence[int]
    watermarks: Sequence[int]

    def at(self, decoded: Decoded) -> Sequence[int]:
        """The watermark at each decoded record."""
        if decoded.batch.offsets is self.offsets:
            return self.watermarks
        by_offset = dict(zip(self.offsets, self.watermarks, strict=True))
        return [by_offset[offset] for offset in decoded.batch.offsets]

    def watermark_after(self, offset: int) -> int:
        """The watermark at the record of this offset."""
        return self.watermarks[bisect_left(self.offsets, offset)]

    def times_before(self, offset: int) -> Sequence[int]:
        """The event times of the records below an offset."""
        return self.times[: bisect_left(self.offsets, offset)]

    def reaching(self, instant: int) -> int:
        """Index of the first record that moves the watermark to an instant or beyond."""
        return bisect_left(self.watermarks, instant)


Frames: TypeAlias = list[tuple[int, WatermarkFrame]]
"""Watermark frames with their offsets, in offset order."""


def line_of(piece: Piece, own: Decoded, others: list[tuple[int, int]]) -> WatermarkLine:
    """The line of an external input: the piece's own records, and offset and event time of the others."""
    offsets: Sequence[int] = own.batch.offsets
    times: Sequence[int] = own.event_times
    if others:
        merged = sorted([*zip(offsets, times, strict=True), *others])
        offsets, times = [offset for offset, _ in merged], [time for _, time in merged]
    return WatermarkLine(offsets, times, piece.watermarks.over(own.batch.source.topic, times))


def without_frames(part: Part) -> tuple[Batch, Frames]:
    """The own records of an internal stream's part, and its watermark frames with their offsets, in offset order.

    Frames have no key: they are for every piece.
    """
    frames: Frames = []
    own = part.own
    for batch in (part.own, part.foreign):
        rows = watermark_rows(batch.values) if batch is not None else []
        if batch is None or not rows:
            continue
        frames += [(batch.offsets[row], decode_watermark(batch.values[row] or b"")) for row in rows]
        if batch is part.own:
            gone = set(rows)
            own = select(batch, [row for row in range(len(batch)) if row not in gone])
    return own, sorted(frames, key=lambda pair: pair[0])


def still(piece: Piece, count: int) -> list[int]:
    """The watermark at each of so many records that do not move it."""
    return [piece.watermarks.current] * count

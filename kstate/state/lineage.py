"""Lineage: how far the local copy of a shard is, and from which chain of markers; a map over the slots (rule S8).

It is kept in the local store in the same write as the state it speaks of, one entry per shard for all its key ranges:

    0  1  format version, 3
    1  4  number of pieces u32
       …  per piece, ascending: lo u32 | hi u32 | offset u64 | epoch u64 | grant u64 | base u64
          | move id u64, 0 = none | lo u32 and hi u32 of the marker, both 0 = not known
          | incarnation (u16 length, UTF-8) | progress | times (as in kstate.state.markers)

Versions 1 and 2, which are still read, have neither move id nor the marker's range; version 1 has watermarks instead of
times, as in markers.

Several key ranges of a shard may live in one store side by side, one being restored while another runs. So nobody
writes the entry from memory: `lineage_entry` puts a part into what the store holds, in the same step as the write.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass

from kstate.errors import CorruptStateError, DecodeError
from kstate.interfaces import Store
from kstate.keyspace import KeyRange
from kstate.progress import Progress, SlotMap
from kstate.state.frames import FieldReader, pack_numbers, pack_text, pack_times
from kstate.state.layout import lineage_key
from kstate.times import UNKNOWN_TIME, Times

_FORMAT = 3
_HEADER = struct.Struct(">BI")
_PIECE = struct.Struct(">IIQQQQ")
_BEHIND = struct.Struct(">QII")


@dataclass(frozen=True, slots=True)
class Position:
    """The last marker applied to some slots."""

    offset: int
    """Next offset of the backup partition to apply."""
    epoch: int
    grant: int
    incarnation: str
    progress: Progress
    times: Times
    base: int
    move: int | None = None
    """The move whose RELEASE that marker is (rule S6)."""
    marked: KeyRange | None = None
    """The key range of that marker: neighbours that follow different markers stay apart. None: not known."""


Lineage = SlotMap[Position]
"""Slot → position; a gap is a slot that no marker covers."""


def encode_lineage(lineage: Lineage) -> bytes:
    """The value of the store's lineage entry."""
    parts = [_HEADER.pack(_FORMAT, len(lineage))]
    for key_range, p in lineage:
        parts.append(_PIECE.pack(key_range.lo, key_range.hi, p.offset, p.epoch, p.grant, p.base))
        marked = (p.marked.lo, p.marked.hi) if p.marked else (0, 0)
        parts.append(_BEHIND.pack(p.move or 0, *marked))
        parts += (pack_text(p.incarnation), pack_numbers(p.progress), pack_times(p.times))
    return b"".join(parts)


def decode_lineage(data: bytes) -> Lineage:
    """The inverse; DecodeError for anything that `encode_lineage` does not make and never made."""
    fields = FieldReader(data, 0, "Lineage")
    version, count = fields.take(_HEADER)
    if not 1 <= version <= _FORMAT:
        raise DecodeError(f"Lineage has format version {version}, this release reads 1 to {_FORMAT}.")
    lineage, end = Lineage(), 0
    for _ in range(count):
        key_range, (offset, epoch, grant, base) = fields.key_range(_PIECE)
        if key_range.lo < end:
            raise DecodeError(f"Lineage: {key_range} begins before slot {end}, expected ascending ranges.")
        end = key_range.hi
        move, marked = _behind(fields) if version > 2 else (None, None)
        incarnation, progress = fields.text(), fields.numbers()
        times = Times(inputs=fields.numbers()) if version == 1 else fields.times()
        position = Position(offset, epoch, grant, incarnation, progress, times, base, move, marked)
        lineage.assign(key_range, position)
    fields.end()
    return lineage


def released(lineage: Lineage, key_range: KeyRange, move: int) -> bool:
    """Whether every slot stands behind the RELEASE of this move, or was written under its grant or a newer one (S6)."""
    if lineage.gaps(key_range):
        return False
    return all(p.move == move or p.grant >= move for p in lineage.slice(key_range).values())


def watermark_of(lineage: Lineage, suffix: bytes) -> int:
    """Where the slot of a key below the shard stands."""
    position = lineage.get(int.from_bytes(suffix[:2], "big"))
    return UNKNOWN_TIME if position is None else position.times.watermark


def stored_lineage(store: Store, operator_id: int, partition: int) -> Lineage:
    """The lineage that the local store holds of a shard, all key ranges; CorruptStateError when it is unreadable."""
    (data,) = store.get_many([lineage_key(operator_id, partition)])
    try:
        return Lineage() if data is None else decode_lineage(data)
    except DecodeError as error:
        where = f"operator {operator_id}, partition {partition}"
        raise CorruptStateError(f"Lineage of {where} in the local store is damaged: {error}") from error


def lineage_entry(
    store: Store, operator_id: int, partition: int, part: Lineage, dropped: Iterable[KeyRange] = ()
) -> tuple[bytes, bytes]:
    """Key and value of the store's lineage entry once these slots stand as in `part`, all other slots as they are.

    `dropped` become gaps. Write the pair with the state it speaks of, before anybody else writes to the store.
    """
    lineage = stored_lineage(store, operator_id, partition)
    for key_range in dropped:
        lineage.clear(key_range)
    for key_range, position in part:
        lineage.assign(key_range, position)
    return lineage_key(operator_id, partition), encode_lineage(lineage)


def _behind(fields: FieldReader) -> tuple[int | None, KeyRange | None]:
    """Move id and key range of the marker, as version 3 has them."""
    move, lo, hi = fields.take(_BEHIND)
    try:
        return move or None, KeyRange(lo, hi) if lo or hi else None
    except ValueError as error:
        raise DecodeError(f"Lineage: its marker's {error}.") from None

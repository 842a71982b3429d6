"""What a process has in hand, so that the next one knows what killed it.

A record may kill the process that handles it: a crash of native code, all memory used up, an endless loop. Nobody can
tell who did it, but where it happened can be known: before a part of a batch is handed to an operator, or its timers
fire, a *note* says so, in memory that outlives the process (`Notes`). It goes when the epoch is committed or undone,
and at every end that is no accident. So a note that a new incarnation finds is a death with that in hand:

    note left behind ──▶ a death at this place: the first one, or one more in a row ──▶ reported in every heartbeat
                         ... until the piece has committed progress beyond it, the plan parks it, or the job is another

"In a row" is per place: the same input of the same slots at the same committed progress. It is not asked who killed: a
worker that is killed from outside so many times (`failure.deaths_max`) before it ever commits what it begins with is
taken for a victim of its input. A death whose note was torn, or that happened with nothing in hand, does not count.

Layout of a note (big-endian):

    0  4  checksum u32, CRC-32 of all that follows
    4  2  length n u16 of what follows; 0: nothing in hand
    6  n  place: partition u32 | lo u32 | hi u32 | offset u64 | epoch i64, -1: of records | operator uid | topic

and of the ledger, in which the deaths of earlier processes are kept (texts: u16 length, UTF-8):

    0  4  checksum u32, CRC-32 of all that follows
    4  1  format version, 1
    5  2  number of deaths u16
       …  build of the job | per death: count u32 | place, as above
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol, TypeAlias
from zlib import crc32

from kstate.errors import DecodeError
from kstate.keyspace import KeyRange
from kstate.messages import Fatality, TilePhase, TileReport
from kstate.plan import Parked, Shard
from kstate.progress import SlotMap
from kstate.state.frames import FieldReader, pack_text
from kstate.worker.ownership import OwnedShard, Piece

Mark: TypeAlias = Callable[[], tuple[int, int]]
"""How far user code is: the offset of the last record begun, or -1; how many records and timers the epoch has had."""

DEATHS_KEPT = 16
"""Places remembered; more than a few are never outstanding at once."""

_VERSION = 1
_SEAL = struct.Struct(">I")
_LENGTH = struct.Struct(">H")
_PLACE = struct.Struct(">IIIQq")
_RANGE_PLACE = struct.Struct(">IIQq")
_LEDGER = struct.Struct(">BH")
_COUNT = struct.Struct(">I")
_OF_RECORDS = -1
_NOTHING = _SEAL.pack(crc32(_LENGTH.pack(0))) + _LENGTH.pack(0)


class Notes(Protocol):
    """A note and a ledger, bytes that outlive the process, however it ends, but not the machine: nothing is synced."""

    def read(self) -> tuple[bytes, bytes]:
        """Note and ledger as the last process left them, each followed by whatever; empty where there was none."""
        ...

    def note(self, data: bytes) -> None:
        """Write over the note, in about a microsecond; a process killed meanwhile may leave a torn one."""
        ...

    def keep(self, ledger: bytes) -> None:
        """Replace the ledger and drop the note, both or neither."""
        ...


class Place(NamedTuple):
    """A part of a shard that was in hand, and the committed progress from which it would be done again."""

    shard: Shard
    key_range: KeyRange
    topic: str
    offset: int
    epoch: int | None = None
    """None: records of the topic were in hand. Otherwise timers, due without a record, after this epoch of the piece:
    their end is the next epoch, whatever it reads."""

    def is_again(self, other: Place) -> bool:
        """Whether whoever starts at one place meets what the other one met: ranges may have been cut or joined."""
        return self._key() == other._key() and self.key_range.overlap(other.key_range) is not None

    def is_past(self, report: TileReport) -> bool:
        """Whether a piece of the shard has come through what was in hand here."""
        if report.phase != TilePhase.RUNNING or report.shard != self.shard:
            return False
        moved_on = self.epoch is not None and report.epoch > self.epoch
        return moved_on or report.progress.get(self.topic, 0) > self.offset

    def _key(self) -> tuple[object, ...]:
        return self.shard, self.topic, self.offset, self.epoch


@dataclass(frozen=True, slots=True)
class Deaths:
    """How many processes in a row died with the same in hand."""

    place: Place
    count: int


class Held(NamedTuple):
    """What the main thread is doing at this moment, for a thread that watches it."""

    number: int
    """Grows with every note."""
    place: Place
    mark: Mark


def counted(deaths: tuple[Deaths, ...], place: Place) -> tuple[Deaths, ...]:
    """The deaths after one more, the newest last."""
    again = [each for each in deaths if each.place.is_again(place)]
    count = 1 + max((each.count for each in again), default=0)
    return (*(each for each in deaths if each not in again), Deaths(place, count))[-DEATHS_KEPT:]


def outstanding(
    deaths: tuple[Deaths, ...], reports: Iterable[TileReport], parked: Iterable[Parked] = ()
) -> tuple[Deaths, ...]:
    """Those of slots that have not come through yet, by committed progress, and that no plan has parked."""
    if not deaths:
        return deaths
    reports, parked = list(reports), list(parked)
    left = []
    for each in deaths:
        place = each.place
        slots = SlotMap([(place.key_range, True)])
        for done in (report.key_range for report in reports if place.is_past(report)):
            slots.clear(done)
        for done in (range_.key_range for range_ in parked if range_.shard == place.shard):
            slots.clear(done)
        if ranges := [key_range for key_range, _ in slots]:
            hull = KeyRange(ranges[0].lo, ranges[-1].hi)
            left.append(replace(each, place=place._replace(key_range=hull)))
    return tuple(left)


class InHand:
    """The note of this process and the deaths of those before it; without `notes` it does nothing.

    Invariant: whenever user code runs, the note names the place of what it was given.
    """

    def __init__(self, notes: Notes | None = None, build: str = "") -> None:
        """Takes over what the last process of this worker left: deaths of another build of the job do not count."""
        self.held: Held | None = None
        """Read by other threads."""
        self._notes = notes
        self._build = build
        self._number = 0
        self._deaths: tuple[Deaths, ...] = ()
        if notes is not None:
            self._take_over(*notes.read())

    @property
    def fatalities(self) -> tuple[Fatality, ...]:
        """The deaths that are still to be reported."""
        places = [(each.place, each.count) for each in self._deaths]
        return tuple(Fatality(p.shard, p.key_range, p.topic, p.offset, count) for p, count in places)

    def note(self, shard: OwnedShard, piece: Piece, topic: str, mark: Mark) -> None:
        """Records of this topic, or with "" what is due without any, are about to be handed to the operator."""
        if self._notes is None:
            return
        newest, epoch = shard.lineage.get(piece.key_range.lo), None
        if not topic:
            topic, epoch = next(iter(shard.starts)), newest.epoch if newest else 0
        offset = None if newest is None else newest.progress.get(topic)
        place = Place(shard.shard, piece.key_range, topic, shard.starts[topic] if offset is None else offset, epoch)
        self._number += 1
        self.held = Held(self._number, place, mark)
        self._notes.note(encode_note(place))

    def released(self) -> None:
        """The main thread took a step: no user code is running. The note stays until the epoch is committed."""
        self.held = None

    def settled(self) -> None:
        """Nothing is in hand: the epoch is committed or undone, or the process ends by its own will."""
        self.held = None
        if self._notes is not None:
            self._notes.note(_NOTHING)

    def passed(self, reports: Iterable[TileReport], parked: Iterable[Parked] = ()) -> None:
        """Forget deaths at places that were passed by what this worker reports, or that the plan parks."""
        left = outstanding(self._deaths, reports, parked)
        if left != self._deaths:
            self._keep(left)

    def _take_over(self, note: bytes, ledger: bytes) -> None:
        build, deaths = decode_ledger(ledger)
        place = decode_note(note)
        if build != self._build:
            self._keep(())
        elif place is not None:
            self._keep(counted(deaths, place))
        else:
            self._deaths = deaths

    def _keep(self, deaths: tuple[Deaths, ...]) -> None:
        assert self._notes is not None
        self._deaths = deaths
        self._notes.keep(encode_ledger(self._build, deaths))


def encode_note(place: Place) -> bytes:
    """A note as it is written."""
    packed = _packed_place(place)
    return _sealed(_LENGTH.pack(len(packed)) + packed)


def decode_note(data: bytes) -> Place | None:
    """What was in hand; None: nothing, or nobody knows, because the note is torn or none at all."""
    try:
        (length,) = _LENGTH.unpack_from(data, _SEAL.size)
        sealed = _unsealed(data[: _SEAL.size + _LENGTH.size + length])
        if not length:
            return None
        reader = FieldReader(sealed, _LENGTH.size, "Note")
        place = _place(reader)
        reader.end()
    except (DecodeError, struct.error):
        return None
    return place


def encode_ledger(build: str, deaths: tuple[Deaths, ...]) -> bytes:
    """Deaths as they are kept, with the build of the job that met them."""
    rows = b"".join(_COUNT.pack(each.count) + _packed_place(each.place) for each in deaths)
    return _sealed(_LEDGER.pack(_VERSION, len(deaths)) + pack_text(build) + rows)


def decode_ledger(data: bytes) -> tuple[str, tuple[Deaths, ...]]:
    """The inverse of `encode_ledger`; no build and no deaths where there is no ledger, or none that can be read."""
    try:
        reader = FieldReader(_unsealed(data), 0, "Ledger of deaths")
        version, count = reader.take(_LEDGER)
        if version != _VERSION:
            return "", ()
        build, deaths = reader.text(), []
        for _ in range(count):
            (died,) = reader.take(_COUNT)
            deaths.append(Deaths(_place(reader), died))
        reader.end()
    except (DecodeError, struct.error):
        return "", ()
    return build, tuple(deaths)


def _packed_place(place: Place) -> bytes:
    shard, key_range = place.shard, place.key_range
    epoch = _OF_RECORDS if place.epoch is None else place.epoch
    numbers = _PLACE.pack(shard.partition, key_range.lo, key_range.hi, place.offset, epoch)
    return numbers + pack_text(shard.operator) + pack_text(place.topic)


def _place(reader: FieldReader) -> Place:
    (partition,) = reader.take(_COUNT)
    key_range, (offset, epoch) = reader.key_range(_RANGE_PLACE)
    shard = Shard(reader.text(), partition)
    return Place(shard, key_range, reader.text(), offset, None if epoch == _OF_RECORDS else epoch)


def _sealed(body: bytes) -> bytes:
    return _SEAL.pack(crc32(body)) + body


def _unsealed(data: bytes) -> bytes:
    """The body behind its checksum. Raises DecodeError, struct.error."""
    (seal,) = _SEAL.unpack_from(data)
    body = data[_SEAL.size :]
    if crc32(body) != seal:
        raise DecodeError(f"Checksum {seal:08x}, the bytes give {crc32(body):08x}.")
    return body

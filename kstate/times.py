"""Event time as a piece carries it: its watermark, and what it knows of each input's (ARCHITECTURE.md, section 8).

A *watermark* says that no record with an earlier event time is expected. All times are milliseconds since the epoch.
The writers of an internal stream tell theirs in-band (kstate.worker.stream_frames); what a reader has heard of them is
kept as a map over the slots of every upstream partition, so that it is right whatever splits and merges upstream.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from kstate.keyspace import FULL_RANGE, SLOTS, KeyRange
from kstate.progress import SlotMap

UNKNOWN_TIME = -(1 << 63)
"""Nothing is known yet; less than every event time."""

MILLISECOND = timedelta(milliseconds=1)
"""All times are whole milliseconds: Kafka's timestamps are no finer."""

_TIME_ZERO = datetime(1970, 1, 1, tzinfo=UTC)


def since_epoch_ms(instant: datetime) -> int:
    """Milliseconds since the epoch, rounded down; TypeError for a datetime without time zone."""
    return (instant - _TIME_ZERO) // MILLISECOND


@dataclass(frozen=True, slots=True)
class Upstream:
    """What some slots of an upstream partition said last: partition `partition` of `of`, written under `grant`.

    `idle`: no input of theirs has anything to read, so nobody needs to wait for them.
    """

    partition: int
    of: int
    key_range: KeyRange
    grant: int
    watermark: int
    idle: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.partition < self.of:
            raise ValueError(f"upstream partition {self.partition} of {self.of}")


@dataclass(frozen=True, slots=True)
class Times:
    """Where a piece stands in time, beside its progress.

    Invariant (ValueError): the parts of a stream ascend by partition and slot and do not overlap.
    """

    watermark: int = UNKNOWN_TIME
    """Of the piece; never goes back."""
    clock_ms: int = 0
    """The latest reading of the worker's clock that processing-time timers fired by."""
    inputs: Mapping[str, int] = field(default_factory=dict)
    """Users' topics: topic → watermark; none for one that is unknown."""
    idle: frozenset[str] = frozenset()
    """Users' topics that were at their end for so long that nobody waits for them."""
    streams: Mapping[str, tuple[Upstream, ...]] = field(default_factory=dict)
    """Internal streams: topic → what was heard; slots that are not there have said nothing yet."""

    def __post_init__(self) -> None:
        for topic, parts in self.streams.items():
            at, end = -1, 0
            for part in parts:
                if part.partition < at or (part.partition == at and part.key_range.lo < end):
                    raise ValueError(f"stream {topic!r}: {part} is out of place")
                at, end = part.partition, part.key_range.hi


def joined(left: Times, right: Times) -> Times:
    """Of two pieces at equal progress that go on as one: they read the same records, so what either knows holds.

    An input is idle when both say so. Commutative.
    """
    inputs = dict(left.inputs)
    for topic, watermark in right.inputs.items():
        inputs[topic] = max(watermark, inputs.get(topic, watermark))
    streams = {
        topic: _merged((*left.streams.get(topic, ()), *right.streams.get(topic, ())))
        for topic in left.streams.keys() | right.streams.keys()
    }
    watermark, clock_ms = max(left.watermark, right.watermark), max(left.clock_ms, right.clock_ms)
    return Times(watermark, clock_ms, inputs, left.idle & right.idle, streams)


def heard(known: Iterable[Upstream], news: Upstream) -> tuple[Upstream, ...]:
    """What is known of a stream after one more frame, whatever was split, merged or given away upstream.

    A slot's watermark never goes back. Of two writers the one with the higher grant is newer, of two frames of one the
    one that is not behind; an older frame changes nothing. A newer writer of a stream whose number of upstream
    partitions has changed makes all that was said by the old ones void.
    """
    rest = [part for part in known if part.of == news.of or part.grant > news.grant]
    if any(part.of != news.of for part in rest):
        return tuple(rest)
    if len(rest) == 1 and (rest[0].partition, rest[0].key_range) == (news.partition, news.key_range):
        return (_newest(rest[0], news),)  # the usual case, for speed
    own = SlotMap((part.key_range, part) for part in rest if part.partition == news.partition)
    said = own.copy()
    said.assign(news.key_range, news)
    for key_range, part in own.slice(news.key_range):
        said.assign(key_range, _newest(part, news))
    pieces = SlotMap((key_range, replace(part, key_range=FULL_RANGE)) for key_range, part in said)
    parts = [part for part in rest if part.partition != news.partition]
    parts += [replace(part, key_range=key_range) for key_range, part in pieces]
    return tuple(sorted(parts, key=_place))


def announced(parts: Iterable[Upstream]) -> tuple[int, bool]:
    """Watermark of a stream, and whether it is idle: the minimum over all slots of all upstream partitions that are not
    idle, UNKNOWN_TIME while one has said nothing. It is idle when all are; then UNKNOWN_TIME too.
    """
    parts = tuple(parts)
    if not parts or sum(part.key_range.width for part in parts) != parts[0].of * SLOTS:
        return UNKNOWN_TIME, False
    active = [part.watermark for part in parts if not part.idle]
    return min(active, default=UNKNOWN_TIME), not active


def _newest(part: Upstream, news: Upstream) -> Upstream:
    """Of what was said of the same slots; the key range may be that of either."""
    if part.grant > news.grant or (part.grant == news.grant and part.watermark > news.watermark):
        return part
    return news if part.watermark <= news.watermark else replace(news, watermark=part.watermark)


def _place(part: Upstream) -> tuple[int, int]:
    return part.partition, part.key_range.lo


def _merged(parts: Iterable[Upstream]) -> tuple[Upstream, ...]:
    """All of them; where they contradict each other the newest holds, and one that is not idle."""
    known: tuple[Upstream, ...] = ()
    for part in sorted(parts, key=lambda part: (part.grant, part.watermark, not part.idle, *_place(part))):
        known = heard(known, part)
    return known

"""The live event time of one piece (rules: ARCHITECTURE, event time).

The watermark of a user's topic is the highest event time that was read of it, less its lateness; that of an internal
stream is what its writers say in-band. The piece's watermark is the least of those inputs that are not idle, and it
never goes back:

    an input has more records   wait for it, even while it is unknown
    an input is idle            nobody waits for it, until a record comes
    all inputs are idle         users' topics: the watermark goes on at the rate of the worker's clock;
                                internal streams: their writers do so, and go on telling theirs

So a stage behind another never runs ahead of what the first still has to emit. A writer that the piece has left behind
while it was idle holds nobody up.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import accumulate, chain
from typing import NamedTuple

from kstate.keyspace import FULL_RANGE
from kstate.times import UNKNOWN_TIME, Times, Upstream, announced, heard
from kstate.worker.stream_frames import WatermarkFrame

IDLE_STEP_MS_MAX = 30_000
"""The longest step between two frames of an idle piece: what is behind it closes its last windows so much later."""
_IDLE_STEPS = 16
"""An idle piece tells its watermark whenever it moved by this share of the time it has been idle: frames are kept for
ever, and an idle job must not fill the disk.
"""
_NEVER = 1 << 63


class Told(NamedTuple):
    """What a piece says in a watermark frame."""

    watermark: int
    idle: bool


class Watermarks:
    """Event time of a piece, from what was marked (`times`) on; inputs that are in neither of the two do not count."""

    __slots__ = ("_clock_ms", "_idle", "_idle_from", "_inputs", "_lateness", "_streams", "current")

    def __init__(self, times: Times, external: Mapping[str, int], streams: Collection[str]) -> None:
        """`external`: user's topic → lateness in ms; `streams`: internal ones. Tables are in neither."""
        self.current = times.watermark
        """The piece's watermark, UNKNOWN_TIME at first."""
        self._clock_ms = times.clock_ms
        self._lateness = external
        self._inputs = {topic: times.inputs.get(topic, UNKNOWN_TIME) for topic in external}
        self._idle = {topic for topic in external if topic in times.idle}
        self._streams = {topic: _Stream(times.streams.get(topic, ())) for topic in streams}
        self._idle_from: int | None = None
        """Where the watermark stood when everything became idle."""
        self._rise()

    @property
    def idle(self) -> bool:
        """No input has anything to read."""
        return len(self._idle) == len(self._inputs) and all(stream.idle for stream in self._streams.values())

    def knows(self, topic: str) -> bool:
        """Whether a record of this users' topic ever told a time."""
        return self._inputs[topic] != UNKNOWN_TIME

    def over(self, topic: str, event_times: Sequence[int]) -> list[int]:
        """The watermark at each of the next records of an input, after it advanced by that record; changes nothing."""
        own = self._inputs.get(topic)
        others = self._others(topic)
        if own is None or others <= self.current:  # frames advance a stream, its records do not
            return [self.current] * len(event_times)
        late, floor = self._lateness[topic], max(own, self.current)
        highest = list(accumulate(event_times, max, initial=floor + late))[1:]
        if not highest or highest[-1] - late <= others:
            return [time - late for time in highest] if late else highest
        return [min(time - late, others) for time in highest]

    def take(self, topic: str, event_times: Sequence[int]) -> None:
        """These records of an input were handled; a part of what `over` was asked for may be taken."""
        if event_times and topic in self._inputs:
            self._inputs[topic] = max(self._inputs[topic], max(event_times) - self._lateness[topic])
            self._idle.discard(topic)
            self._rise()

    def frame(self, topic: str, frame: WatermarkFrame) -> None:
        """A frame of an internal stream was read; older ones and repeated ones change nothing."""
        self._streams[topic].hear(
            Upstream(frame.partition, frame.of, frame.key_range, frame.grant, frame.watermark, frame.idle)
        )
        self._rise()

    def set_idle(self, *topics: str) -> None:
        """These users' topics have had nothing to read for long, all found at one look; other topics are left out."""
        self._idle.update(topic for topic in topics if topic in self._inputs)
        self._rise()

    def advance_idle(self, elapsed_ms: int) -> None:
        """So much time has passed while every input was idle; without effect when one is not, or nothing is known.

        Internal streams advance by the frames of their writers alone, and hold back the others as long as they are not
        left behind.
        """
        if self._inputs and self.current != UNKNOWN_TIME and self.idle:
            self.current = min(self.current + max(elapsed_ms, 0), min(self._ahead(), default=_NEVER))

    def frozen(self, clock_ms: int) -> Times:
        """What to mark; `clock_ms` is the reading of the worker's clock that processing-time timers fired by."""
        return Times(
            self.current,
            max(clock_ms, self._clock_ms),
            {topic: time for topic, time in self._inputs.items() if time != UNKNOWN_TIME},
            frozenset(self._idle),
            {topic: parts for topic, stream in self._streams.items() if (parts := stream.all())},
        )

    def tells(self, due: int = _NEVER) -> Told:
        """What those behind may go by, when `due` is the first deadline that was not fired yet.

        It is behind the watermark where a full epoch left something over: a timer emits at its deadline and a window at
        the instant before its end, and neither may come too late for those behind, whenever it fires.
        """
        return Told(self.current, self.idle) if due > self.current else Told(due - 1, idle=False)

    def to_send(self, sent: Told | None, due: int = _NEVER) -> bool:
        """Whether a frame is due, when the last one said this; None when there was none."""
        now = self.tells(due)
        if sent is None:
            return now.watermark != UNKNOWN_TIME or now.idle
        if not now.idle or not sent.idle:
            return now != sent
        idle_ms = self.current - (self.current if self._idle_from is None else self._idle_from)
        return self.current > sent.watermark + min(idle_ms // _IDLE_STEPS, IDLE_STEP_MS_MAX)

    def _others(self, topic: str | None = None) -> int:
        """The least watermark of the inputs that are not idle, other than this one."""
        least = _NEVER
        for name, time in self._inputs.items():
            if time < least and name != topic and name not in self._idle:
                least = time
        for name, stream in self._streams.items():
            if stream.watermark < least and name != topic and not stream.idle:
                least = stream.watermark
        return least

    def _ahead(self) -> list[int]:
        """What writers of internal streams said last, those that the piece has not left behind."""
        said = (part.watermark for stream in self._streams.values() for part in stream.parts())
        return [time for time in said if time != UNKNOWN_TIME and time >= self.current]

    def _rise(self) -> None:
        """Bring the watermark up to date."""
        if not self.idle:
            self._idle_from = None
            self.current = max(self.current, self._others())
            return
        known = self._ahead()
        if self.current == UNKNOWN_TIME:  # nobody is waited for any more, also for what nobody has heard of
            known += [time for time in self._inputs.values() if time != UNKNOWN_TIME]
        elif self._inputs:
            known = []
        self.current = min(known, default=self.current)
        if self._idle_from is None:
            self._idle_from = self.current


class _Stream:
    """What was heard of one internal stream; `watermark` and `idle` are as `announced`."""

    __slots__ = ("_of", "_parts", "idle", "watermark")

    def __init__(self, parts: Iterable[Upstream]) -> None:
        self._of = 0
        """Number of upstream partitions, 0 when nothing was heard."""
        self._place(parts)

    def parts(self) -> Iterable[Upstream]:
        """In any order."""
        return chain.from_iterable(self._parts.values())

    def all(self) -> tuple[Upstream, ...]:
        """In order of partition and slot."""
        return tuple(part for partition in sorted(self._parts) for part in self._parts[partition])

    def hear(self, news: Upstream) -> None:
        if self._of not in (0, news.of):
            self._place(heard(self.parts(), news))
            return
        self._of = news.of
        known = self._parts.get(news.partition, ())
        self._parts[news.partition] = now = heard(known, news)
        if len(known) == len(now) == 1 and not known[0].idle and self._is_ahead(known[0]):
            return  # the usual frame: of a whole partition that was not the one everybody waits for
        self.watermark, self.idle = announced(self.parts())

    def _is_ahead(self, part: Upstream) -> bool:
        return part.key_range == FULL_RANGE and part.watermark > self.watermark

    def _place(self, parts: Iterable[Upstream]) -> None:
        self._parts: dict[int, tuple[Upstream, ...]] = {}
        for part in parts:
            self._parts[part.partition] = (*self._parts.get(part.partition, ()), part)
        self._of = next((part.of for part in self.parts()), 0)
        self.watermark, self.idle = announced(self.parts())

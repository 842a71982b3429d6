"""Jobs that go by event time in every way there is, and random input for them.

`Everything` answers each call with all that it sees: what two runs answer alike they have handled alike. Its handlers
are written against the public handles only, so that the reference implementation (tests.support.event_model) runs the
very same code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from random import Random
from typing import Any

from kstate import (
    BatchContext,
    Context,
    Hopping,
    Input,
    ListState,
    MapState,
    Operator,
    Output,
    Session,
    Timer,
    TimerMap,
    Tumbling,
    ValueState,
    Window,
    WindowState,
)

LATENESS_MS = 12
TTL_MS = 25
BURST = 7
"""Timers that one record sets for the same instant."""
KEYS = ("ann", "bob", "cat", "dan", "eve")
"""Few keys: most timers meet another call of their key."""


def _ms(count: int) -> timedelta:
    return timedelta(milliseconds=count)


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened, and what it asks the operator to do."""

    id: int
    ts: int
    act: str
    n: int


@dataclass(frozen=True, slots=True)
class Heard:
    """What a call has seen: its kind and number, event time, watermark, states, and what it was told."""

    what: str
    number: int
    event_time: int
    watermark: int
    seen: str


def joined(earlier: tuple[int, ...], later: tuple[int, ...]) -> tuple[int, ...]:
    """Two sessions as one."""
    return earlier + later


class Everything(Operator[str], uid="everything"):
    """Keeps every kind of timed state, and changes it from records, timers and closing windows alike."""

    events = Input(Event, topic="events", event_time="ts", lateness=_ms(LATENESS_MS))
    heard = Output(Heard, topic="heard")
    last = ValueState(int, ttl=_ms(TTL_MS))
    ids = ListState(int, ttl=_ms(TTL_MS))
    acts = MapState(str, int, ttl=_ms(2 * TTL_MS))
    alarm = Timer()
    alarms = TimerMap(int)
    tumbling = WindowState(int, Tumbling(_ms(10)), default=0)
    hopping = WindowState(int, Hopping(_ms(20), _ms(5)), default=0)
    session = WindowState(tuple[int, ...], Session(_ms(6)), default=(), merge=joined)

    @events.each
    def hear(self, event: Event, ctx: Context) -> None:
        self._tell("record", event.id, ctx)
        self.ids.append(event.id)
        self.acts[event.act] = event.id
        match event.act:
            case "set":
                self.last.set(event.id)
            case "pop":
                self.last.pop()
                self.acts.pop("set")
            case "after":
                self.alarm.set(after=_ms(event.n))
            case "past":
                self.alarm.set(at=max(1, event.ts - event.n))
            case "cancel":
                self.alarm.cancel()
                self.alarms.cancel(event.n)
            case "tag":
                self.alarms.set(event.n % 4, after=_ms(event.n))
            case "burst":
                for tag in range(BURST):
                    self.alarms.set(10 + tag, at=event.ts + event.n)
            case _:
                pass
        self._count(event.id, ctx)
        if event.act == "fail":
            self.last.set(-1)
            self.alarm.set(after=_ms(1))
            raise ValueError(f"event {event.id} asked for it")

    @alarm.fires
    def ring(self, ctx: Context) -> None:
        at = ctx.event_time
        self._tell("alarm", at, ctx)
        if at % 3 == 0:
            self.alarms.set(3, at=max(1, at - 2))
        if at % 5 == 0:
            self.last.set(-at)
            self.ids.clear()
        if at % 4 == 0:
            self.alarm.set(after=_ms(9))
        if at % 7 == 0:
            raise ValueError(f"alarm at {at} fails")
        self._count(-at, ctx)

    @alarms.fires
    def ring_tag(self, tag: int, ctx: Context) -> None:
        self._tell(f"alarm {tag}", ctx.event_time, ctx)
        if 0 < tag < 4:
            self.alarms.set(tag - 1, at=max(1, ctx.event_time - 1))
        elif tag == 10:
            self.alarms.cancel(12)
            self.alarm.set(at=ctx.event_time)

    @tumbling.closes
    def close_tumbling(self, n: int, window: Window, ctx: Context) -> None:
        self._tell(f"tumbling {window.start}", n, ctx)

    @hopping.closes
    def close_hopping(self, n: int, window: Window, ctx: Context) -> None:
        self._tell(f"hopping {window.start}", n, ctx)
        if n > 3:
            self.last.set(n)
            self.ids.extend((-n, -window.start))

    @session.closes
    def close_session(self, ids: tuple[int, ...], window: Window, ctx: Context) -> None:
        self._tell(f"session {window.start} {window.end} {ids}", len(ids), ctx)
        self.alarms.set(1, after=_ms(len(ids)))

    def _count(self, id_: int, ctx: Context) -> None:
        """Into all windows; tells which of them said that it is late."""
        told = [state.update(lambda n: n + 1) for state in (self.tumbling, self.hopping)]
        told.append(self.session.update(lambda ids: (*ids, id_)))
        self._tell(f"counted {told}", id_, ctx)

    def _tell(self, what: str, number: int, ctx: Context) -> None:
        open_ = [[tuple(w), n] for state in (self.tumbling, self.hopping) for w, n in state.items()]
        sessions = [(tuple(w), n) for w, n in self.session.items()]
        kept = f"{self.last.get()} {self.ids.get()} {list(self.acts.items())}"
        seen = f"{kept} {self.alarm.get()} {list(self.alarms.items())} {open_} {sessions}"
        self.heard.emit(Heard(what, number, ctx.event_time, ctx.watermark, seen))


class Latest(Operator[str], uid="latest"):
    """One answer per record: the value before, while its ttl lasts; record by record."""

    events = Input(Event, topic="events", event_time="ts", lateness=_ms(LATENESS_MS))
    heard = Output(Heard, topic="heard")
    last = ValueState(int, ttl=_ms(TTL_MS))
    total = ValueState(int, default=0)

    @events.each
    def hear(self, event: Event, ctx: Context) -> None:
        total = self.total.get() + 1
        self.total.set(total)
        before = self.last.get() if event.act != "tag" else None
        if event.act == "set":
            self.last.set(event.id)
        self.heard.emit(Heard(event.act, event.id, event.ts, total, str(before)))


class LatestInBatches(Operator[str], uid="latest"):
    """The same with a `.batch` handler, as long as each key is once in a batch: the caller sees to that."""

    events = Input(Event, topic="events", event_time="ts", lateness=_ms(LATENESS_MS))
    heard = Output(Heard, topic="heard")
    last = ValueState(int, ttl=_ms(TTL_MS))
    total = ValueState(int, default=0)

    @events.batch
    def hear(self, events: Sequence[Event], ctx: BatchContext) -> None:
        keys = ctx.keys
        before = dict(zip(keys, self.last.get_many(keys), strict=True))
        totals = dict(zip(keys, self.total.get_many(keys), strict=True))
        heard: list[Heard] = []
        changed: dict[Any, int] = {}
        for key, event in zip(keys, events, strict=True):
            totals[key] += 1
            seen = before[key] if event.act != "tag" else None
            if event.act == "set":
                before[key] = changed[key] = event.id
            heard.append(Heard(event.act, event.id, event.ts, totals[key], str(seen)))
        self.total.set_many(list(totals), list(totals.values()))
        self.last.set_many(list(changed), list(changed.values()))
        self.heard.emit_many(heard, keys=keys)


@dataclass(frozen=True, slots=True)
class Total:
    """A closed window: how many events it had, and the sum of their numbers."""

    key: str
    start: int
    count: int
    sum: int
    late: bool
    """No window at all: an event that found its window closed."""


@dataclass(frozen=True, slots=True)
class Counts:
    """An open window."""

    count: int
    sum: int


WINDOW_MS = 10
FAR_AHEAD = 4_000_000_000_000
"""A time that is refused: no clock is there yet."""


def key_of(event: Event) -> str:
    """Another key than that of the message."""
    return KEYS[event.n % len(KEYS)]


def group_of(total: Total) -> str:
    """What the totals of the first stage are added up by."""
    return "low" if total.key < "c" else "high"


class Totals(Operator[str], uid="totals"):
    """Windows over two inputs: one is read by another key than that of its messages, one as it is."""

    events = Input(Event, topic="events", rekey=key_of, event_time="ts", lateness=_ms(LATENESS_MS))
    others = Input(Event, topic="others", event_time="ts", lateness=_ms(LATENESS_MS))
    totals = Output(Total, topic="totals")
    to_group = Output(Total, key=group_of)
    counts = WindowState(Counts, Tumbling(_ms(WINDOW_MS)), default=Counts(0, 0))

    @events.each
    def from_events(self, event: Event, ctx: Context) -> None:
        self._count(event)

    @others.each
    def from_others(self, event: Event, ctx: Context) -> None:
        self._count(event)

    @counts.closes
    def report(self, counts: Counts, window: Window, ctx: Context) -> None:
        self._emit(Total(self.key, window.start, counts.count, counts.sum, late=False))

    def _count(self, event: Event) -> None:
        if not self.counts.update(lambda c: Counts(c.count + 1, c.sum + event.id)):
            self._emit(Total(self.key, event.ts, 1, event.id, late=True))

    def _emit(self, total: Total) -> None:
        self.totals.emit(total)
        self.to_group.emit(total)


class Groups(Operator[str], uid="groups"):
    """Windows over windows: what the first stage closes must not be late for the second."""

    totals = Input(Totals.to_group)
    groups = Output(Total, topic="groups")
    counts = WindowState(Counts, Tumbling(_ms(2 * WINDOW_MS)), default=Counts(0, 0))

    @totals.each
    def add(self, total: Total, ctx: Context) -> None:
        if not self.counts.update(lambda c: Counts(c.count + total.count, c.sum + total.sum)):
            self.groups.emit(Total(self.key, total.start, total.count, total.sum, late=True))

    @counts.closes
    def report(self, counts: Counts, window: Window, ctx: Context) -> None:
        self.groups.emit(Total(self.key, window.start, counts.count, counts.sum, late=False))


ACTS = ("set", "pop", "after", "past", "cancel", "tag", "tag", "burst", "none", "none", "fail")


@dataclass(frozen=True, slots=True)
class Given:
    """An input record; without event it is one that does not decode, without key one that nobody can own."""

    key: str | None
    event: Event | None


def some_events(rng: Random, count: int, *, late: bool = True, first: int = 0, since: int = 100) -> list[Given]:
    """Event times that go on by 0 to 8 ms, out of order by at most LATENESS_MS; with `late` a few by more.

    Some records are such that no keyed operator gets them: no key, no value that decodes, a time before 1970 or far
    ahead.
    """
    given, now = [], since
    for number in range(first, first + count):
        now += rng.choice((0, 0, 1, 2, 3, 8))
        ts = max(1, now - rng.randint(0, LATENESS_MS))
        if late and rng.random() < 0.05:
            ts = max(1, now - rng.randint(LATENESS_MS, 4 * LATENESS_MS))
        event = Event(number, ts, rng.choice(ACTS), rng.randint(0, 30))
        given.append(Given(rng.choice(KEYS), event))
        if rng.random() < 0.06:
            given.append(_useless(rng, event, ahead_ms=1_000 if late else 0))
    return given


def _useless(rng: Random, like: Event, ahead_ms: int) -> Given:
    """A record that becomes a dead letter and moves no watermark; the one without key only where there must be one."""
    kinds = (
        Given(None, Event(like.id, like.ts + ahead_ms, "set", 0)),
        Given(rng.choice(KEYS), None),
        Given(rng.choice(KEYS), Event(like.id, -like.ts, "set", 0)),
        Given(rng.choice(KEYS), Event(like.id, FAR_AHEAD, "set", 0)),
    )
    return rng.choice(kinds)

"""Whole jobs as users write them: both type checkers accept them, and their wiring holds (test_typing.py)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import NamedTuple

from kstate import Context, Input, Job, Operator, Output, Table, Timer, Tumbling, ValueState, Window, WindowState


@dataclass(frozen=True, slots=True)
class Line:
    text: str
    ts: int


@dataclass(frozen=True, slots=True)
class Word:
    word: str


@dataclass(frozen=True, slots=True)
class WordCount:
    word: str
    start: int
    n: int


@dataclass(frozen=True, slots=True)
class Order:
    id: str
    customer: str


@dataclass(frozen=True, slots=True)
class Customer:
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class Enriched:
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class Click:
    user: str
    lang: str
    page: str
    ts: int


@dataclass(frozen=True, slots=True)
class Session:
    user: str
    start: int
    end: int
    clicks: int


@dataclass(frozen=True, slots=True)
class PageCount:
    lang: str
    page: str
    start: int
    n: int


@dataclass(frozen=True, slots=True)
class Top:
    lang: str
    start: int
    pages: tuple[PageCount, ...]


@dataclass(frozen=True, slots=True)
class Event:
    id: str


class PageKey(NamedTuple):
    lang: str
    page: str


class Split(Operator[None], uid="split"):
    lines = Input(Line, topic="lines", event_time="ts", lateness=timedelta(seconds=2))
    words = Output(Word, key="word")

    @lines.each
    def split(self, line: Line, ctx: Context) -> None:
        for w in line.text.lower().split():
            self.words.emit(Word(w))


class Count(Operator[str], uid="count"):
    words = Input(Split.words)
    counts = Output(WordCount, topic="word-counts")
    n = WindowState(int, Tumbling(timedelta(seconds=30)), default=0)

    @words.each
    def add(self, word: Word, ctx: Context) -> None:
        self.n.update(lambda n: n + 1)

    @n.closes
    def report(self, n: int, window: Window, ctx: Context) -> None:
        self.counts.emit(WordCount(self.key, window.start, n))


class Enrich(Operator[str], uid="enrich"):
    orders = Input(Order, topic="orders", rekey="customer")
    customers = Table(Customer, topic="customers")
    enriched = Output(Enriched, topic="enriched")

    @orders.each
    def join(self, order: Order, ctx: Context) -> None:
        c = self.customers.get()
        self.enriched.emit(Enriched(order.id, c.name if c else "?"))


GAP = timedelta(minutes=30)


class Sessions(Operator[str], uid="sessions"):
    clicks = Input(Click, topic="clicks", event_time="ts")
    sessions = Output(Session, topic="sessions")
    current = ValueState(Session)
    gap = Timer()

    @clicks.each
    def extend(self, c: Click, ctx: Context) -> None:
        s = self.current.get() or Session(self.key, c.ts, c.ts, 0)
        self.current.set(replace(s, end=c.ts, clicks=s.clicks + 1))
        self.gap.set(after=GAP)

    @gap.fires
    def close_session(self, ctx: Context) -> None:
        if s := self.current.pop():
            self.sessions.emit(s)


class Visits(Operator[PageKey], uid="visits"):
    clicks = Input(Click, topic="clicks", rekey=lambda c: PageKey(c.lang, c.page), event_time="ts")
    counts = Output(PageCount, key="lang")
    n = WindowState(int, Tumbling(timedelta(seconds=30)), default=0)

    @clicks.each
    def add(self, c: Click, ctx: Context) -> None:
        self.n.update(lambda n: n + 1)

    @n.closes
    def report(self, n: int, w: Window, ctx: Context) -> None:
        self.counts.emit(PageCount(self.key.lang, self.key.page, w.start, n))


class TopK(Operator[str], uid="top-k"):
    k = 10
    counts = Input(Visits.counts)
    top = Output(Top, topic="top-pages")
    best = WindowState(tuple[PageCount, ...], Tumbling(timedelta(seconds=30)), default=())

    @counts.each
    def merge(self, c: PageCount, ctx: Context) -> None:
        self.best.update(lambda b: tuple(sorted((*b, c), key=lambda p: (-p.n, p.page))[: self.k]))

    @best.closes
    def report(self, best: tuple[PageCount, ...], w: Window, ctx: Context) -> None:
        self.top.emit(Top(self.key, w.start, best))


class Dedup(Operator[str], uid="dedup"):
    events = Input(Event, topic="events", rekey="id")
    unique = Output(Event, topic="unique")
    seen = ValueState(bool, default=False, ttl=timedelta(days=7))

    @events.each
    def first(self, e: Event, ctx: Context) -> None:
        if not self.seen.get():
            self.seen.set(True)
            self.unique.emit(e)


job = Job("demo", [Split, Count, Enrich, Sessions, Visits, TopK, Dedup])

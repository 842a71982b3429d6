"""Uses that type checkers must accept, with the types they must infer: run by test_typing.py, never imported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Generic, NamedTuple, TypeVar, assert_type
from uuid import UUID

from kstate import Context, Input, Int32, Job, Operator, Output, Reject, Source, ValueState

K = TypeVar("K")


@dataclass(frozen=True, slots=True)
class Line:
    """A record."""

    text: str
    ts: int


@dataclass(frozen=True, slots=True)
class Word:
    """Another."""

    word: str


@dataclass(frozen=True, slots=True)
class Session:
    """State."""

    user: str
    start: int
    clicks: int


class PageKey(NamedTuple):
    """A composite key."""

    lang: str
    page: str


class Split(Operator[None], uid="split"):
    """Stateless."""

    lines = Input(Line, topic="lines", event_time="ts", lateness=timedelta(seconds=2))
    words = Output(Word, key="word")

    @lines.each
    def split(self, line: Line, ctx: Context) -> None:
        assert_type(self.key, None)
        assert_type(ctx.event_time, int)
        assert_type(ctx.source, Source)
        if not line.text:
            raise Reject("an empty line")
        for word in line.text.split():
            self.words.emit(Word(word), event_time=ctx.watermark)
        ctx.log.info("split", words=3)


class Count(Operator[str], uid="count"):
    """Keyed, with state of every kind."""

    words = Input(Split.words)
    counts = Output(Word, topic="counts", timestamp="now")
    by_length = Output(Word, topic="by-length", key=lambda w: len(w.word))
    n = ValueState(int, default=0)
    small = ValueState(Int32, default=Int32(0))
    seen = ValueState(bool, default=False)
    session = ValueState(Session)
    id = ValueState(UUID, name="identity")
    best = ValueState(tuple[Word, ...], default=())
    table = ValueState(Mapping[str, int])  # type: ignore[type-abstract]

    @words.each
    def add(self, word: Word, ctx: Context) -> None:
        assert_type(self.key, str)
        assert_type(self.n.get(), int)
        assert_type(self.small.get(), Int32)
        assert_type(self.seen.get(), bool)
        assert_type(self.session.get(), Session | None)
        assert_type(self.session.pop(), Session | None)
        assert_type(self.best.get(), tuple[Word, ...])
        session = self.session.get() or Session(self.key, ctx.event_time, 0)
        self.session.set(replace(session, clicks=session.clicks + 1))
        self.n.set(self.n.get() + 1)
        self.best.set((*self.best.get(), word))
        self.n.clear()
        self.counts.emit(word)


class Pages(Operator[PageKey], uid="pages"):
    """A composite key, and an input of a topic that another operator writes."""

    clicks = Input(Line, topic="clicks", key="text", event_time=lambda c: c.ts, start=datetime(2024, 1, 1, tzinfo=UTC))
    counts = Input(Count.counts)

    @clicks.each
    def click(self, line: Line, ctx: Context) -> None:
        assert_type(self.key, PageKey)
        assert_type(self.key.lang, str)

    @counts.each
    def count(self, word: Word, ctx: Context) -> None: ...


class Base(Operator[K], Generic[K]):
    """Abstract and generic."""

    limit = 10


class Derived(Base[int], uid="derived"):
    """With another parameter."""

    limit = 20
    lines = Input(Line, topic="more", partitioner="crc32")

    @lines.each
    def handle(self, line: Line, ctx: Context) -> None:
        assert_type(self.key, int)


job = Job("right", [Split, Count, Pages, Derived], epoch=timedelta(milliseconds=100))

"""Uses that type checkers must accept, with the types they must infer: see test_typing.py."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Generic, NamedTuple, Self, TypeVar, assert_type
from uuid import UUID

from kstate import (
    UNKNOWN_TIME,
    BatchContext,
    Context,
    Hopping,
    Input,
    Int32,
    Job,
    ListState,
    MapState,
    Operator,
    Output,
    PartialState,
    Reject,
    Source,
    Table,
    Timer,
    TimerMap,
    Tumbling,
    ValueState,
    Window,
    WindowState,
)
from kstate import Session as SessionWindow
from kstate.testing import Driver

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


@dataclass(frozen=True, slots=True)
class Click:
    """A record with its composite key."""

    page: PageKey
    ts: int


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
            self.words.emit(Word(word), event_time=None if ctx.watermark == UNKNOWN_TIME else ctx.watermark)
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

    clicks = Input(Click, topic="clicks", key="page", event_time=lambda c: c.ts, start=datetime(2024, 1, 1, tzinfo=UTC))
    counts = Input(Count.counts)

    @clicks.each
    def click(self, click: Click, ctx: Context) -> None:
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


@dataclass(frozen=True, slots=True)
class Total:
    """What is not keyed data."""

    n: int

    def split(self, fraction: float, /) -> tuple[Self, Self]:
        """By the share of the slots."""
        low = int(self.n * fraction)
        return replace(self, n=low), replace(self, n=self.n - low)

    def merge(self, other: Self, /) -> Self:
        """The sum."""
        return replace(self, n=self.n + other.n)


class Collections(Operator[str], uid="collections"):
    """Lists, maps and partial state, with and without time to live."""

    lines = Input(Line, topic="lines", rekey="text", ahead=timedelta(minutes=5), format="confluent")
    words = Output(Word, topic="words", format="confluent")
    clicks = ListState(Line, ttl=timedelta(days=1))
    pages = MapState(PageKey, int, name="p")
    by_length = MapState(int, Word, ttl=timedelta(hours=1))
    total = PartialState(Total, initial=lambda: Total(0))
    recent = ValueState(int, default=0, ttl=timedelta(days=7))
    latest = ValueState(Line, ttl=timedelta(days=7))

    @lines.each
    def handle(self, line: Line, ctx: Context) -> None:
        assert_type(self.clicks.get(), tuple[Line, ...])
        assert_type([line.ts for line in self.clicks], list[int])
        self.clicks.append(line)
        self.clicks.extend(each for each in (line, line))
        assert_type(len(self.clicks), int)
        assert_type(self.pages.get(PageKey("en", "a")), int | None)
        assert_type(self.pages.get(PageKey("en", "a"), 0), int)
        assert_type(self.pages[PageKey("en", "a")], int)
        assert_type(self.pages.pop(PageKey("en", "a")), int | None)
        self.pages[PageKey("en", "a")] = 5
        self.pages.update({PageKey("en", "b"): 6})
        del self.pages[PageKey("en", "a")]
        assert_type(self.pages.items(), Iterator[tuple[PageKey, int]])
        assert_type(sorted(self.pages), list[PageKey])
        assert_type(sum(self.pages.values()), int)
        if PageKey("en", "b") in self.pages and 3 not in self.by_length:
            self.by_length[3] = Word("abc")
        assert_type(self.total.get(), Total)
        self.total.set(Total(self.total.get().n + 1))
        assert_type(self.recent.get(), int)
        assert_type(self.latest.get(), Line | None)


class Windows(Operator[str], uid="windows"):
    """Windows of each kind, and timers."""

    lines = Input(Split.words, rekey=lambda w: w.word[:1])
    n = WindowState(int, Tumbling(timedelta(seconds=30)), default=0)
    best = WindowState(tuple[Word, ...], Hopping(timedelta(minutes=1), timedelta(seconds=10)), default=())
    visit = WindowState(int, SessionWindow(timedelta(minutes=5)), default=0, merge=lambda a, b: a + b, name="v")
    gap = Timer()
    alarm = Timer(clock="processing", name="a")
    pages = TimerMap(PageKey)

    @lines.each
    def handle(self, word: Word, ctx: Context) -> None:
        assert_type(self.n.update(lambda n: n + 1), bool)
        self.best.update(lambda best: (*best, word))
        assert_type(self.n.items(), Iterator[tuple[Window, int]])
        self.gap.set(after=timedelta(minutes=30))
        self.alarm.set(at=datetime(2024, 1, 1, tzinfo=UTC))
        self.pages.set(PageKey("en", "a"), at=ctx.event_time + 5)
        assert_type(self.gap.get(), int | None)
        assert_type(self.pages.get(PageKey("en", "a")), int | None)
        assert_type(self.pages.items(), Iterator[tuple[PageKey, int]])
        self.pages.cancel(PageKey("en", "a"))

    @n.closes
    def report(self, n: int, window: Window, ctx: Context) -> None:
        assert_type(window.start, int)

    @best.closes
    def report_best(self, best: tuple[Word, ...], window: Window, ctx: Context) -> None: ...

    @gap.fires
    @alarm.fires
    def finish(self, ctx: Context) -> None: ...

    @pages.fires
    def page(self, page: PageKey, ctx: Context) -> None: ...


class Join(Operator[str], uid="join"):
    """A table, and a handler of batches."""

    words = Input(Word, topic="some-words")
    lines = Table(Line, topic="line-table", name="l")
    out = Output(Word, topic="joined")

    @words.batch
    def join(self, words: Sequence[Word], ctx: BatchContext) -> None:
        assert_type(self.lines.get_many(ctx.keys), list[Line | None])
        assert_type(ctx.event_times, Sequence[int])
        self.out.emit_many(words, keys=ctx.keys, event_times=ctx.event_times)

    @lines.changed
    def changed(self, line: Line | None, ctx: Context) -> None:
        assert_type(self.lines.get(), Line | None)


job = Job(
    "right",
    [Split, Count, Pages, Derived, Collections, Windows, Join],
    epoch=timedelta(milliseconds=100),
    idle=timedelta(minutes=1),
    dropped=["count.gone", "gone"],
    on_error="stop",
)


def use(driver: Driver) -> None:
    """What tests see of a job."""
    driver.send(Split.lines, Line("a b", 1), Line("c", 2))
    driver.send(Join.lines, Line("a", 1), key="a")
    driver.delete(Join.lines, key="a")
    assert_type(driver.read(Count.counts), list[Word])
    assert_type(driver.state(Count.n, key="a"), int)
    assert_type(driver.state(Count.session, key="a"), Session | None)
    assert_type(driver.state(Collections.clicks, key="a"), tuple[Line, ...])
    assert_type(driver.state(Collections.pages, key="a"), dict[PageKey, int])
    assert_type(driver.state(Windows.n, key="a"), dict[Window, int])
    assert_type(driver.state(Windows.gap, key="a"), int | None)
    assert_type(driver.state(Windows.pages, key="a"), dict[PageKey, int])
    assert_type(driver.state(Join.lines, key="a"), Line | None)
    assert_type(driver.partial(Collections.total), Total)

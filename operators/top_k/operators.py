"""The top-k query of the SEEP paper as map and reduce: visits are counted by page, counts are ranked by language."""

from __future__ import annotations

from datetime import timedelta
from typing import NamedTuple

from kstate import Context, Input, Operator, Output, Tumbling, Window, WindowState
from operators.records import Click, PageCount, TopPages

WINDOW = Tumbling(timedelta(seconds=30))


class PageKey(NamedTuple):
    """Pages of one name in two languages are two pages."""

    lang: str
    page: str


def page_of(click: Click) -> PageKey:
    """What clicks are counted by."""
    return PageKey(click.lang, click.page)


class CountVisits(Operator[PageKey], uid="count-visits"):
    """How often each page is opened per window; clicks come keyed by user, so they are read by page instead."""

    clicks = Input(Click, topic="clicks", rekey=page_of, event_time="ts", lateness=timedelta(seconds=5))
    counts = Output(PageCount, key="lang")
    visits = WindowState(int, WINDOW, default=0)

    @clicks.each
    def count(self, click: Click, ctx: Context) -> None:
        self.visits.update(lambda visits: visits + 1)

    @visits.closes
    def report(self, visits: int, window: Window, ctx: Context) -> None:
        self.counts.emit(PageCount(self.key.lang, self.key.page, visits))


class RankPages(Operator[str], uid="rank-pages"):
    """The `k` pages of each language with most visits per window; of equal ones the first by name."""

    k = 10
    counts = Input(CountVisits.counts)
    top = Output(TopPages, topic="top-pages")
    best = WindowState(tuple[PageCount, ...], WINDOW, default=())

    @counts.each
    def rank(self, count: PageCount, ctx: Context) -> None:
        self.best.update(lambda best: tuple(sorted((*best, count), key=_rank)[: self.k]))

    @best.closes
    def report(self, best: tuple[PageCount, ...], window: Window, ctx: Context) -> None:
        self.top.emit(TopPages(self.key, window.start, best))


def _rank(count: PageCount) -> tuple[int, str]:
    return -count.visits, count.page

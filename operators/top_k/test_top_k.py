"""Most visited pages, from clicks to rankings."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from kstate.testing import Driver
from operators.records import Click, PageCount, TopPages
from operators.top_k import job
from operators.top_k.operators import CountVisits, PageKey, RankPages

HOUR_MS = 3_600_000


def clicks(lang: str, pages: str, ts: int) -> list[Click]:
    """One click per letter: the letter is the page."""
    return [Click(f"user-{number % 3}", lang, page, ts) for number, page in enumerate(pages)]


def send(d: Driver, given: Iterable[Click]) -> None:
    """Clicks may come with any key or none, whatever they are counted by."""
    d.send(CountVisits.clicks, *given)


def end(d: Driver) -> None:
    """Clicks long after all others: everything before them is over."""
    send(d, (Click(f"user-{number}", "xx", "end", 10 * HOUR_MS) for number in range(30)))


def test_pages_are_ranked_by_visits_then_by_name_and_languages_apart() -> None:
    """A page of the same name in another language is another page."""
    with Driver(job) as d:
        send(d, clicks("en", "abcab", 1_000) + clicks("de", "aab", 2_000))
        end(d)
        assert {(top.lang, top.pages) for top in d.read(RankPages.top)} == {
            ("en", (PageCount("en", "a", 2), PageCount("en", "b", 2), PageCount("en", "c", 1))),
            ("de", (PageCount("de", "a", 2), PageCount("de", "b", 1))),
        }


def test_only_the_first_ten_are_kept() -> None:
    """Each page is opened once more often than the next one in the alphabet."""
    letters = "abcdefghijkl"
    with Driver(job) as d:
        send(d, clicks("en", "".join(page * (20 - n) for n, page in enumerate(letters)), 1_000))
        end(d)
        (top,) = d.read(RankPages.top)
        assert [(count.page, count.visits) for count in top.pages] == [(p, 20 - n) for n, p in enumerate(letters[:10])]


def test_windows_are_ranked_apart() -> None:
    """30 seconds each, aligned to the epoch; a window that nothing was opened in is not reported."""
    with Driver(job) as d:
        send(d, clicks("en", "aab", 29_999) + clicks("en", "b", 30_000) + clicks("en", "c", 95_000))
        end(d)
        tops = d.read(RankPages.top)
        assert [(top.start, [c.page for c in top.pages]) for top in tops] == [
            (0, ["a", "b"]),
            (30_000, ["b"]),
            (90_000, ["c"]),
        ]


def test_a_window_is_open_until_the_lateness_is_over() -> None:
    """Clicks of the first 30 seconds still count while no click at 35 seconds or later has come."""
    with Driver(job) as d:
        send(d, clicks("en", "a", 1_000) + clicks("en", "b", 34_999) + clicks("en", "a", 2_000))
        assert d.state(CountVisits.visits, key=PageKey("en", "a")) != {}
        end(d)
        assert d.read(RankPages.top)[0] == TopPages("en", 0, (PageCount("en", "a", 2),))


@pytest.mark.parametrize("point", ["before_commit", "after_commit"])
def test_a_crash_of_either_worker_changes_no_ranking(point: str) -> None:
    """Counts, open windows and watermarks come back as they were committed."""
    given = clicks("en", "abcabaab", 1_000) + clicks("de", "xyx", 31_000)
    with Driver(job, workers=2) as d:
        send(d, given[:5])
        for worker in (0, 1):
            d.crash(worker, at=point)
        send(d, given[5:])
        end(d)
        assert {(top.lang, top.start): [(c.page, c.visits) for c in top.pages] for top in d.read(RankPages.top)} == {
            ("en", 0): [("a", 4), ("b", 3), ("c", 1)],
            ("de", 30_000): [("x", 2), ("y", 1)],
        }

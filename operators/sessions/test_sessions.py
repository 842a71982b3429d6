"""Sessions: how clicks join, when one is over, what becomes of late ones."""

from __future__ import annotations

import pytest

from kstate.testing import Driver
from operators.records import Click, UserSession
from operators.sessions import job
from operators.sessions.operators import GAP_MS, Sessions

MINUTE = 60_000


def click(minute: float, page: str = "home", user: str = "ann") -> Click:
    """A click so many minutes after the first hour of 1970."""
    return Click(user, "en", page, round((60 + minute) * MINUTE))


def session(first: float, last: float, clicks: int, *pages: str, user: str = "ann") -> UserSession:
    """The record of a session between these minutes."""
    start, end = (round((60 + minute) * MINUTE) for minute in (first, last))
    return UserSession(user, start, end, clicks, pages or ("home",))


def test_clicks_with_short_pauses_are_one_session_reported_once() -> None:
    """It lasts from its first to its last click; its pages are listed once each."""
    with Driver(job) as d:
        d.send(Sessions.clicks, click(0), click(20, "shop"), click(40, "shop"), click(60, "cart"))
        assert d.read(Sessions.sessions) == []
        d.send(Sessions.clicks, click(300))
        assert d.read(Sessions.sessions) == [session(0, 60, 4, "cart", "home", "shop")]


def test_a_pause_of_exactly_the_gap_ends_a_session() -> None:
    """A window holds its start, not its end."""
    with Driver(job) as d:
        d.send(Sessions.clicks, click(0), click(30), click(30 + GAP_MS / MINUTE - 0.001), click(300))
        assert d.read(Sessions.sessions) == [session(0, 0, 1), session(30, 60 - 0.001, 2)]


def test_a_click_in_between_makes_two_sessions_one() -> None:
    """As long as neither is over: the lateness is one minute."""
    with Driver(job) as d:
        d.send(Sessions.clicks, click(0, "a"), click(30.5, "c"), click(29.8, "b"), click(300))
        assert d.read(Sessions.sessions) == [session(0, 30.5, 3, "a", "b", "c")]


def test_a_click_that_is_too_late_is_left_out() -> None:
    """Its session was reported, and it opens no other."""
    with Driver(job) as d:
        d.send(Sessions.clicks, click(0), click(200), click(1), click(400))
        assert d.read(Sessions.sessions) == [session(0, 0, 1), session(200, 200, 1)]


def test_users_have_sessions_of_their_own() -> None:
    """One user's pause is not filled by another's clicks."""
    with Driver(job) as d:
        d.send(Sessions.clicks, click(0), click(15, user="bob"), click(35), click(300), click(300, user="bob"))
        assert sorted(d.read(Sessions.sessions), key=lambda s: (s.user, s.start)) == [
            session(0, 0, 1),
            session(35, 35, 1),
            session(15, 15, 1, user="bob"),
        ]


@pytest.mark.parametrize("point", ["before_commit", "after_commit"])
def test_a_crash_neither_loses_nor_doubles_a_click(point: str) -> None:
    """Open sessions are state like any other."""
    users = [f"user-{number}" for number in range(6)]
    with Driver(job, workers=2) as d:
        d.send(Sessions.clicks, *(click(0, user=user) for user in users))
        for worker in (0, 1):
            d.crash(worker, at=point)
        d.send(Sessions.clicks, *(click(minute, user=user) for minute in (20, 30) for user in users))
        d.send(Sessions.clicks, *(click(300, user=user) for user in users))
        found = sorted(d.read(Sessions.sessions), key=lambda s: s.user)
        assert found == [session(0, 30, 3, user=user) for user in users]

"""Clicks of a user belong together until a pause of half an hour."""

from __future__ import annotations

from datetime import timedelta

from kstate import Context, Input, Operator, Output, Session, Window, WindowState
from operators.records import Click, SessionSoFar, UserSession

GAP = timedelta(minutes=30)
GAP_MS = GAP // timedelta(milliseconds=1)


def joined(earlier: SessionSoFar, later: SessionSoFar) -> SessionSoFar:
    """Two sessions that a click between them makes one."""
    pages = tuple(sorted({*earlier.pages, *later.pages}))
    return SessionSoFar(earlier.clicks + later.clicks, pages)


class Sessions(Operator[str], uid="sessions"):
    """Reports a session once, when no click can prolong it any more."""

    clicks = Input(Click, topic="clicks", key="user", event_time="ts", lateness=timedelta(minutes=1))
    sessions = Output(UserSession, topic="sessions")
    so_far = WindowState(SessionSoFar, Session(GAP), default=SessionSoFar(0, ()), merge=joined)

    @clicks.each
    def extend(self, click: Click, ctx: Context) -> None:
        self.so_far.update(lambda so_far: joined(so_far, SessionSoFar(1, (click.page,))))

    @so_far.closes
    def report(self, so_far: SessionSoFar, window: Window, ctx: Context) -> None:
        last = window.end - GAP_MS
        self.sessions.emit(UserSession(self.key, window.start, last, so_far.clicks, so_far.pages))

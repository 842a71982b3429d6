"""Windows of all three kinds: which records they take, when they close, and what is late, against naive references."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from itertools import chain
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kstate.api.windows import Hopping, Session, Tumbling, Window
from tests.support.timed_rig import Rig, window

Closed = list[tuple[str, Window, str]]


def ms(count: int) -> timedelta:
    """So many milliseconds."""
    return timedelta(milliseconds=count)


class Stream:
    """Records of some keys on their way through a window state of strings, closing what the watermark reaches."""

    def __init__(self, kind: Tumbling | Hopping | Session, **options: Any) -> None:
        self.closed: Closed = []
        self.watermark = -(1 << 63)
        self.rig = Rig(
            window(
                "texts",
                kind,
                lambda op, text, span, _: self.closed.append((op.key, span, text)),
                type_=str,
                default="",
                merge=lambda a, b: f"({a}{b})",
            ),
            **options,
        )

    def record(self, event_time: int, text: str, lateness: int = 0, key: str = "a") -> bool:
        """As the process loop does it: the watermark, what is due, the record."""
        self.advance(event_time - lateness)
        taken: bool = self.rig.call(
            key, lambda op: op.texts.update(lambda before: before + text), event_time, self.watermark
        )
        return taken

    def advance(self, watermark: int) -> None:
        """The watermark rises."""
        self.watermark = max(self.watermark, watermark)
        assert self.rig.fire(self.watermark)

    def open(self, key: str = "a") -> list[tuple[Window, str]]:
        """The open windows of a key."""
        found: list[tuple[Window, str]] = self.rig.call(key, lambda op: list(op.texts.items()), 1, self.watermark)
        return found

    @property
    def late(self) -> int:
        """As counted by the handle."""
        late: int = self.rig.instance.texts.late
        return late


def test_a_tumbling_window_takes_what_is_in_it_and_closes_at_its_end() -> None:
    """Half-open, aligned to 1970, with its last value, once."""
    stream = Stream(Tumbling(ms(10)))
    assert [stream.record(at, text) for at, text in ((10, "a"), (19, "b"))] == [True, True]
    assert stream.open() == [(Window(10, 20), "ab")]
    assert stream.closed == []
    stream.record(20, "c")
    assert stream.closed == [("a", Window(10, 20), "ab")]
    assert stream.open() == [(Window(20, 30), "c")]
    assert not stream.record(19, "late")
    assert stream.late == 1
    stream.advance(1_000)
    assert stream.closed == [("a", Window(10, 20), "ab"), ("a", Window(20, 30), "c")]
    stream.rig.commit()
    assert (stream.rig.stored(), stream.rig.indexed()) == (0, [])


def test_a_hopping_window_takes_a_record_into_every_window_still_open() -> None:
    """A record may be late for some and in time for others."""
    stream = Stream(Hopping(ms(10), ms(5)))
    stream.record(12, "a", lateness=5)
    assert stream.open() == [(Window(5, 15), "a"), (Window(10, 20), "a")]
    stream.record(16, "b")
    assert stream.closed == [("a", Window(5, 15), "a")]
    assert stream.record(11, "c", lateness=5)
    assert stream.open() == [(Window(10, 20), "abc"), (Window(15, 25), "b")]
    assert stream.late == 0


def test_the_first_windows_begin_before_1970() -> None:
    """They are aligned like all others."""
    stream = Stream(Hopping(ms(10), ms(4)))
    stream.record(1, "a", lateness=5)
    assert stream.open() == [(Window(-8, 2), "a"), (Window(-4, 6), "a"), (Window(0, 10), "a")]


def test_a_session_ends_a_gap_after_its_last_record() -> None:
    """What comes at its very end begins another."""
    stream = Stream(Session(ms(10)))
    stream.record(10, "a", lateness=50)
    stream.record(15, "b", lateness=50)
    assert stream.open() == [(Window(10, 25), "ab")]
    stream.record(25, "c", lateness=50)
    assert stream.open() == [(Window(10, 25), "ab"), (Window(25, 35), "c")]
    stream.advance(35)
    assert stream.closed == [("a", Window(10, 25), "ab"), ("a", Window(25, 35), "c")]


def test_a_record_between_sessions_joins_them() -> None:
    """Their values by merge, the earlier first, however they came."""
    stream = Stream(Session(ms(10)))
    for at, text in ((40, "c"), (10, "a"), (25, "b"), (33, "x"), (18, "y")):
        stream.record(at, text, lateness=100)
    assert stream.open() == [(Window(10, 50), "(a(bc)x)y")]
    stream.rig.commit()
    assert (stream.rig.stored(), len(stream.rig.indexed())) == (1, 1)
    stream.advance(50)
    assert stream.closed == [("a", Window(10, 50), "(a(bc)x)y")]


def test_a_late_record_may_still_join_an_open_session() -> None:
    """Its own window would be closed; only where it joins none it is late."""
    stream = Stream(Session(ms(10)))
    stream.record(30, "a", lateness=5)
    stream.advance(35)
    assert stream.record(24, "b")
    assert stream.open() == [(Window(24, 40), "ab")]
    assert not stream.record(14, "c")
    assert not stream.record(25, "d", key="b"), "it would end at the watermark"
    assert stream.record(26, "e", key="b")
    assert stream.late == 2


def test_a_failed_call_leaves_all_windows_as_they_were() -> None:
    """Also sessions that it joined."""
    stream = Stream(Session(ms(10)))
    stream.record(10, "a", lateness=100)
    stream.record(25, "b", lateness=100)
    before = stream.open()

    def fail(op: Any) -> None:
        op.texts.update(lambda text: text + "x")
        raise RuntimeError

    for event_time in (12, 17, 60):
        with pytest.raises(RuntimeError):
            stream.rig.call("a", fail, event_time, stream.watermark)
        assert stream.open() == before
    stream.advance(100)
    assert stream.closed == [("a", Window(10, 20), "a"), ("a", Window(25, 35), "b")]


def test_windows_due_together_close_in_order_of_their_ends() -> None:
    """Then of their keys; a window nobody waits for is just removed."""
    stream = Stream(Tumbling(ms(10)))
    for at, key in ((25, "b"), (5, "c"), (25, "a"), (5, "b")):
        stream.record(at, "x", lateness=100, key=key)
    stream.advance(1_000)
    assert [(key, span.end) for key, span, _ in stream.closed] == [("b", 10), ("c", 10), ("a", 30), ("b", 30)]
    quiet = Rig(window("n", Tumbling(ms(10)), None))
    quiet.call("a", lambda op: op.n.update(lambda n: n + 1), 5)
    quiet.commit()
    assert quiet.stored() == 1
    assert quiet.fire(10)
    assert quiet.rejects.handled == 0
    quiet.commit()
    assert (quiet.stored(), quiet.indexed()) == (0, [])


@pytest.mark.parametrize("kind", [Tumbling(ms(20)), Hopping(ms(20), ms(10)), Session(ms(20))])
def test_a_window_that_is_due_but_not_closed_yet_takes_nothing_more(kind: Tumbling | Hopping | Session) -> None:
    """So what a handler of something due earlier sees does not depend on how far the closing has come."""
    seen: list[Any] = []

    def first(op: Any, _n: int, _span: Window, _ctx: Any) -> None:
        seen.append((op.long.update(lambda n: n + 1), list(op.long.items())))

    rig = Rig(window("short", Tumbling(ms(10)), first), window("long", kind, None))
    rig.call("a", lambda op: (op.short.update(lambda n: n), op.long.update(lambda n: n)), 5)
    rig.fire(100)
    assert seen == [(False, [])]


Reference = Callable[[list[tuple[int, int]]], tuple[list[bool], set[tuple[int, int, str]]]]
"""(event time, watermark) of each record → whether it was taken, and the windows with their values."""


def aligned(size: int, step: int) -> Reference:
    """Every multiple of `step` is tried as the start of a window."""

    def run(records: list[tuple[int, int]]) -> tuple[list[bool], set[tuple[int, int, str]]]:
        taken, values = [], dict[int, str]()
        for number, (at, watermark) in enumerate(records):
            starts = [s for s in range(-10 * step, 200, step) if s <= at < s + size and s + size > watermark]
            taken.append(bool(starts))
            for start in starts:
                values[start] = values.get(start, "") + chr(97 + number)
        return taken, {(start, start + size, text) for start, text in values.items()}

    return run


def sessions(gap: int) -> Reference:
    """Groups of records: two belong together when less than a gap apart, and a closed group takes no more."""

    def run(records: list[tuple[int, int]]) -> tuple[list[bool], set[tuple[int, int, str]]]:
        taken, groups = [], list[list[tuple[int, str]]]()
        for number, (at, watermark) in enumerate(records):
            near = [g for g in groups if max(g)[0] + gap > watermark and any(abs(at - t) < gap for t, _ in g)]
            taken.append(bool(near) or at + gap > watermark)
            if taken[-1]:
                groups = [g for g in groups if g not in near] + [[*chain(*near), (at, chr(97 + number))]]
        return taken, {(min(g)[0], max(g)[0] + gap, "".join(sorted(text for _, text in g))) for g in groups}

    return run


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.tuples(st.integers(1, 100), st.sampled_from("pq")), min_size=1, max_size=24),
    st.integers(0, 30),
    st.sampled_from(["commit", "restart", "forget", "none"]),
    st.sampled_from(
        [
            (Tumbling(ms(7)), aligned(7, 7)),
            (Hopping(ms(12), ms(5)), aligned(12, 5)),
            (Hopping(ms(12), ms(4)), aligned(12, 4)),
            (Session(ms(9)), sessions(9)),
        ]
    ),
)
def test_windows_are_those_of_a_naive_reference(
    records: list[tuple[int, str]], lateness: int, between: str, case: tuple[Any, Reference]
) -> None:
    """Whatever the order of event times, and wherever epochs end, caches are emptied and processes start anew."""
    kind, reference = case
    stream = Stream(kind, memory_items=3)
    watermark, seen, taken = -(1 << 63), {"p": list[tuple[int, int]](), "q": list[tuple[int, int]]()}, list[bool]()
    for at, key in records:
        watermark = max(watermark, at - lateness)
        taken.append(stream.record(at, chr(97 + len(seen[key])), lateness, key))
        seen[key].append((at, watermark))
        if between != "none":
            stream.rig.commit()
        if between in ("restart", "forget"):
            stream.rig.start() if between == "restart" else stream.rig.forget()
    before = len(stream.closed)
    stream.advance(1_000)
    ends = [(span.end, key, span.start) for key, span, _ in stream.closed]
    assert ends[before:] == sorted(ends[before:], key=lambda each: (each[0], each[1], each[2]))
    expected = {key: reference(mine) for key, mine in seen.items()}
    flags = {key: iter(each[0]) for key, each in expected.items()}
    assert taken == [next(flags[key]) for _, key in records]
    assert stream.late == taken.count(False)
    found = sorted((key, *span, "".join(sorted(c for c in text if c.isalpha()))) for key, span, text in stream.closed)
    assert found == sorted((key, *each) for key, (_, windows) in expected.items() for each in windows)
    stream.rig.commit()
    assert (stream.rig.stored(), stream.rig.indexed()) == (0, [])

"""Every kind of state goes on under an evolved schema: values of both versions lie side by side and read as one."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from types import NoneType
from typing import Any

import pytest

from kstate import (
    ConfigError,
    Context,
    Input,
    Job,
    ListState,
    MapState,
    Operator,
    Output,
    Timer,
    TimerMap,
    Tumbling,
    ValueState,
    WindowState,
)
from kstate.api.describe import describe
from kstate.api.topology import resolve
from tests.support.versions import CODECS, Deployment

EPOCH = timedelta(milliseconds=50)


@dataclass(frozen=True, slots=True)
class Click:
    at: int
    page: str


@dataclass(frozen=True, slots=True)
class Visit:
    """As version 1 keeps it."""

    page: str


@dataclass(frozen=True, slots=True)
class Stay:
    """As version 2 keeps it."""

    seconds: int = -1
    page: str = ""


@dataclass(frozen=True, slots=True)
class Seen:
    listed: str
    mapped: str
    fired: str = ""


def version(record: Any) -> Job:
    """A list, a map, a window and timers of one operator, whose records are of this class."""

    class Clicks(Operator[str], uid="clicks"):
        clicks = Input(Click, topic="clicks", event_time="at")
        seen = Output(Seen, topic="seen")
        trail = ListState(record)
        by_page = MapState(str, record)
        total = WindowState(record, Tumbling(timedelta(seconds=10)), default=record(page=""))
        after = Timer()

        @clicks.each
        def click(self, click: Click, ctx: Context) -> None:
            self.trail.append(record(page=click.page))
            self.by_page[click.page] = record(page=click.page)
            self.total.update(lambda before: record(page=before.page + click.page))
            self.after.set(at=click.at + 5_000)
            self.seen.emit(Seen(_text(self.trail.get()), _text(self.by_page.values())))

        @total.closes
        def closed(self, total: Any, _: Any, ctx: Context) -> None:
            self.seen.emit(Seen("", "", f"window {_text([total])}"))

        @after.fires
        def fired(self, ctx: Context) -> None:
            self.seen.emit(Seen("", "", f"timer at {ctx.event_time}"))

    return Job("pages", [Clicks], epoch=EPOCH)


def _text(records: Any) -> str:
    return " ".join(f"{each.page}:{getattr(each, 'seconds', '')}" for each in records)


def test_lists_maps_windows_and_timers_of_two_versions_read_as_one() -> None:
    """What version 1 stored is read with the defaults of version 2, beside what that stores itself; a window begun by
    one is closed by the other, and a timer set by one fires in the other.
    """
    at = Deployment(["clicks", "seen"], partitions=1, workers=1)
    at.start(at.version(version(Visit)), "leader", "worker-1")
    at.send("clicks", "u", Click(1_000, "a"))
    at.send("clicks", "u", Click(2_000, "b"))
    at.settle()
    at.stop("leader", "worker-1")
    at.start(at.version(version(Stay)), "leader", "worker-2")  # all from the backup
    at.send("clicks", "u", Click(3_000, "c"))
    at.send("clicks", "u", Click(31_000, "d"))
    at.settle()
    seen = at.read("seen", Seen)
    assert [each.listed for each in seen if each.listed] == [
        "a:", "a: b:", "a:-1 b:-1 c:-1", "a:-1 b:-1 c:-1 d:-1"
    ]  # fmt: skip
    assert seen[2].mapped == "a:-1 b:-1 c:-1"
    assert [each.fired for each in seen if each.fired] == ["timer at 8000", "window abc:-1"]


def job_of(*, state: Any) -> Job:
    """An operator with one state, named `kept`."""

    class Keeper(Operator[str], uid="keeper"):
        clicks = Input(Click, topic="clicks")
        kept = state()

        @clicks.each
        def click(self, click: Click, ctx: Context) -> None:
            pass

    return Job("keep", [Keeper], epoch=EPOCH)


FORMS = {
    "value": lambda: ValueState(Visit),
    "list": lambda: ListState(Visit),
    "map by str": lambda: MapState(str, Visit),
    "map by int": lambda: MapState(int, Visit),
}


@pytest.mark.parametrize("before", FORMS)
@pytest.mark.parametrize("after", FORMS)
def test_another_form_under_the_same_name_is_refused(before: str, after: str) -> None:
    """Keys within a map count, too: they stand in the stored keys."""
    at = Deployment(["clicks"], partitions=1, workers=1)
    at.start(at.version(job_of(state=FORMS[before])), "leader", "worker-1")
    at.settle()
    at.stop("leader", "worker-1")
    at.start(at.version(job_of(state=FORMS[after])), "leader", "worker-1")
    if before == after:
        at.settle()
    else:
        at.until(lambda: at.result("leader") is not None, "refusal")
        assert f"state 'kept' of operator 'keeper' was a {before} and is a {after} now" in str(at.result("leader"))
    at.stop("worker-1")


def test_the_form_of_timers_names_clock_and_tags() -> None:
    """A deadline in event time must not become one in processing time, and tags must stay readable."""

    class Timers(Operator[str], uid="timers"):
        clicks = Input(Click, topic="clicks", event_time="at")
        one = Timer()
        other = Timer(clock="processing")
        many = TimerMap(int)

        @clicks.each
        def click(self, click: Click, ctx: Context) -> None:
            pass

        @one.fires
        def first(self, ctx: Context) -> None:
            pass

        @other.fires
        def second(self, ctx: Context) -> None:
            pass

        @many.fires
        def third(self, tag: int, ctx: Context) -> None:
            pass

    description = describe(resolve(Job("t", [Timers])), lambda type_: "" if type_ is NoneType else "x")
    assert [state.form for state in description.operators[0].states] == [
        "event timer", "processing timer", "event timers by int"
    ]  # fmt: skip


def streamed(record: Any) -> Job:
    """Two operators, and a stream of such records between them."""

    class First(Operator[None], uid="first"):
        clicks = Input(Click, topic="clicks")
        visits = Output(record, key="page")

        @clicks.each
        def click(self, click: Click, ctx: Context) -> None:
            self.visits.emit(record(page=click.page))

    class Second(Operator[str], uid="second"):
        visits = Input(First.visits)
        seen = Output(Seen, topic="seen")

        @visits.each
        def visit(self, visit: Any, ctx: Context) -> None:
            self.seen.emit(Seen(visit.page, ""))

    return Job("streamed", [First, Second], epoch=EPOCH)


def test_the_records_of_a_stream_change_only_while_it_is_empty() -> None:
    """They do not say how they were written, so what is under way would be misread."""
    at = Deployment(["clicks", "seen"], partitions=1, workers=1)
    at.start(at.version(streamed(Visit)), "leader", "worker-1")
    at.send("clicks", "u", Click(1, "a"))
    at.settle()
    at.stop("leader", "worker-1")
    at.start(at.version(streamed(Stay)), "leader", "worker-1")
    at.until(lambda: at.result("leader") is not None, "refusal")
    refused = at.result("leader")
    assert isinstance(refused, ConfigError)
    for text in ("stream 'visits' of operator 'first'", CODECS.value(Visit).schema, CODECS.value(Stay).schema):
        assert text in str(refused)
    at.stop("worker-1")

"""The driver and every kind of state: what it reads, what it feeds, and what survives crashes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from kstate import (
    BatchContext,
    ConfigError,
    Context,
    Input,
    Job,
    ListState,
    MapState,
    Operator,
    OperatorError,
    Output,
    PartialState,
    Reject,
    Table,
    Timer,
    TimerMap,
    Tumbling,
    ValueState,
    Window,
    WindowState,
)
from kstate.errors import RetryableError
from kstate.plan import TopicPartition
from kstate.state.values import value_prefix
from kstate.testing import Driver
from kstate.testing.memory_log import MemoryLog

SECOND = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Act:
    """What to do to the states of a key."""

    name: str
    what: str
    number: int
    ts: int


@dataclass(frozen=True, slots=True)
class Person:
    """Who a key is."""

    name: str


@dataclass(frozen=True, slots=True)
class Count:
    """How many records, in parts."""

    total: int = 0

    def split(self, fraction: float) -> tuple[Count, Count]:
        lower = round(self.total * fraction)
        return Count(lower), Count(self.total - lower)

    def merge(self, other: Count) -> Count:
        return Count(self.total + other.total)


class All(Operator[str], uid="all"):
    """One state of every kind."""

    acts = Input(Act, topic="acts", key="name", event_time="ts")
    people = Table(Person, topic="people")
    changes = Output(Person, topic="changes")
    value = ValueState(int, default=-1)
    brief = ValueState(int, ttl=10 * SECOND)
    numbers = ListState(int)
    recent = ListState(int, ttl=10 * SECOND)
    entries = MapState(int, str)
    seen = MapState(str, int, ttl=10 * SECOND)
    windows = WindowState(int, Tumbling(5 * SECOND), default=0)
    alarm = Timer()
    alarms = TimerMap(str, clock="processing")
    total = PartialState(Count, initial=Count)

    @acts.each
    def act(self, act: Act, ctx: Context) -> None:
        self.total.set(self.total.get().merge(Count(1)))
        self.value.set(act.number)
        self.brief.set(act.number)
        self.numbers.append(act.number)
        self.recent.append(act.number)
        self.entries[act.number] = act.what
        self.seen[act.what] = act.number
        self.windows.update(lambda n: n + 1)
        self.alarm.set(after=SECOND)
        self.alarms.set(act.what, after=timedelta(hours=1))
        if act.what == "fail":
            raise Reject("as asked")
        if act.what == "wrong":
            wrong: Any = "no number"
            self.numbers.append(wrong)
        if act.what == "clear":
            for state in (self.value, self.brief, self.numbers, self.recent, self.entries, self.seen, self.alarms):
                state.clear()
            self.alarm.cancel()

    @people.changed
    def changed(self, person: Person | None, ctx: Context) -> None:
        self.changes.emit(person or Person("nobody"))

    @windows.closes
    def closed(self, n: int, window: Window, ctx: Context) -> None: ...

    @alarm.fires
    def rang(self, ctx: Context) -> None: ...

    @alarms.fires
    def rung(self, tag: str, ctx: Context) -> None: ...


class Anybody(Operator[None], uid="anybody"):
    """Partial state without keys."""

    acts = Input(Act, topic="anything")
    total = PartialState(Count, initial=Count)

    @acts.each
    def act(self, act: Act, ctx: Context) -> None:
        self.total.set(self.total.get().merge(Count(act.number)))
        if act.what == "fail":
            raise Reject("as asked")


class Bulk(Operator[str], uid="bulk"):
    """Many keys at once; reads by another key than the message's, from a framed topic."""

    acts = Input(Act, topic="framed", rekey="name", format="confluent", key_format="confluent")
    out = Output(Act, topic="framed-out", format="confluent")
    total = ValueState(int, default=0)

    @acts.batch
    def add(self, acts: Sequence[Act], ctx: BatchContext) -> None:
        for act, key in zip(acts, ctx.keys, strict=True):
            (total,) = self.total.get_many([key])
            self.total.set_many([key], [total + act.number])
        self.out.emit_many(acts, keys=ctx.keys)


START = 1_000_000
JOB = Job("states", [All])


def acts(*whats: str, key: str = "k", at: int = START) -> list[Act]:
    """Acts a second apart, numbered from 1."""
    return [Act(key, what, number, at + number * 1_000) for number, what in enumerate(whats, 1)]


@pytest.mark.parametrize("workers", [1, 2])
def test_every_kind_of_state_is_read_in_its_own_form(workers: int) -> None:
    """For keys that have some, and for one that has none."""
    with Driver(JOB, workers=workers) as d:
        d.send(All.acts, *acts("a", "b", "a"))
        assert d.state(All.value, key="k") == 3
        assert d.state(All.brief, key="k") == 3
        assert d.state(All.numbers, key="k") == (1, 2, 3)
        assert d.state(All.recent, key="k") == (1, 2, 3)
        assert d.state(All.entries, key="k") == {1: "a", 2: "b", 3: "a"}
        assert d.state(All.seen, key="k") == {"a": 3, "b": 2}
        assert d.state(All.windows, key="k") == {Window(START, START + 5_000): 3}
        assert d.state(All.alarm, key="k") == START + 4_000
        assert d.state(All.alarms, key="k").keys() == {"a", "b"}
        assert d.partial(All.total) == Count(3)
        assert [d.state(state, key="none") for state in (All.value, All.brief)] == [-1, None]
        assert [d.state(state, key="none") for state in (All.numbers, All.recent)] == [(), ()]
        assert (d.state(All.entries, key="none"), d.state(All.seen, key="none")) == ({}, {})
        assert (d.state(All.windows, key="none"), d.state(All.alarms, key="none")) == ({}, {})
        assert (d.state(All.alarm, key="none"), d.state(All.people, key="none")) == (None, None)


def test_what_the_watermark_made_expire_is_not_there() -> None:
    """Whether it was swept away or not; what has no ttl stays."""
    with Driver(JOB) as d:
        d.send(All.acts, *acts("a", "b"))
        d.send(All.acts, Act("other", "x", 9, START + 11_999))
        assert (d.state(All.brief, key="k"), d.state(All.recent, key="k")) == (2, (2,))
        assert d.state(All.seen, key="k") == {"b": 2}
        d.send(All.acts, Act("other", "x", 9, START + 12_000))
        assert (d.state(All.brief, key="k"), d.state(All.recent, key="k"), d.state(All.seen, key="k")) == (None, (), {})
        assert (d.state(All.value, key="k"), d.state(All.numbers, key="k")) == (2, (1, 2))
        assert d.state(All.windows, key="k") == {}
        assert d.state(All.alarm, key="k") is None


def test_what_expired_is_not_there_before_it_was_swept_away() -> None:
    """The store may keep it for a while, nobody sees it."""
    with Driver(JOB) as d:
        d.send(All.acts, *acts("a", "b"))
        (store,) = d._cluster.stores.values()
        alive, gone = value_prefix(1, START + 12_000)[3:], value_prefix(1, START + 2_000)[3:]
        aged = [(key, data.replace(alive, gone, 1)) for key, data in store.scan(b"\0\1", b"\xff") if alive in data]
        assert len(aged) == 3
        store.write([key for key, _ in aged], [data for _, data in aged])
        assert (d.state(All.brief, key="k"), d.state(All.recent, key="k"), d.state(All.seen, key="k")) == (
            None,
            (1,),
            {"a": 1},
        )


def test_everything_can_be_cleared_and_a_rejected_record_leaves_nothing() -> None:
    """Partial state is undone as well."""
    with Driver(JOB) as d:
        d.send(All.acts, *acts("fail"))
        assert d.state(All.numbers, key="k") == ()
        assert d.partial(All.total) == Count(0)
        d.send(All.acts, *acts("a", "b", "fail", "clear"))
        assert (d.state(All.value, key="k"), d.state(All.entries, key="k"), d.state(All.alarm, key="k")) == (
            -1,
            {},
            None,
        )
        assert d.partial(All.total) == Count(3)
        assert [letter.reason for letter in d.dead_letters(All)] == ["as asked", "as asked"]


def test_an_element_that_does_not_encode_costs_its_record_alone() -> None:
    """It is found when the epoch ends; the epoch is redone, and the record becomes a dead letter."""
    with Driver(JOB) as d:
        d.send(All.acts, *acts("a", "wrong", "b"))
        assert d.state(All.numbers, key="k") == (1, 3)
        assert d.partial(All.total) == Count(2)
        (letter,) = d.dead_letters(All)
        assert "state 'numbers' of key 'k'" in letter.reason


@pytest.mark.parametrize("at", ["before_commit", "after_commit"])
def test_every_kind_of_state_survives_a_crash(at: str) -> None:
    """Restored from the backup, it goes on as if nothing had been."""
    with Driver(JOB) as d:
        d.send(All.acts, *acts("a", "b"))
        d.crash(at=at)
        d.send(All.acts, Act("k", "a", 3, START + 3_000))
        d.crash(at="now")
        d.send(All.acts, Act("k", "c", 4, START + 4_000))
        assert d.state(All.numbers, key="k") == d.state(All.recent, key="k") == (1, 2, 3, 4)
        assert d.state(All.entries, key="k") == {1: "a", 2: "b", 3: "a", 4: "c"}
        assert d.state(All.seen, key="k") == {"a": 3, "b": 2, "c": 4}
        assert d.state(All.windows, key="k") == {Window(START, START + 5_000): 4}
        assert d.partial(All.total) == Count(4)


def test_partial_state_needs_no_key() -> None:
    """An Operator[None] on two workers: the parts add up, whatever fails or crashes."""
    with Driver(Job("any", [Anybody]), workers=2) as d:
        d.send(Anybody.acts, *acts(*"abcdef"))
        d.send(Anybody.acts, *acts("fail"))
        d.crash(0, at="now")
        d.send(Anybody.acts, *acts("x"), key="with a key")
        assert d.partial(Anybody.total) == Count(1 + 2 + 3 + 4 + 5 + 6 + 1)
        assert len(d.dead_letters(Anybody)) == 1


def test_a_table_is_fed_and_emptied() -> None:
    """`send` and `delete` with a key; `changed` sees both."""
    with Driver(JOB) as d:
        d.send(All.people, Person("Ada"), key="k")
        assert d.state(All.people, key="k") == Person("Ada")
        d.delete(All.people, key="k")
        assert d.state(All.people, key="k") is None
        assert d.read(All.changes) == [Person("Ada"), Person("nobody")]


def test_framed_topics_and_other_keys_need_nothing_else() -> None:
    """A registry in memory; records go to the topic as declared, the hop does the rest. Its failures are the
    operator's.
    """
    with Driver(Job("bulk", [Bulk]), workers=2) as d:
        d.send(Bulk.acts, *acts("a", "b", key="x"), *acts("a", key="y"), key="message key")
        d.send(Bulk.acts, *acts("c", key="x"))
        assert (d.state(Bulk.total, key="x"), d.state(Bulk.total, key="y")) == (4, 1)
        assert sorted(act.what for act in d.read(Bulk.out)) == ["a", "a", "b", "c"]


def test_what_a_hop_rejects_is_among_the_letters_of_its_operator() -> None:
    """Nobody else could ask for them; and they are not overlooked."""

    class Inverse(Operator[int], uid="inverse"):
        acts = Input(Act, topic="acts", rekey=lambda act: 12 // act.number)
        last = ValueState(int)

        @acts.each
        def act(self, act: Act, ctx: Context) -> None:
            self.last.set(act.number)

    job = Job("inverses", [Inverse])
    with Driver(job) as d:
        d.send(Inverse.acts, Act("k", "a", 0, 1), Act("k", "a", 3, 2))
        assert d.state(Inverse.last, key=4) == 3
        assert [letter.error for letter in d.dead_letters(Inverse)] == ["ZeroDivisionError"]
    named = r"'inverse-acts-rekey' that nobody looked at: 1, the first of acts\[0\]@0 .*dead_letters\(Inverse\)"
    with pytest.raises(OperatorError, match=named), Driver(job) as d:
        d.send(Inverse.acts, Act("k", "a", 0, 1))


def test_a_timer_whose_handler_fails_is_told_by_its_name_and_deadline() -> None:
    """It stands in no topic: its dead letter has the key and no value."""

    class Fails(Operator[str], uid="fails"):
        acts = Input(Act, topic="acts", key="name")
        soon = Timer()

        @acts.each
        def act(self, act: Act, ctx: Context) -> None:
            self.soon.set(at=5)

        @soon.fires
        def fail(self, ctx: Context) -> None:
            raise RuntimeError("no")

    job = Job("failing", [Fails])
    with Driver(job) as d:
        d.send(Fails.acts, *acts("a"))
        (letter,) = d.dead_letters(Fails)
        assert (letter.timer, letter.deadline, letter.key, letter.value, letter.offset) == ("soon", 5, b"k", None, -1)
        assert str(letter) == "'soon' due at 5 in partition 0 with RuntimeError: no"
    with pytest.raises(OperatorError, match="the first of 'soon' due at 5"), Driver(job) as d:
        d.send(Fails.acts, *acts("a"))


def test_the_timestamp_of_a_record_can_be_given() -> None:
    """It is the event time of inputs that name no field."""

    class Stamped(Operator[str], uid="stamped"):
        acts = Input(Act, topic="acts", key="name")
        at = ValueState(int)

        @acts.each
        def act(self, act: Act, ctx: Context) -> None:
            self.at.set(ctx.event_time)

    with Driver(Job("stamps", [Stamped])) as d:
        d.send(Stamped.acts, *acts("a"), event_time=77)
        assert d.state(Stamped.at, key="k") == 77


@pytest.mark.parametrize(
    ("use", "named"),
    [
        (lambda d: d.state(All.total, key="k"), r"All\.total is no state of a key.*partial"),
        (lambda d: d.state(All.acts, key="k"), r"All\.acts is no state of a key"),
        (lambda d: d.delete(All.people, key=None), r"send\(All\.people, …\) has no key"),
        (lambda d: d.state(Anybody.total, key="k"), "Anybody is no operator of job 'states'"),
    ],
)
def test_mistakes_in_tests_are_named(use: Callable[[Driver], object], named: str) -> None:
    """With what to use instead."""
    with Driver(JOB) as d, pytest.raises(ConfigError, match=named):
        use(d)


def test_a_first_object_that_cannot_be_made_is_an_error_of_the_record() -> None:
    """As any other mistake in a handler."""

    class Broken(Operator[str], uid="broken"):
        acts = Input(Act, topic="acts", key="name")
        total = PartialState(Count, initial=lambda: Count(1 // 0))

        @acts.each
        def act(self, act: Act, ctx: Context) -> None:
            self.total.get()

    with Driver(Job("broken", [Broken])) as d:
        d.send(Broken.acts, *acts("a"))
        assert [letter.error for letter in d.dead_letters(Broken)] == ["ZeroDivisionError"]


def test_a_broker_that_is_away_when_tables_are_to_be_read_costs_only_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was restored by then runs once it answers; the worker does not end."""
    asked = 0
    ends = MemoryLog.end_offsets

    def away(log: MemoryLog, partitions: Iterable[TopicPartition], *, committed: bool) -> dict[TopicPartition, int]:
        nonlocal asked
        partitions = list(partitions)
        if any(place.topic == "people" for place in partitions):
            asked += 1
            if asked <= 3:
                raise RetryableError("nobody answers")
        return ends(log, partitions, committed=committed)

    monkeypatch.setattr(MemoryLog, "end_offsets", away)
    with Driver(JOB) as d:
        d.send(All.people, Person("Kay"), key="k")
        assert d.state(All.people, key="k") == Person("Kay")
        assert d.dead_letters(All) == []
    assert asked == 4

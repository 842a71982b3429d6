"""Collections, windows, timers, tables and partial state: from declarations to specs, and what is refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import NoneType
from typing import Any

import pytest

from kstate import (
    BatchContext,
    Context,
    Hopping,
    Input,
    ListState,
    MapState,
    Operator,
    Output,
    PartialState,
    Session,
    Table,
    Timer,
    TimerMap,
    Tumbling,
    ValueState,
    Window,
    WindowState,
)
from kstate.api.describe import describe
from kstate.api.specs import (
    ListSpec,
    MapSpec,
    OperatorSpec,
    PartialSpec,
    TableSpec,
    TimerSpec,
    ValueSpec,
    WindowSpec,
)
from tests.support.declared import Line, Place, Word, bare, declare, faults, lines, topology

SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Total:
    n: int

    def split(self, fraction: float, /) -> tuple[Total, Total]:
        low = int(self.n * fraction)
        return Total(low), Total(self.n - low)

    def merge(self, other: Total, /) -> Total:
        return Total(self.n + other.n)


class Everything(Operator[str], uid="everything"):
    """A declaration of each kind."""

    lines = Input(Line, topic="lines", event_time="ts", ahead=MINUTE)
    words = Input(Word, topic="words", format="confluent", key_format="confluent")
    customers = Table(Line, topic="customers", name="c")
    silent = Table(Word, topic="silent")
    value = ValueState(int, ttl=SECOND)
    items = ListState(Word, ttl=MINUTE)
    pages = MapState(Place, int)
    total = PartialState(Total, initial=lambda: Total(0))
    count = WindowState(int, Tumbling(MINUTE), default=0)
    unheard = WindowState(int, Session(MINUTE), default=0, merge=max)
    gap = Timer()
    tags = TimerMap(int, clock="processing", name="t")

    @lines.batch
    def many(self, lines: Sequence[Line], ctx: BatchContext) -> None: ...

    @words.each
    def one(self, word: Word, ctx: Context) -> None: ...

    @customers.changed
    def moved(self, customer: Line | None, ctx: Context) -> None: ...

    @count.closes
    def report(self, count: int, window: Window, ctx: Context) -> None: ...

    @gap.fires
    def finish(self, ctx: Context) -> None: ...

    @tags.fires
    def tagged(self, tag: int, ctx: Context) -> None: ...


def everything() -> OperatorSpec:
    """Its spec."""
    (spec,) = topology(Everything).operators
    return spec


def test_states_are_in_the_order_of_their_declarations() -> None:
    """The order in which the engine binds and stores them; the kind is the class."""
    found = [(state.attribute, state.name, type(state), state.form) for state in everything().states]
    assert found == [
        ("customers", "c", TableSpec, "table"),
        ("silent", "silent", TableSpec, "table"),
        ("value", "value", ValueSpec, "value"),
        ("items", "items", ListSpec, "list"),
        ("pages", "pages", MapSpec, "map"),
        ("total", "total", PartialSpec, "partial"),
        ("count", "count", WindowSpec, "window"),
        ("unheard", "unheard", WindowSpec, "window"),
        ("gap", "gap", TimerSpec, "event timer"),
        ("tags", "t", TimerSpec, "processing timers"),
    ]


def test_options_of_states_come_through() -> None:
    """Times to live in milliseconds, types of keys and tags, windows with their merge."""
    spec = everything()
    (value,), (items,), (pages,) = spec.states_of(ValueSpec), spec.states_of(ListSpec), spec.states_of(MapSpec)
    assert (value.ttl_ms, items.ttl_ms, pages.ttl_ms) == (1000, 60_000, None)
    assert (items.type, pages.key_type, pages.type) == (Word, Place, int)
    assert spec.states_of(PartialSpec)[0].initial() == Total(0)
    count, unheard = spec.states_of(WindowSpec)
    assert (count.window, count.default, count.merge, count.handler) == (Tumbling(MINUTE), 0, None, Everything.report)
    assert (unheard.window, unheard.merge, unheard.handler) == (Session(MINUTE), max, None)
    gap, tags = spec.states_of(TimerSpec)
    assert (gap.clock, gap.tag_type, gap.type, gap.handler) == ("event", None, NoneType, Everything.finish)
    assert (tags.clock, tags.tag_type, tags.handler) == ("processing", int, Everything.tagged)


def test_a_table_is_a_state_and_an_input() -> None:
    """Its topic counts as an input, its records go to the state; without .changed nobody is called."""
    spec = everything()
    inputs = {given.name: given for given in spec.inputs}
    assert list(inputs) == ["lines", "words", "customers", "silent"]
    customers = inputs["customers"]
    assert (customers.topic, customers.record, customers.table, customers.internal) == (
        *("customers", Line),
        *("customers", False),
    )
    assert customers.handler is Everything.moved
    assert (inputs["silent"].table, inputs["silent"].handler) == ("silent", None)
    assert inputs["lines"].table is None
    assert {state.attribute for state in spec.states_of(TableSpec)} == {"customers", "silent"}


def test_a_batch_handler_is_marked() -> None:
    """The engine calls it with many records."""
    batches = {given.name: (given.batch, given.handler) for given in everything().inputs if given.table is None}
    assert batches == {"lines": (True, Everything.many), "words": (False, Everything.one)}


def test_formats_and_the_bound_on_the_future_come_through() -> None:
    """Of input, key and output; an input of an output reads what that writes."""

    class Framed(Operator[str], uid="framed"):
        words = Input(Word, topic="words")
        out = Output(Word, topic="out", format="confluent", timestamp="now")

        @words.each
        def one(self, word: Word, ctx: Context) -> None: ...

    words = everything().inputs[1]
    assert (words.format, words.key_format, words.ahead_ms) == ("confluent", "confluent", 3_600_000)
    assert everything().inputs[0].ahead_ms == 60_000
    framed, reader = topology(Framed, declare("reader", words=Input(Framed.out))).operators
    assert (framed.outputs[0].format, reader.inputs[0].format, reader.inputs[0].topic) == (
        "confluent",
        "confluent",
        "out",
    )


def test_handlers_of_timers_and_windows_are_overridden_by_name() -> None:
    """As any method of a subclass."""

    class Louder(Everything, uid="louder"):
        def report(self, count: int, window: Window, ctx: Context) -> None: ...
        def finish(self, ctx: Context) -> None: ...
        def moved(self, customer: Line | None, ctx: Context) -> None: ...
        def many(self, lines: Sequence[Line], ctx: BatchContext) -> None: ...

    (spec,) = topology(Louder).operators
    handlers: list[Any] = [spec.states_of(WindowSpec)[0].handler, spec.states_of(TimerSpec)[0].handler]
    handlers += [spec.inputs[2].handler, spec.inputs[0].handler]
    assert handlers == [Louder.report, Louder.finish, Louder.moved, Louder.many]
    assert spec.states_of(TimerSpec)[1].handler is Everything.tagged


def test_what_goes_by_event_time_is_known() -> None:
    """Windows, event-time timers and times to live; nothing else makes an operator wait for a watermark."""
    timed: list[dict[str, Any]] = [
        {"s": ValueState(int, ttl=SECOND)},
        {"s": ListState(int, ttl=SECOND)},
        {"s": MapState(str, int, ttl=SECOND)},
        {"s": WindowState(int, Tumbling(SECOND), default=0)},
        {"s": Timer()},
        {"s": TimerMap(str)},
    ]
    untimed: list[dict[str, Any]] = [
        {},
        {"s": ValueState(int)},
        {"s": ListState(int), "t": MapState(str, int), "u": PartialState(Total, initial=lambda: Total(0))},
        {"s": Table(Line, topic="table")},
        {"s": Timer(clock="processing"), "t": TimerMap(str, clock="processing")},
    ]
    found = [topology(declare(a=lines(), **each)).operators[0].timed for each in (*timed, *untimed)]
    assert found == [True] * len(timed) + [False] * len(untimed)


def test_streams_carry_watermarks_to_whom_they_matter() -> None:
    """An internal stream is timed when its reader, or one further down, goes by event time."""
    first = declare("first", key=None, a=lines(), to_timed=Output(Line, key="text"), to_plain=Output(Line, key="text"))
    middle = declare(
        "middle", key=None, a=Input(first.to_timed), on=Output(Line, key="text"), out=Output(Line, topic="o")
    )
    timed = declare("timed", a=Input(middle.on), gap=Timer(), end=Output(Line))
    plain = declare("plain", a=Input(first.to_plain), s=ValueState(int), b=Input(timed.end))
    found = {
        f"{spec.uid}.{output.name}": output.timed
        for spec in topology(plain, first, middle, timed).operators
        for output in spec.outputs
    }
    assert found == {
        "first.to_timed": True,
        "first.to_plain": False,
        "middle.on": True,
        "middle.out": False,
        "timed.end": False,
    }


def test_partial_state_needs_no_key() -> None:
    """It belongs to a key range, which stateless operators have, too."""
    spec = topology(declare(key=None, a=lines(), total=PartialState(Total, initial=lambda: Total(0)))).operators[0]
    assert (spec.key_type, [type(state) for state in spec.states]) == (NoneType, [PartialSpec])


def test_tables_forms_and_dropped_names_are_described() -> None:
    """What the control plane needs to refuse a change of the kind of a state; the description can be hashed."""
    described = describe(topology(Everything, dropped=["everything.old", "gone"], idle=SECOND), str)
    (everything,) = described.operators
    assert [(given.name, given.table) for given in everything.inputs] == [
        *(("lines", False), ("words", False)),
        *(("customers", True), ("silent", True)),
    ]
    forms = {state.name: state.form for state in everything.states}
    assert (forms["c"], forms["value"], forms["t"]) == ("table", "value", "processing timers by int")
    assert forms["pages"] == "map by (str,int)"
    assert described.dropped == ("everything.old", "gone")
    again = describe(topology(Everything, dropped=["everything.old", "gone"]), str)
    assert hash(described) == hash(again)


def test_the_options_of_a_job_come_through() -> None:
    """In milliseconds."""
    resolved = topology(Everything, dropped=["gone"], idle=MINUTE, on_error="stop", epoch=SECOND / 2)
    assert (resolved.dropped, resolved.idle_ms, resolved.on_error, resolved.epoch_ms) == (
        ("gone",),
        60_000,
        "stop",
        500,
    )
    default = topology(Everything)
    assert (default.dropped, default.idle_ms, default.on_error) == ((), 30_000, "dead-letter")


class OnlySplit:
    def split(self, _fraction: float, /) -> tuple[OnlySplit, OnlySplit]:
        return self, self


def window(window: Any, **options: Any) -> Callable[[], Any]:
    """An operator with such a window."""
    return lambda: declare(a=lines(), w=WindowState(int, window, **({"default": 0} | options)))


def state(make: Callable[[], Any], **options: Any) -> Callable[[], Any]:
    """An operator with such a state."""
    return lambda: declare(a=lines(), s=make(), **options)


def twice(make: Callable[[], Any], decorator: str) -> Callable[[], Any]:
    """An operator with a declaration that two methods are attached to."""

    def build() -> Any:
        declared = make()
        for _ in range(2):
            getattr(declared, decorator)(lambda *arguments: None)
        return bare(a=with_handler(), s=declared)

    return build


def with_handler() -> Any:
    """An input that is handled."""
    given = lines()
    given.each(lambda op, record, ctx: None)
    return given


def both() -> Any:
    """An input with a handler for one record and one for many."""
    given = with_handler()
    given.batch(lambda op, records, ctx: None)
    return bare(a=given)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (window(Tumbling(timedelta(0))), "size is 0:00:00"),
        (window(Tumbling(-SECOND)), "size is -1 day, 23:59:59"),
        (window(Tumbling(5)), "size is 5. Mend: use a timedelta"),  # type: ignore[arg-type]
        (window(Tumbling(timedelta(milliseconds=1.5))), "no whole number of milliseconds"),
        (window(Hopping(timedelta(0), SECOND)), "size is 0:00:00"),
        (window(Hopping(SECOND, timedelta(0))), "step is 0:00:00"),
        (window(Hopping(SECOND, MINUTE)), "step of 0:01:00 is longer than its size"),
        (window(Session(timedelta(0)), merge=max), "gap is 0:00:00"),
        (window(Session(SECOND)), "it has no merge="),
        (window(Tumbling(SECOND), merge=max), "merge= would not be called"),
        (window(SECOND), "is no window"),
        (window(Tumbling(SECOND), default=None), "its default is None"),
        (twice(lambda: WindowState(int, Tumbling(SECOND), default=0), "closes"), "it has 2 handlers"),
        (lambda: bare(a=with_handler(), t=Timer()), "timer 't': it has no handler"),
        (lambda: bare(a=with_handler(), t=TimerMap(str)), "exactly one method with @t.fires"),
        (twice(Timer, "fires"), "it has 2 handlers"),
        (twice(lambda: TimerMap(str), "fires"), "it has 2 handlers"),
        (twice(lambda: Table(Line, topic="table"), "changed"), "it has 2 handlers"),
        (state(lambda: Timer(clock="wall")), "clock='wall'"),  # type: ignore[arg-type]
        (state(lambda: ValueState(int, ttl=timedelta(0))), "ttl is 0:00:00"),
        (state(lambda: ListState(int, ttl=-SECOND)), "ttl is -1 day"),
        (state(lambda: MapState(str, int, ttl=60)), "ttl is 60"),  # type: ignore[arg-type]
        (state(lambda: MapState(float, int)), "a float is no key"),
        (state(lambda: MapState(bool, int)), "a bool is no key"),
        (state(lambda: MapState(Word, int)), "field 'weight' of Word: a float is no key"),
        (state(lambda: TimerMap(float)), "its tags: a float is no key"),
        (state(lambda: TimerMap(list[int])), "has no canonical key bytes"),
        (state(lambda: TimerMap(None)), "may be null"),  # type: ignore[arg-type]
        (state(lambda: Timer(name="a b")), "name='a b' is no name"),
        (state(lambda: PartialState(OnlySplit, initial=OnlySplit)), "OnlySplit has no method merge"),
        (state(lambda: PartialState(int, initial=int)), "int has no method split and no method merge"),
        (state(lambda: PartialState(Total, initial=Total(0))), "cannot be called"),  # type: ignore[arg-type]
        (state(lambda: ListState(int, name="t"), t=Timer()), "named 't' ('s', 't')"),
        (state(lambda: Table(Line, topic="x", name="t"), t=TimerMap(str)), "two states are named 't'"),
        (lambda: declare(s=Table(Line, topic="table")), "it has tables only"),
        (state(lambda: Table(Line, topic="lines")), "inputs 'a', 's' read one topic, 'lines'. Mend: keep the table"),
        (state(lambda: Table(Line, topic="a b")), "table 's': 'a b' is no legal topic name"),
        (state(lambda: Table(Line, topic="t", format="json")), "format='json'"),  # type: ignore[arg-type]
        (state(lambda: Table(Line, topic="t", partitioner="crc32")), "placed by different partitioners"),
        (
            lambda: declare(a=lines(), o=Output(Line, topic="table"), t=Table(Line, topic="table")),
            "which its own output",
        ),
        *(
            (lambda make=make: declare(key=None, a=lines(), s=make()), "Operator[None] has no key, so it cannot keep")
            for make in (
                Timer,
                lambda: TimerMap(str),
                lambda: ListState(int),
                lambda: MapState(str, int),
                lambda: WindowState(int, Tumbling(SECOND), default=0),
                lambda: Table(Line, topic="table"),
            )
        ),
        (both, "it has 2 handlers"),
        (twice(lambda: lines(topic="more"), "batch"), "it has 2 handlers"),
        (lambda: declare(a=lines(ahead=timedelta(0))), "ahead is 0:00:00"),
        (lambda: declare(a=lines(ahead=-SECOND)), "ahead is -1 day"),
        (lambda: declare(a=lines(lateness=2)), "lateness is 2"),
        (lambda: declare(a=lines(event_time=5)), "event_time=5"),
        (lambda: declare(a=lines(topic="")), "input 'a': it has no topic"),
        (lambda: declare(a=lines(topic=None)), "Input(Line, topic='…')"),
        (state(lambda: Table(Line, topic="t", partitioner="x")), "partitioner='x'"),  # type: ignore[arg-type]
        (lambda: declare(a=lines(format="avro")), "format='avro'. Mend: use 'raw' or 'confluent'"),
        (lambda: declare(a=lines(key_format="avro")), "key_format='avro'"),
        (lambda: declare(a=lines(partitioner="murmur3")), "partitioner='murmur3'"),
        (lambda: declare(a=lines(), o=Output(Line, topic="o", timestamp="never")), "timestamp='never'"),  # type: ignore[arg-type]
        (lambda: declare(a=lines(), o=Output(Line, topic="o", format="x")), "format='x'"),  # type: ignore[arg-type]
        (lambda: declare(a=lines(), o=Output(Line, topic="o", key=5)), "key=5"),  # type: ignore[arg-type]
    ],
)
def test_each_fault_is_found_and_is_the_only_one(make: Callable[[], Any], expected: str) -> None:
    """One mistake, one fault, with place and mend."""
    found = faults(make())
    assert len(found) == 1, found
    assert expected in found[0]
    assert "Mend: " in found[0]


def test_a_format_on_an_internal_stream_is_refused() -> None:
    """Its frames are kstate's own."""
    writer = declare("writer", a=lines(), out=Output(Line, format="confluent"))
    (found,) = faults(writer, declare("reader", b=Input(writer.out)))
    assert "is of no use on an internal stream" in found


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"dropped": ["op"]}, "dropped names 'op', operator of this job"),
        ({"dropped": ["op.s"]}, "dropped names 'op.s', state of this job"),
        ({"dropped": ["op.a.b c"]}, "write 'uid' for an operator"),
        ({"dropped": [""]}, "dropped names ''"),
        ({"dropped": [5]}, "dropped names 5"),
        ({"dropped": "op.t"}, "use a list: dropped=['op.t']"),
        ({"on_error": "ignore"}, "on_error='ignore'. Mend: use 'dead-letter' or 'stop'"),
        ({"idle": timedelta(0)}, "idle is 0:00:00"),
        ({"idle": 30}, "idle is 30"),
        ({"epoch": 1}, "epoch is 1"),
        ({"epoch": -SECOND}, "epoch is -1 day"),
    ],
)
def test_faults_of_a_job_s_options(options: dict[str, Any], expected: str) -> None:
    """One mistake, one fault."""
    found = faults(declare(a=lines(), s=ValueState(int)), **options)
    assert len(found) == 1, found
    assert expected in found[0]


def test_names_that_are_gone_may_be_dropped() -> None:
    """Operators, and states of operators that are still there or not."""
    assert faults(declare(a=lines(), s=ValueState(int)), dropped=["op.old", "gone", "gone.state", "op.renamed.x"]) == []


@pytest.mark.parametrize("option", [{"lateness": SECOND}, {"event_time": "ts"}, {"topic": "x"}, {"start": "latest"}])
def test_an_input_of_an_output_takes_no_options_of_a_topic(option: dict[str, Any]) -> None:
    """They are decided where the records are read from a topic first; silence would be a surprise."""
    writer = declare("writer", a=lines(), out=Output(Line))
    with pytest.raises(TypeError, match=rf"takes rekey= only, not {next(iter(option))}="):
        Input(writer.out, **option)


def test_a_start_at_a_time_stays_allowed_with_rekey() -> None:
    """The hop begins there."""
    hop, _ = topology(declare(a=lines(rekey="text", start=datetime(2024, 1, 1, tzinfo=UTC)))).operators
    assert hop.inputs[0].start == datetime(2024, 1, 1, tzinfo=UTC)

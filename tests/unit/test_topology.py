"""From a job to its topology, and every way in which the wiring can be wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from types import NoneType, new_class
from typing import Any

import pytest

from kstate import ConfigError, Context, Input, Int32, Job, Operator, Output, ValueState
from kstate.api.describe import describe
from kstate.api.specs import ValueSpec
from kstate.api.topology import resolve
from tests.support.declared import Line, Place, Word, bare, declare, faults, lines, topology


class Split(Operator[None], uid="split"):
    lines = Input(Line, topic="lines", event_time="ts", lateness=timedelta(seconds=2))
    words = Output(Word, key="word")

    @lines.each
    def split(self, line: Line, ctx: Context) -> None: ...


class Count(Operator[str], uid="count"):
    words = Input(Split.words)
    counts = Output(Word, topic="counts")
    seen = ValueState(int, default=0, name="n")

    @words.each
    def add(self, word: Word, ctx: Context) -> None: ...


class Audit(Operator[str], uid="audit"):
    counts = Input(Count.counts)

    @counts.each
    def look(self, word: Word, ctx: Context) -> None: ...


def test_a_job_becomes_plain_specs() -> None:
    """All that the engine needs, by uid and attribute."""
    resolved = topology(Split, Count)
    split, count = resolved.operators
    assert (resolved.app, resolved.epoch_ms) == ("app", 1000)
    assert (split.uid, split.key_type, count.key_type) == ("split", NoneType, str)
    assert (split.inputs[0].topic, split.inputs[0].lateness_ms, split.inputs[0].internal) == ("lines", 2000, False)
    assert (split.outputs[0].topic, split.outputs[0].key_type) == ("app.split.words", str)
    (seen,) = count.states_of(ValueSpec)
    assert (seen.name, seen.attribute, seen.has_default, seen.default) == ("n", "seen", True, 0)
    assert resolved.operator("count") is count


def test_an_output_without_topic_is_an_internal_stream() -> None:
    """Both ends name one topic, and the reader knows who writes it."""
    split, count = topology(Split, Count).operators
    assert split.outputs[0].internal
    assert (count.inputs[0].internal, count.inputs[0].source_uid) == (True, "split")
    assert count.inputs[0].topic == split.outputs[0].topic
    assert count.inputs[0].record is Word


def test_an_output_with_a_topic_is_an_ordinary_input_elsewhere() -> None:
    """No frames in users' topics; its writer may be in another job."""
    (audit,) = topology(Audit).operators
    assert (audit.inputs[0].topic, audit.inputs[0].internal, audit.inputs[0].source_uid) == ("counts", False, None)


def test_event_time_is_a_function_of_the_record() -> None:
    """A field of type int is ms since the epoch, a timestamp is converted, a function must give ms."""

    class Timed(Operator[None], uid="timed"):
        a = Input(Line, topic="a", event_time="ts")
        b = Input(Line, topic="b", event_time="at")
        c = Input(Line, topic="c", event_time=lambda line: line.ts * 1000)
        d = Input(Line, topic="d")
        e = Input(Line, topic="e", event_time=lambda line: line.ts / 2)  # type: ignore[arg-type, return-value]

        @a.each
        @b.each
        @c.each
        @d.each
        @e.each
        def handle(self, line: Line, ctx: Context) -> None: ...

    line = Line("x", 5, datetime(1970, 1, 1, 0, 0, 1, 234_999, tzinfo=UTC))
    *inputs, wrong = topology(Timed).operators[0].inputs
    assert [each.event_time and each.event_time(line) for each in inputs] == [5, 1234, 5000, None]
    assert wrong.event_time is not None
    with pytest.raises(TypeError, match=r"expected milliseconds since the epoch as an int, got 2\.5"):
        wrong.event_time(line)


def test_a_handler_overridden_by_its_name_is_called() -> None:
    """As any method of a subclass; the engine gets plain functions."""

    class Louder(Count, uid="louder"):
        def add(self, word: Word, ctx: Context) -> None: ...

    assert topology(Split, Louder).operators[1].inputs[0].handler is Louder.add
    assert topology(Split, Count).operators[1].inputs[0].handler is Count.add


def test_two_handlers_of_one_name_stay_two() -> None:
    """`def _` twice: the second name hides the first in the class, not in the inputs."""

    class Twice(Operator[None], uid="twice"):
        a = Input(Line, topic="a")
        b = Input(Line, topic="b")

        @a.each
        def _(self, line: Line, ctx: Context) -> None: ...

        first = _

        @b.each
        def _(self, line: Line, ctx: Context) -> None: ...

    a, b = topology(Twice).operators[0].inputs
    assert a.handler is vars(Twice)["first"]
    assert b.handler is vars(Twice)["_"]


@pytest.mark.parametrize(
    ("key", "expected"),
    [("word", str), ("place", Int32), (None, Place), (lambda w: w.word, Any)],
)
def test_the_type_of_an_output_s_key_is_known_where_it_can_be(key: Any, expected: Any) -> None:
    """Field, the operator's own key, or nothing known of a lambda."""

    class Keyed(Operator[Place], uid="keyed"):
        lines = Input(Line, topic="lines")
        out = Output(Word, topic="out", key=key)

        @lines.each
        def handle(self, line: Line, ctx: Context) -> None: ...

    assert topology(Keyed).operators[0].outputs[0].key_type == expected


def test_an_annotated_key_function_says_its_type() -> None:
    """And so takes part in the check of edges."""

    def number(word: Word) -> int:
        return word.number

    class Numbered(Operator[None], uid="numbered"):
        lines = Input(Line, topic="lines")
        out = Output(Word, topic="out", key=number)

        @lines.each
        def handle(self, line: Line, ctx: Context) -> None: ...

    assert topology(Numbered).operators[0].outputs[0].key_type is int


def test_a_stateless_operator_passes_the_key_bytes_on() -> None:
    """Without key= nothing is known of the type, so nothing is refused."""

    class Pass(Operator[None], uid="pass"):
        lines = Input(Line, topic="lines")
        out = Output(Line)

        @lines.each
        def handle(self, line: Line, ctx: Context) -> None: ...

    class Next(Operator[int], uid="next"):
        lines = Input(Pass.out)

        @lines.each
        def handle(self, line: Line, ctx: Context) -> None: ...

    assert topology(Pass, Next).operators[0].outputs[0].key_type is None


def test_one_error_lists_all_faults_with_their_mends() -> None:
    """Nobody mends one mistake only to meet the next."""

    class Bad(Operator[float], uid="b.d"):
        lines = Input(Line, topic="no topic", event_time="when")
        out = Output(Word, key="nope")

    with pytest.raises(ConfigError) as raised:
        topology(Bad)
    text = str(raised.value)
    assert "7 faults" in text
    assert text.count("Mend: ") == 7
    for part in (
        "'b.d'",
        "'no topic'",
        "'when'",
        "no handler",
        "'nope'",
        "a float is no key",
        "no operator of the job reads",
    ):
        assert part in text


def stream_named_dlq() -> list[Any]:
    """An internal stream that would have the name of the dead-letter topic, and its reader."""
    writer = declare("writer", lines=lines(), dlq=Output(Line))
    return [writer, declare("reader", lines=Input(writer.dlq))]


class NeedsArguments(Operator[str], uid="op"):
    lines = Input(Line, topic="lines")

    def __init__(self, limit: int) -> None: ...

    @lines.each
    def handle(self, line: Line, ctx: Context) -> None: ...


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (list, "it has no operators"),
        (lambda: [Operator], "it has no uid"),
        (lambda: [declare(lines=lines())()], "it is no operator class"),
        (lambda: [declare(lines=lines()), declare(lines=lines())], "its uid occurs twice in the job (Op)"),
        (lambda: [declare()], "it has no input"),
        (lambda: [NeedsArguments], "__init__ needs limit"),
        (lambda: [declare("a.b", lines=lines())], "'a.b' cannot be a part of topic names"),
        (lambda: [declare("größe", lines=lines())], "'größe' cannot be a part of topic names"),
        (lambda: [declare("backup", lines=lines())], "the name 'backup' belongs to kstate's own topics"),
        (lambda: [declare("x" * 250, lines=lines())], "Kafka allows 249"),
        (lambda: [declare(reports=lines())], "the name 'reports' belongs to kstate's own topics"),
        (stream_named_dlq, "the name 'dlq' belongs to kstate's own topics"),
        (lambda: [declare(lines=lines(topic="a b"))], "'a b' is no legal topic name"),
        (lambda: [declare(lines=lines(topic=".."))], "'..' is no legal topic name"),
        (lambda: [declare(lines=lines(topic="x" * 250))], "has 250 characters, Kafka allows 249"),
        (lambda: [declare(lines=lines(), out=Output(Word, topic="a b"))], "'a b' is no legal topic name"),
        (lambda: [declare(lines=lines(topic="app.control"))], "is one of kstate's own topics of this job"),
        (lambda: [declare(lines=lines(), out=Output(Word, topic="app.op.dlq"))], "is one of kstate's own topics"),
        (lambda: [bare(lines=lines())], "it has no handler"),
        (
            lambda: [declare(a=lines(), b=lines(topic="more", partitioner="crc32"))],
            "inputs are placed by different partitioners ('b' by crc32, 'a' by murmur2)",
        ),
        (lambda: [declare(a=lines(), b=lines())], "inputs 'a', 'b' read one topic, 'lines'"),
        (lambda: [declare(a=lines(), o=Output(Line, topic="lines"))], "which its own output 'o' writes"),
        (lambda: [declare(a=lines(key="nope"))], "key='nope' is no field of Line"),
        (lambda: [declare(a=lines(key="ts"))], "key='ts' is a field of type int, the operator's key is str"),
        (lambda: [declare(a=lines(event_time="nope"))], "event_time='nope' is no field of Line"),
        (lambda: [declare(a=lines(event_time="text"))], "event_time='text' is a field of type str"),
        (lambda: [declare(a=lines(lateness=timedelta(seconds=-1)))], "lateness is -1 day"),
        (lambda: [declare(a=lines(start="newest"))], "start='newest'"),
        (lambda: [declare(a=lines(start=datetime(2024, 1, 1)))], "has no time zone"),  # noqa: DTZ001 - the fault
        (lambda: [declare(a=lines(), o=Output(Word, topic="o", key="nope"))], "key='nope' is no field of Word"),
        (lambda: [declare(a=lines(), o=Output(Word, topic="o", key="weight"))], "a float is no key"),
        (lambda: [declare(key=float, a=lines())], "a float is no key"),
        (lambda: [declare(key=bool, a=lines())], "a bool is no key"),
        (lambda: [declare(key=str | None, a=lines())], "may be null"),
        (lambda: [declare(key=Mapping[str, int], a=lines())], "a map is no key"),
        (lambda: [declare(key=list[int], a=lines())], "has no canonical key bytes"),
        (lambda: [declare(key=Word, a=lines())], "field 'weight' of Word: a float is no key"),
        (lambda: [declare(key=None, a=lines(), s=ValueState(int))], "it cannot keep state 's'"),
        (lambda: [declare(a=lines(), s=ValueState(int), t=ValueState(int, name="s"))], "two states are named 's'"),
        (lambda: [declare(a=lines(), s=ValueState(int, name="a b"))], "name='a b' is no name"),
        (lambda: [Count], "an output of operator 'split', which is not in the job"),
        (lambda: [Split], "no operator of the job reads this internal stream"),
        (lambda: [Split, declare(key=int, words=Input(Split.words))], "the operator's are int"),
    ],
)
def test_each_fault_is_found_and_is_the_only_one(make: Callable[[], list[Any]], expected: str) -> None:
    """One mistake, one fault, with place and mend."""
    found = faults(*make())
    assert len(found) == 1, found
    assert expected in found[0]
    assert "Mend: " in found[0]


def test_an_output_of_an_abstract_operator_is_no_source() -> None:
    """Which of its subclasses should be read?"""

    class Abstract(Operator[str]):
        out = Output(Word)

    assert any("abstract operator" in fault for fault in faults(declare(words=Input(Abstract.out))))


def test_the_open_key_type_of_a_bare_operator_is_named() -> None:
    """`class X(Operator, uid=…)` forgot its key."""
    kind = new_class("X", (Operator,), {"uid": "x"}, lambda body: body.update(a=lines()))
    assert any("its key type is left open" in fault for fault in faults(kind))


def test_a_cycle_of_internal_streams_is_named() -> None:
    """It would never drain."""
    a = declare("a", ins=lines(), out=Output(Line))
    b = declare("b", ins=Input(a.out), out=Output(Line))
    a.back = Input(b.out)
    a.back.__set_name__(a, "back")
    a.back.each(lambda op, record, ctx: None)
    (found,) = faults(a, b)
    assert "a → b → a" in found


@pytest.mark.parametrize("app", ["", "a b", "ä", "."])
def test_an_illegal_application_name_is_one_fault(app: str) -> None:
    """Not one per topic that is made from it."""
    assert len(faults(Split, Count, app=app)) == 1


def test_an_epoch_shorter_than_a_commit_is_refused() -> None:
    """Below 10 ms there is nothing but commits."""
    with pytest.raises(ConfigError, match="epoch is"):
        resolve(Job("app", [Split, Count], epoch=timedelta(milliseconds=1)))


def test_a_job_is_described_as_plain_data() -> None:
    """What the control plane makes plans from."""
    described = describe(topology(Split, Count), lambda kind: f"schema of {kind.__name__}")
    split, count = described.operators
    assert (described.app, split.key_type, count.key_type) == ("app", "none", "str")
    assert (count.inputs[0].internal, count.inputs[0].source_uid) == (True, "split")
    assert (count.states[0].name, count.states[0].schema) == ("n", "schema of int")


def test_a_start_at_a_time_is_described_in_milliseconds() -> None:
    """Plans hold no datetimes."""
    late = declare(a=lines(start=datetime(1970, 1, 1, 0, 0, 2, tzinfo=UTC)))
    assert describe(topology(late), str).operators[0].inputs[0].start == 2000

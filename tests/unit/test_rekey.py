"""`rekey=` is a visible hop: an operator and a stream of kstate's own between a topic and its reader."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from types import NoneType
from typing import Any

import pytest

from kstate import BatchContext, Context, Input, Job, Operator, Output, Table, Timer, ValueState
from kstate.api.describe import describe
from kstate.api.topology import examine
from kstate.coordinator.topics import partition_counts
from kstate.testing import Driver
from tests.support.declared import Line, Place, Word, declare, faults, lines, topology

SECOND = timedelta(seconds=1)


class Enrich(Operator[str], uid="enrich"):
    orders = Input(
        Word,
        topic="orders",
        rekey="word",
        event_time="number",
        lateness=SECOND,
        ahead=2 * SECOND,
        start="latest",
        partitioner="crc32",
        format="confluent",
        key_format="confluent",
    )
    customers = Table(Line, topic="customers")
    gap = Timer()

    @orders.batch
    def join(self, orders: Sequence[Word], ctx: BatchContext) -> None: ...

    @gap.fires
    def finish(self, ctx: Context) -> None: ...


def test_an_input_becomes_a_hop_and_a_stream() -> None:
    """The hop reads the topic as declared, the operator reads the stream; uids and topics never change again."""
    hop, enrich = topology(Enrich).operators
    assert (hop.uid, hop.hop_of, hop.key_type, hop.states) == (
        "enrich-orders-rekey",
        ("enrich", "orders"),
        NoneType,
        (),
    )
    (given,), (out,) = hop.inputs, hop.outputs
    assert (given.name, given.topic, given.internal, given.record) == ("orders", "orders", False, Word)
    assert given.event_time is not None
    assert given.event_time(Word("w", 1.0, 0, 5)) == 5  # type: ignore[arg-type]
    assert (given.lateness_ms, given.ahead_ms, given.start) == (1000, 2000, "latest")
    assert (given.partitioner, given.format, given.key_format) == ("crc32", "confluent", "confluent")
    assert (out.name, out.topic, out.internal, out.format) == ("orders", "app.enrich.orders", True, "raw")
    assert (out.key, out.key_type, out.timed) == ("word", str, True)
    orders = enrich.inputs[0]
    assert (orders.topic, orders.internal, orders.source_uid) == ("app.enrich.orders", True, "enrich-orders-rekey")
    assert (orders.event_time, orders.lateness_ms, orders.format, orders.key_format) == (None, 0, "raw", "raw")
    assert (orders.partitioner, orders.start) == ("murmur2", "earliest")
    assert (orders.handler, orders.batch, given.batch) == (Enrich.join, True, False)


def test_the_hop_of_an_input_is_found() -> None:
    """For whoever has the declared input in hand and wants to know where its records come in."""
    resolved = topology(Enrich)
    assert resolved.hop_of("enrich", "orders") is resolved.operators[0]
    assert resolved.hop_of("enrich", "customers") is None
    assert resolved.hop_of("enrich-orders-rekey", "orders") is None


class _Emitted(list[Any]):
    """Stands in for a bound output."""

    emit = list.append


def test_a_hop_emits_records_as_they_came() -> None:
    """Through its output, with the event time of the call; the engine makes it without arguments."""
    hop = topology(Enrich).operators[0]
    instance, emitted, record = hop.cls(), _Emitted(), object()
    setattr(instance, hop.outputs[0].name, emitted)
    assert hop.inputs[0].handler is not None
    hop.inputs[0].handler(instance, record, None)
    assert emitted == [record]
    assert emitted[0] is record


def test_the_stream_of_another_operator_is_re_keyed_too() -> None:
    """One writer, several readers, one of them a hop; watermarks go all the way."""
    writer = declare("writer", a=lines(), out=Output(Word))
    reader = declare("reader", key=int, a=Input(writer.out, rekey="number"), gap=Timer())
    other = declare("other", a=Input(writer.out))
    first, hop, last, _ = topology(writer, reader, other).operators
    assert (hop.inputs[0].internal, hop.inputs[0].source_uid, hop.inputs[0].topic) == (True, "writer", "app.writer.out")
    assert (hop.outputs[0].key_type, last.inputs[0].source_uid) == (int, "reader-a-rekey")
    assert (first.outputs[0].timed, hop.outputs[0].timed) == (True, True)


def test_one_topic_may_be_read_by_two_keys() -> None:
    """Two hops, or a hop and a plain input: they are different operators."""
    spec = declare(a=lines(rekey="text"), b=lines(rekey=lambda line: line.text[:1]), c=lines())
    assert [each.uid for each in topology(spec).operators] == ["op-a-rekey", "op-b-rekey", "op"]


def test_a_composite_key_comes_from_a_function() -> None:
    """Annotated or not; its type is the operator's."""

    def place(word: Word) -> Place:
        return Place(word.word, word.number)

    for rekey in (place, lambda word: Place(word.word, 1)):
        hop, _ = topology(declare(key=Place, a=Input(Word, topic="words", rekey=rekey))).operators
        assert (hop.outputs[0].key, hop.outputs[0].key_type) == (rekey, Place)


def test_the_stream_has_the_partitions_of_its_co_inputs() -> None:
    """A table decides, whatever the topic has that is re-keyed; without any co-input it is the default."""
    job = describe(topology(Enrich), str)
    counts = partition_counts(job, {"orders": 3, "customers": 5}, default=7)
    assert (counts["app.enrich.orders"], counts["app.enrich.backup"]) == (5, 5)
    assert counts["app.enrich-orders-rekey.backup"] == 3
    alone = describe(topology(declare(a=lines(rekey="text"))), str)
    assert partition_counts(alone, {"lines": 3}, default=7)["app.op.a"] == 7


def test_a_hop_is_described_like_any_operator() -> None:
    """The control plane places, scales and watches it."""
    hop, enrich = describe(topology(Enrich), str).operators
    assert (hop.uid, hop.key_type, hop.inputs[0].start) == ("enrich-orders-rekey", "none", "latest")
    assert (hop.outputs[0].topic, hop.outputs[0].internal) == ("app.enrich.orders", True)
    assert (enrich.inputs[0].topic, enrich.inputs[0].source_uid) == ("app.enrich.orders", "enrich-orders-rekey")


@dataclass(frozen=True, slots=True)
class Payment:
    id: str
    ts: int


def by_id(payment: Payment) -> Any:
    """A key function that does not always give a key."""
    match payment.id:
        case "raise":
            raise RuntimeError("out of order")
        case "none":
            return None
        case "float":
            return 1.5
    return payment.id


class Dedup(Operator[str], uid="dedup"):
    payments = Input(Payment, topic="payments", rekey=by_id, event_time="ts")
    unique = Output(Payment, topic="unique")
    seen = ValueState(bool, default=False)

    @payments.each
    def first(self, payment: Payment, ctx: Context) -> None:
        assert (self.key, ctx.event_time) == (payment.id, payment.ts)
        if not self.seen.get():
            self.seen.set(True)
            self.unique.emit(payment)


def test_records_meet_the_state_of_their_new_key_and_those_without_one_become_dead_letters() -> None:
    """Through real workers, with the event time they had; whatever the function does, nothing is lost."""
    ids = ["a", "b", "none", "raise", "a", "float", "c", "b"]
    with Driver(Job("app", [Dedup]), workers=2) as driver:
        driver.send(Dedup.payments, *(Payment(id_, 1000 + place) for place, id_ in enumerate(ids)))
        assert sorted(payment.id for payment in driver.read(Dedup.unique)) == ["a", "b", "c"]
        letters = {letter.reason.split(":")[0]: letter for letter in driver.dead_letters(Dedup)}
    assert letters.keys() == {
        "out of order",
        "key None is not a key of type str",
        "key 1.5 is not a key of type str",
    }
    assert {letter.topic for letter in letters.values()} == {"payments"}


def number(word: Word) -> int:
    """An annotated key function."""
    return word.number


def cycle() -> list[Any]:
    """Two operators that read each other, one through a hop."""
    a = declare("a", ins=lines(), out=Output(Line))
    b = declare("b", ins=Input(a.out, rekey="text"), out=Output(Line))
    a.back = Input(b.out)
    a.back.__set_name__(a, "back")
    a.back.each(lambda op, record, ctx: None)
    return [a, b]


def of_words(**options: Any) -> Any:
    """An input of topic `words`."""
    return Input(Word, topic="words", **options)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: [declare(a=of_words(rekey="word", key="word"))], "keep one of them"),
        (lambda: [declare(key=None, a=of_words(rekey="word"))], "Operator[None] has no key"),
        (lambda: [declare(a=of_words(rekey="nope"))], "rekey='nope' is no field of Word"),
        (lambda: [declare(a=of_words(rekey="number"))], "rekey= gives int, the operator's key is str"),
        (lambda: [declare(a=of_words(rekey=number))], "rekey= gives int, the operator's key is str"),
        (lambda: [declare(a=of_words(rekey=5))], "rekey=5"),
        (lambda: [declare(key=float, a=of_words(rekey="weight"))], "a float is no key"),
        (lambda: [declare(a=of_words(rekey="word", event_time="nope"))], "operator 'op', input 'a': event_time="),
        (
            lambda: [declare(a=lines(topic="a b", rekey="text"))],
            "operator 'op', input 'a': 'a b' is no legal topic name",
        ),
        (lambda: [declare(dlq=lines(rekey="text"))], "operator 'op', input 'dlq': the name 'dlq' belongs to kstate"),
        (lambda: [declare(größe=lines(rekey="text"))], "operator 'op', input 'größe': 'größe' cannot be a part"),
        (lambda: [declare(a=lines(topic="app.op.a", rekey="text"))], "'app.op.a' is one of kstate's own topics"),
        (lambda: [declare(a=lines(rekey="text"), b=lines(topic="app.op-a-rekey.dlq"))], "kstate's own topics"),
        (
            lambda: [declare(a=lines(rekey="text")), declare("op-a-rekey", b=lines())],
            "has the uid 'op-a-rekey', which belongs to the hop",
        ),
        (
            lambda: [declare(a=Input(declare("gone", b=lines(), out=Output(Line)).out, rekey="text"))],
            "operator 'op', input 'a': it reads an output of operator 'gone', which is not in the job",
        ),
        (cycle, "they form a cycle: "),
    ],
)
def test_each_fault_is_found_and_is_the_only_one(make: Callable[[], list[Any]], expected: str) -> None:
    """Its place is the input that the user wrote, not the hop."""
    found = faults(*make())
    assert len(found) == 1, found
    assert expected in found[0]
    assert "Mend: " in found[0]


def test_a_hop_with_state_of_its_own_cannot_be_dropped_while_it_is_there() -> None:
    """Its uid is that of an operator of the job."""
    (found,) = faults(declare(a=lines(rekey="text")), dropped=["op-a-rekey"])
    assert "operator of this job" in found


def test_other_faults_do_not_multiply_by_the_hop() -> None:
    """A key type that is left open is told once."""

    class Open(Operator, uid="open"):  # type: ignore[type-arg]
        a = Input(Line, topic="lines", rekey="text")
        s = ValueState(int)

        @a.each
        def handle(self, line: Line, ctx: Context) -> None: ...

    _, found = examine(Job("app", [Open]))
    assert [str(fault) for fault in found if "left open" not in str(fault)] == []
    assert len(found) == 1

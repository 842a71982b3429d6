"""Batches of an input: framed keys become canonical before they are admitted, what cannot be read a dead letter."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from types import NoneType
from typing import Any

import pytest

from kstate import ConfigError
from kstate.adapters.avro import AvroCodecs
from kstate.api.specs import InputSpec
from kstate.errors import RetryableError
from kstate.interfaces import Batch
from kstate.plan import TopicPartition
from kstate.testing.memory_registry import MemoryRegistry
from kstate.worker.decode import InputDecoder, input_decoder, select
from kstate.worker.rejects import Rejects

TOPIC = "orders"


@dataclass(frozen=True, slots=True)
class Order:
    id: int


@pytest.fixture
def codecs() -> AvroCodecs:
    """With a registry that knows the schema of string keys as id 1."""
    registry = MemoryRegistry()
    registry.register(f"{TOPIC}-key", '"string"')
    return AvroCodecs(registry)


def decoder(codecs: AvroCodecs, key_type: Any = str, **options: Any) -> InputDecoder:
    """Of an input of orders."""
    spec = InputSpec(name="orders", topic=TOPIC, record=Order, internal=False, handler=None, **options)
    return input_decoder(spec, key_type, codecs)


def batch(rows: list[tuple[bytes | None, bytes | None]]) -> Batch:
    """Rows (key, value) at offsets from 10 on."""
    offsets = list(range(10, 10 + len(rows)))
    keys, values = [key for key, _ in rows], [value for _, value in rows]
    return Batch(TopicPartition(TOPIC, 0), 10 + len(rows), offsets, keys, values, [1_000] * len(rows))


def key(text: str, number: int = 1) -> bytes:
    """A framed key."""
    return struct.pack(">BIB", 0, number, 2 * len(text.encode())) + text.encode()


def framed(codecs: AvroCodecs, number: int) -> bytes:
    """A framed order."""
    return codecs.framed(Order, TOPIC).encode(Order(number))


def test_slots_go_by_canonical_keys_and_dead_letters_keep_the_framed_ones(codecs: AvroCodecs) -> None:
    """Each row has both, whatever is selected from it."""
    made = decoder(codecs, format="confluent", key_format="confluent")
    received = made.receive(batch([(key("a"), framed(codecs, 1)), (key("b"), b"bad"), (key("c"), framed(codecs, 3))]))
    assert received.keys == [b"a", b"b", b"c"]
    assert received.message_keys == [key("a"), key("b"), key("c")]
    assert (received.head(1, 11).keys, received.head(1, 11).message_keys) == ([b"a"], [key("a")])
    assert select(received, [2]).message_keys == [key("c")]
    rejects = Rejects("op", 1_000)
    decoded = made.decode(received, rejects)
    assert (decoded.records, decoded.batch.keys) == ([Order(1), Order(3)], [b"a", b"c"])
    (letter,) = rejects.letters
    assert (letter.offset, letter.key, letter.value) == (11, key("b"), b"bad")


def test_keys_that_are_not_framed_are_rejected_after_they_were_admitted(codecs: AvroCodecs) -> None:
    """Before, every worker that reads the partition would do so; their slot is that of their bytes."""
    made = decoder(codecs, key_format="confluent")
    value = codecs.value(Order).encode(Order(1))
    received = made.receive(batch([(b"bare", value), (None, value), (key("a"), value), (key("b", 9), value)]))
    assert received.keys == [b"bare", None, b"a", key("b", 9)]
    rejects = Rejects("op", 1_000)
    assert made.decode(received, rejects).batch.keys == [b"a"]
    reasons = [letter.reason for letter in rejects.letters]
    assert [letter.key for letter in rejects.letters] == [b"bare", None, key("b", 9)]
    for reason, words in zip(reasons, ('declare key_format="raw"', "null key", "Schema id 9"), strict=True):
        assert words in reason


def test_a_registry_that_is_away_leaves_a_batch_as_it_was(codecs: AvroCodecs) -> None:
    """It is received again later; what is decoded needs no registry any more."""
    made = decoder(codecs, format="confluent", key_format="confluent")
    given = batch([(key("a"), framed(codecs, 1))])
    registry = codecs.registry
    assert isinstance(registry, MemoryRegistry)
    registry.away = True
    with pytest.raises(RetryableError):
        made.receive(given)
    registry.away = False
    received = made.receive(given)
    registry.away = True
    assert made.decode(received, Rejects("op", 1_000)).records == [Order(1)]
    assert given.placed_keys is None


def test_bare_inputs_are_received_as_they_are(codecs: AvroCodecs) -> None:
    """They ask no registry, and none need be set."""
    made = decoder(AvroCodecs())
    given = batch([(b"a", codecs.value(Order).encode(Order(1)))])
    assert made.receive(given) is given
    assert made.decode(given, Rejects("op", 1_000)).batch.message_keys == [b"a"]
    for options in ({"format": "confluent"}, {"key_format": "confluent"}):
        with pytest.raises(ConfigError, match="no schema registry is set"):
            decoder(AvroCodecs(), **options)


def test_an_operator_without_key_takes_framed_keys_of_any_schema(codecs: AvroCodecs) -> None:
    """It is what `rekey=` puts in front: two ids are no fault there."""
    number = codecs.registry.register("x", '"long"') if codecs.registry else 0
    made = decoder(codecs, NoneType, key_format="confluent")
    value = codecs.value(Order).encode(Order(1))
    received = made.receive(batch([(key("a"), value), (struct.pack(">BIB", 0, number, 4), value), (None, value)]))
    assert received.keys == [b"a", bytes(7) + b"\2", None]
    assert len(made.decode(received, Rejects("op", 1_000)).records) == 3


@pytest.mark.parametrize("format_", ["raw", "confluent"])
def test_a_table_s_row_without_value_deletes(codecs: AvroCodecs, format_: Any) -> None:
    """Elsewhere it is a dead letter; a bad one is a dead letter here, too."""
    value = codecs.value(Order).encode(Order(1)) if format_ == "raw" else framed(codecs, 1)
    rows = [(b"a", value), (b"b", None), (b"c", b""), (None, None), (b"d", value)]
    for table, records, reasons in (
        ("orders", [Order(1), None, Order(1)], ["null key", ""]),
        (None, [Order(1), Order(1)], ["null value", "null value", ""]),
    ):
        rejects = Rejects("op", 1_000)
        made = decoder(codecs, format=format_, table=table)
        decoded = made.decode(made.receive(batch(rows)), rejects)
        assert decoded.records == records
        assert len(decoded.event_times) == len(records) == len(decoded.batch)
        assert all(words in letter.reason for words, letter in zip(reasons, rejects.letters, strict=True))


def test_an_event_time_that_cannot_be_told_fails_its_record_alone(codecs: AvroCodecs) -> None:
    """The function is the user's: what it raises is a dead letter with the reason, as in a handler."""

    def when(order: Order) -> int:
        return 1_000 // order.id

    rejects = Rejects("op", 1_000)
    value = codecs.value(Order).encode
    decoded = decoder(codecs, event_time=when).decode(batch([(b"k", value(Order(n))) for n in (1, 0, 4)]), rejects)
    assert (decoded.records, decoded.event_times) == ([Order(1), Order(4)], [1_000, 250])
    (letter,) = rejects.letters
    assert letter.offset == 11
    assert "event_time= of input 'orders' failed with ZeroDivisionError" in letter.reason


def test_an_event_time_function_that_asks_the_engine_to_stop_is_heard(codecs: AvroCodecs) -> None:
    """A ConfigError is no property of a record: to drop records for it would lose them."""

    def when(order: Order) -> int:
        raise ConfigError("no calendar", hint="install it.")

    with pytest.raises(ConfigError, match="no calendar"):
        decoder(codecs, event_time=when).decode(batch([(b"k", codecs.value(Order).encode(Order(1)))]), Rejects("op", 9))

"""Schema resolution: what can be read is read as Avro would, what would lose something is refused in words."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, time
from decimal import Decimal
from enum import StrEnum
from typing import Any

import pytest
from fastavro import parse_schema, schemaless_reader, schemaless_writer
from hypothesis import given
from hypothesis import strategies as st

from kstate import ConfigError, DecodeError, Int32
from kstate.adapters.avro_codec import AvroCodec
from kstate.adapters.avro_resolution import ResolvingDecoder
from kstate.evolution import resolution
from kstate.schemas import canonical


def record(*fields: tuple[Any, ...], name: str = "R") -> dict[str, Any]:
    """A record schema of (name, type) or (name, type, default)."""
    return {
        "type": "record",
        "name": name,
        "fields": [{"name": n, "type": t, **({"default": rest[0]} if rest else {})} for n, t, *rest in fields],
    }


def enum(*symbols: str, **more: Any) -> dict[str, Any]:
    """An enum schema."""
    return {"type": "enum", "name": "E", "symbols": list(symbols), **more}


def decimal(precision: int, scale: int) -> dict[str, Any]:
    """A decimal in bytes."""
    return {"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale}


def logical(avro: str, name: str) -> dict[str, Any]:
    """A logical type."""
    return {"type": avro, "logicalType": name}


def faults(writer: Any, reader: Any) -> tuple[str, ...]:
    """Why the reader cannot read what the writer wrote."""
    return resolution(canonical(writer), canonical(reader)).faults


REFUSED = [
    ("long", "int", "the value was long and is int now: larger numbers would not fit"),
    ("double", "float", "the value was double and is float now: a float keeps 7 digits of 16"),
    ("long", "double", "the value was long and is double now: Avro would allow it, but a double keeps only 53 bits"),
    ("long", "float", "Avro would allow it, but a float keeps only 24 bits"),
    ("int", "float", "Avro would allow it, but a float keeps only 24 bits"),
    ("bytes", "string", "Avro would allow it, but bytes that are no UTF-8 could not be read"),
    ("double", "long", "the value was double and is long now: one cannot be read as the other"),
    ("string", "long", "one cannot be read as the other"),
    (["null", "long"], "long", "the value was null or long and is long now: a null could not be read"),
    (["long", "string"], ["long", "double"], "only a union of null and one type can change"),
    (logical("long", "timestamp-micros"), logical("long", "timestamp-millis"), "microseconds would be lost"),
    (logical("long", "time-micros"), logical("int", "time-millis"), "microseconds would be lost"),
    (
        logical("long", "local-timestamp-micros"),
        logical("long", "local-timestamp-millis"),
        "was local-timestamp-micros in long and is local-timestamp-millis in long now: microseconds would be lost",
    ),
    ("long", logical("long", "timestamp-millis"), "was long and is timestamp-millis in long now: one cannot be read"),
    (logical("long", "timestamp-millis"), "long", "one cannot be read as the other"),
    (logical("long", "timestamp-millis"), logical("long", "local-timestamp-millis"), "one cannot be read as the other"),
    (decimal(9, 3), decimal(9, 2), "decimal(9, 3) in bytes and is decimal(9, 2) in bytes now: digits behind the point"),
    (decimal(9, 2), decimal(9, 3), "larger numbers would not fit"),
    (enum("a", "b"), enum("a"), "the value lost the symbols 'b' and has no default symbol to read them as"),
    (
        {"type": "fixed", "name": "F", "size": 3},
        {"type": "fixed", "name": "F", "size": 4},
        "was fixed(3) and is fixed(4) now: a fixed keeps its size",
    ),
    (record(("n", "long")), record(("n", "int")), "field 'n' was long and is int now: larger numbers would not fit"),
    (record(), record(("n", "long")), "field 'n' is new and has no default: what was stored before lacks it"),
    (
        record(("i", record(("n", "long"), name="I"))),
        record(("i", record(("n", "int"), name="I"))),
        "field 'i.n' was long and is int now",
    ),
    (
        record(("m", {"type": "map", "values": {"type": "array", "items": "long"}})),
        record(("m", {"type": "map", "values": {"type": "array", "items": "int"}})),
        "field 'm[…][]' was long and is int now",
    ),
    (record(("n", "long")), "long", "was record R and is long now: one cannot be read as the other"),
    (
        {"type": "record", "name": "R", "fields": [{"name": "next", "type": ["null", "R"]}]},
        {"type": "record", "name": "R", "fields": [{"name": "next", "type": ["null", "R"]}]},
        "a record inside itself is not supported",
    ),
]


@pytest.mark.parametrize(("writer", "reader", "reason"), REFUSED, ids=[str(n) for n in range(len(REFUSED))])
def test_what_would_lose_something_is_refused_in_words(writer: Any, reader: Any, reason: str) -> None:
    """The field, what it was and is, and why; also where Avro itself would allow it."""
    (fault,) = faults(writer, reader)
    assert reason in fault


def test_every_fault_is_named_at_once() -> None:
    """One deployment mends them all."""
    found = faults(record(("a", "long"), ("b", "double")), record(("a", "int"), ("b", "float"), ("c", "long")))
    assert [fault.split("'")[1] for fault in found] == ["a", "b", "c"]


def test_fields_that_are_left_out_are_told() -> None:
    """Avro allows it, and so do we; the plan that allows it says so."""
    found = resolution(canonical(record(("a", "long"), ("b", "long"))), canonical(record(("b", "long"))))
    assert (found.faults, found.left_out) == ((), ("a",))


READ = [
    ("long", "long", 5, 5),
    ("int", "long", 5, 5),
    ("int", "double", 5, 5.0),
    ("float", "double", 0.5, 0.5),
    ("string", "bytes", "ä", "ä".encode()),
    ("long", ["null", "long"], 5, 5),
    (["null", "int"], ["double", "null"], 5, 5.0),
    (["null", "int"], ["double", "null"], None, None),
    ({"type": "array", "items": "int"}, {"type": "array", "items": "double"}, [1, 2], [1.0, 2.0]),
    ({"type": "map", "values": "int"}, {"type": "map", "values": "double"}, {"a": 1}, {"a": 1.0}),
    (enum("a", "b"), enum("b", "a", "c"), "b", "b"),
    (enum("a", "b"), enum("x", "a", default="x"), "b", "x"),
    (
        record(("a", "int"), ("gone", "string"), ("i", record(("n", "int"), name="I"))),
        record(("i", record(("m", "long", 7), ("n", "double"), name="I")), ("b", "bytes", "\u00ff"), ("a", "long")),
        {"a": 1, "gone": "x", "i": {"n": 2}},
        {"i": {"m": 7, "n": 2.0}, "b": b"\xff", "a": 1},
    ),
    (
        record(),
        record(("u", ["null", "long"], None), ("l", {"type": "array", "items": "long"}, []), ("d", "double", 1)),
        {},
        {"u": None, "l": [], "d": 1.0},
    ),
]  # fmt: skip


def plain(writer: Any, reader: Any, value: Any, *, by_fastavro: bool) -> Any:
    """A value written with one schema and read with another."""
    stream = io.BytesIO()
    schemaless_writer(stream, parse_schema(writer), value)
    stream.seek(0)
    if by_fastavro:
        return schemaless_reader(stream, parse_schema(writer), parse_schema(reader))
    found = resolution(canonical(writer), canonical(reader), _default)
    assert not found.faults
    read = schemaless_reader(stream, parse_schema(writer), None)
    return found.convert(read) if found.convert else read


def _default(schema: Any, default: Any) -> Any:
    from kstate.adapters.avro_resolution import _default_value

    return _default_value(schema, default)


@pytest.mark.parametrize(("writer", "reader", "value", "expected"), READ, ids=[str(n) for n in range(len(READ))])
def test_what_is_read_is_what_the_writer_meant(writer: Any, reader: Any, value: Any, expected: Any) -> None:
    """The reader's fields in its own order, numbers widened, what was not written by default."""
    got = plain(writer, reader, value, by_fastavro=False)
    assert repr(got) == repr(expected)


@pytest.mark.parametrize(("writer", "reader", "value", "expected"), READ, ids=[str(n) for n in range(len(READ))])
def test_fastavro_reads_the_same(writer: Any, reader: Any, value: Any, expected: Any) -> None:
    """Its own resolution, independent of ours; a default of bytes it leaves as JSON has it."""
    got = plain(writer, reader, value, by_fastavro=True)
    if isinstance(got, dict) and got.get("b") == "\u00ff":
        got["b"] = b"\xff"
    assert got == expected


PRIMITIVE = st.sampled_from(["boolean", "int", "long", "float", "double", "string", "bytes"])
VALUES = {
    "boolean": st.booleans(),
    "int": st.integers(-(1 << 31), (1 << 31) - 1),
    "long": st.integers(-(1 << 63), (1 << 63) - 1),
    "float": st.floats(width=32, allow_nan=False),
    "double": st.floats(allow_nan=False),
    "string": st.text(),
    "bytes": st.binary(),
}


@st.composite
def versions(draw: st.DrawFn) -> tuple[Any, Any, Any]:
    """Two record schemas and a value of the first."""
    names = draw(st.lists(st.sampled_from("abcdef"), unique=True, max_size=5))
    before = {name: draw(PRIMITIVE) for name in names}
    value = {name: draw(VALUES[kind]) for name, kind in before.items()}
    now: list[tuple[Any, ...]] = []
    for name in draw(st.permutations("abcdef")):
        kind = draw(st.sampled_from([before.get(name, "long"), "long", "double", "bytes"]))
        if draw(st.booleans()):
            now.append((name, kind) if name in before else (name, "long", draw(VALUES["int"])))
    return record(*before.items()), record(*now), value


@given(versions())
def test_whatever_the_versions_either_refused_or_read_as_fastavro_does(drawn: tuple[Any, Any, Any]) -> None:
    """And no number is another than was written."""
    writer, reader, value = drawn
    if faults(writer, reader):
        return
    got = plain(writer, reader, value, by_fastavro=False)
    assert got == plain(writer, reader, value, by_fastavro=True)
    assert list(got) == [field["name"] for field in reader["fields"]]
    for name in value.keys() & got.keys():
        assert got[name] == (
            value[name].encode() if isinstance(value[name], str) and isinstance(got[name], bytes) else value[name]
        )


class Color(StrEnum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True, slots=True)
class Old:
    at: datetime
    n: Int32
    tags: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class New:
    """A renamed class: fields in another order, a wider number, and defaults of every kind."""

    n: int
    at: datetime
    label: str = "none"
    color: Color = Color.BLUE
    seen: tuple[int, ...] = ()
    maybe: int | None = None
    data: bytes = b"\xff\x00"
    ratio: float = 0.5


def test_a_class_reads_what_its_older_self_wrote() -> None:
    """Defaults in Python are defaults of the schema; what comes out is of the new class, immutable as ever."""
    old = Old(datetime(2026, 5, 17, 12, 0, 0, 5, UTC), Int32(7), {"x": 1})
    decoder = ResolvingDecoder(AvroCodec(New), AvroCodec(Old).schema)
    data = AvroCodec(Old).encode(old)
    assert decoder.decode_many([data, data]) == [New(7, old.at)] * 2
    assert isinstance(decoder.decode(data).seen, tuple)


def test_logical_types_are_widened_to_the_same_instant() -> None:
    """Millis are read as micros and decimals grow; Avro itself would take the number for another instant."""

    def schema(scale: int, stamp: str, clock: dict[str, Any]) -> Any:
        return record(("price", decimal(4 + scale, scale)), ("at", logical("long", stamp)), ("daily", clock))

    before = schema(2, "timestamp-millis", logical("int", "time-millis"))
    now = schema(4, "timestamp-micros", logical("long", "time-micros"))
    value = {"price": Decimal("12.34"), "at": datetime(2026, 5, 17, tzinfo=UTC), "daily": time(1, 2, 3)}
    assert plain(before, now, value, by_fastavro=False) == value


def test_bytes_that_are_not_of_the_writer_are_refused() -> None:
    """As any damaged value: torn, or with bytes left over."""
    decoder = ResolvingDecoder(AvroCodec(New), AvroCodec(Old).schema)
    data = AvroCodec(Old).encode(Old(datetime(2026, 1, 1, tzinfo=UTC), Int32(7), {}))
    for damaged in (b"", data[:-1], data + b"\0"):
        with pytest.raises(DecodeError, match="its writer's schema"):
            decoder.decode(damaged)


def test_a_codec_that_cannot_read_it_names_both_schemas() -> None:
    """And the field."""
    with pytest.raises(ConfigError) as caught:
        ResolvingDecoder(AvroCodec(Int32), AvroCodec(int).schema)
    assert all(text in str(caught.value) for text in ('schema "long"', 'schema "int"', "larger numbers"))


def test_defaults_that_have_no_simple_form_are_left_out() -> None:
    """A factory might make another value each time; a number that does not fit its type is no default."""

    @dataclass(frozen=True)
    class Odd:
        a: Int32 = Int32(1 << 40)  # noqa: RUF009 (an int)
        b: float = float("nan")
        c: Old | None = None
        d: tuple[float, ...] = (1.0, float("inf"))

    fields = {field["name"]: field for field in json.loads(AvroCodec(Odd).schema)["fields"]}
    assert "default" not in fields["a"] | fields["b"] | fields["d"]
    assert fields["c"]["default"] is None

"""Values of other schemas by columns: the same as one by one, whatever was added, dropped, moved or widened."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar
from uuid import UUID

import pytest
from fastavro import parse_schema, schemaless_writer
from hypothesis import given, settings
from hypothesis import strategies as st

from kstate import DecodeError
from kstate.adapters.avro import AvroCodecs
from kstate.adapters.avro_codec import BATCH_MIN
from kstate.adapters.avro_evolved import EvolvedDecoder
from kstate.adapters.avro_resolution import ResolvingDecoder
from kstate.schemas import canonical
from tests.support.avro_samples import Color, Inner

INNER = {
    "type": "record",
    "name": "Inner",
    "fields": [{"name": "name", "type": "string"}, {"name": "n", "type": "long"}],
}
COLOR = {"type": "enum", "name": "Color", "symbols": ["red", "blue"]}


@dataclass(frozen=True, slots=True)
class Now:
    """The class that reads, each field with a default in its schema."""

    __avro_schema__: ClassVar[str] = json.dumps(
        {
            "type": "record",
            "name": "Now",
            "fields": [
                {"name": "a", "type": "long", "default": 7},
                {"name": "b", "type": "double", "default": 0.5},
                {"name": "c", "type": ["null", "string"], "default": None},
                {"name": "d", "type": INNER, "default": {"name": "none", "n": 0}},
                {"name": "e", "type": COLOR, "default": "blue"},
                {"name": "f", "type": ["null", "Inner"], "default": None},
                {"name": "g", "type": "bytes", "default": "\u00ff"},
            ],
        }
    )
    a: int
    b: float
    c: str | None
    d: Inner
    e: Color
    f: Inner | None
    g: bytes


INTS, FLOATS = st.integers(-(1 << 31), (1 << 31) - 1), st.floats(width=32, allow_nan=False)
NAMES = st.sampled_from(["", "x", "ü" * 40])
INNERS = st.fixed_dictionaries({"name": NAMES, "n": INTS})
WRITTEN: dict[str, list[tuple[Any, st.SearchStrategy[Any]]]] = {
    "a": [("int", INTS), ("long", INTS)],
    "b": [("float", FLOATS), ("double", FLOATS)],
    "c": [("string", NAMES), (["null", "string"], st.none() | NAMES), (["string", "null"], st.none() | NAMES)],
    "d": [(INNER, INNERS)],
    "e": [(COLOR, st.sampled_from(["red", "blue"]))],
    "f": [({**INNER, "name": "Other"}, INNERS), (["null", {**INNER, "name": "Other"}], st.none() | INNERS)],
    "g": [("bytes", st.binary(max_size=3))],
    "dropped1": [("boolean", st.booleans()), ({"type": "long", "logicalType": "timestamp-micros"}, INTS)],
    "dropped2": [
        (["null", {**INNER, "name": "Third"}], st.none() | INNERS),
        ({**COLOR, "name": "Shade"}, st.just("red")),
    ],
    "dropped3": [({"type": "array", "items": "long"}, st.lists(INTS, max_size=2)), ("string", NAMES)],
}
"""Field → types that it may have had, with values."""


@st.composite
def writings(draw: st.DrawFn) -> tuple[str, list[bytes]]:
    """A schema that `Now` can read, and values of it."""
    names = draw(st.lists(st.sampled_from(sorted(WRITTEN)), unique=True, min_size=1))
    chosen = {name: draw(st.sampled_from(WRITTEN[name])) for name in names}
    fields = [{"name": name, "type": kind} for name, (kind, _) in chosen.items()]
    schema = {"type": "record", "name": "Then", "fields": fields}
    few = [{name: draw(values) for name, (_, values) in chosen.items()} for _ in range(3)]
    return canonical(schema), [written(schema, value) for value in few]


def written(schema: Any, value: Any) -> bytes:
    """By fastavro."""
    out = io.BytesIO()
    schemaless_writer(out, parse_schema(schema), value)
    return out.getvalue()


def decoder(schema: str) -> EvolvedDecoder:
    """Of `Now`."""
    codec = CODECS.value(Now)
    return EvolvedDecoder(codec, ResolvingDecoder(codec, schema), schema)


@given(writings())
@settings(deadline=None, max_examples=150)
def test_many_values_read_as_they_do_one_by_one(writing: tuple[str, Sequence[bytes]]) -> None:
    """By columns or not, in types, too."""
    schema, few = writing
    made = decoder(schema)
    data = [*few] * BATCH_MIN
    assert repr(made.decode_many(data)) == repr([made.decode(each) for each in few] * BATCH_MIN)


@given(writings(), st.data())
@settings(deadline=None, max_examples=100)
def test_a_damaged_value_never_reads_as_something_else(
    writing: tuple[str, Sequence[bytes]], draw: st.DataObject
) -> None:
    """Also not where the damage is in a field that is dropped."""
    schema, few = writing
    made, data = decoder(schema), [*few] * BATCH_MIN
    row = draw.draw(st.integers(0, len(data) - 1))
    at = draw.draw(st.integers(0, len(data[row])))
    data[row] = data[row][:at] + draw.draw(st.binary(max_size=3)) + data[row][at + draw.draw(st.integers(0, 3)) :]
    try:
        read = made.decode_many(data)
    except DecodeError:
        return
    assert repr(read[row]) == repr(made.decode(data[row]))
    others = [made.decode(each) for each in few] * BATCH_MIN
    del read[row], others[row]
    assert repr(read) == repr(others)


@pytest.mark.parametrize(
    ("kind", "fast"),
    [
        ("int", True),
        (["null", INNER], True),
        ({"type": "map", "values": "long"}, False),
        ({"type": "fixed", "name": "F", "size": 2}, False),
    ],
)
def test_flat_fields_are_read_by_columns(kind: Any, fast: bool) -> None:
    """Others are left to fastavro, with the whole record."""
    fields = [{"name": "a", "type": "int"}, {"name": "gone", "type": kind}]
    schema = canonical({"type": "record", "name": "Then", "fields": fields})
    assert (decoder(schema)._columns is not None) is fast


AS_TEXT = {"type": "string", "logicalType": "uuid"}
AS_BYTES = {"type": "fixed", "name": "Id", "size": 16, "logicalType": "uuid"}


@dataclass(frozen=True, slots=True)
class ById:
    """The class's own form is the text."""

    id: UUID


@dataclass(frozen=True, slots=True)
class ByBytes:
    """The same in sixteen bytes."""

    __avro_schema__: ClassVar[str] = json.dumps(
        {"type": "record", "name": "ByBytes", "fields": [{"name": "id", "type": AS_BYTES}]}
    )
    id: UUID


@pytest.mark.parametrize("cls", [ById, ByBytes])
@pytest.mark.parametrize("kind", [AS_TEXT, AS_BYTES])
def test_a_uuid_is_one_in_both_of_its_forms(cls: Any, kind: Any) -> None:
    """Text, and since Avro 1.12 sixteen bytes."""
    codec, value = CODECS.value(cls), UUID(int=5 << 100)
    schema = canonical({"type": "record", "name": "Then", "fields": [{"name": "id", "type": kind}]})
    data = written(json.loads(schema), {"id": value if kind is AS_TEXT else value.bytes})
    assert ResolvingDecoder(codec, schema).decode(data) == cls(value)
    assert codec.decode(codec.encode(cls(value))) == cls(value)


CODECS = AvroCodecs()

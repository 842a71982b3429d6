"""Avro codecs: the bytes are those of fastavro, values come back equal and immutable, bad bytes are refused."""

from __future__ import annotations

import io
import json
import math
import struct
from collections.abc import Mapping
from dataclasses import FrozenInstanceError, asdict, dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from types import MappingProxyType, NoneType
from typing import Any, ClassVar
from uuid import UUID

import pytest
from fastavro import parse_schema, schemaless_writer
from hypothesis import given, settings
from hypothesis import strategies as st

from kstate import ConfigError, DecodeError, Int32
from kstate.adapters.avro import AvroCodecs
from kstate.adapters.avro_codec import BATCH_MIN, AvroCodec
from kstate.interfaces import Codec, Codecs
from tests.support.avro_samples import (
    Color,
    Deep,
    Flat,
    Inner,
    Lookalike,
    Point,
    Typed,
    Unslotted,
    Validated,
    deeps,
    flats,
    typeds,
)


def by_fastavro(codec: AvroCodec, value: Any) -> bytes:
    """The same value written by fastavro from plain dicts and lists."""
    stream = io.BytesIO()
    schemaless_writer(stream, parse_schema(json.loads(codec.schema)), plain(value))
    return stream.getvalue()


def plain(value: Any) -> Any:
    """A value without classes of ours."""
    match value:
        case Point():
            return value._asdict()
        case tuple():
            return [plain(each) for each in value]
        case MappingProxyType():
            return {key: plain(each) for key, each in value.items()}
        case Typed():
            fields = {name: getattr(value, name) for name in value.__match_args__}
            return fields | {name: part.bytes for name, part in fields.items() if isinstance(part, UUID)}
        case Inner() | Flat() | Deep():
            return {name: plain(getattr(value, name)) for name in value.__match_args__}
    return value


def test_codecs_are_what_the_engine_expects() -> None:
    """Checked by mypy, too."""
    codecs: Codecs = AvroCodecs()
    codec: Codec[Any] = codecs.value(Inner)
    assert codecs.value(Inner) is codec
    assert len(codec.fingerprint) == 8


@given(flats | deeps | typeds)
def test_bytes_are_those_of_fastavro_and_come_back_equal(value: Any) -> None:
    """Whatever the value: our writer and fastavro's agree on every byte."""
    codec = CODECS.value(type(value))
    data = codec.encode(value)
    assert data == by_fastavro(codec, value)
    assert codec.decode(data) == value


@given(st.lists(flats, min_size=5, max_size=7))
def test_a_batch_reads_as_its_values_one_by_one(few: list[Flat]) -> None:
    """By columns or one by one, the records are the same."""
    values = few * BATCH_MIN
    codec = CODECS.value(Flat)
    data = codec.encode_many(values)
    assert codec.decode_many(data) == values == [codec.decode(each) for each in data]
    assert repr(codec.decode_many(data)) == repr(values)


@given(st.lists(flats, min_size=3, max_size=3), st.data())
@settings(max_examples=200)
def test_a_batch_with_one_damaged_value_never_reads_as_something_else(few: list[Flat], draw: st.DataObject) -> None:
    """Either it is refused, or the damaged value alone reads the same and the others are untouched."""
    values = few * (BATCH_MIN // 2)
    codec = CODECS.value(Flat)
    data = codec.encode_many(values)
    row = draw.draw(st.integers(0, len(data) - 1))
    damage = draw.draw(st.binary(max_size=12))
    at = draw.draw(st.integers(0, len(data[row])))
    cut = draw.draw(st.integers(0, 12))
    data[row] = data[row][:at] + damage + data[row][at + cut :]
    try:
        read = codec.decode_many(data)
    except DecodeError:
        return
    assert repr(read[row]) == repr(codec.decode(data[row]))
    del read[row], values[row]
    assert read == values


@given(st.binary(max_size=60))
def test_bytes_of_nobody_raise_decode_errors_only(data: bytes) -> None:
    """Not one of fastavro's many exceptions gets out."""
    for kind in (Flat, Deep, Typed, int, str, Inner):
        codec = CODECS.value(kind)
        try:
            codec.encode(codec.decode(data))
        except DecodeError:
            pass
        except ValueError:
            assert kind is Typed  # a decimal with more digits than the schema allows


@pytest.mark.parametrize("kind", [Flat, Inner, Deep, int, str, float])
@pytest.mark.parametrize("count", [1, BATCH_MIN])
def test_a_value_that_is_too_short_or_too_long_is_refused(kind: Any, count: int) -> None:
    """Also when it stands in a batch, where its neighbour's bytes come next."""
    samples: dict[Any, Any] = {
        Flat: Flat(True, Int32(1), 2, 3.0, "t", b"d", Color.RED, Inner("i", 1), "m", None),
        Inner: Inner("name", 300),
        Deep: Deep((), MappingProxyType({}), MappingProxyType({}), UUID(int=1), NOON, NOON.date(), NOON.time(), None),
        int: 1000,
        str: "text",
        float: 1.5,
    }
    codec = CODECS.value(kind)
    good = codec.encode(samples[kind])
    for bad in (good[:-1], good + b"\0", b"", good + good):
        for place in {0, count // 2, count - 1}:
            data = [good] * count
            data[place] = bad
            with pytest.raises(DecodeError):
                codec.decode_many(data)


NOON = datetime(2024, 5, 6, 12, 0, 0, 123456, tzinfo=UTC)
SHARP = datetime(2024, 5, 6, 12, 0, 0, 123000, tzinfo=UTC)
"""Without microseconds."""


@pytest.mark.parametrize(
    ("kind", "bad", "alone"),
    [
        (Inner, b"\x01", "refused"),  # length -1: the next field would start at the length itself
        (Inner, b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01\x00", "refused"),  # a length of 2**63 - 1
        (Inner, b"\x08ab\x02\x00", "refused"),
        (Color | None, b"\x02\x04", "refused"),
        (Color | None, b"\x04\x00", "refused"),
        (Color, b"\x01", "lenient"),
        (str | None, b"\x01", "refused"),
        (str, b"\x02\xff", "refused"),
        (bool, b"\x02", "lenient"),
        (Int32, b"\x80\x80\x80\x80\x10", "lenient"),
        (int, b"\x80" * 10 + b"\x00", "lenient"),
        (int, b"\x80" * 9, "refused"),
        (float, b"\x00" * 7, "refused"),
    ],
)
def test_hostile_bytes_are_noticed_in_a_batch(kind: Any, bad: bytes, alone: str) -> None:
    """Each of them would read as something if one check were missing; fastavro alone lets four pass."""
    samples: dict[Any, Any] = {Inner: Inner("ab", 1), Color: Color.RED, str: "a", bool: True, float: 1.0}
    codec = CODECS.value(kind)
    data = [codec.encode(samples.get(kind, None if kind in (Color | None, str | None) else 1))] * BATCH_MIN
    data[7] = bad
    with pytest.raises(DecodeError):
        codec.decode_many(data)
    if alone == "refused":
        with pytest.raises(DecodeError):
            codec.decode(bad)


def test_bytes_moved_from_one_value_to_its_neighbour_are_noticed() -> None:
    """The sum of the lengths is right, each of them is wrong."""
    codec = CODECS.value(Inner)
    good = codec.encode(Inner("ab", 1))
    data = [good] * BATCH_MIN
    data[5], data[6] = good + good[:1], good[1:]
    with pytest.raises(DecodeError):
        codec.decode_many(data)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (int, 1 << 63),
        (int, -(1 << 63) - 1),
        (int, 1.5),
        (int, "1"),
        (int, None),
        (Int32, 1 << 31),
        (Int32, -(1 << 31) - 1),
        (float, "1.0"),
        (float, None),
        (float, 10**400),
        (float, (1 << 53) + 1),
        (NoneType, 0),
        (NoneType, b""),
        (bool, "yes"),
        (bool, None),
        (str, b"bytes"),
        (str, None),
        (str, "\ud800"),
        (bytes, "text"),
        (UUID, "00000000-0000-0000-0000-000000000000"),
        (datetime, datetime(2024, 1, 1)),  # noqa: DTZ001 - the fault
        (date, datetime(2024, 1, 1, tzinfo=UTC)),
        (tuple[int, ...], [1, 2]),
        (tuple[int, ...], ("a",)),
        (Mapping[str, int], {1: 2}),
        (Mapping[str, int], (("a", 1),)),
        (Color, "red!"),
        (Inner, Point(1, 2.0)),
        (Inner, Lookalike("x", 1)),
        (Inner, {"name": "x", "n": 1}),
        (Inner, Inner("x", None)),  # type: ignore[arg-type]
        (Inner | None, Point(1, 2.0)),
    ],
)
def test_a_value_of_another_type_or_out_of_range_is_refused(kind: Any, value: Any) -> None:
    """With a ValueError that repeats value and type, alone and among others."""
    codec = CODECS.value(kind)
    with pytest.raises(ValueError, match="cannot be written as"):
        codec.encode(value)
    with pytest.raises(ValueError, match="cannot be written as"):
        codec.encode_many([value])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("price", Decimal("1.234")),
        ("price", Decimal("10000.00")),
        ("price", 1.5),
        ("price", Decimal("NaN")),
        ("raw", b"12"),
        ("price", Decimal("1e9")),
        ("price", Decimal("Infinity")),
        ("half", 1e300),
        ("half", (1 << 53) + 1),
        ("ms", NOON),
        ("ms", SHARP.replace(tzinfo=None)),
        ("local", NOON),
        ("clock", time(1, 2, 3, 4)),
        ("clock", time(1, tzinfo=UTC)),
    ],
)
def test_logical_values_that_do_not_fit_their_schema_are_refused(field: str, value: Any) -> None:
    """Rather than rounded, cut or padded."""
    good = asdict(
        Typed(Decimal(1), Decimal(2), b"123", b"456", 0.5, SHARP, NOON.replace(tzinfo=None), time(1), 5, None)
    )
    CODECS.value(Typed).encode(Typed(**good))
    with pytest.raises(ValueError, match="cannot be written as Typed"):
        CODECS.value(Typed).encode(Typed(**(good | {field: value})))


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, -0.0])
def test_every_double_is_kept_bit_by_bit(value: float) -> None:
    """Avro has them, other people's records have them."""
    codec = CODECS.value(float)
    assert struct.pack("<d", codec.decode(codec.encode(value))) == struct.pack("<d", value)


def test_timestamps_come_back_in_utc_whatever_the_zone_was() -> None:
    """The instant is kept, the zone is not."""
    codec = CODECS.value(datetime)
    there = NOON.astimezone(timezone(timedelta(hours=5)))
    assert codec.decode(codec.encode(there)) == there
    assert codec.decode(codec.encode(there)).tzinfo == UTC


@pytest.mark.parametrize("count", [1, BATCH_MIN])
def test_decoded_records_are_frozen_and_of_their_own_class(count: int) -> None:
    """However they were made, they are as good as constructed ones."""
    codec = CODECS.value(Inner)
    for record in codec.decode_many(codec.encode_many([Inner("a", 1)] * count)):
        assert type(record) is Inner
        assert hash(record) == hash(Inner("a", 1))
        assert asdict(record) == {"name": "a", "n": 1}
        with pytest.raises(FrozenInstanceError):
            record.n = 2  # type: ignore[misc]


def test_decoded_maps_are_read_only() -> None:
    """No state is changed behind the engine's back."""
    codec = CODECS.value(Mapping[str, int])
    with pytest.raises(TypeError):
        codec.decode(codec.encode({"a": 1}))["b"] = 2


@pytest.mark.parametrize("kind", [Point, Unslotted])
@pytest.mark.parametrize("count", [1, BATCH_MIN])
def test_named_tuples_and_classes_without_slots_work_too(kind: Any, count: int) -> None:
    """Only slower."""
    values = [Point(1, 2.5) if kind is Point else Unslotted(5)] * count
    codec = CODECS.value(kind)
    assert codec.decode_many(codec.encode_many(values)) == values


@pytest.mark.parametrize("count", [1, BATCH_MIN])
def test_a_class_that_checks_its_values_is_asked(count: int) -> None:
    """`__post_init__` runs for decoded records as for constructed ones."""
    bad = CODECS.value(Unslotted).encode(Unslotted(-1))
    with pytest.raises(DecodeError, match="negative"):
        CODECS.value(Validated).decode_many([bad] * count)


@pytest.mark.parametrize("count", [1, BATCH_MIN])
def test_nothing_is_a_value_of_no_bytes(count: int) -> None:
    """Timers are stored with it."""
    codec = CODECS.value(NoneType)
    assert (codec.schema, codec.encode_many([None] * count)) == ('"null"', [b""] * count)
    assert codec.decode_many([b""] * count) == [None] * count
    with pytest.raises(DecodeError):
        codec.decode_many([b""] * (count - 1) + [b"\0"])


def test_nothing_is_no_part_of_another_type() -> None:
    """Millions of them would fit into three bytes."""
    for kind in (tuple[None, ...], Mapping[str, None]):
        with pytest.raises(ConfigError):
            AvroCodecs().value(kind)


def test_decimals_of_any_precision_are_exact() -> None:
    """Python's own context would round them to 28 digits."""
    schema = {"type": "bytes", "logicalType": "decimal", "precision": 38, "scale": 10}
    kind = attached({"type": "record", "name": "R", "fields": [{"name": "d", "type": schema}]}, d=Decimal)
    codec = AvroCodecs().value(kind)
    for text in ("9999999999999999999999999999.9999999999", "-1234567890123456789012345678.0000000001", "1.50"):
        assert codec.decode(codec.encode(kind(Decimal(text)))) == kind(Decimal(text))
    for text in ("10000000000000000000000000000", "0.00000000001"):
        with pytest.raises(ValueError, match="38 digits, 10 of them"):
            codec.encode(kind(Decimal(text)))


def test_an_empty_batch_is_no_batch() -> None:
    """Nothing in, nothing out."""
    assert CODECS.value(Flat).decode_many([]) == []
    assert CODECS.value(Flat).encode_many([]) == []


@dataclass
class Mutable:
    n: int


@pytest.mark.parametrize(
    ("kind", "mend"),
    [
        (list[int], "use tuple[T, ...]"),
        (set[int], "use tuple[T, ...]"),
        (tuple[int, str], "a NamedTuple for a fixed number"),
        (dict[str, int], "use Mapping[str, T]"),
        (Mapping[int, str], "Avro maps have string keys"),
        (int | str, "use a generated record class"),
        (object, "use a generated record class"),
        (Decimal, "precision and scale"),
        (Mutable, "frozen=True"),
        (tuple[object, ...], "use a generated record class"),
    ],
)
def test_a_type_without_avro_form_is_refused_with_a_mend(kind: Any, mend: str) -> None:
    """When the job starts."""
    with pytest.raises(ConfigError) as raised:
        AvroCodecs().value(kind)
    assert mend in str(raised.value)


def attached(schema: object, **annotations: Any) -> Any:
    """A record class with a schema of its own."""
    body = {"__annotations__": {"__avro_schema__": ClassVar[str], **annotations}, "__avro_schema__": json.dumps(schema)}
    return dataclass(frozen=True, slots=True)(type("R", (), body))


@pytest.mark.parametrize(
    ("field", "annotation"),
    [("long", str), ("string", int), ("double", int), (["null", "long"], int), ("long", int | None), ("bytes", str)],
)
def test_a_class_that_disagrees_with_its_schema_is_refused(field: Any, annotation: Any) -> None:
    """Somebody edited one of them."""
    schema = {"type": "record", "name": "R", "fields": [{"name": "f", "type": field}]}
    with pytest.raises(ConfigError, match="kstate schema generate"):
        AvroCodecs().value(attached(schema, f=annotation))


def test_fields_in_another_order_than_the_schema_s_are_refused() -> None:
    """The constructor would take them in the wrong order."""
    fields = [{"name": "a", "type": "long"}, {"name": "b", "type": "long"}]
    with pytest.raises(ConfigError, match="fields a, b"):
        AvroCodecs().value(attached({"type": "record", "name": "R", "fields": fields}, b=int, a=int))


def test_a_named_type_has_one_class_wherever_it_is_mentioned() -> None:
    """The schema says "Inner" twice, the class says two different things."""
    inner = {
        "type": "record",
        "name": "I",
        "fields": [{"name": "name", "type": "string"}, {"name": "n", "type": "long"}],
    }
    schema = {"type": "record", "name": "R", "fields": [{"name": "a", "type": inner}, {"name": "b", "type": "I"}]}
    AvroCodecs().value(attached(schema, a=Inner, b=Inner))
    with pytest.raises(ConfigError, match="kstate schema generate"):
        AvroCodecs().value(attached(schema, a=Inner, b=Lookalike))


def test_types_that_lose_something_say_so() -> None:
    """They are fit for streams, not for state: after a crash it would be another value."""
    assert CODECS.value(Flat).loss is None
    assert "half" in str(CODECS.value(Typed).loss)


CODECS = AvroCodecs()

"""Framed records and keys: read with the schema they were written with, written with the id of their own."""

from __future__ import annotations

import io
import json
import re
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import NoneType
from typing import Any, NamedTuple
from uuid import UUID

import pytest
from fastavro import parse_schema, schemaless_writer
from hypothesis import given, settings
from hypothesis import strategies as st

from kstate import ConfigError, DecodeError, Int32
from kstate.adapters.avro import AvroCodecs
from kstate.adapters.avro_codec import BATCH_MIN
from kstate.adapters.registry_folder import FolderRegistry
from kstate.errors import RetryableError
from kstate.interfaces import Codecs, FramedCodec, KeyFrames, Registry
from kstate.schemas import canonical
from kstate.testing.memory_registry import MemoryRegistry
from tests.support.avro_samples import Flat, Inner, flats


def add(registry: MemoryRegistry, schema: Any) -> int:
    """Another producer's schema, as JSON."""
    registry.texts.append(json.dumps(schema))
    return len(registry.texts)


def fields(*pairs: tuple[str, Any], name: str = "Order", **defaults: Any) -> dict[str, Any]:
    """A record's schema: (name, type) pairs, defaults by name."""
    made = [{"name": n, "type": t, **({"default": defaults[n]} if n in defaults else {})} for n, t in pairs]
    return {"type": "record", "name": name, "fields": made}


def framed(schema_id: int, schema: Any, value: Any) -> bytes:
    """A record as another producer writes it."""
    out = io.BytesIO()
    schemaless_writer(out, parse_schema(schema), value)
    return struct.pack(">BI", 0, schema_id) + out.getvalue()


ONE = Int32(1)


@dataclass(frozen=True, slots=True)
class Order:
    """The class that reads; its last field has a default."""

    id: int
    item: str
    count: Int32 = ONE


V1 = fields(("id", "long"), ("item", "string"))
V2 = fields(("id", "long"), ("item", "string"), ("count", "int"), count=1)
V3 = fields(
    ("item", "string"), ("id", "int"), ("count", "int"), ("note", ["null", "string"]), name="x.PlacedOrder", note=None
)
WRITTEN: list[tuple[Any, dict[str, Any], Order]] = [
    (V1, {"id": 1, "item": "a"}, Order(1, "a", Int32(1))),
    (V2, {"id": 2, "item": "b", "count": 5}, Order(2, "b", Int32(5))),
    (V3, {"id": 3, "item": "c", "count": 6, "note": "n"}, Order(3, "c", Int32(6))),
]


@pytest.fixture
def registry() -> MemoryRegistry:
    """Empty."""
    return MemoryRegistry()


def test_codecs_are_what_the_engine_expects(registry: MemoryRegistry) -> None:
    """Checked by mypy, too."""
    known: Registry = registry
    codecs: Codecs = AvroCodecs(known)
    codec: FramedCodec[Any] = codecs.framed(Order, "orders")
    frames: KeyFrames = codecs.key_frames(str, "orders")
    assert isinstance(codec, FramedCodec)
    assert not isinstance(codecs.value(Order), FramedCodec)
    assert frames.canonical([None]) == [None]


def test_a_record_is_framed_with_the_id_of_its_schema(registry: MemoryRegistry) -> None:
    """A zero byte, the id as four bytes, the body; registered once, under the topic's name."""
    add(registry, "long")
    codec = AvroCodecs(registry).framed(Order, "orders")
    assert codec.claim() == 2
    data = codec.encode_many([Order(1, "a"), Order(2, "b")])
    assert data == [codec.encode(Order(1, "a")), codec.encode(Order(2, "b"))]
    assert data[0] == b"\0\0\0\0\2" + AvroCodecs().value(Order).encode(Order(1, "a"))
    assert registry.asked == [0]


@given(st.lists(flats, min_size=1, max_size=3), st.sampled_from([1, BATCH_MIN]))
@settings(deadline=None, max_examples=50)
def test_what_was_written_is_read_back(values: list[Flat], times: int) -> None:
    """One by one and by columns."""
    codec = AvroCodecs(MemoryRegistry()).framed(Flat, "flats")
    data = codec.encode_many(values * times)
    assert codec.decode_many(data) == values * times == [codec.decode(each) for each in data]


@given(st.lists(st.sampled_from(range(len(WRITTEN))), max_size=3 * BATCH_MIN))
@settings(deadline=None, max_examples=50)
def test_records_of_several_schemas_keep_their_order(order: list[int]) -> None:
    """Each is read with its own schema: fields added with a default, moved, widened, left out; other type names."""
    registry = MemoryRegistry()
    data = [framed(add(registry, schema), schema, value) for schema, value, _ in WRITTEN]
    codec = AvroCodecs(registry).framed(Order, "orders")
    codec.learn([*data, None])
    registry.away = True
    assert codec.decode_many([data[each] for each in order]) == [WRITTEN[each][2] for each in order]


def test_each_id_is_asked_for_once(registry: MemoryRegistry) -> None:
    """Whether it is learned before or met while decoding."""
    one, two = add(registry, V1), add(registry, V2)
    data = [framed(one, V1, WRITTEN[0][1]), framed(two, V2, WRITTEN[1][1])] * BATCH_MIN
    codec = AvroCodecs(registry).framed(Order, "orders")
    for _ in range(3):
        codec.learn(data)
        codec.decode_many(data)
    assert sorted(registry.asked) == [one, two]


def test_a_schema_that_differs_in_names_only_is_read_by_columns(registry: MemoryRegistry) -> None:
    """Java's namespaces, documentation and string hints must not cost speed."""
    java = fields(("id", "long"), ("item", {"type": "string", "avro.java.string": "String"}), ("count", "int"))
    number = add(registry, {**java, "name": "Order", "namespace": "com.example", "doc": "An order."})
    codec = AvroCodecs(registry).framed(Order, "orders")
    codec.learn([framed(number, java, asdict(WRITTEN[1][2]))])
    (reader,) = codec._readers.values()
    assert reader is codec._codec


def test_the_same_fields_in_another_order_are_other_bytes(registry: MemoryRegistry) -> None:
    """Both are longs: only the order tells them apart."""
    moved = fields(("b", "long"), ("a", "long"), name="Pair")
    codec = AvroCodecs(registry).framed(Pair, "pairs")
    assert (
        codec.decode_many([framed(add(registry, moved), moved, {"a": 1, "b": 2})] * BATCH_MIN)
        == [Pair(1, 2)] * BATCH_MIN
    )


class Pair(NamedTuple):
    a: int
    b: int


@pytest.mark.parametrize("count", [1, BATCH_MIN])
def test_an_id_that_the_registry_does_not_know_is_an_error_of_its_record(registry: MemoryRegistry, count: int) -> None:
    """It names id, subject and registry; the others are read."""
    number = add(registry, V2)
    good, bad = framed(number, V2, WRITTEN[1][1]), framed(77, V2, WRITTEN[1][1])
    codec = AvroCodecs(registry).framed(Order, "orders")
    codec.learn([good, bad])
    with pytest.raises(
        DecodeError, match="Schema id 77, expected under subject 'orders-value', is not in the registry i"
    ):
        codec.decode_many([good] * count + [bad])
    assert codec.decode_many([good] * count) == [WRITTEN[1][2]] * count


@pytest.mark.parametrize("data", [b"", b"\0\0\0\0", b"\2\0\0\0\1\2\2a", b"{}"])
def test_what_is_not_framed_says_how_to_read_it(registry: MemoryRegistry, data: bytes) -> None:
    """The topic may hold bare Avro."""
    add(registry, V2)
    codec = AvroCodecs(registry).framed(Order, "orders")
    codec.learn([data])
    with pytest.raises(DecodeError, match=r'first byte is not 0.*declare format="raw"'):
        codec.decode_many([data] * BATCH_MIN)
    assert registry.asked == []


@pytest.mark.parametrize("schema", [V1, V2])
def test_damaged_bodies_are_refused(registry: MemoryRegistry, schema: Any) -> None:
    """Too short, too long, none at all; with the class's schema and with another."""
    good = framed(add(registry, schema), schema, {"id": 1000, "item": "abc", "count": 3})
    codec = AvroCodecs(registry).framed(Order, "orders")
    for bad in (good[:-1], good + b"\0", good[:5]):
        for count in (1, BATCH_MIN):
            with pytest.raises(DecodeError):
                codec.decode_many([good] * (count - 1) + [bad])


def test_a_registry_that_is_away_is_not_the_records_fault(registry: MemoryRegistry) -> None:
    """Learning waits; afterwards nothing was forgotten."""
    data = [framed(add(registry, V1), V1, WRITTEN[0][1])]
    codec = AvroCodecs(registry).framed(Order, "orders")
    registry.away = True
    for attempt in (lambda: codec.learn(data), lambda: codec.decode_many(data), codec.claim):
        with pytest.raises(RetryableError):
            attempt()
    registry.away = False
    codec.learn(data)
    assert codec.decode_many(data) == [WRITTEN[0][2]]


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        (fields(("id", "long")), "'item' is new and has no default"),
        (fields(("id", "string"), ("item", "string")), "'id' was string and is long now"),
        (fields(("id", "long"), ("item", "string"), ("count", "long")), "larger numbers would not fit"),
        ("long", "record Order"),
    ],
)
def test_a_schema_that_cannot_be_read_stops_the_job(registry: MemoryRegistry, schema: Any, reason: str) -> None:
    """It is a property of the id, so of many records: no dead letters. Both schemas, id and subject are named."""
    number = add(registry, schema)
    codec = AvroCodecs(registry).framed(Order, "orders")
    with pytest.raises(ConfigError) as raised:
        codec.learn([struct.pack(">BI", 0, number) + b"\0"])
    for part in (
        reason,
        f"Schema {number} of subject 'orders-value'",
        canonical(schema),
        codec.schema,
        "Mend: generate",
    ):
        assert part in str(raised.value)


@pytest.mark.parametrize("text", ["{", '{"type": "nonsense"}', '["long", "long"]'])
def test_a_registered_text_that_is_no_schema_is_named(registry: MemoryRegistry, text: str) -> None:
    """Somebody edited the folder."""
    registry.texts.append(text)
    with pytest.raises(ConfigError, match="Schema 1 of subject 'orders-value' in the registry in memory"):
        AvroCodecs(registry).framed(Order, "orders").learn([b"\0\0\0\0\1\0"])


def test_without_a_registry_nothing_is_framed() -> None:
    """The topic and the setting are named."""
    for make in (AvroCodecs().framed, AvroCodecs().key_frames):
        with pytest.raises(ConfigError, match=r"Topic 'orders' .*KSTATE_REGISTRY"):
            make(Order, "orders")


# Keys


def key_frame(registry: MemoryRegistry, schema: Any, value: Any) -> bytes:
    """A framed key of a new id."""
    return framed(add(registry, schema), schema, value)


@pytest.mark.parametrize(
    ("kind", "schema", "key", "canonical_key"),
    [
        (str, "string", "ü", "ü".encode()),
        (str, "string", "", b""),
        (bytes, "bytes", b"\0", b"\0"),
        (int, "long", -1, b"\xff" * 8),
        (int, "int", 5, b"\0" * 7 + b"\5"),
        (Int32, "int", 5, b"\0\0\0\5"),
        (UUID, {"type": "string", "logicalType": "uuid"}, UUID(int=10), str(UUID(int=10)).encode()),
        (Pair, fields(("a", "long"), ("b", "long"), name="K"), {"a": 1, "b": -1}, b"\2\1"),
        (Pair, fields(("b", "int"), ("a", "long"), name="K"), {"a": 1, "b": -1}, b"\2\1"),
        (NoneType, "string", "ü", "ü".encode()),
        (NoneType, "long", -1, b"\xff" * 8),
        (NoneType, {"type": "int", "logicalType": "date"}, 5, b"\0\0\0\5"),
        (NoneType, "bytes", b"\0", b"\0"),
        (NoneType, ["null", "string"], "a", b"\2\2a"),
        (NoneType, "double", 0.0, bytes(8)),
        (NoneType, fields(("b", "int"), ("a", "long"), name="K"), {"a": 1, "b": -1}, b"\1\2"),
    ],
)
def test_a_framed_key_becomes_what_the_key_itself_is(
    registry: MemoryRegistry, kind: Any, schema: Any, key: Any, canonical_key: bytes
) -> None:
    """The bytes that kstate's own key codec makes, whoever wrote it: slots and state go by them."""
    frames = AvroCodecs(registry).key_frames(kind, "orders")
    data = key_frame(registry, schema, key)
    assert frames.canonical([data, None, data]) == [canonical_key, None, canonical_key]
    if kind not in (NoneType, Pair):
        assert AvroCodecs().key(kind).encode(key) == canonical_key


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b"plain", 'first byte is not 0.*declare key_format="raw"'),
        (b"", "first byte is not 0"),
        (b"\0\0\0\0\x4d\2a", "id 77, expected under subject 'orders-key'"),
        (b"\0\0\0\0\1\2", "is no str"),
        (b"\0\0\0\0\1\2ab", "left over"),
    ],
)
def test_a_key_that_cannot_be_read_stays_as_it_is(registry: MemoryRegistry, bad: bytes, reason: str) -> None:
    """The very object: it is admitted by its bytes once, and becomes a dead letter."""
    frames = AvroCodecs(registry).key_frames(str, "orders")
    good = key_frame(registry, "string", "a")
    found = frames.canonical([good, bad])
    assert found[0] == b"a"
    assert found[1] is bad
    assert re.search(reason, frames.fault(bad))


def test_keys_with_two_schema_ids_stop_the_job(registry: MemoryRegistry) -> None:
    """Equal or not: their producer placed the same key twice. Stateless operators do not mind: they are the mend."""
    one, two = key_frame(registry, "string", "a"), key_frame(registry, {"type": "string", "doc": "again"}, "a")
    frames = AvroCodecs(registry).key_frames(str, "orders")
    frames.canonical([one])
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"Schema 2 of subject 'orders-key'.* with schema 1, too.* rekey="):
            frames.canonical([one, two])
    assert AvroCodecs(registry).key_frames(NoneType, "orders").canonical([one, two]) == [b"a", b"a"]


def test_a_key_schema_of_another_type_stops_the_job(registry: MemoryRegistry) -> None:
    """It is no use to read such a topic."""
    with pytest.raises(ConfigError, match="Schema 1 of subject 'orders-key'"):
        AvroCodecs(registry).key_frames(str, "orders").canonical([key_frame(registry, "long", 1)])


def test_a_registry_that_is_away_delays_keys_of_unknown_schemas_only(registry: MemoryRegistry) -> None:
    """What was seen before is remembered."""
    one = key_frame(registry, "string", "a")
    frames = AvroCodecs(registry).key_frames(str, "orders")
    registry.away = True
    with pytest.raises(RetryableError):
        frames.canonical([one])
    registry.away = False
    frames.canonical([one])
    registry.away = True
    assert frames.canonical([one, one[:5] + b"\2b"]) == [b"a", b"b"]


def test_a_folder_of_schemas_is_enough(tmp_path: Path) -> None:
    """No service: two processes that share the folder read each other's records."""
    writer, reader = AvroCodecs(FolderRegistry(tmp_path)), AvroCodecs(FolderRegistry(tmp_path))
    data = writer.framed(Inner, "inners").encode(Inner("a", 1))
    assert reader.framed(Inner, "inners").decode(data) == Inner("a", 1)
    values: Mapping[str, Any] = json.loads((tmp_path / "1.avsc").read_text())
    assert values["subject"] == "inners-value"

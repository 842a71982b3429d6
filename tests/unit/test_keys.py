"""Key bytes, slots and partitions: equal to what Kafka's Java classes make, and strict on the way back."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kstate import ConfigError, DecodeError, Int32
from kstate.adapters.avro import AvroCodecs
from kstate.keys import key_fault, key_signature, plain_key_codec
from kstate.keyspace import crc32_partition_of, murmur2, partition_of, slot_of

GOLDEN = json.loads(Path(__file__).parents[1].joinpath("golden/kafka_keys.json").read_text(encoding="utf-8"))
TYPES: Mapping[str, tuple[Any, Callable[[Any], Any]]] = {
    "str": (str, str),
    "int": (int, int),
    "Int32": (Int32, int),
    "bytes": (bytes, bytes.fromhex),
    "UUID": (UUID, UUID),
}


class Color(StrEnum):
    RED = "red"
    BLUE = "blue"


class Page(NamedTuple):
    lang: str
    number: int


class Deep(NamedTuple):
    page: Page
    place: Int32
    color: Color
    flag: bool
    path: tuple[str, ...]
    id: UUID


class Swapped(NamedTuple):
    number: int
    lang: str


class Renamed(NamedTuple):
    language: str
    n: int


@dataclass(frozen=True, slots=True)
class PageRecord:
    lang: str
    number: int


class WithMap(NamedTuple):
    lang: str
    counts: Mapping[str, int]


def test_the_golden_table_is_worth_the_name() -> None:
    """Many keys of each type, the awkward ones among them."""
    keys = GOLDEN["keys"]
    assert len(keys) >= 200
    lengths = {len(row["bytes"]) // 2 for row in keys}
    assert set(range(10)) <= lengths
    assert max(lengths) > 1000
    assert {row["type"] for row in keys} == set(TYPES)
    assert any(row["type"] == "int" and row["value"] < 0 for row in keys)
    assert any(row["type"] == "str" and not row["value"].isascii() for row in keys)


@pytest.mark.parametrize("kind", TYPES)
def test_key_bytes_are_those_of_kafka_s_serializers(kind: str) -> None:
    """Both ways, for every key of the table."""
    key_type, value_of = TYPES[kind]
    codec = AvroCodecs().key(key_type)
    for row in GOLDEN["keys"]:
        if row["type"] == kind:
            data, value = bytes.fromhex(row["bytes"]), value_of(row["value"])
            assert codec.encode(value) == data, row
            assert codec.decode(data) == value, row


def test_partitions_are_those_of_the_java_producer() -> None:
    """murmur2 and the choice of partition, for every key and several partition counts."""
    for row in GOLDEN["keys"]:
        key = bytes.fromhex(row["bytes"])
        assert murmur2(key) == row["murmur2"], row
        assert [partition_of(key, count) for count in GOLDEN["partitions"]] == row["partitions"], row


@pytest.mark.parametrize(("key", "partition"), [(b"a", 3), (b"bob", 0), ("größe".encode(), 1), (b"\0" * 7 + b"*", 3)])
def test_crc32_partitions_are_those_of_librdkafka(key: bytes, partition: int) -> None:
    """As librdkafka 2.16 placed these keys among four partitions with `consistent_random`."""
    assert crc32_partition_of(key, 4) == partition


def test_slots_are_those_of_another_xxh3() -> None:
    """A slot is part of the stored format: two implementations must agree on it."""
    for row in GOLDEN["keys"]:
        assert slot_of(bytes.fromhex(row["bytes"])) == row["slot"], row


@pytest.mark.parametrize(
    ("key_type", "data"),
    [
        (str, b"\xff"),
        (str, b"\xed\xa0\x80"),
        (int, b""),
        (int, b"\0" * 7),
        (int, b"\0" * 9),
        (Int32, b"\0" * 8),
        (UUID, b"00000000-0000-0000-0000-00000000000A"),
        (UUID, b"00000000000000000000000000000000"),
        (UUID, b"{00000000-0000-0000-0000-000000000000}"),
        (UUID, b"\0" * 16),
        (Page, b""),
        (Page, b"\x04en\x06\0"),
        (Page, b"\x04en\x86\0"),
        (Page, b"\x04en"),
        (Page, b"\x03en\x06"),
    ],
)
def test_bytes_that_encode_would_not_make_are_no_key(key_type: Any, data: bytes) -> None:
    """One key must not have two spellings, hence two slots."""
    with pytest.raises(DecodeError):
        AvroCodecs().key(key_type).decode(data)


@pytest.mark.parametrize(
    ("key_type", "key"),
    [
        (str, 1),
        (str, b"a"),
        (str, "\ud800"),
        (int, "1"),
        (int, 1.0),
        (int, 1 << 63),
        (int, -(1 << 63) - 1),
        (Int32, 1 << 31),
        (bytes, "a"),
        (bytes, 3),
        (UUID, "00000000-0000-0000-0000-000000000000"),
        (Page, ("en", 1)),
        (Page, Page(1, "en")),  # type: ignore[arg-type]
        (Any, 1.5),
        (Any, True),
        (Any, None),
    ],
)
def test_a_key_of_another_type_is_refused(key_type: Any, key: object) -> None:
    """Never coerced: the bytes would be those of another key."""
    with pytest.raises(ValueError, match=r"."):
        AvroCodecs().key(key_type).encode(key)


@pytest.mark.parametrize(
    ("key_type", "reason"),
    [
        (float, "a float is no key"),
        (bool, "a bool is no key"),
        (None, "may be null"),
        (str | None, "may be null"),
        (Mapping[str, int], "a map is no key"),
        (dict, "a map is no key"),
        (list[str], "has no canonical key bytes"),
        (Color, "has no canonical key bytes"),
        (WithMap, "field 'counts' of WithMap: a map is no key"),
    ],
)
def test_a_type_without_canonical_bytes_is_refused_with_a_mend(key_type: Any, reason: str) -> None:
    """At the start of the job, not at the first record."""
    assert reason in str(key_fault(key_type))
    with pytest.raises(ConfigError, match=r"Key type"):
        AvroCodecs().key(key_type)


def test_a_composite_key_is_schemaless_avro() -> None:
    """Field after field, nothing else: length and text of `lang`, zigzag of `number`."""
    codec = AvroCodecs().key(Page)
    assert codec.encode(Page("en", 3)) == b"\x04en\x06"
    assert codec.decode(b"\x04en\x06") == Page("en", 3)
    assert isinstance(codec.decode(b"\x04en\x06"), Page)


def test_names_are_not_in_the_bytes_of_a_composite_key() -> None:
    """A record class and a NamedTuple of the same types are the same key."""
    codecs = AvroCodecs()
    assert codecs.key(PageRecord).encode(PageRecord("en", 3)) == codecs.key(Renamed).encode(Renamed("en", 3))


def test_a_nested_composite_key_comes_back_as_it_was() -> None:
    """Every type that may be a part of a key."""
    key = Deep(Page("ü", -1), Int32(-7), Color.BLUE, flag=True, path=("a", "b"), id=UUID(int=5))
    codec = AvroCodecs().key(Deep)
    assert codec.decode(codec.encode(key)) == key


def test_a_signature_changes_exactly_when_the_bytes_do() -> None:
    """It stands in the plan, where a changed key type is refused."""
    assert key_signature(Page) == key_signature(Renamed) == key_signature(PageRecord)
    assert len({key_signature(kind) for kind in (str, int, Int32, bytes, UUID, None, Page, Swapped, Deep)}) == 9


def test_a_key_function_without_annotation_encodes_by_the_key_s_own_type() -> None:
    """As the codec of that type would."""
    codec = AvroCodecs().key(Any)
    assert codec.encode("a") == b"a"
    assert codec.encode(1) == (1).to_bytes(8, "big")
    assert codec.encode(b"x") == b"x"
    with pytest.raises(DecodeError):
        codec.decode(b"x")


@given(st.text())
def test_every_text_comes_back(key: str) -> None:
    """And so does its hash's slot, which is below 65,536."""
    codec = plain_key_codec(str)
    assert codec is not None
    assert codec.decode(codec.encode(key)) == key
    assert 0 <= slot_of(codec.encode(key)) < 65536


@given(st.integers(-(1 << 63), (1 << 63) - 1))
def test_every_long_comes_back(key: int) -> None:
    """Eight bytes, whatever the value."""
    codec = plain_key_codec(int)
    assert codec is not None
    assert len(codec.encode(key)) == 8
    assert codec.decode(codec.encode(key)) == key

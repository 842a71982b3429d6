"""Keys and values by what the plan says of them: the same as their codecs read and write."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import Enum
from typing import Any, NamedTuple
from uuid import UUID

import pytest

from kstate import Int32
from kstate.adapters.avro import AvroCodecs
from kstate.adapters.avro_plain import PlainKeys, PlainValues, plain
from kstate.errors import ConfigError, DecodeError
from kstate.keys import key_signature


class Colour(Enum):
    """Part of a key."""

    RED = "red"
    BLUE = "blue"


class Inner(NamedTuple):
    """Part of a key."""

    number: Int32
    flag: bool


class Place(NamedTuple):
    """All that can be part of a key."""

    city: str
    colour: Colour
    inner: Inner
    ids: tuple[UUID, ...]
    raw: bytes


PLACE = Place("bonn", Colour.BLUE, Inner(Int32(7), True), (UUID(int=1), UUID(int=2)), b"\x00\xff")
PLACE_TEXT = f'["bonn", "blue", [7, true], ["{UUID(int=1)}", "{UUID(int=2)}"], "0x00ff"]'


@pytest.mark.parametrize(
    ("type_", "key", "text", "shown"),
    [
        (str, "ä b", "ä b", "ä b"),
        (int, -3, "-3", -3),
        (int, 255, "0xff", 255),
        (Int32, 7, "7", 7),
        (bytes, b"\x00\xff", "0x00ff", "0x00ff"),
        (UUID, UUID(int=5), str(UUID(int=5)), str(UUID(int=5))),
        (Place, PLACE, PLACE_TEXT, ["bonn", "blue", [7, True], [str(UUID(int=1)), str(UUID(int=2))], "0x00ff"]),
    ],
)
def test_keys_are_read_and_written_without_their_type(type_: Any, key: Any, text: str, shown: Any) -> None:
    """Only its signature stands in the plan."""
    data = AvroCodecs().key(type_).encode(key)
    keys = PlainKeys(key_signature(type_))
    assert keys.decode(data) == shown
    assert keys.encode(text) == data


@pytest.mark.parametrize(
    ("type_", "text"),
    [(int, "seven"), (Int32, str(1 << 40)), (UUID, "7"), (bytes, "0xg"), (Place, "bonn"), (Place, '["bonn"]')],
)
def test_what_is_no_key_of_the_type_is_refused(type_: Any, text: str) -> None:
    """With a sample of one."""
    with pytest.raises(ConfigError, match=r"no key of type .*Mend: write it as"):
        PlainKeys(key_signature(type_)).encode(text)


def test_keys_without_a_type_are_bytes() -> None:
    """Operator[None] keeps them as they came."""
    keys = PlainKeys("none")
    assert keys.decode(b"\x01") == "0x01"
    assert keys.encode("0x01") == b"\x01"


def test_values_become_what_json_knows() -> None:
    """By their schema's text."""
    schema = AvroCodecs().value(Inner).schema
    assert PlainValues(schema).decode(AvroCodecs().value(Inner).encode(Inner(Int32(3), False))) == {
        "number": 3,
        "flag": False,
    }
    with pytest.raises(DecodeError, match="left over"):
        PlainValues(schema).decode(b"\x06\x00\x00")
    with pytest.raises(DecodeError, match="not of its schema"):
        PlainValues(schema).decode(b"")
    assert plain({"at": datetime(2026, 1, 2, tzinfo=UTC), "raw": [b"\xff"]}) == {
        "at": "2026-01-02T00:00:00+00:00",
        "raw": ["0xff"],
    }

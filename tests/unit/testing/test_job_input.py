"""Input for any job: records of any type from JSON or at random, keyed and timed as the job reads them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from itertools import pairwise
from random import Random
from typing import Any, NamedTuple
from uuid import UUID

import pytest

from kstate import ConfigError, Context, Input, Int32, Job, Operator, Output, Table
from kstate.adapters.avro import AvroCodecs
from kstate.api.topology import resolve
from kstate.keyspace import partition_of
from kstate.testing.job_input import JobInput, Message, interleaved
from kstate.testing.made_up import from_json, some_value
from kstate.testing.memory_registry import MemoryRegistry
from kstate.testing.virtual_time import START_MS

CODECS = AvroCodecs(MemoryRegistry())


class Colour(StrEnum):
    """An enumeration."""

    RED = "red"
    BLUE = "blue"


class Place(NamedTuple):
    """A part of a record, and a composite key."""

    x: int
    y: Int32


@dataclass(frozen=True, slots=True)
class Everything:
    """A field of each kind."""

    name: str
    at: datetime
    day: date
    clock: time
    number: int
    small: Int32
    ratio: float
    flag: bool
    data: bytes
    id: UUID
    colour: Colour
    place: Place
    places: tuple[Place, ...]
    amounts: Mapping[str, int]
    note: str | None
    extra: int = 7


IN_JSON: dict[str, Any] = {
    "name": "ann",
    "at": "2025-06-01T12:00:00+00:00",
    "day": "2025-06-01",
    "clock": "12:30:00",
    "number": 5,
    "small": 6,
    "ratio": 1,
    "flag": True,
    "data": "a\u00ff",
    "id": "00000000-0000-0000-0000-000000000007",
    "colour": "blue",
    "place": {"x": 1, "y": 2},
    "places": [{"x": 3, "y": 4}],
    "amounts": {"a": 1},
    "note": None,
}
SHAPE = CODECS.value(Everything).shape


class Keyed(Operator[str], uid="keyed"):
    """Event time and key are fields."""

    records = Input(Everything, topic="records", key="name", event_time="at", lateness=timedelta(seconds=3))
    out = Output(Everything, topic="out")

    @records.each
    def go_on(self, record: Everything, _: Context) -> None:
        self.out.emit(record)


class Placed(Operator[Place], uid="placed"):
    """Keys that are not in the record, a table, and the output of another operator."""

    again = Input(Keyed.out)
    places = Input(Colour, topic="colours")
    names = Table(Everything, topic="names")

    @again.each
    def forget(self, record: Everything, _: Context) -> None: ...

    @places.each
    def see(self, record: Colour, _: Context) -> None: ...


def given(*operators: type[Operator[Any]]) -> JobInput:
    """The input of a job of these operators."""
    return JobInput(resolve(Job("j", operators or (Keyed,))), CODECS, 2)


def test_json_says_every_kind_of_value() -> None:
    """Times as ISO 8601, bytes as text, what is left out by its default."""
    value = from_json(SHAPE, IN_JSON, "r")
    assert value == Everything(
        "ann",
        datetime(2025, 6, 1, 12, tzinfo=UTC),
        date(2025, 6, 1),
        time(12, 30),
        5,
        Int32(6),
        1.0,
        True,
        b"a\xff",
        UUID(int=7),
        Colour.BLUE,
        Place(1, Int32(2)),
        (Place(3, Int32(4)),),
        {"a": 1},
        None,
    )
    as_numbers = from_json(SHAPE, IN_JSON | {"at": 1_000_000, "day": 1, "clock": 1_000_000}, "r")
    assert (as_numbers.at.timestamp(), as_numbers.day, as_numbers.clock) == (1.0, date(1970, 1, 2), time(0, 0, 1))


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"number": "five"}, "r.number is 'five', which is no long"),
        ({"number": True}, "r.number is True, which is no long"),
        ({"flag": 1}, "r.flag is 1, which is no boolean"),
        ({"colour": "green"}, "r.colour is 'green', which is no one of red, blue"),
        ({"places": [{"x": 1}]}, r"r.places\[0\] makes no Place"),
        ({"place": {"x": 1, "y": 2, "z": 3}}, "r.place has 'z', which is no field of Place"),
        ({"at": "yesterday"}, "r.at is 'yesterday', which is no timestamp-micros"),
        ({"name": None}, "r.name is None, which is no string"),
    ],
)
def test_json_of_another_form_is_refused_with_its_place(changes: dict[str, Any], fault: str) -> None:
    """Down to the field."""
    with pytest.raises(ConfigError, match=fault):
        from_json(SHAPE, IN_JSON | changes, "r")


def test_what_is_made_up_can_be_written() -> None:
    """And differs from record to record, though not much."""
    rng = Random(1)
    values = [some_value(SHAPE, rng) for _ in range(50)]
    assert CODECS.value(Everything).decode_many(CODECS.value(Everything).encode_many(values)) == values
    assert 3 < len({value.name for value in values}) < 10


def decoded(message: Message) -> Everything:
    """The record of a message."""
    found: Everything = CODECS.value(Everything).decode(message.message["value"] or b"")
    return found


def test_made_up_records_have_their_key_and_go_up_in_time() -> None:
    """As far as the lateness of the input allows; none is in the future."""
    messages = given().made_up(Random(2), 40)
    times = [decoded(m).at.timestamp() * 1000 for m in messages]
    assert all(late - early >= -3_000 for early, late in pairwise(times))
    assert max(times) <= START_MS
    for message in messages:
        key = (message.message["key"] or b"").decode()
        assert key == decoded(message).name
        assert message.message["partition"] == partition_of(key.encode(), 2)


def test_only_what_comes_from_outside_is_made_up() -> None:
    """Not what another operator of the job writes; tables, too."""
    made = given(Keyed, Placed).made_up(Random(3), 60)
    assert {message.topic for message in made} == {"records", "colours", "names"}
    keys = {message.message["key"] for message in made if message.topic == "colours"}
    assert all(CODECS.key(Place).decode(key or b"") for key in keys)


def test_lines_are_records_or_say_their_key() -> None:
    """With an empty line in between."""
    lines = [json.dumps(IN_JSON), "", json.dumps({"key": {"x": 1, "y": 2}, "record": "red", "timestamp": 99})]
    records, colours = given(Keyed, Placed).read("records", lines[:2]), given(Keyed, Placed).read("colours", lines[2:])
    assert [decoded(message).name for message in records] == ["ann"]
    assert CODECS.key(Place).decode(colours[0].message["key"] or b"") == Place(1, Int32(2))
    assert colours[0].message["timestamp"] == 99


@pytest.mark.parametrize(
    ("topic", "line", "fault"),
    [
        ("recrods", "{}", "reads no topic 'recrods' from outside"),
        ("out", "{}", "reads no topic 'out' from outside"),
        ("records", "{", "records, line 1 is no JSON"),
        ("records", "[]", "records, line 1 is .*, which is no object with the fields of Everything"),
        ("colours", '"red"', "has no key"),
    ],
)
def test_a_line_that_is_no_record_is_refused(topic: str, line: str, fault: str) -> None:
    """Naming file and line."""
    with pytest.raises(ConfigError, match=fault):
        given(Keyed, Placed).read(topic, [line])


def test_interleaving_keeps_the_order_within_a_partition() -> None:
    """And no other."""
    messages = given().made_up(Random(4), 30)
    mixed = interleaved(messages, Random(5))
    assert mixed != messages
    for partition in (0, 1):
        assert [m for m in mixed if m.message["partition"] == partition] == [
            m for m in messages if m.message["partition"] == partition
        ]

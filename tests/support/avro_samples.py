"""Record classes of every shape, and hypothesis strategies for their values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import StrEnum
from types import MappingProxyType
from typing import ClassVar, NamedTuple
from uuid import UUID

from hypothesis import strategies as st

from kstate import Int32

LONG = st.integers(-(1 << 63), (1 << 63) - 1)
DOUBLE = st.floats(allow_nan=False)


UUID_ZERO = UUID(int=0)


class Color(StrEnum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True, slots=True)
class Inner:
    name: str
    n: int


@dataclass(frozen=True, slots=True)
class Flat:
    """All that the fast paths read and write."""

    flag: bool
    small: Int32
    n: int
    x: float
    text: str
    data: bytes
    color: Color
    inner: Inner
    maybe: str | None
    maybe_inner: Inner | None


@dataclass(frozen=True, slots=True)
class Deep:
    """With arrays, maps and logical types: fastavro reads it."""

    many: tuple[Inner, ...]
    by_name: Mapping[str, int]
    nested: Mapping[str, tuple[int, ...]]
    id: UUID
    at: datetime
    day: date
    clock: time
    maybe: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class Typed:
    """Types that only a schema file can say."""

    __avro_schema__: ClassVar[str] = json.dumps(
        {
            "type": "record",
            "name": "Typed",
            "fields": [
                {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 6, "scale": 2}},
                {
                    "name": "tax",
                    "type": {
                        "type": "fixed",
                        "name": "F",
                        "size": 4,
                        "logicalType": "decimal",
                        "precision": 8,
                        "scale": 1,
                    },
                },
                {"name": "raw", "type": {"type": "fixed", "name": "Raw", "size": 3}},
                {"name": "again", "type": "Raw"},
                {"name": "half", "type": "float"},
                {"name": "ms", "type": {"type": "long", "logicalType": "timestamp-millis"}},
                {"name": "local", "type": {"type": "long", "logicalType": "local-timestamp-micros"}},
                {"name": "clock", "type": {"type": "int", "logicalType": "time-millis"}},
                {"name": "odd", "type": {"type": "long", "logicalType": "made-up"}},
                {"name": "last", "type": ["string", "null"]},
                {"name": "id", "type": {"type": "fixed", "name": "Id", "size": 16, "logicalType": "uuid"}},
                {"name": "other", "type": "Id"},
                {"name": "nanos", "type": {"type": "long", "logicalType": "timestamp-nanos"}},
                {"name": "lasts", "type": {"type": "fixed", "name": "D", "size": 12, "logicalType": "duration"}},
                {"name": "local_ms", "type": {"type": "long", "logicalType": "local-timestamp-millis"}},
            ],
        }
    )
    price: Decimal
    tax: Decimal
    raw: bytes
    again: bytes
    half: float
    ms: datetime
    local: datetime
    clock: time
    odd: int
    last: str | None
    id: UUID = UUID_ZERO
    other: UUID = UUID_ZERO
    nanos: int = 0
    lasts: bytes = bytes(12)
    local_ms: datetime = datetime(2024, 5, 6)  # noqa: DTZ001 - a local time


@dataclass(frozen=True, slots=True)
class Lookalike:
    """The fields of Inner, but not Inner."""

    name: str
    n: int


class Point(NamedTuple):
    x: int
    y: float


@dataclass(frozen=True)
class Unslotted:
    n: int


@dataclass(frozen=True, slots=True)
class Validated:
    n: int

    def __post_init__(self) -> None:
        if self.n < 0:
            raise ValueError("negative")


inners = st.builds(Inner, st.text(), LONG)
flats = st.builds(
    Flat,
    st.booleans(),
    st.integers(-(1 << 31), (1 << 31) - 1).map(Int32),
    LONG,
    DOUBLE,
    st.text(),
    st.binary(),
    st.sampled_from(Color),
    inners,
    st.none() | st.text(),
    st.none() | inners,
)
deeps = st.builds(
    Deep,
    st.lists(inners, max_size=3).map(tuple),
    st.dictionaries(st.text(), LONG, max_size=3).map(MappingProxyType),
    st.dictionaries(st.text(), st.lists(LONG, max_size=3).map(tuple), max_size=3).map(MappingProxyType),
    st.uuids(),
    st.datetimes(timezones=st.just(UTC)),
    st.dates(),
    st.times(),
    st.none() | st.lists(st.text(), max_size=3).map(tuple),
)
typeds = st.builds(
    Typed,
    st.integers(-999_999, 999_999).map(lambda n: Decimal(n).scaleb(-2)),
    st.integers(-99_999_999, 99_999_999).map(lambda n: Decimal(n).scaleb(-1)),
    st.binary(min_size=3, max_size=3),
    st.binary(min_size=3, max_size=3),
    st.floats(width=32, allow_nan=False),
    st.integers(-(1 << 40), 1 << 40).map(lambda ms: datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms)),
    st.datetimes(),
    st.integers(0, 86_399_999).map(lambda ms: (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms)).time()),
    LONG,
    st.none() | st.text(),
    st.uuids(),
    st.uuids(),
    LONG,
    st.binary(min_size=12, max_size=12),
    st.datetimes().map(lambda at: at.replace(microsecond=at.microsecond // 1000 * 1000)),
)

"""The records of the jobs under test, and their bytes made without kstate: plain schemaless Avro."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from fastavro import parse_schema, schemaless_reader, schemaless_writer


@dataclass(frozen=True, slots=True)
class Line:
    """A line of text; `id` is its place in the input."""

    id: int
    text: str


@dataclass(frozen=True, slots=True)
class Word:
    """A word and the line that it stands in."""

    word: str
    line: int


@dataclass(frozen=True, slots=True)
class Entry:
    """Something that happened on an account; `note` may order the handler to fail."""

    account: str
    id: int
    note: str


@dataclass(frozen=True, slots=True)
class Sum:
    """The state of a key: how many ids, and their sum."""

    n: int
    total: int


@dataclass(frozen=True, slots=True)
class NamedSum:
    """`Sum` as the next version keeps it."""

    total: int = 0
    n: int = 0
    label: str = "none"


@dataclass(frozen=True, slots=True)
class Tally:
    """The result for one record: the key's n-th, its id, and the sum of all ids so far."""

    key: str
    n: int
    total: int
    id: int


_FIELDS: Mapping[type[Any], Mapping[str, str]] = {
    Line: {"id": "long", "text": "string"},
    Entry: {"account": "string", "id": "long", "note": "string"},
    Tally: {"key": "string", "n": "long", "total": "long", "id": "long"},
}
_SCHEMAS = {
    kind: parse_schema(
        {"type": "record", "name": kind.__name__, "fields": [{"name": n, "type": t} for n, t in f.items()]}
    )
    for kind, f in _FIELDS.items()
}


def encoded(record: Line | Entry) -> bytes:
    """The bytes of an input record."""
    out = io.BytesIO()
    schemaless_writer(out, _SCHEMAS[type(record)], asdict(record))
    return out.getvalue()


def decoded_tally(data: bytes) -> Tally:
    """A result from its bytes."""
    fields: Any = schemaless_reader(io.BytesIO(data), _SCHEMAS[Tally], None)
    return Tally(**fields)

"""Reads many values of an older or newer schema by columns, where the class's fields are flat.

A field that the class does not have is read and dropped, one that was not written gets its default; all others must be
the same bytes, or integers and floats of another width. Anything else is left to the slow way, one by one: producers
are upgraded before the jobs that read them, and until then each of their records comes this way.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from kstate.adapters.avro_codec import BATCH_MIN, READ_ERRORS, AvroCodec
from kstate.adapters.avro_columns import Column, Page, column_of, nullable_column, rows_of
from kstate.adapters.avro_resolution import ResolvingDecoder
from kstate.adapters.avro_types import Choice, Nullable, Record, Scalar, Shape
from kstate.errors import DecodeError
from kstate.evolution import named_types

_WIDENED = frozenset({("int", "long"), ("float", "double")})
"""(written, read): other bytes, the same value in Python."""


class EvolvedDecoder:
    """What a `ResolvingDecoder` does, faster for many values."""

    def __init__(self, codec: AvroCodec, slow: ResolvingDecoder, written: str) -> None:
        """`slow` resolves `written`, a canonical text, to the codec's type."""
        self.decode = slow.decode
        self._slow = slow
        self._shape = codec.shape
        self._columns = _columns(json.loads(written), json.loads(codec.schema), codec.shape)

    def decode_many(self, data: Sequence[bytes]) -> list[Any]:
        """`decode` of each; when one fails, which is not said: decode them one by one to find it."""
        if self._columns is None or len(data) < BATCH_MIN:
            return self._slow.decode_many(data)
        try:
            return self._read(data, self._columns)
        except READ_ERRORS as error:
            raise DecodeError(f"One of {len(data)} values is not of its writer's schema: {error}.") from error

    def _read(self, data: Sequence[bytes], columns: Sequence[tuple[str | None, Column]]) -> list[Any]:
        shape = self._shape
        assert isinstance(shape, Record)
        page = Page.of(data)
        read = [(name, column(page)) for name, column in columns]
        if (page.at != page.end).any():
            raise DecodeError(f"At least one of {len(data)} values has bytes left over.")
        values = {name: column for name, column in read if name is not None}
        sample = self.decode(data[0])  # it has the defaults of what was not written
        return rows_of(shape.cls)(
            [values[name] if name in values else [getattr(sample, name)] * len(data) for name, _ in shape.fields]
        )


def layout(text: str) -> Any:
    """A schema without what does not decide which bytes mean what: names of types, defaults."""
    schema = json.loads(text)
    return _bare(schema, named_types(schema))


def _bare(schema: Any, types: Mapping[str, Any]) -> Any:
    schema = types.get(schema, schema) if isinstance(schema, str) else schema
    match schema:
        case list():
            return [_bare(branch, types) for branch in schema]
        case {"fields": fields}:
            return [(field["name"], _bare(field["type"], types)) for field in fields]
        case dict():
            dropped = ("name", "default", "items", "values")
            parts = [_bare(schema[key], types) for key in ("items", "values") if key in schema]
            return ({key: value for key, value in schema.items() if key not in dropped}, *parts)
    return schema


def _columns(written: Any, read: Any, shape: Shape) -> list[tuple[str | None, Column]] | None:
    """In the order in which they were written: field of the class, None for one that it does not have, and column."""
    if not isinstance(shape, Record) or not isinstance(written, dict) or written.get("type") != "record":
        return None
    written_types, read_types = named_types(written), named_types(read)
    parts = dict(shape.fields)
    now = {field["name"]: _bare(field["type"], read_types) for field in read["fields"]}
    found: list[tuple[str | None, Column]] = []
    for field in written["fields"]:
        name, before = field["name"], _bare(field["type"], written_types)
        column = _kept(before, now[name], parts[name]) if name in now else _dropped(field["type"], written_types)
        if column is None:
            return None
        found.append((name if name in now else None, column))
    return found


def _kept(before: Any, now: Any, shape: Shape) -> Column | None:
    """A field that the class has, by bare schemas."""
    if before == now:
        return column_of(shape)
    if isinstance(now, list) and isinstance(shape, Nullable) and not _is_union(before):
        return _kept(before, now[1 - shape.null], shape.item)
    plain = isinstance(before, str) and isinstance(now, str)
    return column_of(Scalar(before)) if plain and (before, now) in _WIDENED else None


def _is_union(bare: Any) -> bool:
    """A bare record is a list, too: of pairs."""
    return isinstance(bare, list) and not all(isinstance(part, tuple) and isinstance(part[0], str) for part in bare)


def _dropped(schema: Any, types: Mapping[str, Any]) -> Column | None:
    """A field that nobody needs; its bytes are checked all the same."""
    schema = types.get(schema, schema) if isinstance(schema, str) else schema
    match schema:
        case [a, b] if "null" in (a, b):
            inner = _dropped(b if a == "null" else a, types)
            return inner and nullable_column(inner, 0 if a == "null" else 1)
        case {"type": "record", "fields": fields}:
            columns = [_dropped(field["type"], types) for field in fields]
            return _all([column for column in columns if column]) if None not in columns else None
        case {"type": "enum", "symbols": symbols}:
            return column_of(Choice(tuple(symbols)))
        case str(name) | {"type": str(name)}:
            return column_of(Scalar(name))
    return None


def _all(columns: Sequence[Column]) -> Column:
    def read(page: Page) -> list[Any]:
        for column in columns:
            column(page)
        return [None] * len(page.at)

    return read

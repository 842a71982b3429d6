"""Reads many schemaless Avro values at once, column by column with numpy: the hot path of most jobs.

First the first field of all values, then the second, each at its own position: three to four times as fast as value
by value. And strict: every value must end exactly at its last byte. Shapes with arrays, maps, fixed or logical types
are left to fastavro.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, make_dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kstate.adapters.avro_types import Choice, Nullable, Record, Scalar, Shape
from kstate.errors import DecodeError

BatchReader = Callable[[Sequence[bytes], bytes], list[Any] | None]
"""(values, what each must begin with) → what stands behind that; None when one begins otherwise."""

_VARINT_BYTES_MAX = 10


def batch_reader_of(shape: Shape) -> BatchReader | None:
    """The reader of many values of a flat shape, None when it is not flat."""
    column = column_of(shape)
    if column is None:
        return None

    def read(values: Sequence[bytes], head: bytes) -> list[Any] | None:
        page = Page.of(values)
        if head and not page.behind(head):
            return None
        column_values = column(page)
        if (page.at != page.end).any():
            raise DecodeError(f"At least one of {len(values)} values has bytes left over.")
        return column_values

    return read


def constructor_of(cls: type[Any]) -> Callable[..., Any]:
    """A function of the fields in order that makes a record; for frozen slotted dataclasses faster than `cls` itself.

    A frozen dataclass sets each field through `object.__setattr__`. A mutable twin with the same slots is filled by
    plain assignment, then becomes the frozen class: the layout of both is the same, so Python allows the change.
    """
    twin = _mutable_twin(cls)
    if twin is None:
        return cls

    def construct(*values: Any) -> Any:
        record = twin(*values)
        record.__class__ = cls
        return record

    return construct


@dataclass(slots=True)
class Page:
    """Many encoded values in one piece; `at[i]` is where the next field of value i starts, `end[i]` its end."""

    joined: bytes
    raw: NDArray[np.uint8]
    at: NDArray[np.int64]
    end: NDArray[np.int64]

    @classmethod
    def of(cls, values: Sequence[bytes]) -> Page:
        joined = b"".join(values)
        end = np.cumsum(np.fromiter(map(len, values), np.int64, len(values)))
        start = np.concatenate((np.zeros(1, np.int64), end[:-1]))
        # Padding: a torn integer at the very end is read as zeros, and then found to be too long.
        return cls(joined, np.frombuffer(joined + bytes(_VARINT_BYTES_MAX), np.uint8), start, end)

    def behind(self, head: bytes) -> bool:
        """Move behind these bytes; False when one value does not begin with them."""
        if ((self.end - self.at) < len(head)).any():
            return False
        found = self.raw[self.at[:, None] + np.arange(len(head))]
        self.at = self.at + len(head)
        return bool((found == np.frombuffer(head, np.uint8)).all())

    def advance(self, widths: NDArray[np.int64] | int) -> None:
        """Move behind the field just read; DecodeError when a value is shorter than that."""
        self.at = self.at + widths
        if (self.at > self.end).any():
            raise DecodeError("At least one value ends in the middle of a field.")


def _read_longs(page: Page) -> NDArray[np.int64]:
    at = page.at.copy()
    byte = page.raw[at]
    value = (byte & 127).astype(np.uint64)
    rows = np.flatnonzero(byte > 127)
    shift = 7
    while rows.size:
        if shift >= 7 * _VARINT_BYTES_MAX:
            raise DecodeError("At least one value has an integer of more than 64 bits.")
        at[rows] += 1
        byte = page.raw[at[rows]]
        value[rows] |= (byte & 127).astype(np.uint64) << np.uint64(shift)
        rows = rows[byte > 127]
        shift += 7
    page.advance(at + 1 - page.at)
    return (value >> np.uint64(1)).astype(np.int64) ^ -(value & np.uint64(1)).astype(np.int64)


def _read_ints(page: Page) -> list[int]:
    values = _read_longs(page)
    if ((values < -(1 << 31)) | (values >= 1 << 31)).any():
        raise DecodeError("At least one value has an int of more than 32 bits.")
    numbers: list[int] = values.tolist()
    return numbers


def _read_fixed(page: Page, dtype: str, width: int) -> list[Any]:
    start = page.at
    page.advance(width)
    return np.ascontiguousarray(page.raw[start[:, None] + np.arange(width)]).view(dtype).ravel().tolist()


def _read_booleans(page: Page) -> list[bool]:
    values = page.raw[page.at]
    page.advance(1)
    if (values > 1).any():
        raise DecodeError("At least one value has a boolean that is neither 0 nor 1.")
    truths: list[bool] = values.astype(np.bool_).tolist()
    return truths


def _read_slices(page: Page) -> list[bytes]:
    lengths = _read_longs(page)
    if ((lengths < 0) | (lengths > len(page.joined))).any():  # the sum below must neither go back nor wrap around
        raise DecodeError("At least one value has an impossible length.")
    start = page.at
    page.advance(lengths)
    joined = page.joined
    return [joined[lo:hi] for lo, hi in zip(start.tolist(), page.at.tolist(), strict=True)]


def _read_strings(page: Page) -> list[str]:
    try:
        return [data.decode() for data in _read_slices(page)]
    except UnicodeDecodeError as error:
        raise DecodeError(f"At least one value has a string that is not UTF-8: {error}.") from error


def _indexes(page: Page, count: int, what: str) -> NDArray[np.int64]:
    values = _read_longs(page)
    if ((values < 0) | (values >= count)).any():
        raise DecodeError(f"At least one value has {what} that does not exist.")
    return values


Column = Callable[[Page], list[Any]]
"""Reads one field of all values of a page."""


def column_of(shape: Shape) -> Column | None:
    """The reader of a shape, None for one that is left to fastavro."""
    match shape:
        case Scalar(avro, ""):
            return _SCALAR_COLUMNS.get(avro)
        case Choice(members):
            return lambda page: [members[i] for i in _indexes(page, len(members), "a symbol").tolist()]
        case Nullable(item, null):
            column = column_of(item)
            return column and nullable_column(column, null)
        case Record(cls, fields):
            columns = [column for _, part in fields if (column := column_of(part))]
            return _record_column(cls, columns) if fields and len(columns) == len(fields) else None
        case _:
            return None


def nullable_column(column: Column, null: int) -> Column:
    """Of a union of null, at index `null`, and what the column reads."""

    def read(page: Page) -> list[Any]:
        rows = np.flatnonzero(_indexes(page, 2, "a branch") != null)
        values: list[Any] = [None] * len(page.at)
        part = Page(page.joined, page.raw, page.at[rows], page.end[rows])
        for row, value in zip(rows.tolist(), column(part), strict=True):
            values[row] = value
        page.at[rows] = part.at
        return values

    return read


def _record_column(cls: type[Any], columns: Sequence[Column]) -> Column:
    make = rows_of(cls)
    return lambda page: make([column(page) for column in columns])


def rows_of(cls: type[Any]) -> Callable[[Sequence[list[Any]]], list[Any]]:
    """A function that makes records of their fields' values, column by column in the constructor's order."""
    twin = _mutable_twin(cls)

    def make(columns: Sequence[list[Any]]) -> list[Any]:
        records = list(map(twin or cls, *columns))
        if twin:
            for record in records:
                record.__class__ = cls
        return records

    return make


def _mutable_twin(cls: type[Any]) -> type[Any] | None:
    """A class with the same slots and a plain constructor; None unless the class is a plain slotted dataclass."""
    slots = tuple(vars(cls).get("__slots__", ()))
    options = getattr(cls, "__dataclass_params__", None)
    plain = options is not None and options.init and cls.__bases__ == (object,) and not hasattr(cls, "__post_init__")
    if not plain or slots != getattr(cls, "__match_args__", ()):
        return None
    return make_dataclass(f"_{cls.__name__}", slots, slots=True)


_SCALAR_COLUMNS: dict[str, Column] = {
    "null": lambda page: [None] * len(page.at),
    "boolean": _read_booleans,
    "int": _read_ints,
    "long": lambda page: _read_longs(page).tolist(),
    "float": lambda page: _read_fixed(page, "<f4", 4),
    "double": lambda page: _read_fixed(page, "<f8", 8),
    "string": _read_strings,
    "bytes": _read_slices,
}

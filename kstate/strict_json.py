"""JSON objects read strictly: every field present, of its type, within its range, and none more.

Anything else is a DecodeError that names where it stands, what was expected and what was found.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from typing import TypeVar

from kstate.errors import DecodeError

E = TypeVar("E", bound=StrEnum)
K = TypeVar("K")
T = TypeVar("T")

_INT64_MAX = (1 << 63) - 1


class Fields:
    """The fields of one JSON object, taken out by name and type; `end` checks that none is left over."""

    def __init__(self, value: object, where: str) -> None:
        if not isinstance(value, dict):
            raise _fault(where, "an object", value)
        self._rest: dict[str, object] = dict(value)
        self._where = where

    def fault(self, name: str, expected: str, found: object) -> DecodeError:
        return _fault(f"{self._where}.{name}", expected, found)

    def end(self) -> None:
        if self._rest:
            raise _fault(self._where, "no further field", min(self._rest))

    def text(self, name: str) -> str:
        return text_at(self._take(name), f"{self._where}.{name}")

    def text_or_none(self, name: str) -> str | None:
        value = self._take(name)
        return None if value is None else text_at(value, f"{self._where}.{name}")

    def whole(self, name: str, least: int = 0) -> int:
        return whole_at(self._take(name), f"{self._where}.{name}", least)

    def whole_or_none(self, name: str) -> int | None:
        value = self._take(name)
        return None if value is None else whole_at(value, f"{self._where}.{name}")

    def choice(self, name: str, kind: type[E]) -> E:
        """A text that is a value of an enum."""
        value = self.text(name)
        if value not in {member.value for member in kind}:
            raise self.fault(name, f"one of {', '.join(member.value for member in kind)}", value)
        return kind(value)

    def flag(self, name: str) -> bool:
        value = self._take(name)
        if not isinstance(value, bool):
            raise self.fault(name, "true or false", value)
        return value

    def fields(self, name: str) -> Fields:
        return Fields(self._take(name), f"{self._where}.{name}")

    def optional(self, name: str, read: Callable[[object, str], T]) -> T | None:
        """Null, or what a function of (value, where it stands) reads."""
        value = self._take(name)
        return None if value is None else read(value, f"{self._where}.{name}")

    def each(self, name: str, read: Callable[[object, str], T]) -> tuple[T, ...]:
        """Every item of a list, read by a function of (item, where it stands)."""
        where = f"{self._where}.{name}"
        return tuple(read(item, f"{where}[{i}]") for i, item in enumerate(list_at(self._take(name), where)))

    def numbers(self, name: str) -> dict[str, int]:
        """An object of text → whole number."""
        return {key: whole_at(value, f"{self._where}.{name}") for key, value in self._pairs(name)}

    def texts(self, name: str) -> dict[str, str]:
        """An object of text → text."""
        return {key: text_at(value, f"{self._where}.{name}") for key, value in self._pairs(name)}

    def _pairs(self, name: str) -> list[tuple[str, object]]:
        value, where = self._take(name), f"{self._where}.{name}"
        if not isinstance(value, dict):
            raise _fault(where, "an object", value)
        return [(text_at(key, where), item) for key, item in value.items()]

    def _take(self, name: str) -> object:
        if name not in self._rest:
            raise _fault(self._where, f"a field '{name}'", "none")
        return self._rest.pop(name)


def dump(value: Mapping[str, object]) -> bytes:
    """A JSON object as compact UTF-8."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def load(data: bytes, what: str) -> Fields:
    """The fields of a JSON object in UTF-8; `what` names the thing in errors. Raises DecodeError."""
    try:
        value = json.loads(data.decode(), object_pairs_hook=_no_twins, parse_constant=_no_constant)
    except (ValueError, RecursionError) as fault:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise _fault(what, "a JSON object in UTF-8", f"{bytes(data[:40])!r} ({fault})") from fault
    return Fields(value, what)


def text_at(value: object, where: str) -> str:
    """A text that can be written again. Raises DecodeError."""
    if not isinstance(value, str):
        raise _fault(where, "a text", value)
    if not value.isascii() and any("\ud800" <= char <= "\udfff" for char in value):
        raise _fault(where, "a text without lone surrogates", ascii(value))
    return value


def whole_at(value: object, where: str, least: int = 0) -> int:
    """A whole number that fits 64 bits. Raises DecodeError."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= _INT64_MAX:
        raise _fault(where, f"a whole number from {least} to {_INT64_MAX}", value)
    return value


def row_at(value: object, where: str, width: int) -> list[object]:
    """A list of a fixed length. Raises DecodeError."""
    row = list_at(value, where)
    if len(row) != width:
        raise _fault(where, f"a list of {width}", row)
    return row


def unique(pairs: Iterable[tuple[K, T]], where: str) -> dict[K, T]:
    """Pairs as a mapping. Raises DecodeError for a key given twice."""
    mapping: dict[K, T] = {}
    for key, value in pairs:
        if key in mapping:
            raise _fault(where, "each key once", f"{key!r} twice")
        mapping[key] = value
    return mapping


def list_at(value: object, where: str) -> list[object]:
    """A list. Raises DecodeError."""
    if not isinstance(value, list):
        raise _fault(where, "a list", value)
    return value


def _no_twins(pairs: list[tuple[str, object]]) -> dict[str, object]:
    return unique(pairs, "object")


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is no JSON number")


def _fault(where: str, expected: str, found: object) -> DecodeError:
    shown = found if isinstance(found, str) else _shown(found)
    return DecodeError(f"{where}: expected {expected}, found {shown[:120]!a}.", hint="run one release everywhere.")


def _shown(found: object) -> str:
    """A value as text; an integer of thousands of digits has none (Python's own limit)."""
    try:
        return repr(found)
    except ValueError:
        return f"a {type(found).__name__} too long to show"

"""Defaults of record classes as Avro says them: what lets a newer class read what was stored before it had a field."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from enum import Enum
from typing import Any, Final

_NONE_IN_JSON: Final = object()
_INTEGERS: Mapping[str, int] = {"int": 31, "long": 63}


def json_default(cls: type[Any], name: str, schema: Any) -> dict[str, Any]:
    """`{"default": …}` for a field of a class and the schema of its type; empty where Avro has no simple form.

    Fields made by a factory have no default here: it might make another value each time.
    """
    default = _python_default(cls, name)
    value = _NONE_IN_JSON if default is dataclasses.MISSING else _in_json(schema, default)
    return {} if value is _NONE_IN_JSON else {"default": value}


def _python_default(cls: type[Any], name: str) -> Any:
    if dataclasses.is_dataclass(cls):
        return next(field.default for field in dataclasses.fields(cls) if field.name == name)
    return getattr(cls, "_field_defaults", {}).get(name, dataclasses.MISSING)


def _in_json(schema: Any, value: Any) -> Any:
    match schema, value:
        case "null", None:
            return None
        case "boolean", bool():
            return value
        case (("int" | "long"), int()) if not isinstance(value, bool):
            return value if -1 << _INTEGERS[schema] <= value < 1 << _INTEGERS[schema] else _NONE_IN_JSON
        case (("float" | "double"), float()) if math.isfinite(value):
            return value
        case "string", str() if not isinstance(value, Enum):
            return value
        case "bytes", bytes():
            return value.decode("latin-1")
        case list(), _:
            found = (_in_json(branch, value) for branch in schema)
            return next((each for each in found if each is not _NONE_IN_JSON), _NONE_IN_JSON)
        case {"type": "enum"}, Enum():
            return value.value
        case {"type": "array", "items": items}, tuple():
            parts = [_in_json(items, each) for each in value]
            return parts if _NONE_IN_JSON not in parts else _NONE_IN_JSON
        case {"type": "map", "values": values}, Mapping():
            entries = {key: _in_json(values, each) for key, each in value.items()}
            return entries if _NONE_IN_JSON not in entries.values() else _NONE_IN_JSON
    return _NONE_IN_JSON

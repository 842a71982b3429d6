"""Avro schemas as values: canonical text and fingerprint. Pure; parts of the stored format.

The canonical text is JSON with sorted keys, no spaces and full names, and keeps all that decides how bytes are read:
logical types, precision, scale and defaults too, which Avro's own parsing canonical form drops (with it millis, micros
and a plain long would be one schema). Documentation, aliases and field order hints are left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

FINGERPRINT_BYTES = 8

PRIMITIVES = frozenset({"null", "boolean", "int", "long", "float", "double", "bytes", "string"})

_KEPT = ("size", "symbols", "logicalType", "precision", "scale", "default")


def canonical(schema: Any) -> str:
    """The canonical text of a schema given as parsed JSON; ValueError when it has not the form of a schema."""
    return json.dumps(_normal(schema, ""), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def fingerprint(canonical_text: str) -> bytes:
    """Eight bytes that identify a schema: the start of SHA-256 over its canonical text in UTF-8."""
    return sha256(canonical_text.encode()).digest()[:FINGERPRINT_BYTES]


def full_name(name: str, namespace: str) -> str:
    """A name with its namespace, as references resolve it; primitive types have none."""
    return name if "." in name or not namespace or name in PRIMITIVES else f"{namespace}.{name}"


def with_types(schema: Any, types: Mapping[str, Any]) -> Any:
    """A canonical schema (parsed) with the types that it only names, by full name, in place where first mentioned."""
    return _placed(schema, types, set())


def _placed(schema: Any, types: Mapping[str, Any], known: set[str]) -> Any:
    match schema:
        case str() if schema in types and schema not in known:
            return _placed(types[schema], types, known)
        case list():
            return [_placed(branch, types, known) for branch in schema]
        case dict():
            known |= {schema["name"]} if "name" in schema else set()
            whole = {
                key: _placed(part, types, known) if key in ("items", "values") else part for key, part in schema.items()
            }
            if "fields" in schema:
                whole["fields"] = [
                    {**field, "type": _placed(field["type"], types, known)} for field in schema["fields"]
                ]
            return whole
    return schema


def _normal(schema: Any, namespace: str) -> Any:
    """The schema reduced to what decides how bytes are read, names in full."""
    match schema:
        case str():
            return full_name(schema, namespace)
        case list():
            return [_normal(branch, namespace) for branch in schema]
        case {"type": dict() | list() as inner}:
            return _normal(inner, namespace)
        case {"type": str(kind)}:
            return _normal_object(kind, schema, namespace)
        case _:
            raise ValueError(f"{schema!r} is no schema: expected a name, a union in [] or an object with a type")


def _normal_object(kind: str, schema: dict[str, Any], namespace: str) -> Any:
    kept: dict[str, Any] = {"type": full_name(kind, namespace)}
    kept |= {key: schema[key] for key in _KEPT if key in schema}
    if kind in ("record", "error", "enum", "fixed"):
        kept["type"] = kind
        kept["name"] = full_name(_needed(schema, "name"), schema.get("namespace", namespace))
        namespace = kept["name"].rpartition(".")[0]
    match kind:
        case "record" | "error":
            kept["fields"] = [_normal_field(field, namespace) for field in _needed(schema, "fields")]
        case "array":
            kept["type"], kept["items"] = kind, _normal(_needed(schema, "items"), namespace)
        case "map":
            kept["type"], kept["values"] = kind, _normal(_needed(schema, "values"), namespace)
    return kept["type"] if kept.keys() == {"type"} else kept


def _normal_field(field: Any, namespace: str) -> dict[str, Any]:
    if not isinstance(field, dict):
        raise ValueError(f"{field!r} is no field: expected an object with name and type")
    kept = {"name": _needed(field, "name"), "type": _normal(_needed(field, "type"), namespace)}
    return kept | {key: field[key] for key in ("default",) if key in field}


def _needed(schema: dict[str, Any], key: str) -> Any:
    if key not in schema:
        raise ValueError(f"{schema.get('name', schema)!r} lacks {key!r}")
    return schema[key]

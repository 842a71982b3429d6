"""What the type annotations of records, keys and states say; questions only, nothing is kept."""

from __future__ import annotations

import dataclasses
import types
import typing
from enum import Enum
from typing import Any, Union

from kstate.errors import ConfigError


def record_fields(kind: Any) -> dict[str, Any] | None:
    """Field name → type of a dataclass or NamedTuple, in order; None for anything else.

    Raises ConfigError when an annotation names something that is not known at module level.
    """
    if not isinstance(kind, type):
        return None
    if dataclasses.is_dataclass(kind):
        names = [field.name for field in dataclasses.fields(kind)]
    elif issubclass(kind, tuple) and hasattr(kind, "_fields"):
        names = list(kind._fields)
    else:
        return None
    try:
        hints = typing.get_type_hints(kind)
    except NameError as error:
        raise ConfigError(
            f"The annotations of {type_name(kind)} cannot be read: {error}.", hint="define the types at module level."
        ) from error
    return {name: hints.get(name, Any) for name in names}


def nullable_of(kind: Any) -> Any | None:
    """T of `T | None`, None for every other type."""
    if typing.get_origin(kind) not in (Union, types.UnionType):
        return None
    others = [arg for arg in typing.get_args(kind) if arg is not types.NoneType]
    return others[0] if len(others) == 1 and len(typing.get_args(kind)) == 2 else None


def element_of(kind: Any) -> Any | None:
    """T of `tuple[T, ...]`, None for every other type."""
    args = typing.get_args(kind)
    return args[0] if typing.get_origin(kind) is tuple and len(args) == 2 and args[1] is Ellipsis else None


def is_enum(kind: Any) -> bool:
    """Whether the type is an enumeration."""
    return isinstance(kind, type) and issubclass(kind, Enum)


def type_name(kind: Any) -> str:
    """A type as people write it."""
    if kind is None or kind is types.NoneType:
        return "None"
    if typing.get_origin(kind) is None and hasattr(kind, "__qualname__"):
        return str(kind.__qualname__).rpartition("<locals>.")[2]
    return repr(kind).replace("typing.", "")

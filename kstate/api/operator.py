"""The operator: a class with a stable uid, inputs, outputs, keyed state, and handlers that attach to its inputs."""

from __future__ import annotations

import typing
from typing import Any, ClassVar, Generic, TypeVar

from kstate.api.declaration import Declaration
from kstate.errors import ConfigError

K = TypeVar("K")


class Operator(Generic[K]):
    """Base of users' operators; `K` is the type of the key, None for an operator without state that takes any key.

    A subclass with `uid="name"` can run in a job; the uid is part of the identity of its state and topics, so it must
    never change. One without uid is an abstract base. Parameters are class attributes: subclass with another uid to set
    them differently. Instances are made by the engine, without arguments.
    """

    uid: ClassVar[str | None] = None
    key: K
    """The key of the record being handled."""

    def __init_subclass__(cls, *, uid: str | None = None) -> None:
        super().__init_subclass__()
        if taken := sorted(name for name in _RESERVED if isinstance(vars(cls).get(name), Declaration)):
            raise ConfigError(
                f"{cls.__qualname__}.{taken[0]} is a name of Operator itself.", hint="rename the declaration."
            )
        cls.uid = uid
        for name, declaration in declarations(cls).items():
            if (declaration.owner, declaration.attribute) != (cls, name):
                setattr(cls, name, declaration.copied_to(cls, name))

    def open(self) -> None:
        """Called once before the first record, in the worker's process: load models, open files."""

    def close(self) -> None:
        """Called once after the last record of an orderly stop."""


class Reject(Exception):  # noqa: N818 - it is an order to the engine, not a failure
    """Raise it in a handler: the record goes to the dead-letter topic with this reason, nothing else of it remains."""


def declarations(cls: type[Any]) -> dict[str, Declaration[Any]]:
    """Inputs, outputs and states of an operator class, inherited ones too, in order of declaration."""
    found: dict[str, Declaration[Any]] = {}
    for base in reversed(cls.__mro__):
        for name, value in vars(base).items():
            if isinstance(value, Declaration):
                found[name] = value
            else:
                found.pop(name, None)
    return found


def key_type_of(cls: type[Any]) -> Any:
    """K of the Operator[K] that a class derives from, through generic bases; TypeVar when it was left open."""
    for base in vars(cls).get("__orig_bases__", cls.__bases__):
        origin = typing.get_origin(base) or base
        if origin is Operator:
            return (typing.get_args(base) or (K,))[0]
        if isinstance(origin, type) and issubclass(origin, Operator):
            inner = key_type_of(origin)
            open_types = getattr(origin, "__parameters__", ())
            return dict(zip(open_types, typing.get_args(base), strict=False)).get(inner, inner)
    return K


_RESERVED = ("uid", "key", "open", "close")

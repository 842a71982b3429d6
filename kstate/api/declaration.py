"""What inputs, outputs and states have in common: they are declared on a class and bound in its instances.

A class attribute is a *declaration*: typed, immutable once its class exists, shared by all instances. The engine puts a
*bound handle* of the same static type into the instance's `__dict__` under the attribute's name; so declarations define
no `__get__`/`__set__`. One used as if it were bound raises ConfigError, naming operator and attribute.
"""

from __future__ import annotations

import copy
from typing import Any, Generic, NoReturn, TypeVar

from kstate.errors import ConfigError
from kstate.typeinfo import type_name

S = TypeVar("S")


class Declaration(Generic[S]):
    """Base of what is declared on an operator: `declared` holds its options, `owner` and `attribute` its place."""

    declared: S
    owner: type[Any] | None = None
    attribute: str = ""

    def __set_name__(self, owner: type[Any], name: str) -> None:
        if self.owner is None:
            self.owner = owner
            self.attribute = name

    def __str__(self) -> str:
        return f"{type_name(self.owner)}.{self.attribute}" if self.owner else f"{type(self).__name__}(…)"

    def copied_to(self, owner: type[Any], name: str) -> Any:
        """The same options at another place: its own identity, hence its own topics and state."""
        twin = copy.copy(self)
        twin.owner = owner
        twin.attribute = name
        return twin

    def unbound(self, method: str, *_arguments: object) -> NoReturn:
        """Refuse a call that only a bound handle can answer."""
        uid = getattr(self.owner, "uid", None)
        raise ConfigError(
            f"{self}.{method}() was called on the declaration of operator {uid!r}, which holds nothing.",
            hint=f"call self.{self.attribute or '<name>'}.{method}() in a handler; tests use kstate.testing.",
        )

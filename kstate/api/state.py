"""Keyed state: what an operator remembers of each key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, TypeVar, overload

from kstate.api.declaration import Declaration

T = TypeVar("T")
D = TypeVar("D")


@dataclass(frozen=True, slots=True)
class StateOptions:
    """A state as declared; `name` is its identity in the backups, the attribute's name when None."""

    type: Any
    has_default: bool
    default: Any
    name: str | None


class ValueState(Declaration[StateOptions], Generic[T]):
    """One value per key of `type_`: a record, bool, int, Int32, float, str, bytes, UUID, a tuple or mapping of them.

    Without `default=` a key that has no value reads as None, and `T` includes None. Values are immutable: change one by
    `set`. `name=` keeps the identity of stored state when the attribute is renamed.
    """

    @overload
    def __init__(self: ValueState[D], type_: type[D], /, *, default: D, name: str | None = None) -> None: ...
    @overload
    def __init__(self: ValueState[D | None], type_: type[D], /, *, name: str | None = None) -> None: ...
    def __init__(self, type_: Any, /, *, name: str | None = None, **default: Any) -> None:
        if unknown := default.keys() - {"default"}:
            raise TypeError(f"ValueState() has no option {', '.join(sorted(unknown))}; it knows default= and name=")
        self.declared = StateOptions(type_, bool(default), default.get("default"), name)

    def get(self) -> T:
        """The value of the current key, the default (or None) when it has none."""
        self.unbound("get")

    def set(self, value: T, /) -> None:
        """Give the current key this value; None clears it."""
        self.unbound("set", value)

    def pop(self) -> T:
        """`get`, then `clear`."""
        self.unbound("pop")

    def clear(self) -> None:
        """Forget the value of the current key."""
        self.unbound("clear")

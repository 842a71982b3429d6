"""Keyed state: what an operator remembers of each key, and partial state that belongs to no key."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Generic, Protocol, Self, TypeVar, overload

from kstate.api.declaration import Declaration

T = TypeVar("T")
D = TypeVar("D")
K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class StateOptions:
    """A state as declared; `name` is its identity in the backups, the attribute's name when None."""

    type: Any
    has_default: bool
    default: Any
    name: str | None
    ttl: timedelta | None = None
    key_type: Any = None
    """Of the keys within a map."""


class ValueState(Declaration[StateOptions], Generic[T]):
    """One value per key of `type_`: a record, bool, int, Int32, float, str, bytes, UUID, a tuple or mapping of them.

    Without `default=` a key that has no value reads as None, and `T` includes None. Values are immutable: change one by
    `set`. `name=` keeps the identity of stored state when the attribute is renamed. With `ttl=` a value is forgotten
    so long (event time) after it was last set; reading does not refresh it.
    """

    @overload
    def __init__(
        self: ValueState[D], type_: type[D], /, *, default: D, ttl: timedelta | None = None, name: str | None = None
    ) -> None: ...
    @overload
    def __init__(
        self: ValueState[D | None], type_: type[D], /, *, ttl: timedelta | None = None, name: str | None = None
    ) -> None: ...
    def __init__(self, type_: Any, /, *, ttl: timedelta | None = None, name: str | None = None, **default: Any) -> None:
        if unknown := default.keys() - {"default"}:
            raise TypeError(
                f"ValueState() has no option {', '.join(sorted(unknown))}; it knows default=, ttl= and name="
            )
        self.declared = StateOptions(type_, bool(default), default.get("default"), name, ttl)

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

    def get_many(self, keys: Sequence[Any], /) -> list[T]:
        """The value of each of these keys of the current batch (`.batch` handlers: `ctx.keys`).

        One with ttl is seen if the first record of its key in the batch sees it.
        """
        self.unbound("get_many", keys)

    def set_many(self, keys: Sequence[Any], values: Sequence[T], /) -> None:
        """Give each of these keys of the current batch its value; of a key that occurs twice the last one stays.

        One with ttl is forgotten so long after the last record of its key in the batch.
        """
        self.unbound("set_many", keys, values)


class ListState(Declaration[StateOptions], Generic[T]):
    """A list per key, stored element by element: appending to a long one costs no more than to a short one.

    With `ttl=` each element is forgotten so long (event time) after it was added.
    """

    def __init__(self, type_: type[T], /, *, ttl: timedelta | None = None, name: str | None = None) -> None:
        self.declared = StateOptions(type_, has_default=False, default=None, name=name, ttl=ttl)

    def get(self) -> tuple[T, ...]:
        """All elements of the current key, in order."""
        self.unbound("get")

    def append(self, value: T, /) -> None:
        """Add an element at the end."""
        self.unbound("append", value)

    def extend(self, values: Iterable[T], /) -> None:
        """Add elements at the end."""
        self.unbound("extend", values)

    def set(self, values: Iterable[T], /) -> None:
        """Replace all elements."""
        self.unbound("set", values)

    def clear(self) -> None:
        """Forget all elements of the current key."""
        self.unbound("clear")

    def __len__(self) -> int:  # noqa: PLE0303 - it never returns
        self.unbound("__len__")

    def __iter__(self) -> Iterator[T]:
        self.unbound("__iter__")


class MapState(Declaration[StateOptions], Generic[K, V]):
    """A mapping per key, stored entry by entry: reading or changing one entry touches no other.

    Keys within the map are of the types that message keys may have. Iteration is in the order of the canonical key
    bytes. An entry set to None is removed. With `ttl=` each entry is forgotten so long (event time) after it was
    last set.
    """

    def __init__(
        self, key_type: type[K], type_: type[V], /, *, ttl: timedelta | None = None, name: str | None = None
    ) -> None:
        self.declared = StateOptions(type_, has_default=False, default=None, name=name, ttl=ttl, key_type=key_type)

    @overload
    def get(self, key: K, /) -> V | None: ...
    @overload
    def get(self, key: K, default: D, /) -> V | D: ...
    def get(self, key: Any, default: Any = None, /) -> Any:
        """The entry, `default` when there is none."""
        self.unbound("get", key, default)

    def __getitem__(self, key: K) -> V:
        self.unbound("__getitem__", key)

    def __setitem__(self, key: K, value: V) -> None:
        self.unbound("__setitem__", key, value)

    def __delitem__(self, key: K) -> None:
        self.unbound("__delitem__", key)

    def __contains__(self, key: object) -> bool:
        self.unbound("__contains__", key)

    def __len__(self) -> int:  # noqa: PLE0303 - it never returns
        self.unbound("__len__")

    def __iter__(self) -> Iterator[K]:
        self.unbound("__iter__")

    def items(self) -> Iterator[tuple[K, V]]:
        """All entries of the current key; the map may be changed while they are gone through."""
        self.unbound("items")

    def keys(self) -> Iterator[K]:
        """The keys of all entries."""
        self.unbound("keys")

    def values(self) -> Iterator[V]:
        """The values of all entries."""
        self.unbound("values")

    def pop(self, key: K, /) -> V | None:
        """Remove an entry and return it, None when there is none."""
        self.unbound("pop", key)

    def update(self, entries: Mapping[K, V], /) -> None:
        """Set several entries."""
        self.unbound("update", entries)

    def clear(self) -> None:
        """Forget all entries of the current key."""
        self.unbound("clear")


class Splittable(Protocol):
    """A record class whose objects can be kept as PartialState."""

    def split(self, fraction: float, /) -> tuple[Self, Self]:
        """Two objects that stand for the lower `fraction` of the slots and for the rest."""
        ...

    def merge(self, other: Self, /) -> Self:
        """One object that stands for both; `other` is that of the higher slots."""
        ...


P = TypeVar("P", bound=Splittable)


class PartialState(Declaration[StateOptions], Generic[P]):
    """One object per key range, for what is not keyed data: a sketch, a sample, a counter of everything.

    Its class says how an object is split and merged when key ranges are (the paper's custom and partial state); that
    must not lose or double anything, which nobody else can check. Objects are immutable: change one by `set`.
    """

    def __init__(self, type_: type[P], /, *, initial: Callable[[], P], name: str | None = None) -> None:
        self.declared = StateOptions(type_, has_default=True, default=initial, name=name)

    def get(self) -> P:
        """The object of the key range that the current record belongs to."""
        self.unbound("get")

    def set(self, value: P, /) -> None:
        """Replace it."""
        self.unbound("set", value)

"""Bound handles of states with many values per key: ListState and MapState, over the cells of the current entry."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from kstate.api.state import ListState, MapState
from kstate.interfaces import KeyCodec
from kstate.state.cells import Cells
from kstate.state.columns import ABSENT
from kstate.state.values import expiring
from kstate.worker.handles import Cursor

_LAST_NUMBER = (1 << 64) - 1


class _CellsOfKey:
    """The cells of the current key, and what a ttl makes of their values."""

    def __init__(self, cursor: Cursor, index: int, ttl_ms: int | None) -> None:
        self._cursor = cursor
        self._index = index
        self._ttl_ms = ttl_ms

    def cells(self) -> Cells:
        cursor = self._cursor
        found = cursor.entry.values[self._index]
        return cursor.cache.cells(cursor.entry, self._index, cursor.store) if found is ABSENT else found

    def get(self, subkey: bytes) -> Any:
        """The value at a subkey, ABSENT when there is none or it has expired."""
        found = self.cells().get(subkey)
        if found is ABSENT or self._ttl_ms is None:
            return found
        return found.value if self._cursor.visible(found.at) else ABSENT

    def put(self, subkey: bytes, value: Any) -> None:
        """Set the value at a subkey, from now on."""
        cursor = self._cursor
        if self._ttl_ms is not None:
            value = expiring(value, cursor.event_time, self._ttl_ms)
        self.cells().put(subkey, value, cursor.journal)

    def remove(self, subkey: bytes) -> None:
        self.cells().remove(subkey, self._cursor.journal)

    def clear(self) -> None:
        self.cells().clear(self._cursor.journal)

    def items(self) -> list[tuple[bytes, Any]]:
        """What has not expired, in the order of subkeys."""
        found = self.cells().items()
        if self._ttl_ms is None:
            return found
        visible = self._cursor.visible
        return [(subkey, each.value) for subkey, each in found if visible(each.at)]

    def __len__(self) -> int:
        return len(self.cells() if self._ttl_ms is None else self.items())


class BoundList(ListState[Any]):
    """A ListState of the current key; see kstate.state.cells for how elements are numbered."""

    def __init__(self, cursor: Cursor, index: int, ttl_ms: int | None = None) -> None:
        self._cells = _CellsOfKey(cursor, index, ttl_ms)

    def get(self) -> tuple[Any, ...]:
        return tuple(value for _, value in reversed(self._cells.items()))

    def append(self, value: Any, /) -> None:
        newest = self._cells.cells().first()
        number = 0 if newest is None else _LAST_NUMBER - int.from_bytes(newest[0], "big") + 1
        self._cells.put((_LAST_NUMBER - number).to_bytes(8, "big"), value)

    def extend(self, values: Iterable[Any], /) -> None:
        for value in tuple(values):
            self.append(value)

    def set(self, values: Iterable[Any], /) -> None:
        elements = tuple(values)  # they may come from this very list
        self._cells.clear()
        self.extend(elements)

    def clear(self) -> None:
        self._cells.clear()

    def __len__(self) -> int:
        return len(self._cells)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.get())


class BoundMap(MapState[Any, Any]):
    """A MapState of the current key. A key that is not of the map's type is a ValueError, wherever it is used."""

    def __init__(self, cursor: Cursor, index: int, keys: KeyCodec[Any], ttl_ms: int | None = None) -> None:
        self._cells = _CellsOfKey(cursor, index, ttl_ms)
        self._encode = keys.encode
        self._decode = keys.decode

    def get(self, key: Any, default: Any = None, /) -> Any:
        found = self._cells.get(self._encode(key))
        return default if found is ABSENT else found

    def __getitem__(self, key: Any) -> Any:
        found = self._cells.get(self._encode(key))
        if found is ABSENT:
            raise KeyError(key)
        return found

    def __setitem__(self, key: Any, value: Any) -> None:
        subkey = self._encode(key)
        if value is None:
            self._cells.remove(subkey)
        else:
            self._cells.put(subkey, value)

    def __delitem__(self, key: Any) -> None:
        subkey = self._encode(key)
        if self._cells.get(subkey) is ABSENT:
            raise KeyError(key)
        self._cells.remove(subkey)

    def __contains__(self, key: object) -> bool:
        return self._cells.get(self._encode(key)) is not ABSENT

    def __len__(self) -> int:
        return len(self._cells)

    def __iter__(self) -> Iterator[Any]:
        return self.keys()

    def items(self) -> Iterator[tuple[Any, Any]]:
        return iter([(self._decode(subkey), value) for subkey, value in self._cells.items()])

    def keys(self) -> Iterator[Any]:
        return iter([self._decode(subkey) for subkey, _ in self._cells.items()])

    def values(self) -> Iterator[Any]:
        return iter([value for _, value in self._cells.items()])

    def pop(self, key: Any, /) -> Any:
        subkey = self._encode(key)
        found = self._cells.get(subkey)
        self._cells.remove(subkey)
        return None if found is ABSENT else found

    def update(self, entries: Mapping[Any, Any], /) -> None:
        for key, value in tuple(entries.items()):
            self[key] = value

    def clear(self) -> None:
        self._cells.clear()

"""Timers and windows without process loop or log: bound handles, cache, agendas and firing over a memory store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

from kstate.adapters.avro import AvroCodecs
from kstate.api.specs import StateSpec, TimerSpec, ValueSpec, WindowSpec
from kstate.api.windows import Hopping, Session, Tumbling
from kstate.interfaces import Store
from kstate.keyspace import FULL_RANGE, KeyRange
from kstate.state.agenda import MEMORY_ITEMS, Agendas
from kstate.state.cache import Entry, StateCache
from kstate.state.columns import StateColumn
from kstate.state.layout import shard_prefix
from kstate.testing.memory_store import MemoryStore
from kstate.worker.firing import Due, Firing, timer_due, window_due
from kstate.worker.handles import Cursor
from kstate.worker.rejects import Rejects
from kstate.worker.timer_handles import BoundTimer, BoundTimerMap
from kstate.worker.value_handles import BoundExpiringValue, BoundValue
from kstate.worker.window_handles import bound_window

OPERATOR, PARTITION = 2, 3
_CODECS = AvroCodecs()


class Rig:
    """One shard of one operator whose handlers are plain functions (instance, …, context).

    `instance` has the handles as attributes, and `key`; the context is the cursor.
    """

    def __init__(
        self,
        *specs: StateSpec,
        ranges: Sequence[KeyRange] = (FULL_RANGE,),
        store: Store | None = None,
        memory_items: int = MEMORY_ITEMS,
    ) -> None:
        self.store = store or MemoryStore()
        self.enough = False
        self.ranges = list(ranges)
        self.pieces: list[Any] = []
        self._memory_items = memory_items
        self._specs = specs
        self.columns = [_column(spec, index) for index, spec in enumerate(specs)]
        self.cursor = Cursor()
        self.cursor.store = self.store
        self.instance: Any = SimpleNamespace(key=None)
        self.rejects = Rejects("timed", 10_000)
        self.firing = self._wired()
        self.start()

    def start(self) -> None:
        """A process that has nothing but the store."""
        self.cache = StateCache(shard_prefix(OPERATOR, PARTITION), self.columns, _CODECS.key(str).decode)
        self.shard: Any = SimpleNamespace(cache=self.cache, shard=SimpleNamespace(partition=PARTITION))
        self._place()

    def rollback(self) -> None:
        """The running epoch never was."""
        self.cache.discard()
        self._place()

    def commit(self) -> None:
        """End the epoch: what it changed is in the store."""
        keys: list[bytes] = []
        values: list[bytes | None] = []
        for piece in self.pieces:
            mine = [entry for entry in self.cache.changed if entry.slot in piece.key_range]
            changes = self.cache.changes(mine)
            index = piece.agendas.changes(self.columns, changes.times)
            keys += [*(shard_prefix(OPERATOR, PARTITION) + suffix for suffix in changes.suffixes), *index[0]]
            values += [*changes.values, *index[1]]
        self.store.write(keys, values)
        self.cache.settle(sum(map(len, filter(None, values))))
        for piece in self.pieces:
            piece.agendas.settled()
        self.rejects.clear()

    def forget(self) -> None:
        """What is cached is cached no more."""
        self.cache.turn()
        self.cache.turn()

    def coalesce(self) -> None:
        """Two pieces become one."""
        low, high = self.pieces
        low.agendas.absorb(high.agendas)
        low.key_range = KeyRange(low.key_range.lo, high.key_range.hi)
        self.pieces = [low]
        self.ranges = [low.key_range]

    def call(
        self, key: str, act: Callable[[Any], Any], event_time: int = 1, watermark: int = -1, clock_ms: int = 0
    ) -> Any:
        """Handle a record of a key: what `act`, given the instance, returns; undone when it raises."""
        cursor = self.cursor
        (entry,) = self.cache.entries([key.encode()], self.store, lambda _: None)
        cursor.piece = self._piece_of(entry)
        cursor.cache, cursor.changed = self.cache, self.cache.changed
        cursor.entry, cursor.key_bytes, cursor.row = entry, entry.key_bytes, 0
        cursor.event_times, cursor.watermarks, cursor.clock_ms = (event_time,), (watermark,), clock_ms
        self.instance.key = key
        try:
            result = act(self.instance)
        except Exception:
            cursor.undo()
            raise
        cursor.journal.clear()
        return result

    def fire(self, upto: int, clock: Any = "event", watermark: int | None = None) -> bool:
        """Fire all that is due of all pieces; by default the watermark is what made it due."""
        seen = upto if watermark is None else watermark
        done = [self.firing.fire_due(self.shard, piece, clock, upto, seen) for piece in self.pieces]
        return all(done)

    def indexed(self) -> list[bytes]:
        """The keys of the time index."""
        return [key for key, _ in self.store.scan(b"\x00\x00\x03", b"\x00\x00\x04")]

    def stored(self) -> int:
        """Number of values in the store."""
        return sum(1 for _ in self.store.scan(shard_prefix(1, 0), b"\xff"))

    def _piece_of(self, entry: Entry) -> Any:
        return next(piece for piece in self.pieces if entry.slot in piece.key_range)

    def _place(self) -> None:
        self.pieces = [
            SimpleNamespace(
                key_range=r, touched=False, agendas=Agendas(self.store, OPERATOR, PARTITION, r, self._memory_items)
            )
            for r in self.ranges
        ]

    def _wired(self) -> Firing:
        callee: Any = (self.instance, self.cursor)
        due: dict[str, Due] = {}
        for index, spec in enumerate(self._specs):
            handle: Any
            if isinstance(spec, TimerSpec):
                tags = None if spec.tag_type is None else _CODECS.key(spec.tag_type)
                handle = (
                    BoundTimer(self.cursor, index, spec)
                    if tags is None
                    else BoundTimerMap(self.cursor, index, spec, tags)
                )
                due[spec.name] = timer_due(spec, callee, tags)
            elif isinstance(spec, WindowSpec):
                handle = bound_window(self.cursor, index, spec)
                due[spec.name] = window_due(spec, callee)
            else:
                assert isinstance(spec, ValueSpec)
                handle = (
                    BoundValue(self.cursor, index, None)
                    if spec.ttl_ms is None
                    else BoundExpiringValue(self.cursor, index, None, spec.ttl_ms)
                )
            setattr(self.instance, spec.attribute, handle)
        return Firing(due, self.instance, self.cursor, self.columns, self.rejects, lambda: self.enough)


def timer(name: str, handler: Callable[..., None], *, clock: Any = "event", tag_type: Any = None) -> TimerSpec:
    """A timer or, with `tag_type`, a map of timers."""
    return TimerSpec(name=name, attribute=name, type=type(None), clock=clock, tag_type=tag_type, handler=handler)


def window(
    name: str,
    kind: Tumbling | Hopping | Session,
    handler: Callable[..., None] | None,
    *,
    type_: Any = int,
    default: Any = 0,
    merge: Callable[[Any, Any], Any] | None = None,
) -> WindowSpec:
    """A window state."""
    return WindowSpec(name=name, attribute=name, type=type_, window=kind, default=default, merge=merge, handler=handler)


def value(name: str, type_: Any = int, ttl_ms: int | None = None) -> ValueSpec:
    """A value per key."""
    return ValueSpec(name=name, attribute=name, type=type_, has_default=False, default=None, ttl_ms=ttl_ms)


def _column(spec: StateSpec, index: int) -> StateColumn:
    codec, ttl = _CODECS.value(spec.type), getattr(spec, "ttl_ms", None)
    timeline = spec.clock if isinstance(spec, TimerSpec) else "event" if isinstance(spec, WindowSpec) else "ttl"
    expiring = ttl is not None or isinstance(spec, TimerSpec | WindowSpec)
    return StateColumn(
        name=spec.name,
        state_id=index + 1,
        schema_id=index + 1,
        codec=codec,
        value_bytes_max=10_000,
        expiring=expiring,
        cells=isinstance(spec, WindowSpec) or getattr(spec, "tag_type", None) is not None,
        timeline=timeline if expiring else None,
    )

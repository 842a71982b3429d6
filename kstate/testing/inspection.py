"""What workers have committed, as a test sees it: the state of a key, of whatever kind, and partial state.

Read from the workers' local stores, which hold exactly what was committed, without asking the workers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from kstate.api.specs import ListSpec, MapSpec, OperatorSpec, PartialSpec, StateSpec, TimerSpec, ValueSpec, WindowSpec
from kstate.interfaces import Codecs
from kstate.keyspace import slot_of
from kstate.plan import Tile
from kstate.state.cells import prefix_end
from kstate.state.layout import key_suffix, parse_suffix, shard_bounds, shard_prefix
from kstate.state.lineage import stored_lineage
from kstate.state.partial_cells import parse_cell
from kstate.state.partition import object_within
from kstate.state.values import split_value
from kstate.testing.cluster import Cluster
from kstate.testing.memory_store import MemoryStore
from kstate.times import UNKNOWN_TIME
from kstate.worker.window_handles import window_of


class _Cell(NamedTuple):
    """A stored value; `expiry` None: never."""

    subkey: bytes
    expiry: int | None
    payload: bytes


class Inspection:
    """Reads the committed state of a running cluster."""

    def __init__(self, cluster: Cluster, codecs: Codecs) -> None:
        self._cluster = cluster
        self._codecs = codecs

    def state(self, spec: OperatorSpec, state: StateSpec, key_bytes: bytes) -> Any:
        """The state of a key in the form that users think of it; see `Driver.state`."""
        cells = self._cells(spec, state, key_bytes)
        match state:
            case TimerSpec(tag_type=None):
                return next((cell.expiry for cell in cells), None)
            case TimerSpec(tag_type=type_) if type_ is not None:
                decode_tag = self._codecs.key(type_).decode
                return {decode_tag(cell.subkey): cell.expiry for cell in cells}
        decode = self._codecs.value(state.type).decode
        match state:
            case ListSpec():
                return tuple(decode(cell.payload) for cell in reversed(cells))
            case MapSpec():
                decode_key = self._codecs.key(state.key_type).decode
                return {decode_key(cell.subkey): decode(cell.payload) for cell in cells}
            case WindowSpec():
                return {window_of(cell.subkey): decode(cell.payload) for cell in cells}
            case ValueSpec() if not cells:
                return state.default
        return next((decode(cell.payload) for cell in cells), None)

    def partial(self, spec: OperatorSpec, state: PartialSpec) -> Any:
        """The objects of all key ranges merged, in order of partition and slot; the first object when there is none."""
        decode, merged = self._codecs.value(state.type).decode, None
        operator_id, state_id = self._ids(spec, state)
        for tile, store in self._tiles(spec):
            prefix = shard_prefix(operator_id, tile.shard.partition)
            for stored_key, data in store.scan(*shard_bounds(operator_id, tile.shard.partition, tile.key_range)):
                suffix = stored_key[len(prefix) :]
                if parse_suffix(suffix).state_id == state_id:
                    cell = parse_cell(suffix)
                    value = object_within(decode(split_value(data).payload), cell.nominal, cell.valid)
                    merged = value if merged is None else merged.merge(value)
        return state.initial() if merged is None else merged

    def _cells(self, spec: OperatorSpec, state: StateSpec, key_bytes: bytes) -> list[_Cell]:
        """What is stored for a key in a state, in order of subkeys, without what has expired."""
        operator_id, state_id = self._ids(spec, state)
        slot = slot_of(key_bytes)
        suffix = key_suffix(slot, state_id, key_bytes)
        for tile, store in self._tiles(spec):
            if slot not in tile.key_range:
                continue
            lo = shard_prefix(operator_id, tile.shard.partition) + suffix
            found = [(stored_key[len(lo) :], split_value(data)) for stored_key, data in store.scan(lo, prefix_end(lo))]
            if found:
                position = stored_lineage(store, operator_id, tile.shard.partition).get(slot)
                expired = UNKNOWN_TIME if position is None or not _has_ttl(state) else position.times.watermark
                cells = [_Cell(subkey, stored.expiry, stored.payload) for subkey, stored in found]
                return [cell for cell in cells if cell.expiry is None or cell.expiry > expired]
        return []

    def _tiles(self, spec: OperatorSpec) -> Iterator[tuple[Tile, MemoryStore]]:
        """The tiles of an operator with the stores of their owners, in order of partition and slot."""
        plan = self._cluster.plan()
        assert plan is not None, "the driver runs"
        processes = self._cluster.processes
        for tile in sorted(plan.tiles, key=lambda t: (t.shard.partition, t.key_range)):
            if tile.shard.operator == spec.uid and tile.worker in processes:
                yield tile, self._cluster.stores[processes[tile.worker].name]

    def _ids(self, spec: OperatorSpec, state: StateSpec) -> tuple[int, int]:
        """Of operator and state, in the plan's registry."""
        plan = self._cluster.plan()
        assert plan is not None, "the driver runs"
        return plan.registry.operators[spec.uid], plan.registry.states[spec.uid, state.name]


def _has_ttl(state: StateSpec) -> bool:
    """Whether what is stored may be there though nobody sees it any more."""
    return getattr(state, "ttl_ms", None) is not None

"""Builds the running form of a topology: operator instances with bound handles, decoders, and shards with their
caches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from kstate.api.operator import Operator
from kstate.api.specs import InputSpec, OperatorSpec, OutputSpec, StateSpec, TimerSpec, Topology, WindowSpec
from kstate.config import Settings
from kstate.interfaces import Codecs, EventLog, Store
from kstate.plan import Plan, Shard
from kstate.state.agenda import Agendas
from kstate.state.cache import StateCache
from kstate.state.layout import shard_prefix
from kstate.state.replay import plan_starts
from kstate.state.restore import TimedState
from kstate.worker.admission import Admission
from kstate.worker.binding import Binding
from kstate.worker.decode import input_decoder
from kstate.worker.firing import Callee, Due, Firing, timer_due, window_due
from kstate.worker.formats import output_codec
from kstate.worker.handles import BoundContext, Cursor, Handles
from kstate.worker.handling import Call, Handling
from kstate.worker.output_handles import BoundOutput, OutputRoute
from kstate.worker.ownership import OwnedShard, PieceMaker
from kstate.worker.partial import PartialStore
from kstate.worker.process import Machinery, Processor, tracks_time
from kstate.worker.rejects import Rejects
from kstate.worker.surroundings import Surroundings
from kstate.worker.value_handles import BoundTable
from kstate.worker.watermarks import Watermarks
from kstate.worker.window_handles import BoundWindow


@dataclass(frozen=True, slots=True)
class Assembly:
    """Makes processors and shards for one plan's ids and partition counts."""

    topology: Topology
    codecs: Codecs
    settings: Settings
    log: EventLog
    """Logger that handlers see as `ctx.log`."""

    def processors(self, plan: Plan, around: Surroundings) -> dict[str, Processor]:
        """A processor per operator, by uid."""
        return {spec.uid: self._processor(spec, plan, around) for spec in self.topology.operators}

    def ids(self, plan: Plan) -> list[tuple[int | None, ...]]:
        """The ids that a plan gives the operators and states of this topology: they stand in every stored key."""
        registry = plan.registry
        return [
            (registry.operators.get(spec.uid), *(registry.states.get((spec.uid, state.name)) for state in spec.states))
            for spec in self.topology.operators
        ]

    def shard(self, shard: Shard, plan: Plan, store: Store) -> OwnedShard:
        """A shard of which nothing is owned yet."""
        spec = self.topology.operator(shard.operator)
        operator_id = plan.registry.operators[spec.uid]
        binding = self._binding(spec, plan)
        prefix = shard_prefix(operator_id, shard.partition)
        keyed = spec.key_type is not type(None)
        decode_key = self.codecs.key(spec.key_type).decode if keyed else _no_key
        cache = StateCache(prefix, binding.columns(), decode_key)
        lateness = {each.topic: each.lateness_ms for each in spec.inputs if each.table is None and not each.internal}
        streams = [each.topic for each in spec.inputs if each.internal]
        partials = PartialStore(store, prefix, binding.partial_columns())
        maker = PieceMaker(
            watermarks=lambda times: Watermarks(times, lateness, streams),
            agendas=lambda key_range: Agendas(store, operator_id, shard.partition, key_range),
            partials=partials.load,
        )
        partial = frozenset(column.column.state_id for column in binding.partial_columns())
        return OwnedShard(shard, operator_id, cache, plan_starts(plan, shard), maker, partial)

    def timed_states(self, uid: str, plan: Plan) -> dict[int, TimedState]:
        """State id → what the local time index needs to know of it (kstate.state.restore)."""
        columns = self._binding(self.topology.operator(uid), plan).columns()
        return {column.state_id: TimedState(column.name, column.timeline) for column in columns if column.timeline}

    def partial_states(self, uid: str, plan: Plan) -> frozenset[int]:
        """The ids of the operator's partial states (kstate.state.partial_cells)."""
        columns = self._binding(self.topology.operator(uid), plan).partial_columns()
        return frozenset(column.column.state_id for column in columns)

    def _binding(self, spec: OperatorSpec, plan: Plan) -> Binding:
        return Binding(spec, self.codecs, plan, self.settings.state.value_bytes_max)

    def _processor(self, spec: OperatorSpec, plan: Plan, around: Surroundings) -> Processor:
        instance, cursor, binding = spec.cls(), Cursor(), self._binding(spec, plan)
        columns, context = binding.columns(), BoundContext(cursor, self.log)
        bound = {state.attribute: binding.handle(cursor, index) for index, state in enumerate(spec.states)}
        outputs: dict[str, BoundOutput] = {}
        for output in spec.outputs:
            outputs[output.name] = BoundOutput(
                cursor, output_codec(output, self.codecs).encode, self._route(output, plan)
            )
        for attribute, handle in {**bound, **outputs}.items():
            setattr(instance, attribute, handle)
        windows = [handle for handle in bound.values() if isinstance(handle, BoundWindow)]
        handles = Handles(cursor, context, outputs, windows)
        stops = self.topology.on_error == "stop"
        rejects = Rejects(spec.uid, self.settings.state.output_bytes_max, stops=stops)
        keyed = spec.key_type is not type(None)
        decoders = {each.topic: input_decoder(each, spec.key_type, self.codecs) for each in spec.inputs}
        due = {state.name: _due_of(state, (instance, context), self.codecs) for state in spec.states}
        fires = {name: each for name, each in due.items() if each}
        machinery = Machinery(
            Admission(spec.uid, decoders, rejects, around, keyed=keyed, timed=tracks_time(spec)),
            Handling(instance, handles, columns, rejects),
            Firing(fires, instance, cursor, columns, rejects, around.is_full),
        )
        calls = {each.topic: _call(each, spec, instance, cursor) for each in spec.inputs}
        return Processor(spec, instance, handles, calls, machinery, around)

    def _route(self, output: OutputSpec, plan: Plan) -> OutputRoute:
        return OutputRoute(
            name=output.name,
            topic=output.topic,
            partitions=plan.partitions[output.topic],
            key_of=self._key_of(output),
            encode_key=self.codecs.key(Any if output.key_type is None else output.key_type).encode,
            bytes_max=self.settings.state.output_bytes_max,
            kind="internal" if output.internal else output.timestamp,
        )

    def _key_of(self, output: OutputSpec) -> Callable[[Any], bytes] | None:
        if output.key is None:
            return None
        take = attrgetter(output.key) if isinstance(output.key, str) else output.key
        encode = self.codecs.key(output.key_type).encode
        return lambda record: encode(take(record))


def _call(given: InputSpec, spec: OperatorSpec, instance: Operator[Any], cursor: Cursor) -> Call:
    """The handler of an input as a plain function; of a table, what takes its records in and then calls it."""
    handler = None if given.handler is None else given.handler.__get__(instance)
    if given.table is None:
        assert handler is not None
        return Call(handler, given.batch)
    index = next(i for i, state in enumerate(spec.states) if state.attribute == given.table)
    take_in = BoundTable(cursor, index).take_in

    def take(record: Any, context: Any) -> None:
        take_in(record)
        if handler is not None:
            handler(record, context)

    return Call(take, batch=False)


def _due_of(state: StateSpec, callee: Callee, codecs: Codecs) -> Due | None:
    """What happens when something of a state falls due; None where nothing does."""
    match state:
        case TimerSpec(tag_type=None):
            return timer_due(state, callee, None)
        case TimerSpec():
            return timer_due(state, callee, codecs.key(state.tag_type))
        case WindowSpec():
            return window_due(state, callee)
        case _:
            return None


def _no_key(key: bytes) -> None:
    """Stateless operators have no key."""

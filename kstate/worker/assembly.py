"""Builds the running form of a topology: operator instances with bound handles, decoders, and shards with their
caches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from typing import Any

from kstate.api.specs import OperatorSpec, OutputSpec, StateSpec, Topology
from kstate.config import Settings
from kstate.errors import ConfigError
from kstate.interfaces import Codecs, EventLog
from kstate.plan import Plan, Shard
from kstate.state.cache import StateCache, StateColumn
from kstate.state.columns import Decoder
from kstate.state.layout import shard_prefix
from kstate.state.replay import plan_starts
from kstate.worker.decode import input_decoder
from kstate.worker.formats import output_codec
from kstate.worker.handles import BoundContext, BoundOutput, Cursor, Handles, OutputRoute
from kstate.worker.ownership import OwnedShard
from kstate.worker.process import Processor
from kstate.worker.rejects import Rejects
from kstate.worker.value_handles import BoundValue


@dataclass(frozen=True, slots=True)
class Assembly:
    """Makes processors and shards for one plan's ids and partition counts."""

    topology: Topology
    codecs: Codecs
    settings: Settings
    log: EventLog
    """Logger that handlers see as `ctx.log`."""

    def processors(self, plan: Plan) -> dict[str, Processor]:
        """A processor per operator, by uid."""
        return {spec.uid: self._processor(spec, plan) for spec in self.topology.operators}

    def ids(self, plan: Plan) -> list[tuple[int | None, ...]]:
        """The ids that a plan gives the operators and states of this topology: they stand in every stored key."""
        registry = plan.registry
        return [
            (registry.operators.get(spec.uid), *(registry.states.get((spec.uid, state.name)) for state in spec.states))
            for spec in self.topology.operators
        ]

    def shard(self, shard: Shard, plan: Plan) -> OwnedShard:
        """A shard of which nothing is owned yet."""
        spec = self.topology.operator(shard.operator)
        operator_id = plan.registry.operators[spec.uid]
        keyed = spec.key_type is not type(None)
        decode_key = self.codecs.key(spec.key_type).decode if keyed else _no_key
        columns = [self._column(spec, state, plan) for state in spec.states]
        cache = StateCache(shard_prefix(operator_id, shard.partition), columns, decode_key)
        return OwnedShard(shard, operator_id, cache, plan_starts(plan, shard))

    def _processor(self, spec: OperatorSpec, plan: Plan) -> Processor:
        instance, cursor = spec.cls(), Cursor()
        for index, state in enumerate(spec.states):
            setattr(instance, state.attribute, BoundValue(cursor, index, getattr(state, "default", None)))
        outputs: dict[str, BoundOutput] = {}
        for output in spec.outputs:
            bound = BoundOutput(cursor, output_codec(output, self.codecs).encode, self._route(output, plan))
            setattr(instance, output.name, bound)
            outputs[output.name] = bound
        return Processor(
            spec,
            instance,
            Handles(cursor, BoundContext(cursor, self.log), outputs),
            {each.topic: input_decoder(each, spec.key_type, self.codecs) for each in spec.inputs},
            [self._column(spec, state, plan) for state in spec.states],
            Rejects(spec.uid, self.settings.state.output_bytes_max),
        )

    def _route(self, output: OutputSpec, plan: Plan) -> OutputRoute:
        return OutputRoute(
            name=output.name,
            topic=output.topic,
            partitions=plan.partitions[output.topic],
            key_of=self._key_of(output),
            bytes_max=self.settings.state.output_bytes_max,
            kind="internal" if output.internal else output.timestamp,
        )

    def _key_of(self, output: OutputSpec) -> Callable[[Any], bytes] | None:
        if output.key is None:
            return None
        take = attrgetter(output.key) if isinstance(output.key, str) else output.key
        encode = self.codecs.key(output.key_type).encode
        return lambda record: encode(take(record))

    def _column(self, spec: OperatorSpec, state: StateSpec, plan: Plan) -> StateColumn:
        codec = self.codecs.value(state.type)
        ids: Mapping[str, int] = {text: schema_id for schema_id, text in plan.registry.schemas.items()}
        if codec.schema not in ids or (spec.uid, state.name) not in plan.registry.states:
            raise ConfigError(
                f"Plan {plan.version} of {plan.app!r} does not know state {state.name!r} of operator {spec.uid!r} "
                f"with schema {codec.schema}.",
                hint="this worker runs other code than the coordinator: deploy the same build to both.",
            )
        state_id = plan.registry.states[(spec.uid, state.name)]
        limit, texts = self.settings.state.value_bytes_max, plan.registry.schemas
        older = partial(older_decoder, self.codecs, state, texts)
        return StateColumn(state.name, state_id, ids[codec.schema], codec, limit, decoder_of=older)


def older_decoder(codecs: Codecs, state: StateSpec, texts: Mapping[int, str], schema_id: int) -> Decoder:
    """Reads values of a state that another build wrote with this schema; `texts` are those of the plan, by id."""
    if schema_id not in texts:
        raise ConfigError(
            f"State {state.name!r} holds a value of schema {schema_id}, which the plan does not know.",
            hint="the local store is not of this job's plan: delete the worker's data folder, the backup has it all.",
        )
    return codecs.resolving(state.type, texts[schema_id])


def _no_key(key: bytes) -> None:
    """Stateless operators have no key."""

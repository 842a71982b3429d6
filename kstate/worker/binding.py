"""What a handler sees as `self.state`: a bound handle for each declared state, and how the state is stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from kstate.api.declaration import Declaration
from kstate.api.specs import (
    ListSpec,
    MapSpec,
    OperatorSpec,
    PartialSpec,
    StateSpec,
    TableSpec,
    TimerSpec,
    ValueSpec,
    WindowSpec,
)
from kstate.errors import ConfigError
from kstate.interfaces import Codecs
from kstate.plan import Plan
from kstate.state.columns import Decoder, StateColumn
from kstate.state.layout import Timeline
from kstate.worker.collection_handles import BoundList, BoundMap
from kstate.worker.handles import Cursor
from kstate.worker.partial import PartialColumn
from kstate.worker.timer_handles import BoundTimer, BoundTimerMap
from kstate.worker.value_handles import BoundExpiringValue, BoundPartial, BoundTable, BoundValue
from kstate.worker.window_handles import bound_window


@dataclass(frozen=True, slots=True)
class Binding:
    """Makes columns and handles of one operator's states, by one plan's ids."""

    spec: OperatorSpec
    codecs: Codecs
    plan: Plan
    value_bytes_max: int

    def columns(self) -> list[StateColumn]:
        """A column per state, in order of declaration."""
        return [self._column(state) for state in self.spec.states]

    def partial_columns(self) -> list[PartialColumn]:
        """The states that belong to no key."""
        columns = self.columns()
        return [
            PartialColumn(index, columns[index], state.initial)
            for index, state in enumerate(self.spec.states)
            if isinstance(state, PartialSpec)
        ]

    def handle(self, cursor: Cursor, index: int) -> Declaration[Any]:
        """The handle of the index-th state."""
        match self.spec.states[index]:
            case ValueSpec(default=default, ttl_ms=None):
                return BoundValue(cursor, index, default)
            case ValueSpec(default=default, ttl_ms=int(ttl_ms)):
                return BoundExpiringValue(cursor, index, default, ttl_ms)
            case TableSpec():
                return BoundTable(cursor, index)
            case ListSpec(ttl_ms=ttl):
                return BoundList(cursor, index, ttl)
            case MapSpec(key_type=key_type, ttl_ms=ttl):
                return BoundMap(cursor, index, self.codecs.key(key_type), ttl)
            case PartialSpec():
                return BoundPartial(cursor, index)
            case WindowSpec() as window:
                return bound_window(cursor, index, window)
            case TimerSpec(tag_type=None) as timer:
                return BoundTimer(cursor, index, timer)
            case TimerSpec(tag_type=tag_type) as timer:
                return BoundTimerMap(cursor, index, timer, self.codecs.key(tag_type))
            case other:
                raise AssertionError(f"no handle for {other}")

    def _column(self, state: StateSpec) -> StateColumn:
        codec, registry, uid = self.codecs.value(state.type), self.plan.registry, self.spec.uid
        ids: Mapping[str, int] = {text: schema_id for schema_id, text in registry.schemas.items()}
        if codec.schema not in ids or (uid, state.name) not in registry.states:
            raise ConfigError(
                f"Plan {self.plan.version} of {self.plan.app!r} does not know state {state.name!r} of operator {uid!r} "
                f"with schema {codec.schema}.",
                hint="this worker runs other code than the coordinator: deploy the same build to both.",
            )
        timeline = _timeline(state)
        return StateColumn(
            state.name,
            registry.states[(uid, state.name)],
            ids[codec.schema],
            codec,
            self.value_bytes_max,
            expiring=timeline is not None,
            cells=_has_cells(state),
            timeline=timeline,
            decoder_of=partial(_older_decoder, self.codecs, state, registry.schemas),
        )


def _older_decoder(codecs: Codecs, state: StateSpec, texts: Mapping[int, str], schema_id: int) -> Decoder:
    """Reads values of a state that another build wrote with this schema; `texts` are those of the plan, by id."""
    if schema_id not in texts:
        raise ConfigError(
            f"State {state.name!r} holds a value of schema {schema_id}, which the plan does not know.",
            hint="the local store is not of this job's plan: delete the worker's data folder, the backup has it all.",
        )
    return codecs.resolving(state.type, texts[schema_id])


def _has_cells(state: StateSpec) -> bool:
    """Whether a key has several values of this state."""
    several_timers = isinstance(state, TimerSpec) and state.tag_type is not None
    return several_timers or isinstance(state, ListSpec | MapSpec | WindowSpec | PartialSpec)


def _timeline(state: StateSpec) -> Timeline | None:
    """Which agenda the deadlines of its values go to, None when they have none."""
    match state:
        case TimerSpec(clock=clock):
            return clock
        case WindowSpec():
            return "event"
        case ValueSpec(ttl_ms=int()) | ListSpec(ttl_ms=int()) | MapSpec(ttl_ms=int()):
            return "ttl"
        case _:
            return None

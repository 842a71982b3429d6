"""A topology as plain data for the control plane, which knows neither users' classes nor codecs."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from kstate.api.specs import InputSpec, MapSpec, OperatorSpec, StateSpec, TimerSpec, Topology
from kstate.description import (
    InputDescription,
    JobDescription,
    OperatorDescription,
    OutputDescription,
    StartPosition,
    StateDescription,
)
from kstate.keys import key_signature
from kstate.times import since_epoch_ms


def describe(topology: Topology, schema_of: Callable[[Any], str]) -> JobDescription:
    """The description of a job; `schema_of` gives the canonical schema text of a state's type."""
    operators = tuple(_operator(spec, schema_of) for spec in topology.operators)
    return JobDescription(topology.app, operators, topology.dropped)


def _operator(spec: OperatorSpec, schema_of: Callable[[Any], str]) -> OperatorDescription:
    return OperatorDescription(
        spec.uid,
        key_signature(spec.key_type),
        tuple(_input(each) for each in spec.inputs),
        tuple(
            OutputDescription(each.name, each.topic, each.internal, schema_of(each.record) if each.internal else "")
            for each in spec.outputs
        ),
        tuple(StateDescription(each.name, schema_of(each.type), _form(each)) for each in spec.states),
    )


def _form(state: StateSpec) -> str:
    """What is stored, beside the schema of the values: keys within a map and tags must stay readable, too."""
    match state:
        case MapSpec(key_type=subkey) | TimerSpec(tag_type=subkey) if subkey is not None:
            return f"{state.form} by {key_signature(subkey)}"
    return state.form


def _input(given: InputSpec) -> InputDescription:
    return InputDescription(
        given.name,
        given.topic,
        _start(given),
        internal=given.internal,
        source_uid=given.source_uid,
        table=given.table is not None,
    )


def _start(given: InputSpec) -> StartPosition:
    return since_epoch_ms(given.start) if isinstance(given.start, datetime) else given.start

"""From a job as written to a topology the engine can run, or to one error that lists every mistake with its mend."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from types import NoneType
from typing import Any, Literal

from kstate.api.faults import Fault, Faults
from kstate.api.job import Job
from kstate.api.names import app_faults, dropped_faults, duplicates, uid_faults
from kstate.api.operator import Operator, declarations, key_type_of
from kstate.api.rekey import rekey_faults, with_hop
from kstate.api.resolve_ends import input_spec, output_spec, table_spec
from kstate.api.resolve_states import state_spec
from kstate.api.specs import InputSpec, OperatorSpec, Topology
from kstate.api.streams import Input, Output, Table
from kstate.api.wiring import edge_faults, operator_faults
from kstate.errors import ConfigError, numbered

EPOCH_MIN = timedelta(milliseconds=10)
"""A commit takes 6-30 ms; below this an epoch is nothing but commits."""


def resolve(job: Job) -> Topology:
    """The topology of a job; raises one ConfigError that lists every fault of the wiring with its mend."""
    topology, faults = examine(job)
    if faults:
        count = f"{len(faults)} fault{'s' * (len(faults) > 1)}"
        raise ConfigError(f"Job {job.app!r} has {count} in its wiring:{numbered(faults)}")
    return topology


def examine(job: Job) -> tuple[Topology, list[Fault]]:
    """The topology as far as it can be made, and every fault of the wiring; it is usable only without faults."""
    listed: object = job.operators
    if not isinstance(listed, Sequence):
        mend = f"list their classes: Job({job.app!r}, [Split, Count])"
        fault = Fault("job", f"its operators are {listed!r}", mend)
        return Topology(job.app, (), 0), [fault]
    faults = Faults([*app_faults(job.app), *_class_faults(job)])
    epoch_ms = _epoch_ms(job, faults)
    idle_ms = faults.span_ms("job", "idle", job.idle)
    faults.choice("job", "on_error", job.on_error, Literal["dead-letter", "stop"])
    classes = dict.fromkeys(cls for cls in job.operators if _runnable(cls))
    operators = timed(spec for cls in classes for spec in _operators(job.app, cls, faults))
    faults.found += uid_faults(operators)
    for spec in operators:
        faults.found += operator_faults(job.app, spec)
    faults.found += edge_faults(job.app, operators)
    faults.found += dropped_faults(job.dropped, operators)
    topology = Topology(job.app, operators, epoch_ms, tuple(job.dropped), job.on_error, idle_ms)
    return topology, faults.found


def timed(operators: Sequence[OperatorSpec] | Iterator[OperatorSpec]) -> tuple[OperatorSpec, ...]:
    """The operators, each internal output marked whose reader, or one further down, goes by event time."""
    found = tuple(operators)
    wanted: set[str] = set()
    before = -1
    while before < len(wanted):
        before = len(wanted)
        for spec in found:
            if spec.timed or any(output.topic in wanted for output in spec.outputs):
                wanted |= {given.topic for given in spec.inputs if given.internal}
    return tuple(
        replace(spec, outputs=tuple(replace(each, timed=each.topic in wanted) for each in spec.outputs))
        for spec in found
    )


def _operators(app: str, cls: type[Operator[Any]], faults: Faults) -> Iterator[OperatorSpec]:
    """The spec of an operator class that has a uid, behind those of the hops that re-key its inputs."""
    key_type, uid = key_type_of(cls), cls.uid or ""
    declared = declarations(cls).values()
    inputs: list[InputSpec] = []
    for each in declared:
        if isinstance(each, Table):
            inputs.append(table_spec(cls, each, faults))
        elif isinstance(each, Input):
            given = input_spec(app, cls, each, key_type, faults)
            rekey_faults(f"operator {uid!r}, input {given.name!r}", each, given.record, key_type, faults)
            if each.declared.rekey is not None and key_type is not NoneType:
                given, hop = with_hop(app, cls, key_type, given, each.declared.rekey)
                yield hop
            inputs.append(given)
    outputs = tuple(output_spec(app, uid, each, key_type, faults) for each in declared if isinstance(each, Output))
    states = (state_spec(cls, each, faults) for each in declared)
    yield OperatorSpec(uid, cls, key_type, tuple(inputs), outputs, tuple(each for each in states if each))


def _epoch_ms(job: Job, faults: Faults) -> int:
    before = len(faults.found)
    epoch_ms = faults.span_ms("job", "epoch", job.epoch, timedelta(0))
    if len(faults.found) == before and job.epoch < EPOCH_MIN:
        what = f"epoch is {job.epoch}, shorter than {EPOCH_MIN}"
        faults.add("job", what, "use 50 ms or more; the default is one second")
    return epoch_ms


def _class_faults(job: Job) -> Iterator[Fault]:
    """Faults of what the job lists."""
    if not job.operators:
        yield Fault("job", "it has no operators", "list their classes: Job('app', [Split, Count])")
    listed: list[Any] = list(job.operators)
    for cls in listed:
        if not (isinstance(cls, type) and issubclass(cls, Operator)):
            yield Fault(
                f"job, {cls!r}", "it is no operator class", "list classes that derive from Operator, not instances"
            )
        elif cls.uid is None:
            mend = f"class {cls.__name__}(…, uid='name'); a class without uid is an abstract base"
            yield Fault(f"operator class {cls.__qualname__}", "it has no uid", mend)
        elif fault := _constructor_fault(cls):
            yield Fault(f"operator {cls.uid!r}", fault, "make parameters class attributes and set up in open()")
    for uid in duplicates([cls.uid for cls in job.operators if _runnable(cls) and cls.uid]):
        classes = ", ".join(
            dict.fromkeys(cls.__qualname__ for cls in job.operators if _runnable(cls) and cls.uid == uid)
        )
        yield Fault(
            f"operator {uid!r}",
            f"its uid occurs twice in the job ({classes})",
            "a uid is an identity: give each its own",
        )


def _runnable(cls: Any) -> bool:
    return isinstance(cls, type) and issubclass(cls, Operator) and cls.uid is not None


def _constructor_fault(cls: type[Any]) -> str | None:
    """Why an operator cannot be made without arguments."""
    needed = inspect.signature(cls).parameters.values()
    names = [p.name for p in needed if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    return f"the engine makes it without arguments, but __init__ needs {', '.join(names)}" if names else None

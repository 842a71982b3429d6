"""`kstate check JOB`: every mistake in a job's wiring and types, with its mend, before anything starts."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from types import NoneType
from typing import Annotated, Any, TypeVar

import typer

from kstate.adapters.avro import AvroCodecs
from kstate.adapters.registry import open_registry
from kstate.api.faults import Fault
from kstate.api.job import Job
from kstate.api.names import place
from kstate.api.specs import (
    InputSpec,
    MapSpec,
    OperatorSpec,
    OutputSpec,
    PartialSpec,
    StateSpec,
    TableSpec,
    TimerSpec,
    Topology,
    ValueSpec,
    WindowSpec,
)
from kstate.api.topology import examine
from kstate.cli.job_summary import summary
from kstate.cli.jobs import load_job
from kstate.cli.settings import registry_setting
from kstate.errors import ConfigError, numbered
from kstate.interfaces import Codec
from kstate.keys import key_fault
from kstate.typeinfo import type_name


def check(
    job: Annotated[str, typer.Argument(metavar="JOB", help="The job, as module:attribute.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Find mistakes in a job before anything starts; exit code 2 when there are any."""
    try:
        found = load_job(job)
        topology, faults = examined(found, AvroCodecs(open_registry(registry_setting())))
    except ConfigError as error:
        topology, faults = None, [_fault_of(job, error)]
    if as_json:
        typer.echo(json.dumps({"job": job, "ok": not faults, "faults": [asdict(fault) for fault in faults]}))
    elif faults or topology is None:
        typer.echo(f"{job}: {len(faults)} fault{'s' * (len(faults) > 1)}", err=True)
        for fault in faults:
            typer.echo(f"  {fault.where}\n    {fault.what}\n    mend: {fault.mend}", err=True)
    else:
        typer.echo("\n".join([f"{job}: no faults", *summary(topology)]))
    if faults:
        raise typer.Exit(ConfigError.exit_code)


def checked(job: Job, codecs: AvroCodecs) -> Topology:
    """The topology of a job that has no faults; one ConfigError that lists them all otherwise."""
    topology, faults = examined(job, codecs)
    if faults:
        raise ConfigError(f"Job {job.app!r} has {len(faults)} fault{'s' * (len(faults) > 1)}:{numbered(faults)}")
    return topology


def examined(job: Job, codecs: AvroCodecs) -> tuple[Topology, list[Fault]]:
    """A job's topology, and the faults of its wiring and of its types' Avro forms."""
    topology, faults = examine(job)
    for spec in topology.operators:
        faults.extend(_codec_faults(spec, codecs))
        faults.extend(_format_faults(spec, codecs))
    return topology, faults


def _format_faults(spec: OperatorSpec, codecs: AvroCodecs) -> Iterator[Fault]:
    """Framed topics without a registry to look their schemas up in."""
    if codecs.registry is not None:
        return
    framed = [place(spec, each) for each in spec.inputs if "confluent" in (each.format, each.key_format)]
    framed += [place(spec, each) for each in spec.outputs if each.format == "confluent"]
    for where in framed:
        yield Fault(
            where,
            "it has the format 'confluent', and no schema registry is set",
            "set KSTATE_REGISTRY, or `registry` in kstate.toml, to the registry's URL or to a folder",
        )


def _codec_faults(spec: OperatorSpec, codecs: AvroCodecs) -> Iterator[Fault]:
    """Types that have no codec, and states that would not come back as they were."""
    if spec.hop_of:  # the same types as those of the input that it feeds
        return
    ends: list[InputSpec | OutputSpec] = [*(each for each in spec.inputs if not each.table), *spec.outputs]
    for end in ends:
        yield from _refusal(place(spec, end), codecs.value, end.record)
    for state in spec.states:
        yield from _state_faults(place(spec, state), state, codecs)
    if spec.key_type is not NoneType and not isinstance(spec.key_type, TypeVar) and not key_fault(spec.key_type):
        yield from _refusal(place(spec), codecs.key, spec.key_type)


def _state_faults(where: str, state: StateSpec, codecs: AvroCodecs) -> Iterator[Fault]:
    kind = _subkey_type(state)
    if kind is not None and not key_fault(kind):
        yield from _refusal(where, codecs.key, kind)
    refusals = list(_refusal(where, codecs.value, state.type))
    yield from refusals
    if refusals:
        return
    codec = codecs.value(state.type)
    if codec.loss and not isinstance(state, TableSpec):  # what a table keeps has been through Avro before
        yield Fault(where, f"its values would not come back as they were: {codec.loss}", "change the type")
    yield from _first_value_faults(where, state, codec)


def _first_value_faults(where: str, state: StateSpec, codec: Codec[Any]) -> Iterator[Fault]:
    """A value that a state starts from, and that cannot be written."""
    option = "default"
    match state:
        case ValueSpec(has_default=True) | WindowSpec():
            value = state.default
        case PartialSpec() if callable(state.initial):
            option, value = "initial", _made(state.initial)
        case _:
            return
    if isinstance(value, Exception):
        yield Fault(where, f"{option}= raises {type(value).__name__}: {value}", "mend the function")
    elif value is not None or not isinstance(state, WindowSpec):  # a window without default is a fault of the wiring
        try:
            codec.encode(value)
        except ValueError as error:
            yield Fault(where, f"its {option} is no {type_name(state.type)}: {error}", f"change {option}=")


def _made(make: Callable[[], Any]) -> Any:
    """What a user's function makes, or the exception that it raises."""
    try:
        return make()
    except Exception as error:  # noqa: BLE001 - the user's code may raise anything
        return error


def _subkey_type(state: StateSpec) -> Any | None:
    """Type of the keys within a map, or of a timer's tags."""
    match state:
        case MapSpec():
            return state.key_type
        case TimerSpec():
            return state.tag_type
    return None


def _refusal(where: str, make: Callable[[Any], object], kind: Any) -> Iterator[Fault]:
    """The fault of a type for which no codec can be made."""
    try:
        make(kind)
    except ConfigError as error:
        yield _fault_of(where, error)


def _fault_of(where: str, error: ConfigError) -> Fault:
    return Fault(where, error.what.rstrip("."), error.hint.rstrip(".") or "change the type")

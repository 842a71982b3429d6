"""What can be wrong in the wiring of a job, and how to mend it; questions about finished specs, nothing is raised."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import NoneType
from typing import Any, TypeVar

from kstate.api.faults import Fault
from kstate.api.names import RESERVED_STREAMS, duplicates, length_fault, part_fault, place, topic_fault
from kstate.api.specs import InputSpec, OperatorSpec, OutputSpec, PartialSpec
from kstate.keys import key_fault
from kstate.plan import backup_topic, control_topic, dlq_topic, reports_topic
from kstate.typeinfo import type_name


def operator_faults(app: str, spec: OperatorSpec) -> Iterator[Fault]:
    """Faults of one operator that can be seen without the others."""
    where = place(spec)
    own_name = part_fault(where, spec.uid)
    if own_name and not spec.hop_of:  # of a hop it is made of names that are looked at elsewhere
        yield own_name
    elif fault := length_fault(where, backup_topic(app, spec.uid)):
        yield fault
    if all(given.table for given in spec.inputs):
        what = "it has tables only, and nothing to look them up for" if spec.inputs else "it has no input"
        yield Fault(where, what, "declare one: lines = Input(Line, topic=...)")
    if not spec.hop_of:  # its key type is the reader's, where a fault is told
        yield from _key_faults(where, spec)
    yield from _placement_faults(where, spec)
    yield from _output_faults(spec)
    yield from _input_faults(spec)
    for name in duplicates([state.name for state in spec.states]):
        attributes = ", ".join(repr(state.attribute) for state in spec.states if state.name == name)
        yield Fault(where, f"two states are named {name!r} ({attributes})", "give one of them another name=")


def edge_faults(app: str, operators: Sequence[OperatorSpec]) -> Iterator[Fault]:
    """Faults of the edges between operators."""
    outputs = {output.topic: (spec, output) for spec in operators for output in spec.outputs if output.internal}
    read = {given.topic for spec in operators for given in spec.inputs if given.internal}
    for topic, (spec, output) in outputs.items():
        if topic not in read:
            where = place(spec, output)
            yield Fault(
                where,
                "no operator of the job reads this internal stream",
                "give it a topic= or add its reader to the job",
            )
    for spec in operators:
        for given in spec.inputs:
            where = place(spec, given)
            if given.internal and given.topic in outputs:
                yield from _edge_key_faults(where, spec, *outputs[given.topic])
            elif given.internal:
                mend = "put that operator into Job(…, [...]) or read a topic"
                yield Fault(
                    where, f"it reads an output of operator {given.source_uid!r}, which is not in the job", mend
                )
    yield from _own_topic_faults(app, operators)
    yield from _cycle_faults(operators)


def _key_faults(where: str, spec: OperatorSpec) -> Iterator[Fault]:
    """Key types that have no canonical bytes, and state without a key."""
    if isinstance(spec.key_type, TypeVar):
        yield Fault(
            where, "its key type is left open", f"write class {spec.cls.__name__}(Operator[str], …), None for any key"
        )
        return
    stateless = spec.key_type is NoneType
    if not stateless and (fault := key_fault(spec.key_type)):
        yield Fault(where, fault, "change K of Operator[K]")
    kept = [state for state in spec.states if not isinstance(state, PartialSpec)]
    if stateless and kept:
        names = ", ".join(repr(state.attribute) for state in kept)
        yield Fault(
            where, f"Operator[None] has no key, so it cannot keep state {names}", "give it a key type, Operator[str]"
        )
    for output in spec.outputs:
        known = output.key is not None and output.key_type is not Any
        if known and output.key_type is not NoneType and (fault := key_fault(output.key_type)):
            yield Fault(f"{where}, output {output.name!r}", fault, "take another field or function as key=")


def _placement_faults(where: str, spec: OperatorSpec) -> Iterator[Fault]:
    """Inputs of a keyed operator that were placed by different partitioners."""
    checked = {given.partitioner: given.name for given in spec.inputs if given.partitioner in ("murmur2", "crc32")}
    if len(checked) > 1 and spec.key_type is not NoneType:
        listed = ", ".join(f"{name!r} by {partitioner}" for partitioner, name in sorted(checked.items()))
        what = f"its inputs are placed by different partitioners ({listed}): a key would have two states"
        yield Fault(where, what, "copy one topic into another that kstate writes, and read that")


def _output_faults(spec: OperatorSpec) -> Iterator[Fault]:
    """Illegal names of topics and streams."""
    for output in spec.outputs:
        where = place(spec, output)
        if spec.hop_of and output.name in RESERVED_STREAMS:
            fault = None  # told once, of the input that the stream is for
        elif output.internal:
            fault = part_fault(where, output.name) or length_fault(where, output.topic)
        else:
            fault = topic_fault(where, output.topic)
        if fault:
            yield fault


def _input_faults(spec: OperatorSpec) -> Iterator[Fault]:
    """Illegal names, one topic read twice, own output read."""
    written = {output.topic: output.name for output in spec.outputs}
    for given in spec.inputs:
        where = place(spec, given)
        if given.name in RESERVED_STREAMS and not spec.hop_of and (fault := part_fault(where, given.name)):
            yield fault
        if not given.topic:
            yield Fault(where, "it has no topic", f"Input({type_name(given.record)}, topic='…')")
        elif not given.internal and (fault := topic_fault(where, given.topic)):
            yield fault
        if given.topic in written and not spec.hop_of:  # then it is one of kstate's own topics, a fault of its own
            what = f"it reads topic {given.topic!r}, which its own output {written[given.topic]!r} writes"
            yield Fault(where, what, "write to another topic, or keep the value in a ValueState")
    for topic in duplicates([given.topic for given in spec.inputs]):
        readers = [given for given in spec.inputs if given.topic == topic]
        names = ", ".join(repr(given.name) for given in readers)
        if any(given.table for given in readers):
            mend = "keep the table, its .changed handler sees every record, or keep the input"
        else:
            mend = "keep one input, with one handler that does both"
        yield Fault(place(spec), f"inputs {names} read one topic, {topic!r}", mend)


def _edge_key_faults(where: str, spec: OperatorSpec, source: OperatorSpec, output: OutputSpec) -> Iterator[Fault]:
    """Key types that differ across an internal edge: the reader would decode other bytes than were written."""
    if output.key_type in (None, Any) or spec.key_type is NoneType or isinstance(spec.key_type, TypeVar):
        return
    if output.key_type != spec.key_type:
        written, expected = type_name(output.key_type), type_name(spec.key_type)
        upstream = f"{source.uid}.{output.name}"
        what = f"its records come from {upstream} with keys of type {written}, the operator's are {expected}"
        yield Fault(
            where, what, f"set key= of {output.name!r} to a field of type {expected}, or use Operator[{written}]"
        )


def _own_topic_faults(app: str, operators: Sequence[OperatorSpec]) -> Iterator[Fault]:
    """Users' topics that carry the name of a topic of kstate's own."""
    own = {control_topic(app), reports_topic(app)}
    own |= {name(app, spec.uid) for spec in operators for name in (backup_topic, dlq_topic)}
    own |= {output.topic for spec in operators for output in spec.outputs if output.internal}
    for spec in operators:
        ends: list[InputSpec | OutputSpec] = [*spec.inputs, *spec.outputs]
        for end in ends:
            if not end.internal and end.topic in own:
                what = f"topic {end.topic!r} is one of kstate's own topics of this job"
                yield Fault(place(spec, end), what, "use another topic")


def _cycle_faults(operators: Sequence[OperatorSpec]) -> Iterator[Fault]:
    """Cycles of internal streams; a bounded run would never end and a watermark never advance."""
    if duplicates([spec.uid for spec in operators]):
        return  # whose edges are whose is not known
    sources = {spec.uid: [given.source_uid for given in spec.inputs if given.source_uid] for spec in operators}
    seen: set[str] = set()
    for uid in sources:
        if uid not in seen and (cycle := _cycle_from(uid, sources, seen)):
            yield Fault(
                "internal streams",
                f"they form a cycle: {' → '.join(cycle)}",
                "go through a topic of your own at one edge",
            )


def _cycle_from(uid: str, sources: Mapping[str, list[str]], seen: set[str]) -> list[str] | None:
    """A cycle that can be reached against the streams' direction from an operator; marks what was visited."""
    path = [uid]
    pending = [iter(sources[uid])]
    while pending:
        source = next(pending[-1], None)
        if source is None:
            pending.pop()
            seen.add(path.pop())
        elif source in path:
            seen.update(path)
            return [*path[path.index(source) :], source][::-1]
        elif source in sources and source not in seen:
            path.append(source)
            pending.append(iter(sources[source]))
    return None

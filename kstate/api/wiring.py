"""What can be wrong in the wiring of a job, and how to mend it; questions about finished specs, nothing is raised."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from types import NoneType
from typing import Any, TypeVar

from kstate.api.faults import Fault
from kstate.api.specs import InputSpec, OperatorSpec, OutputSpec, PartialSpec
from kstate.keys import key_fault
from kstate.plan import backup_topic, control_topic, dlq_topic, reports_topic
from kstate.typeinfo import type_name

TOPIC_LENGTH_MAX = 249
"""Kafka's limit: topic names are folder names."""

RESERVED_STREAMS = ("backup", "dlq", "control", "reports")
"""Last parts of the names of kstate's own topics."""

_TOPIC = re.compile(r"[A-Za-z0-9._-]+")
_PART = re.compile(r"[A-Za-z0-9_-]+")


def topic_fault(where: str, topic: str) -> Fault | None:
    """Why Kafka would refuse a topic name."""
    if topic in (".", "..") or not _TOPIC.fullmatch(topic):
        return Fault(where, f"{topic!r} is no legal topic name", "use letters, digits, '.', '_' and '-' only")
    return length_fault(where, topic)


def length_fault(where: str, topic: str) -> Fault | None:
    """A topic name that is too long; the parts of kstate's own names are checked one by one."""
    if len(topic) > TOPIC_LENGTH_MAX:
        what = f"topic name {topic[:40]}… has {len(topic)} characters, Kafka allows {TOPIC_LENGTH_MAX}"
        return Fault(where, what, "shorten the application name, the uid or the attribute")
    return None


def part_fault(where: str, part: str) -> Fault | None:
    """Why a uid or stream name cannot be one part of a topic name."""
    if part in RESERVED_STREAMS:
        return Fault(where, f"the name {part!r} belongs to kstate's own topics", "rename it")
    if not _PART.fullmatch(part):
        what = f"{part!r} cannot be a part of topic names, where '.' separates application, operator and stream"
        return Fault(where, what, "use ASCII letters, digits, '_' and '-' only")
    return None


def app_faults(app: str) -> Iterator[Fault]:
    """Faults of the application name."""
    if fault := topic_fault("application name", app):
        yield fault


def operator_faults(app: str, spec: OperatorSpec) -> Iterator[Fault]:
    """Faults of one operator that can be seen without the others."""
    where = _place(spec)
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
    yield from _topic_faults(spec)
    for name in duplicates([state.name for state in spec.states]):
        attributes = ", ".join(repr(state.attribute) for state in spec.states if state.name == name)
        yield Fault(where, f"two states are named {name!r} ({attributes})", "give one of them another name=")


def edge_faults(app: str, operators: Sequence[OperatorSpec]) -> Iterator[Fault]:
    """Faults of the edges between operators."""
    outputs = {output.topic: (spec, output) for spec in operators for output in spec.outputs if output.internal}
    read = {given.topic for spec in operators for given in spec.inputs if given.internal}
    for topic, (spec, output) in outputs.items():
        if topic not in read:
            where = _place(spec, output)
            yield Fault(
                where,
                "no operator of the job reads this internal stream",
                "give it a topic= or add its reader to the job",
            )
    for spec in operators:
        for given in spec.inputs:
            where = _place(spec, given)
            if given.internal and given.topic in outputs:
                yield from _edge_key_faults(where, spec, *outputs[given.topic])
            elif given.internal:
                mend = "put that operator into Job(…, [...]) or read a topic"
                yield Fault(
                    where, f"it reads an output of operator {given.source_uid!r}, which is not in the job", mend
                )
    yield from _own_topic_faults(app, operators)
    yield from _cycle_faults(operators)


def uid_faults(operators: Sequence[OperatorSpec]) -> Iterator[Fault]:
    """Operators that have the uid of a hop that `rekey=` makes."""
    uids = {spec.uid for spec in operators if not spec.hop_of}
    for spec in operators:
        if spec.hop_of and spec.uid in uids:
            what = f"an operator of the job has the uid {spec.uid!r}, which belongs to the hop of this rekey="
            yield Fault(_place(spec, spec.inputs[0]), what, "rename the input, or that operator")


def dropped_faults(dropped: Sequence[str], operators: Sequence[OperatorSpec]) -> Iterator[Fault]:
    """What `dropped=` must not name: what is still there, and what can be no name."""
    if isinstance(dropped, str):
        yield Fault("job", f"dropped is the text {dropped!r}", f"use a list: dropped=[{dropped!r}]")
        return
    states = {f"{spec.uid}.{state.name}" for spec in operators for state in spec.states}
    uids = {spec.uid for spec in operators}
    for name in dropped:
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_-]+(\.\S+)?", name):
            yield Fault("job", f"dropped names {name!r}", "write 'uid' for an operator, 'uid.name' for a state")
        elif name in states or name in uids:
            kind = "state" if name in states else "operator"
            yield Fault(
                "job", f"dropped names {name!r}, {kind} of this job", "take it out of dropped=, or out of the job"
            )


def duplicates(names: Sequence[str]) -> list[str]:
    """Names that occur more than once, in order."""
    return [name for name, count in Counter(names).items() if count > 1]


def _place(spec: OperatorSpec, end: InputSpec | OutputSpec | None = None) -> str:
    """Where users find it; a hop is the input whose `rekey=` made it."""
    if spec.hop_of:
        return f"operator {spec.hop_of[0]!r}, input {spec.hop_of[1]!r}"
    where = f"operator {spec.uid!r}"
    match end:
        case InputSpec():
            return f"{where}, {'table' if end.table else 'input'} {end.name!r}"
        case OutputSpec():
            return f"{where}, output {end.name!r}"
    return where


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
    checked = {given.partitioner: given.name for given in spec.inputs if given.partitioner != "unchecked"}
    if len(checked) > 1 and spec.key_type is not NoneType:
        listed = ", ".join(f"{name!r} by {partitioner}" for partitioner, name in sorted(checked.items()))
        what = f"its inputs are placed by different partitioners ({listed}): a key would have two states"
        yield Fault(where, what, "copy one topic into another that kstate writes, and read that")


def _topic_faults(spec: OperatorSpec) -> Iterator[Fault]:
    """Illegal names, one topic read twice, own output read."""
    written = {output.topic: output.name for output in spec.outputs}
    for output in spec.outputs:
        place = _place(spec, output)
        if output.internal:
            fault = part_fault(place, output.name) or length_fault(place, output.topic)
        else:
            fault = topic_fault(place, output.topic)
        if fault:
            yield fault
    for given in spec.inputs:
        place = _place(spec, given)
        if given.name in RESERVED_STREAMS and not spec.hop_of and (fault := part_fault(place, given.name)):
            yield fault
        if not given.internal and (fault := topic_fault(place, given.topic)):
            yield fault
        if given.topic in written:
            what = f"it reads topic {given.topic!r}, which its own output {written[given.topic]!r} writes"
            yield Fault(place, what, "write to another topic, or keep the value in a ValueState")
    for topic in duplicates([given.topic for given in spec.inputs]):
        readers = [given for given in spec.inputs if given.topic == topic]
        names = ", ".join(repr(given.name) for given in readers)
        if any(given.table for given in readers):
            mend = "keep the table, its .changed handler sees every record, or keep the input"
        else:
            mend = "keep one input, with one handler that does both"
        yield Fault(_place(spec), f"inputs {names} read one topic, {topic!r}", mend)


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
                yield Fault(_place(spec, end), what, "use another topic")


def _cycle_faults(operators: Sequence[OperatorSpec]) -> Iterator[Fault]:
    """Cycles of internal streams; a bounded run would never end and a watermark never advance."""
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

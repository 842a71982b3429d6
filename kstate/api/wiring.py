"""What can be wrong in the wiring of a job, and how to mend it; questions about finished specs, nothing is raised."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import NoneType
from typing import Any, TypeVar

from kstate.api.specs import OperatorSpec, OutputSpec
from kstate.keys import key_fault
from kstate.plan import backup_topic, control_topic, dlq_topic, reports_topic
from kstate.typeinfo import type_name

TOPIC_LENGTH_MAX = 249
"""Kafka's limit: topic names are folder names."""

RESERVED_STREAMS = ("backup", "dlq", "control", "reports")
"""Last parts of the names of kstate's own topics."""

_TOPIC = re.compile(r"[A-Za-z0-9._-]+")
_PART = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class Fault:
    """A mistake in a job: where it is, what it is, how to mend it."""

    where: str
    what: str
    mend: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}. Mend: {self.mend}."


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
    where = f"operator {spec.uid!r}"
    if fault := part_fault(where, spec.uid) or length_fault(where, backup_topic(app, spec.uid)):
        yield fault
    if not spec.inputs:
        yield Fault(where, "it has no input", "declare one: lines = Input(Line, topic=...)")
    yield from _key_faults(where, spec)
    yield from _placement_faults(where, spec)
    yield from _topic_faults(where, spec)
    for name in duplicates([state.name for state in spec.states]):
        yield Fault(where, f"two states are named {name!r}", "give one of them another name=")


def edge_faults(app: str, operators: Sequence[OperatorSpec]) -> Iterator[Fault]:
    """Faults of the edges between operators."""
    outputs = {output.topic: (spec, output) for spec in operators for output in spec.outputs if output.internal}
    read = {given.topic for spec in operators for given in spec.inputs if given.internal}
    for topic, (spec, output) in outputs.items():
        if topic not in read:
            where = f"operator {spec.uid!r}, output {output.name!r}"
            yield Fault(
                where,
                "no operator of the job reads this internal stream",
                "give it a topic= or add its reader to the job",
            )
    for spec in operators:
        for given in spec.inputs:
            where = f"operator {spec.uid!r}, input {given.name!r}"
            if given.internal and given.topic in outputs:
                yield from _edge_key_faults(where, spec, *outputs[given.topic])
            elif given.internal:
                mend = "put that operator into Job(…, [...]) or read a topic"
                yield Fault(
                    where, f"it reads an output of operator {given.source_uid!r}, which is not in the job", mend
                )
    yield from _own_topic_faults(app, operators)
    yield from _cycle_faults(operators)


def duplicates(names: Sequence[str]) -> list[str]:
    """Names that occur more than once, in order."""
    return [name for name, count in Counter(names).items() if count > 1]


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
    if stateless and spec.states:
        names = ", ".join(repr(state.attribute) for state in spec.states)
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


def _topic_faults(where: str, spec: OperatorSpec) -> Iterator[Fault]:
    """Illegal names, one topic read twice, own output read."""
    written = {output.topic: output.name for output in spec.outputs}
    for output in spec.outputs:
        place = f"{where}, output {output.name!r}"
        if output.internal:
            fault = part_fault(place, output.name) or length_fault(place, output.topic)
        else:
            fault = topic_fault(place, output.topic)
        if fault:
            yield fault
    for given in spec.inputs:
        place = f"{where}, input {given.name!r}"
        if given.name in RESERVED_STREAMS and (fault := part_fault(place, given.name)):
            yield fault
        if not given.internal and (fault := topic_fault(place, given.topic)):
            yield fault
        if given.topic in written:
            what = f"it reads topic {given.topic!r}, which its own output {written[given.topic]!r} writes"
            yield Fault(place, what, "write to another topic, or keep the value in a ValueState")
    for topic in duplicates([given.topic for given in spec.inputs]):
        names = ", ".join(repr(given.name) for given in spec.inputs if given.topic == topic)
        yield Fault(
            where, f"inputs {names} read one topic, {topic!r}", "keep one input, with one handler that does both"
        )


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
        named = [(given.name, given.topic) for given in spec.inputs if not given.internal]
        named += [(output.name, output.topic) for output in spec.outputs if not output.internal]
        for name, topic in named:
            if topic in own:
                what = f"topic {topic!r} is one of kstate's own topics of this job"
                yield Fault(f"operator {spec.uid!r}, {name!r}", what, "use another topic")


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

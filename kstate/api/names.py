"""Names: of topics, uids, states; which are legal, which are taken, and how a place in a job is called in a fault."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from kstate.api.faults import Fault
from kstate.api.specs import InputSpec, OperatorSpec, OutputSpec, StateSpec, TableSpec, TimerSpec

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


def uid_faults(operators: Sequence[OperatorSpec]) -> Iterator[Fault]:
    """Operators that have the uid of a hop that `rekey=` makes."""
    uids = {spec.uid for spec in operators if not spec.hop_of}
    for spec in operators:
        if spec.hop_of and spec.uid in uids:
            what = f"an operator of the job has the uid {spec.uid!r}, which belongs to the hop of this rekey="
            yield Fault(place(spec, spec.inputs[0]), what, "rename the input, or that operator")


def dropped_faults(dropped: Sequence[Any], operators: Sequence[OperatorSpec]) -> Iterator[Fault]:
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


def place(spec: OperatorSpec, part: InputSpec | OutputSpec | StateSpec | None = None) -> str:
    """Where users find it; a hop is the input whose `rekey=` made it."""
    if spec.hop_of:
        return f"operator {spec.hop_of[0]!r}, input {spec.hop_of[1]!r}"
    where = f"operator {spec.uid!r}"
    match part:
        case None:
            return where
        case InputSpec():
            return f"{where}, {'table' if part.table else 'input'} {part.name!r}"
        case OutputSpec():
            return f"{where}, output {part.name!r}"
        case TableSpec():
            return f"{where}, table {part.attribute!r}"
        case TimerSpec():
            return f"{where}, {'timer' if part.tag_type is None else 'timers'} {part.attribute!r}"
        case StateSpec():
            return f"{where}, state {part.attribute!r}"

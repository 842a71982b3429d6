"""Whether a job continues what a plan stands for, and the numeric ids of what is new in it: job versions.

Identity of state is application, operator uid and state name; ids by name stand in every stored key, so none is ever
used again. What a new version of a job may change, and what is refused before anything starts, is decided here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

from kstate.description import JobDescription, OperatorDescription, StateDescription
from kstate.errors import ConfigError, numbered
from kstate.evolution import resolution, without_defaults
from kstate.plan import Plan, Registry, backup_topic

T = TypeVar("T")

IDS_MAX = 0xFFFF
"""Ids are two bytes in the stored format; 0 is the store's own."""

StateName = tuple[str, str]
"""(operator uid, state name)."""


def extended_registry(job: JobDescription, registry: Registry) -> Registry:
    """The registry with ids for what is new, and without what the job dropped.

    What has an id keeps it, and none is ever given twice: those of dropped states and operators are kept as retired.
    """
    registry = _without_dropped(job, registry)
    operators, states = dict(registry.operators), dict(registry.states)
    texts = {text: number for number, text in registry.schemas.items()}
    written, forms, streams = dict(registry.written), dict(registry.forms), dict(registry.streams)
    for operator in job.operators:
        uid = operator.uid
        if uid not in operators:
            operators[uid] = _next_id([*operators.values(), *_retired(registry, None)], "operators")
        for state in operator.states:
            if (uid, state.name) not in states:
                used = [number for (owner, _), number in states.items() if owner == uid]
                states[uid, state.name] = _next_id([*used, *_retired(registry, uid)], f"states of '{uid}'")
            ids = _written(uid, state, registry)
            written[uid, state.name] = _newest_last(ids, _schema_id(state.schema, texts))
            forms[uid, state.name] = state.form
        streams |= {out.topic: _schema_id(out.schema, texts) for out in operator.outputs if out.internal and out.schema}
    return Registry(
        operators,
        states,
        {number: text for text, number in texts.items()},
        {**registry.keys, **{o.uid: o.key_type for o in job.operators}},
        written,
        forms,
        streams,
        registry.retired,
    )


def check_continues(job: JobDescription, plan: Plan) -> None:
    """Whether a job can go on from a plan. Raises ConfigError that lists every reason why not, each with its mend."""
    faults = [
        *_contradictions(job),
        *_vanished_operators(job, plan),
        *_changed_keys(job, plan),
        *_vanished_states(job, plan),
        *_changed_states(job, plan),
        *_changed_streams(job, plan),
    ]
    if faults:
        raise ConfigError(
            f"Job '{job.app}' does not continue what plan {plan.version} stands for; nothing was changed:"
            f"{numbered(faults)}\n",
            hint="as said above, or run the changed job under a new application name.",
        )


def changes(job: JobDescription, plan: Plan) -> list[str]:
    """What the next plan says that this one does not, for people; the job is known to continue it."""
    known = plan.registry
    new = [f"operator '{o.uid}'" for o in job.operators if o.uid not in known.operators]
    new += [
        f"state '{s.name}' of '{o.uid}'"
        for o, s in _states(job)
        if o.uid in known.operators and (o.uid, s.name) not in known.states
    ]
    read = {(uid, topic) for uid, topic, _ in plan.starts}
    new += [
        f"topic '{i.topic}' read by '{o.uid}'"
        for o in job.operators
        for i in o.inputs
        if o.uid in known.operators and (o.uid, i.topic) not in read
    ]
    return [
        *([f"new: {', '.join(new)}"] if new else []),
        *_evolved(job, known),
        *_gone(job, plan, read),
    ]


def _evolved(job: JobDescription, known: Registry) -> Iterator[str]:
    """States whose schema changed; what the new one leaves out is named."""
    for operator, state in _states(job):
        if not (ids := known.written.get((operator.uid, state.name))) or known.schemas[ids[-1]] == state.schema:
            continue
        left_out = resolution(known.schemas[ids[-1]], state.schema).left_out
        note = f", which leaves out {', '.join(left_out)}" if left_out else ""
        yield f"state '{state.name}' of '{operator.uid}' has a new schema{note}"


def _gone(job: JobDescription, plan: Plan, read: Iterable[tuple[str, str]]) -> Iterator[str]:
    """What the job has no more, and what becomes of it."""
    for uid in plan.registry.operators:
        if job.operator(uid) is None:
            yield f"operator '{uid}' is dropped; its topic {backup_topic(job.app, uid)} stays"
    for uid, name in plan.registry.states:
        if (operator := job.operator(uid)) and name not in {state.name for state in operator.states}:
            yield f"state '{name}' of '{uid}' is dropped"
    for uid, topic in sorted(read):
        if (operator := job.operator(uid)) and topic not in {source.topic for source in operator.inputs}:
            yield f"'{uid}' no longer reads topic '{topic}': its progress there is left out"


def _contradictions(job: JobDescription) -> Iterator[str]:
    there = {o.uid for o in job.operators} | {f"{o.uid}.{s.name}" for o, s in _states(job)}
    for name in job.dropped:
        if name in there:
            yield f"'{name}' is in dropped=[…] and in the job; take it out of one of them"


def _vanished_operators(job: JobDescription, plan: Plan) -> Iterator[str]:
    for uid in plan.registry.operators:
        if job.operator(uid) is None and uid not in job.dropped:
            yield (
                f"operator '{uid}' is no longer in the job: a renamed class keeps its uid='{uid}'; "
                f"to give it up with all its state, Job(…, dropped=['{uid}'])"
            )


def _changed_keys(job: JobDescription, plan: Plan) -> Iterator[str]:
    for operator in job.operators:
        before = plan.registry.keys.get(operator.uid, operator.key_type)
        if before != operator.key_type:
            yield (
                f"the key of operator '{operator.uid}' was {before} and is {operator.key_type} now: its state would "
                f"not be found again; give the operator another uid and drop '{operator.uid}'"
            )


def _vanished_states(job: JobDescription, plan: Plan) -> Iterator[str]:
    """States that are missing in an operator that is still there."""
    there = {(o.uid, s.name) for o, s in _states(job)}
    for uid, name in plan.registry.states:
        if job.operator(uid) and (uid, name) not in there and f"{uid}.{name}" not in job.dropped:
            yield (
                f"state '{name}' of operator '{uid}' vanished: a renamed one keeps name='{name}'; "
                f"to give it up, Job(…, dropped=['{uid}.{name}'])"
            )


def _changed_states(job: JobDescription, plan: Plan) -> Iterator[str]:
    """States of another form, and states that could not read what was stored."""
    for operator, state in _states(job):
        name = (operator.uid, state.name)
        if name not in plan.registry.states:
            continue
        before = plan.registry.forms.get(name, state.form)
        if before != state.form:
            yield (
                f"state '{state.name}' of operator '{operator.uid}' was a {before} and is a {state.form} now; "
                f"give the new one another name and drop '{operator.uid}.{state.name}'"
            )
        else:
            yield from _unreadable(operator, state, plan.registry)


def _unreadable(operator: OperatorDescription, state: StateDescription, known: Registry) -> Iterator[str]:
    """Every older schema of a state that its present one cannot read, with both texts."""
    ids = _written(operator.uid, state, known)
    if not ids:
        yield (
            f"state '{state.name}' of operator '{operator.uid}' has schema {state.schema}, and the plan, of an older "
            "release, does not say what was stored; start the job once with the old schema"
        )
    for number in ids:
        if faults := resolution(known.schemas[number], state.schema).faults:
            yield (
                f"state '{state.name}' of operator '{operator.uid}' has schema {state.schema}, which cannot read what "
                f"was stored with {known.schemas[number]}: {'; '.join(faults)}"
            )


def _changed_streams(job: JobDescription, plan: Plan) -> Iterator[str]:
    """Records under way in an internal stream do not say how they were written: they must be read before it changes."""
    if plan.complete:
        return
    for operator in job.operators:
        for out in operator.outputs:
            number = plan.registry.streams.get(out.topic)
            if number is None or plan.registry.schemas[number] in (out.schema, ""):
                continue
            yield (
                f"records under way in stream '{out.name}' of operator '{operator.uid}' have schema "
                f"{plan.registry.schemas[number]}, the job reads and writes {out.schema}; let the old version finish "
                "them first (`kstate run … --until-end`), or rename the output and give up what is under way"
            )


def _without_dropped(job: JobDescription, registry: Registry) -> Registry:
    """The registry without what the job no longer has; `check_continues` has seen that it means it."""
    there = {(o.uid, s.name) for o, s in _states(job)}
    operators = {uid: number for uid, number in registry.operators.items() if job.operator(uid)}
    states = {name: number for name, number in registry.states.items() if name in there}
    retired = [(uid, "", number) for uid, number in registry.operators.items() if uid not in operators]
    retired += [(*name, number) for name, number in registry.states.items() if name not in states]
    topics = {out.topic for o in job.operators for out in o.outputs if out.internal}
    return Registry(
        operators,
        states,
        registry.schemas,
        {uid: text for uid, text in registry.keys.items() if uid in operators},
        _of(registry.written, states),
        _of(registry.forms, states),
        {topic: number for topic, number in registry.streams.items() if topic in topics},
        (*registry.retired, *retired),
    )


def _of(values: Mapping[StateName, T], names: Iterable[StateName]) -> dict[StateName, T]:
    return {name: value for name, value in values.items() if name in names}


def _states(job: JobDescription) -> Iterator[tuple[OperatorDescription, StateDescription]]:
    return ((operator, state) for operator in job.operators for state in operator.states)


def _retired(registry: Registry, uid: str | None) -> list[int]:
    """Ids that were given to dropped states of an operator, or, for None, to dropped operators."""
    if uid is None:
        return [number for _, name, number in registry.retired if not name]
    return [number for owner, name, number in registry.retired if name and owner == uid]


def _schema_id(text: str, texts: dict[str, int]) -> int:
    """The id of a schema text, a new one where it has none."""
    if text not in texts:
        texts[text] = _next_id(texts.values(), "schemas")
    return texts[text]


def _written(uid: str, state: StateDescription, known: Registry) -> tuple[int, ...]:
    """The schemas that values of a state may be written with, () for a state that has none.

    Plans of the first format do not say; then it is the one that differs in nothing but defaults, which that release
    did not take from the classes.
    """
    name = (uid, state.name)
    if name in known.written or name not in known.states:
        return known.written.get(name, ())
    bare = without_defaults(state.schema)
    return tuple(number for number, text in known.schemas.items() if without_defaults(text) == bare)


def _newest_last(ids: tuple[int, ...], number: int) -> tuple[int, ...]:
    return (*(each for each in ids if each != number), number)


def _next_id(used: Iterable[int], what: str) -> int:
    number = max(used, default=0) + 1
    if number > IDS_MAX:
        raise ConfigError(
            f"There are more than {IDS_MAX} {what}; ids are two bytes and never used again.",
            hint="run the job under a new application name, which begins with new ids.",
        )
    return number

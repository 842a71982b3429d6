"""Whether a job continues what a plan stands for, and the numeric ids of what is new in it.

Identity of state is application, operator uid and state name; ids by name stand in every stored key, so none is ever
used again. A new job version (dropped state, other inputs) is more than this module allows: it refuses, and says why.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from kstate.description import JobDescription
from kstate.errors import ConfigError
from kstate.plan import Plan, Registry

IDS_MAX = 0xFFFF
"""Ids are two bytes in the stored format; 0 is the store's own."""


def extended_registry(job: JobDescription, registry: Registry) -> Registry:
    """The registry with ids for what is new; what has one keeps it, and none is ever given twice."""
    operators = dict(registry.operators)
    states = dict(registry.states)
    texts = {text: number for number, text in registry.schemas.items()}
    for operator in job.operators:
        if operator.uid not in operators:
            operators[operator.uid] = _next_id(operators.values(), "operators")
        for state in operator.states:
            if (operator.uid, state.name) not in states:
                used = [number for (uid, _), number in states.items() if uid == operator.uid]
                states[operator.uid, state.name] = _next_id(used, f"states of '{operator.uid}'")
            if state.schema not in texts:
                texts[state.schema] = _next_id(texts.values(), "state schemas")
    keys = {**registry.keys, **{o.uid: o.key_type for o in job.operators}}
    return Registry(operators, states, {number: text for text, number in texts.items()}, keys)


def check_continues(job: JobDescription, plan: Plan) -> None:
    """Whether a job can go on from a plan. Raises ConfigError that lists all that vanished or changed its key."""
    faults = [*_vanished_operators(job, plan), *_changed_keys(job, plan), *_vanished_parts(job, plan)]
    if faults:
        raise ConfigError(
            f"Job '{job.app}' does not continue what plan {plan.version} stands for: " + "; ".join(faults) + ".",
            hint="restore what is missing, or run the changed job under a new application name.",
        )


def _vanished_operators(job: JobDescription, plan: Plan) -> Iterator[str]:
    for uid in plan.registry.operators:
        if job.operator(uid) is None:
            yield f"operator '{uid}' is no longer in the job (a renamed class keeps its uid='{uid}')"


def _changed_keys(job: JobDescription, plan: Plan) -> Iterator[str]:
    for operator in job.operators:
        before = plan.registry.keys.get(operator.uid, operator.key_type)
        if before != operator.key_type:
            yield f"the key of operator '{operator.uid}' was {before} and is {operator.key_type} now"


def _vanished_parts(job: JobDescription, plan: Plan) -> Iterator[str]:
    """States and inputs that are missing in an operator that is still there."""
    states = {(o.uid, s.name) for o in job.operators for s in o.states}
    for uid, name in plan.registry.states:
        if job.operator(uid) and (uid, name) not in states:
            yield f"state '{name}' of operator '{uid}' vanished (a renamed one needs name='{name}')"
    inputs = {(o.uid, i.topic) for o in job.operators for i in o.inputs}
    for uid, topic in dict.fromkeys((uid, topic) for uid, topic, _ in plan.starts):
        if job.operator(uid) and (uid, topic) not in inputs:
            yield f"operator '{uid}' no longer reads topic '{topic}'"


def _next_id(used: Iterable[int], what: str) -> int:
    number = max(used, default=0) + 1
    if number > IDS_MAX:
        raise ConfigError(
            f"There are more than {IDS_MAX} {what}; ids are two bytes and never used again.",
            hint="run the job under a new application name, which begins with new ids.",
        )
    return number

"""The topics of a job: which must exist, which kstate makes and how, how many partitions each has.

Pure. Faults are collected and raised together, each naming the thing and the mend; nothing is made before all is well.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from kstate.config import Settings
from kstate.description import JobDescription, OperatorDescription
from kstate.errors import ConfigError
from kstate.interfaces import TopicSpec
from kstate.plan import Plan, backup_topic, control_topic, dlq_topic, reports_topic

_FOREVER = {
    "cleanup.policy": "delete",
    "retention.ms": "-1",
    "retention.bytes": "-1",
    "message.timestamp.type": "CreateTime",
    "message.timestamp.after.max.ms": str((1 << 63) - 1),
    "unclean.leader.election.enable": "false",
}
"""Internal topics lose nothing by themselves and take any timestamp (ARCHITECTURE.md, section 4)."""


@dataclass(frozen=True, slots=True)
class _Use:
    """A topic of the job and the operators that read it as input; `internal`: kstate makes it."""

    topic: str
    readers: tuple[str, ...]
    internal: bool


def leadership_topics(app: str, settings: Settings) -> list[TopicSpec]:
    """Control and reports, which exist before anything else does."""
    hour = {"cleanup.policy": "delete", "retention.ms": "3600000", "message.timestamp.type": "CreateTime"}
    control = {**_FOREVER, **_durable(settings)}
    return [TopicSpec(control_topic(app), 1, control), TopicSpec(reports_topic(app), 1, {**hour, **_durable(settings)})]


def external_topics(job: JobDescription) -> tuple[str, ...]:
    """Topics of the users: they must exist."""
    inputs = [i.topic for o in job.operators for i in o.inputs if not i.internal]
    outputs = [o.topic for operator in job.operators for o in operator.outputs if not o.internal]
    return tuple(dict.fromkeys([*inputs, *outputs]))


def internal_topics(job: JobDescription) -> tuple[str, ...]:
    """Streams, backups and dead-letter topics."""
    streams = [i.topic for o in job.operators for i in o.inputs if i.internal]
    streams += [o.topic for operator in job.operators for o in operator.outputs if o.internal]
    own = [name(job.app, o.uid) for o in job.operators for name in (backup_topic, dlq_topic)]
    return tuple(dict.fromkeys([*streams, *own]))


def partition_counts(job: JobDescription, found: Mapping[str, int | None], default: int) -> dict[str, int]:
    """The partition count of every topic of the job, `default` for streams that no external input decides.

    The inputs of one operator have as many partitions as each other: partition i of each belongs to shard i. Raises
    ConfigError that lists every missing topic and every mismatch.
    """
    faults = [
        f"topic '{topic}' does not exist; create it" for topic in external_topics(job) if found.get(topic) is None
    ]
    counts = {topic: count for topic in external_topics(job) if (count := found.get(topic)) is not None}
    for group in _co_inputs(job):
        known = {use.topic: count for use in group if (count := found.get(use.topic)) is not None}
        if len(set(known.values())) > 1:
            faults.append(_mismatch(group, known))
        count = next(iter(known.values()), default)
        counts.update({use.topic: count for use in group})
    for operator in job.operators:
        partitions = counts[operator.inputs[0].topic]
        backup, dlq = backup_topic(job.app, operator.uid), dlq_topic(job.app, operator.uid)
        faults += _backup_faults(operator, found.get(backup), partitions)
        counts |= {backup: partitions, dlq: found.get(dlq) or partitions}
    for topic in internal_topics(job):  # outputs that nobody reads
        counts.setdefault(topic, found.get(topic) or default)
    if faults:
        raise ConfigError(f"Topics of job '{job.app}': " + "; ".join(faults) + ".")
    return counts


def topics_to_create(job: JobDescription, counts: Mapping[str, int], settings: Settings) -> list[TopicSpec]:
    """The internal topics; creating those that exist changes nothing."""
    backups = {backup_topic(job.app, o.uid) for o in job.operators}
    kept = {**_FOREVER, **_durable(settings)}
    return [
        TopicSpec(topic, counts[topic], {**kept, "compression.type": "lz4"} if topic in backups else kept)
        for topic in internal_topics(job)
    ]


def changed_counts(plan: Plan, found: Mapping[str, int | None]) -> str | None:
    """What became of the topics since the first plan, as a message with its mend; None when nothing did."""
    faults = []
    for topic, count in plan.partitions.items():
        now = found.get(topic, count)
        if now is None:
            faults.append(f"topic '{topic}' ({_partitions(count)}) was deleted")
        elif now != count:
            faults.append(f"topic '{topic}' had {_partitions(count)} when the job was first started and has {now} now")
    if not faults:
        return None
    mend = (
        f"re-create it with the old count and its records, or start the job anew under another name than '{plan.app}'"
    )
    why = "keys would change their partition, and state would be split or lost"
    return f"{'; '.join(faults)}: {why}. Mend: {mend}."


def _co_inputs(job: JobDescription) -> list[list[_Use]]:
    """Input topics in groups that must have equal partition counts: read together by some operator, transitively."""
    groups: list[dict[str, _Use]] = []
    for operator in job.operators:
        own = {i.topic: _Use(i.topic, (operator.uid,), i.internal) for i in operator.inputs}
        touching = [g for g in groups if g.keys() & own.keys()]
        groups = [g for g in groups if g not in touching]
        for group in touching:
            for topic, use in group.items():
                readers = (*use.readers, *own[topic].readers) if topic in own else use.readers
                own[topic] = _Use(topic, readers, use.internal)
        groups.append(own)
    return [list(group.values()) for group in groups]


def _mismatch(group: list[_Use], known: Mapping[str, int]) -> str:
    readers = sorted({reader for use in group for reader in use.readers if use.topic in known})
    listed = ", ".join(f"'{topic}' has {_partitions(count)}" for topic, count in sorted(known.items()))
    who = ", ".join(f"'{reader}'" for reader in readers)
    return (
        f"the inputs of {who} are read together but differ: {listed}; "
        "create them with one partition count, or copy one to a topic that has the other's"
    )


def _backup_faults(operator: OperatorDescription, found: int | None, expected: int) -> Iterator[str]:
    if found is not None and found != expected:
        inputs = ", ".join(str(i) for i in operator.inputs)
        yield (
            f"the backup topic of operator '{operator.uid}' has {_partitions(found)}, {inputs} has {expected}; "
            "it belongs to another set-up of this job: delete it, or choose another application name"
        )


def _durable(settings: Settings) -> dict[str, str]:
    """With three copies or more, a write counts when two have it; with the broker's default, the broker decides."""
    return {"min.insync.replicas": "2"} if settings.replication >= 3 else {}


def _partitions(count: int) -> str:
    return f"{count} partition{'s' * (count != 1)}"

"""Comparing a job with the cluster when a leader's term begins: its topics, where its inputs start and where they end.

Everything that can be wrong is found here, before the first record is processed, and raised as one ConfigError. Survey
and creation may be repeated: a leader that dies in between leaves empty topics, nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from kstate.clock import Step, Steps
from kstate.config import Settings
from kstate.coordinator import continuity, topics
from kstate.coordinator.events import Draft
from kstate.description import InputDescription, JobDescription
from kstate.errors import ConfigError
from kstate.interfaces import Log
from kstate.plan import InputPartition, Plan, Registry, TopicPartition, backup_topic, control_topic

SURVEYED = Step("surveyed")
TOPICS_CREATED = Step("topics-created")
OFFSETS_TAKEN = Step("offsets-taken")


def prepare(log: Log, job: JobDescription, settings: Settings) -> Steps[None]:
    """Make control and reports; for a job that never ran only when nothing else is wrong with its topics."""
    found = log.partitions([control_topic(job.app), *topics.external_topics(job), *topics.internal_topics(job)])
    if found[control_topic(job.app)] is None:
        topics.partition_counts(job, found, settings.stream_partitions)
    yield SURVEYED
    log.create_topics(topics.leadership_topics(job.app, settings))
    yield TOPICS_CREATED


class Survey:
    """One comparison of a job with the cluster and with the newest plan, None when there is none yet."""

    def __init__(self, log: Log, job: JobDescription, settings: Settings, plan: Plan | None) -> None:
        self._log = log
        self._job = job
        self._settings = settings
        self._plan = plan

    def run(self, *, bounded: bool) -> Steps[Draft | None]:
        """What the next plan must say; None when the newest one says it all. Raises ConfigError with every fault."""
        counts = self._checked_counts()
        yield SURVEYED
        self._log.create_topics(topics.topics_to_create(self._job, counts, self._settings))
        yield TOPICS_CREATED
        self._check_no_leftovers(counts)
        starts = self._starts(counts)
        ends = self._ends(counts, starts) if bounded else {}
        yield OFFSETS_TAKEN
        registry = continuity.extended_registry(self._job, self._plan.registry if self._plan else Registry())
        shards = {o.uid: counts[o.inputs[0].topic] for o in self._job.operators}
        draft = Draft(registry, counts, shards, starts, ends, bounded, self._reason(bounded=bounded))
        same_build = self._plan is not None and self._plan.build == self._job.build
        return None if same_build and self._plan is not None and _says_it_all(self._plan, draft) else draft

    def _checked_counts(self) -> dict[str, int]:
        job, plan = self._job, self._plan
        planned = plan.partitions if plan else {}
        found = self._log.partitions(dict.fromkeys([*planned, *_all_topics(job)]))
        if plan is not None:
            continuity.check_continues(job, plan)
            if fault := topics.changed_counts(plan, {topic: found[topic] for topic in _all_topics(job)}):
                raise ConfigError(fault)
        return topics.partition_counts(job, found, self._settings.stream_partitions)

    def _check_no_leftovers(self, counts: Mapping[str, int]) -> None:
        """Backups and streams that the plan does not know must be empty: old state must not become new state."""
        operators = self._plan.registry.operators if self._plan else {}
        known = self._plan.partitions if self._plan else {}
        own = {backup_topic(self._job.app, o.uid) for o in self._job.operators if o.uid not in operators}
        own |= {out.topic for o in self._job.operators for out in o.outputs if out.internal and out.topic not in known}
        ends = self._log.end_offsets(_partitions(own & counts.keys(), counts), committed=False)
        if full := sorted({source.topic for source, end in ends.items() if end > 0}):
            raise ConfigError(
                f"Job '{self._job.app}' has no plan for {', '.join(full)}, but there are records in it: "
                "another life or version of this job left them, and they would be taken for its state.",
                hint="delete the topics and the workers' data folders, or choose another application name.",
            )

    def _starts(self, counts: Mapping[str, int]) -> dict[InputPartition, int]:
        """Start offsets: those of the plan, and for what is new resolved once, now; none for what is read no more."""
        read = {(operator.uid, source.topic) for operator in self._job.operators for source in operator.inputs}
        planned = self._plan.starts if self._plan else {}
        starts = {place: offset for place, offset in planned.items() if place[:2] in read}
        for operator in self._job.operators:
            for source in operator.inputs:
                if (operator.uid, source.topic, 0) not in starts:
                    starts.update(_placed(operator.uid, self._start_offsets(source, counts)))
        return starts

    def _start_offsets(self, source: InputDescription, counts: Mapping[str, int]) -> dict[TopicPartition, int]:
        """`latest` is the last stable offset: a transaction that is open now is read whole, once it is committed."""
        partitions = list(_partitions([source.topic], counts))
        match source.start:
            case "earliest":
                return self._log.start_offsets(partitions)
            case "latest":
                return self._log.end_offsets(partitions, committed=True)
            case time_ms:
                return self._log.offsets_at(partitions, time_ms)

    def _ends(self, counts: Mapping[str, int], starts: Mapping[InputPartition, int]) -> dict[InputPartition, int]:
        """Ends of external inputs. A run that is under way keeps its own, also under a new leader."""
        ends: dict[InputPartition, int] = {}
        for operator in self._job.operators:
            for source in operator.inputs:
                if not source.internal:
                    taken = self._log.end_offsets(_partitions([source.topic], counts), committed=False)
                    ends.update(_placed(operator.uid, taken))
        ends = {place: max(end, starts[place]) for place, end in ends.items()}
        under_way = self._plan is not None and self._plan.bounded and not self._plan.complete
        if self._plan is None or not under_way:
            return ends
        return {**ends, **{place: end for place, end in self._plan.ends.items() if place in starts}}

    def _reason(self, *, bounded: bool) -> str:
        if self._plan is None:
            return "a bounded run" if bounded else ""
        mode = "a bounded run" if bounded else "an unbounded run"
        parts = continuity.changes(self._job, self._plan)
        parts += [f"build {self._job.build}"] if self._job.build != self._plan.build else []
        return "; ".join([*parts, *([mode] if bounded or self._plan.bounded else [])]) or "the job was extended"


def _says_it_all(plan: Plan, draft: Draft) -> bool:
    """Whether a plan holds all of a draft already. Ends of internal streams are the plan's own affair."""
    if (plan.registry, plan.partitions, plan.starts) != (draft.registry, draft.partitions, draft.starts):
        return False
    if plan.bounded != draft.bounded:
        return False
    return all(plan.ends.get(place) == end for place, end in draft.ends.items())


def _all_topics(job: JobDescription) -> Iterable[str]:
    return [*topics.external_topics(job), *topics.internal_topics(job)]


def _partitions(names: Iterable[str], counts: Mapping[str, int]) -> Iterator[TopicPartition]:
    return (TopicPartition(name, partition) for name in sorted(names) for partition in range(counts[name]))


def _placed(uid: str, offsets: Mapping[TopicPartition, int]) -> dict[InputPartition, int]:
    return {(uid, source.topic, source.partition): offset for source, offset in offsets.items()}

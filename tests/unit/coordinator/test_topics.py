"""Topics of a job: counts, configuration, faults; and whether a job continues a plan."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from kstate.config import Settings
from kstate.coordinator.topics import changed_counts, leadership_topics, partition_counts, topics_to_create
from kstate.description import (
    InputDescription,
    JobDescription,
    OperatorDescription,
    OutputDescription,
    StateDescription,
)
from kstate.errors import ConfigError
from kstate.plan import Plan, Registry

WORDS = "app.split.words"
SPLIT = OperatorDescription(
    "split", "none", (InputDescription("lines", "lines"),), (OutputDescription("words", WORDS, internal=True),)
)
COUNT = OperatorDescription(
    "count",
    "string",
    (InputDescription("words", WORDS, internal=True, source_uid="split"),),
    (OutputDescription("counts", "word-counts"),),
    (StateDescription("n", '"long"'),),
)
JOB = JobDescription("app", (SPLIT, COUNT))


def found(**counts: int) -> dict[str, int | None]:
    """What exists; underscores stand for hyphens."""
    return {name.replace("_", "-"): count for name, count in counts.items()}


def test_streams_get_the_setting_and_backups_follow_their_input() -> None:
    """Nothing external decides about the stream, so the default does; backup and dlq have the input's count."""
    assert partition_counts(JOB, found(lines=4, word_counts=2), 16) == {
        "lines": 4,
        "word-counts": 2,
        WORDS: 16,
        "app.split.backup": 4,
        "app.split.dlq": 4,
        "app.count.backup": 16,
        "app.count.dlq": 16,
    }


def test_a_stream_beside_an_external_input_has_its_count() -> None:
    """Co-inputs are partitioned alike, also through a chain of operators that share one of them."""
    joined = replace(COUNT, inputs=(*COUNT.inputs, InputDescription("stops", "stops")))
    counts = partition_counts(JobDescription("app", (SPLIT, joined)), found(lines=4, stops=6, word_counts=1), 16)
    assert counts[WORDS] == counts["app.count.backup"] == 6


def test_a_stream_that_exists_keeps_its_count() -> None:
    """A changed setting does not touch a topic that is there."""
    assert partition_counts(JOB, {**found(lines=4, word_counts=2), WORDS: 8}, 16)["app.count.backup"] == 8


def test_every_missing_topic_is_named_at_once() -> None:
    """One error for all of them."""
    with pytest.raises(ConfigError, match=r"topic 'lines' does not exist; create it; topic 'word-counts' does not"):
        partition_counts(JOB, {}, 16)


def test_inputs_of_one_operator_with_different_counts_are_refused() -> None:
    """The message names operator, topics and both counts."""
    joined = replace(SPLIT, inputs=(*SPLIT.inputs, InputDescription("stops", "stops")))
    with pytest.raises(ConfigError, match=r"inputs of 'split' .* differ: 'lines' has 4 partitions, 'stops' has 1 part"):
        partition_counts(JobDescription("app", (joined, COUNT)), found(lines=4, stops=1, word_counts=1), 16)


def test_a_backup_topic_of_another_set_up_is_refused() -> None:
    """Its count must be that of the operator's input."""
    with pytest.raises(ConfigError, match=r"backup topic of operator 'split' has 3 partitions, .*'lines'.* has 4"):
        partition_counts(JOB, {**found(lines=4, word_counts=1), "app.split.backup": 3}, 16)


@pytest.mark.parametrize(("replication", "durable"), [(-1, None), (1, None), (3, "2")])
def test_internal_topics_lose_nothing_by_themselves(replication: int, durable: str | None) -> None:
    """Infinite retention and CreateTime, lz4 for backups, two copies in sync where there are three."""
    settings = Settings(replication=replication)
    specs = {
        s.name: s for s in topics_to_create(JOB, partition_counts(JOB, found(lines=4, word_counts=1), 2), settings)
    }
    assert set(specs) == {WORDS, "app.split.backup", "app.split.dlq", "app.count.backup", "app.count.dlq"}
    for spec in specs.values():
        assert spec.config["retention.ms"] == "-1"
        assert spec.config["cleanup.policy"] == "delete"
        assert spec.config["message.timestamp.type"] == "CreateTime"
        assert spec.config.get("min.insync.replicas") == durable
        assert spec.config.get("compression.type") == ("lz4" if spec.name.endswith(".backup") else None)
    control, reports = leadership_topics("app", settings)
    assert (control.name, control.partitions, control.config["retention.ms"]) == ("app.control", 1, "-1")
    assert (reports.name, reports.partitions, reports.config["retention.ms"]) == ("app.reports", 1, "3600000")


def a_plan(registry: Registry, partitions: Mapping[str, int] | None = None) -> Plan:
    """A plan that reads lines and words."""
    starts = {("split", "lines", 0): 0, ("count", WORDS, 0): 0}
    return Plan("app", 7, 1, (), (), (), registry, partitions or {}, starts)


@pytest.mark.parametrize(
    ("now", "fault"),
    [
        ({"lines": 4, "gone": 1}, None),
        ({"lines": 6, "gone": 1}, "topic 'lines' had 4 partitions when the job was first started and has 6 now"),
        ({"lines": 2, "gone": 1}, "topic 'lines' had 4 partitions when the job was first started and has 2 now"),
        ({"lines": 4, "gone": None}, "topic 'gone' (1 partition) was deleted"),
    ],
)
def test_changed_topics_are_named_with_both_counts(now: dict[str, int | None], fault: str | None) -> None:
    """Added partitions, a topic made anew with fewer, a deleted one; and the mend."""
    message = changed_counts(a_plan(Registry(), {"lines": 4, "gone": 1}), now)
    assert (message is None) if fault is None else (fault in str(message) and "Mend:" in str(message))

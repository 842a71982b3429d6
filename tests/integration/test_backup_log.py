"""A backup log that is corrupt, torn or has a hole is refused, naming topic-partition and offset (rule S5)."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from kstate.adapters.kafka import KafkaLog
from kstate.clock import SystemClock, run_steps
from kstate.config import Settings
from kstate.errors import BackupLogError, DataLossError
from kstate.keyspace import FULL_RANGE
from kstate.plan import TopicPartition
from kstate.state.blocks import Block, decode_frame
from kstate.state.lineage import Lineage
from kstate.state.restore import RestoreTarget, restore
from kstate.testing.memory_store import MemoryStore
from kstate.testing.real_kafka import KafkaUnderTest
from tests.support.cluster import Cluster, cluster
from tests.support.oracle import assert_exactly_once, await_true
from tests.support.topics import admin, create_topics, entries, expected_tallies, produce, produce_entries

pytestmark = pytest.mark.integration

BACKUP_LOG, DATA_LOSS = BackupLogError.exit_code, DataLossError.exit_code
GIVEN = 3_000

Log = list[bytes]
Harm = Callable[[Log], tuple[Log, int, str]]
"""A log to a harmed one, the offset that the error must name, and a word of it."""


def index_of(log: Sequence[bytes], kind: str, nth: int) -> int:
    """Where the n-th block or marker stands; negative: from the end."""
    places = [at for at, data in enumerate(log) if isinstance(decode_frame(data), Block) == (kind == "block")]
    return places[nth]


def flip_a_byte_of_a_block(log: Log) -> tuple[Log, int, str]:
    """The frame's own checksum tells."""
    at = index_of(log, "block", 2)
    data = bytearray(log[at])
    data[len(data) // 2] ^= 1
    return [*log[:at], bytes(data), *log[at + 1 :]], at, "checksum"


def lose_a_block(log: Log) -> tuple[Log, int, str]:
    """Its marker counts one more than there are."""
    at = index_of(log, "block", 2)
    return log[:at] + log[at + 1 :], index_of(log, "marker", 2) - 1, "blocks"


def lose_a_marker(log: Log) -> tuple[Log, int, str]:
    """The next marker does not follow the one before the lost one."""
    at = index_of(log, "marker", 2)
    return log[:at] + log[at + 1 :], index_of(log, "marker", 3) - 1, "follows"


def lose_the_last_marker(log: Log) -> tuple[Log, int, str]:
    """The last epoch is torn: its blocks stand there without it."""
    at = index_of(log, "marker", -1)
    assert at == len(log) - 1
    return log[:at], index_of(log, "block", -1), "torn"


def add_rubbish(log: Log) -> tuple[Log, int, str]:
    """A record that kstate never wrote."""
    return [*log, b"rubbish from somebody else"], len(log), "expected"


HARMS: list[Harm] = [flip_a_byte_of_a_block, lose_a_block, lose_a_marker, lose_the_last_marker, add_rubbish]


@pytest.fixture
def made(kstate_kafka: KafkaUnderTest, tmp_path: Path) -> Iterator[Cluster]:
    """The tally job after a run of several epochs, all of it in one partition."""
    with cluster(kstate_kafka.bootstrap_servers, "tally", tmp_path) as made:
        create_topics(made.bootstrap_servers, {made.topic("entries"): 1, made.topic("tallies"): 1})
        produce_entries(made.bootstrap_servers, made.topic("entries"), entries(GIVEN))
        made.pace(0.0003)
        assert made.run("--until-end", workers=1).wait() == 0, made.report()
        made.pace(0)
        yield made


def log_of(made: Cluster) -> Log:
    """The backup log as it is."""
    return [record.value or b"" for record in made.records(made.internal("tally.backup"))]


def restored(made: Cluster, source: TopicPartition) -> Lineage:
    """Restore a log into an empty store, as a worker does."""
    settings = Settings(bootstrap_servers=made.bootstrap_servers)
    target = RestoreTarget(source, 1, FULL_RANGE)
    with closing(KafkaLog(settings, SystemClock())) as log:
        return run_steps(restore(log, MemoryStore(), target, SystemClock(), settings), SystemClock())


def test_a_harmed_backup_log_is_not_restored_and_a_sound_one_is(made: Cluster) -> None:
    """Each harm stands in a partition of its own; the error names it and the offset."""
    sound, copies = log_of(made), made.topic("copies")
    create_topics(made.bootstrap_servers, {copies: len(HARMS) + 1})
    for number, harm in enumerate(HARMS):
        harmed, offset, word = harm(list(sound))
        produce(made.bootstrap_servers, copies, ((None, data) for data in harmed), partition=number)
        with pytest.raises(BackupLogError, match=rf"{copies}\[{number}\] at offset {offset}: .*{word}"):
            restored(made, TopicPartition(copies, number))
    produce(made.bootstrap_servers, copies, ((None, data) for data in sound), partition=len(HARMS))
    ((_, position),) = restored(made, TopicPartition(copies, len(HARMS)))
    assert position.progress == {made.topic("entries"): GIVEN}


def rewrite(made: Cluster, topic: str, log: Sequence[bytes]) -> None:
    """Make the topic anew with this content in its only partition."""
    client = admin(made.bootstrap_servers)
    client.delete_topics([topic])[topic].result(30)
    await_true(lambda: topic not in client.list_topics(timeout=10).topics, 15, "the end of the topic")
    create_topics(made.bootstrap_servers, {topic: 1})
    produce(made.bootstrap_servers, topic, ((None, data) for data in log), partition=0)


def test_a_job_with_a_torn_backup_log_stops_and_goes_on_once_it_is_whole(made: Cluster) -> None:
    """A log that lost its tail is noticed by the local copy that knows more (exit code 8); on a new machine a torn one
    by itself (7). Nothing is processed until the log is put right.
    """
    backup, sound = made.internal("tally.backup"), log_of(made)
    more = entries(500, first=GIVEN)
    produce_entries(made.bootstrap_servers, made.topic("entries"), more)
    rewrite(made, backup, sound[: index_of(sound, "marker", 1) + 1])
    assert made.run("--until-end", workers=1).wait() == DATA_LOSS, made.report()
    assert f"{backup}[0] ends at" in " ".join(made.output("run").split())
    harmed, offset, _ = lose_the_last_marker(list(sound))
    rewrite(made, backup, harmed)
    shutil.rmtree(made.data / made.app)
    assert made.run("--until-end", workers=1).wait() == BACKUP_LOG, made.report()
    assert f"{backup}[0] at offset {offset}" in " ".join(made.output("run").split())
    assert len(made.records(made.topic("tallies"))) == GIVEN
    rewrite(made, backup, sound)
    assert made.run("--until-end", workers=1).wait() == 0, made.report()
    assert_exactly_once(made.bootstrap_servers, made.topic("tallies"), expected_tallies(entries(GIVEN) + more))

"""A backup log that is corrupt, torn or has a hole is refused, naming topic-partition and offset (rule S5)."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from kstate.state.blocks import Block, decode_frame
from kstate.testing.real_kafka import KafkaUnderTest
from tests.support.cluster import Cluster, cluster
from tests.support.oracle import assert_exactly_once, await_true, committed
from tests.support.topics import admin, create_topics, entries, expected_tallies, produce, produce_entries

pytestmark = pytest.mark.integration

BACKUP_LOG = 7
"""Exit code (kstate.errors)."""

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


def rewrite(made: Cluster, topic: str, log: Sequence[bytes]) -> None:
    """Make the topic anew with this content in its only partition."""
    client = admin(made.bootstrap_servers)
    client.delete_topics([topic])[topic].result(30)
    await_true(lambda: topic not in client.list_topics(timeout=10).topics, 15, "the end of the topic")
    create_topics(made.bootstrap_servers, {topic: 1})
    produce(made.bootstrap_servers, topic, ((None, data) for data in log), partition=0)


def test_a_harmed_backup_log_is_refused_and_a_sound_one_is_not(kstate_kafka: KafkaUnderTest, tmp_path: Path) -> None:
    """Whoever has to restore from it stops with exit code 7 and says where. The same log unharmed restores."""
    with cluster(kstate_kafka.bootstrap_servers, "tally", tmp_path) as made:
        server, backup = made.bootstrap_servers, made.internal("tally.backup")
        create_topics(server, {made.topic("entries"): 1, made.topic("tallies"): 1})
        given = entries(3_000)
        produce_entries(server, made.topic("entries"), given)
        made.pace(0.0003)  # so that there are several epochs
        assert made.run("--until-end", workers=1).wait() == 0, made.report()
        made.pace(0)
        sound = [record.value or b"" for record in committed(server, backup)]
        for harm in (flip_a_byte_of_a_block, lose_a_block, lose_a_marker, lose_the_last_marker, add_rubbish):
            harmed, offset, word = harm(list(sound))
            rewrite(made, backup, harmed)
            shutil.rmtree(made.data / made.app)
            more = entries(20, first=len(given))
            produce_entries(server, made.topic("entries"), more)
            given += more
            before = made.output("run")
            assert made.run("--until-end", workers=1).wait() == BACKUP_LOG, made.report()
            said = " ".join(made.output("run").removeprefix(before).split())
            assert f"{backup}[0] at offset {offset}" in said, said
            assert word in said
        rewrite(made, backup, sound)
        for _ in ("to the ends fixed by the first refused run", "to the present ones"):
            assert made.run("--until-end", workers=1).wait() == 0, made.report()
        assert_exactly_once(server, made.topic("tallies"), expected_tallies(given))

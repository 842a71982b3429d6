"""Bad records become dead letters, bad set-ups are refused with a message that names the thing and the mend."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin import NewPartitions

from kstate.testing.real_kafka import KafkaUnderTest
from tests.support.cluster import Cluster, cluster
from tests.support.oracle import Seen, assert_exactly_once, committed, ends
from tests.support.records import Entry, encoded
from tests.support.topics import (
    admin,
    create_topics,
    delete_records,
    entries,
    expected_tallies,
    produce,
    produce_entries,
)

pytestmark = pytest.mark.integration

PARTITIONS = 2

CONFIG, OPERATOR, DATA_LOSS = 2, 3, 8
"""Exit codes (kstate.errors)."""


@pytest.fixture
def made(kstate_kafka: KafkaUnderTest, tmp_path: Path) -> Iterator[Cluster]:
    """The tally job with its topics."""
    with cluster(kstate_kafka.bootstrap_servers, "tally", tmp_path) as made:
        create_topics(made.bootstrap_servers, {made.topic("entries"): PARTITIONS, made.topic("tallies"): PARTITIONS})
        yield made


def shown(made: Cluster) -> str:
    """Everything that the processes printed, on one line whatever the width of their terminal."""
    return " ".join(" ".join(process.text for process in made.processes).split())


def refused(made: Cluster, exit_code: int, *words: str) -> None:
    """The run ended with this code, and said all these words."""
    run = made.processes[-1]
    assert run.wait(30) == exit_code, made.report()
    for word in words:
        assert word in shown(made), f"{word!r} is not in:\n{run.text}"


def test_records_that_cannot_be_processed_become_dead_letters_and_nothing_else_is_lost(made: Cluster) -> None:
    """Each letter says why and where, and carries the original bytes, or a reference when they do not fit."""
    good = entries(4_400, keys=50)
    bad: list[tuple[bytes | None, bytes | None, str]] = [
        (b"k1", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", "is no Entry"),
        (None, encoded(Entry("k1", 1, "")), "null key"),
        (b"k1", None, "null value"),
        (b"other", encoded(Entry("k1", 2, "")), "differs from field 'account'"),
        (b"\xff\xfe", encoded(Entry("k1", 3, "")), "key does not decode"),
        (b"k1", encoded(Entry("k1", 4, "raise")), "entry 4 asked for it"),
        (b"k1", encoded(Entry("k1", 5, "reject")), "entry 5 is not wanted"),
        (b"k1", encoded(Entry("k1", 6, "big-output")), "the limit is"),
        (b"k1", encoded(Entry("k1", 7, "big-state")), "state 'blob' of key 'k1'"),
        (b"k1", b"\xff" * 999_800, ""),  # just fits
        (b"k1", b"\xff" * 1_040_000, ""),
    ]
    topic, server = made.topic("entries"), made.bootstrap_servers
    written: list[tuple[bytes | None, bytes | None]] = []
    for number, (key, value, _) in enumerate(bad):
        between = good[number * 400 : (number + 1) * 400]
        written += [*((entry.account.encode(), encoded(entry)) for entry in between), (key, value)]
    produce(server, topic, written)
    run = made.run("--until-end", workers=1)
    assert run.wait() == 0, made.report()
    assert_exactly_once(server, made.topic("tallies"), expected_tallies(good))
    _check_letters(committed(server, topic), committed(server, made.internal("tally.dlq")), bad)


def _check_letters(inputs: list[Seen], letters: list[Seen], bad: list[tuple[bytes | None, bytes | None, str]]) -> None:
    places = {(record.key, record.value): record for record in inputs}
    by_place = {(l.header["kstate.topic"], l.header["kstate.partition"], l.header["kstate.offset"]): l for l in letters}
    assert len(by_place) == len(letters) == len(bad)
    for key, value, reason in bad:
        source = places[key, value]
        letter = by_place[source.topic, str(source.partition), str(source.offset)]
        assert reason in letter.header["kstate.reason"]
        assert letter.header["kstate.operator"] == "tally"
        if len(value or b"") < 1_000_000:
            assert (letter.key, letter.value) == (key, value)
        else:
            assert letter.value is None
            assert f"{source.topic}[{source.partition}]@{source.offset}" in letter.header["kstate.reference"]


def test_a_job_of_which_too_much_fails_stops_and_commits_nothing_of_that_epoch(made: Cluster) -> None:
    """A bug must not drain the topic: exit code 3, the last failure named, no result and no letter of the epoch."""
    good = entries(300)
    produce_entries(made.bootstrap_servers, made.topic("entries"), good)
    made.run(workers=2)
    made.await_records(made.topic("tallies"), len(good))
    failing = [Entry(e.account, e.id, "raise" if e.id % 4 == 0 else "") for e in entries(4_000, first=1_000)]
    produce_entries(made.bootstrap_servers, made.topic("entries"), failing)
    refused(made, OPERATOR, "'tally'", "records of one epoch failed", "asked for it", made.topic("entries"))
    assert_exactly_once(made.bootstrap_servers, made.topic("tallies"), expected_tallies(good))
    assert committed(made.bootstrap_servers, made.internal("tally.dlq")) == []


def test_a_missing_topic_is_refused(kstate_kafka: KafkaUnderTest, tmp_path: Path) -> None:
    """It is named, and nothing is made in its place."""
    with cluster(kstate_kafka.bootstrap_servers, "tally", tmp_path) as made:
        create_topics(made.bootstrap_servers, {made.topic("tallies"): 1})
        made.coordinator()
        refused(made, CONFIG, made.topic("entries"))
        topics = admin(made.bootstrap_servers).list_topics(timeout=10).topics
        assert not [name for name in topics if name.startswith(made.app) and name != made.topic("tallies")]


def test_inputs_whose_partitions_do_not_match_are_refused(kstate_kafka: KafkaUnderTest, tmp_path: Path) -> None:
    """Both are named with their counts."""
    with cluster(kstate_kafka.bootstrap_servers, "pair", tmp_path) as made:
        create_topics(made.bootstrap_servers, {made.topic("left"): 2, made.topic("right"): 3, made.topic("both"): 1})
        made.coordinator()
        refused(made, CONFIG, f"'{made.topic('left')}' has 2 partitions", f"'{made.topic('right')}' has 3 partitions")


def test_partitions_added_to_a_running_job_stop_it_and_it_does_not_start_again(made: Cluster) -> None:
    """Keys would change their partition: the job halts within seconds, and so does every later start."""
    server, topic = made.bootstrap_servers, made.topic("entries")
    produce_entries(server, topic, entries(500))
    made.run(workers=1)
    made.await_records(made.topic("tallies"), 500)
    client = admin(server)
    client.create_partitions([NewPartitions(topic, PARTITIONS + 1)])[topic].result(30)
    refused(made, CONFIG, f"'{topic}' had 2 partitions", "has 3 now")
    made.coordinator()
    refused(made, CONFIG, f"'{topic}' had 2 partitions", "has 3 now")
    assert len(committed(server, made.topic("tallies"))) == 500


def test_records_placed_by_another_partitioner_stop_the_job(made: Cluster) -> None:
    """One key would have two states: key, partition and the right one are named, nothing of the epoch is committed."""
    server, topic = made.bootstrap_servers, made.topic("entries")
    given = entries(200)
    produce_entries(server, topic, given)
    placed = next(record for record in committed(server, topic) if record.partition == 0)
    produce(server, topic, [(placed.key, placed.value)], partition=1)
    made.run("--until-end", workers=1)
    refused(made, CONFIG, "murmur2", repr(placed.key), f"{topic}[1]", "partition 0 of 2")


def test_a_start_below_the_log_start_is_refused_and_never_skipped(made: Cluster) -> None:
    """Records that were not processed are gone: the job names topic, partition and both offsets, and stops."""
    server, topic = made.bootstrap_servers, made.topic("entries")
    produce_entries(server, topic, entries(400))
    run = made.run("--until-end", workers=1)
    assert run.wait() == 0, made.report()
    done = ends(server, topic)
    produce_entries(server, topic, entries(400, first=400))
    delete_records(server, topic, 1, done[1] + 10)
    made.run("--until-end", workers=1)
    refused(made, DATA_LOSS, f"{topic}[1]", str(done[1]), str(done[1] + 10))


def test_the_second_process_on_a_data_folder_refuses(made: Cluster) -> None:
    """Two workers of one name would write one store: the second says so and ends, the first goes on."""
    server, topic = made.bootstrap_servers, made.topic("entries")
    made.coordinator("--workers", "1")
    first = made.worker("one")
    produce_entries(server, topic, entries(100))
    made.await_records(made.topic("tallies"), 100)
    second = made.worker("one")
    assert second.wait(15) == CONFIG, made.report()
    assert str(made.data) in second.text.replace("\n", "")
    produce_entries(server, topic, entries(100, first=100))
    made.await_records(made.topic("tallies"), 200)
    assert first.exit_code is None

"""A worker that was stopped, declared dead and replaced writes nothing when it wakes up, and exits (rules S2, S3)."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from kstate.testing.real_kafka import KafkaUnderTest
from tests.support.backups import frames, late_frames
from tests.support.cluster import Cluster, cluster, is_stopped
from tests.support.oracle import Observer, assert_exactly_once, ends
from tests.support.sabotage import IN_HANDLER, Deed, Order
from tests.support.topics import create_topics, entries, expected_tallies, produce_entries

pytestmark = [pytest.mark.integration, pytest.mark.chaos]

PARTITIONS = 2
CHUNK = 2_000
FENCED = 4

STOPS = (
    Order(IN_HANDLER, Deed.STOP, nth=20),
    Order("outputs-part", Deed.STOP, delay=0.05),
    Order("flushed", Deed.STOP),
)


def log_ends(made: Cluster) -> dict[str, dict[int, int]]:
    """Where everything that a worker writes ends, open and aborted transactions included."""
    topics = [made.topic("tallies"), made.internal("tally.backup"), made.internal("tally.dlq")]
    return {topic: ends(made.bootstrap_servers, topic) for topic in topics}


def test_a_stopped_worker_that_was_replaced_writes_nothing_and_exits(
    kstate_kafka: KafkaUnderTest, tmp_path: Path
) -> None:
    """Stopped in mid-processing, in an open transaction, and before its commit: its work is done by the other one.

    When all input is processed nothing is written any more; then it wakes up. The ends of all logs stay where they are,
    read_uncommitted, and in the backup no frame of its incarnation follows the first marker of its heir. The roles
    change from round to round: tiles stay with the heir.
    """
    at_once = {"KSTATE_FAILURE__SUCCESSOR_WAIT_MS": "100"}
    with cluster(kstate_kafka.bootstrap_servers, "tally", tmp_path, **at_once) as made:
        server, results = made.bootstrap_servers, made.topic("tallies")
        create_topics(server, {made.topic("entries"): PARTITIONS, results: PARTITIONS})
        given = entries(CHUNK * len(STOPS))
        made.coordinator("--workers", "2")
        workers = {name: made.worker(name) for name in ("one", "two")}
        for name in workers:
            made.await_step(name, "restored", 0)
        with Observer(server, results) as observer:
            for number, stop in enumerate(STOPS):
                victim, heir = ("one", "two") if number % 2 == 0 else ("two", "one")
                made.pace(0.002)
                produce_entries(server, made.topic("entries"), given[number * CHUNK : (number + 1) * CHUNK])
                stopped = made.deed(victim, stop)
                assert is_stopped(stopped.pid)
                made.pace(0)
                made.await_records(results, (number + 1) * CHUNK)
                before = log_ends(made)
                workers[victim].signal(signal.SIGCONT)
                assert workers[victim].wait(20) == FENCED, made.report()
                assert log_ends(made) == before
                heirs = {made.events(heir)[-1].incarnation}
                assert late_frames(frames(server, made.internal("tally.backup")), stopped.incarnation, heirs) == []
                workers[victim] = made.worker(victim)
                made.await_step(victim, "opened", stopped.at)
            assert_exactly_once(server, results, expected_tallies(given), observer)

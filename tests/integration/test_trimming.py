"""Backup logs are trimmed on real Kafka while a copy stands still below the new start: it starts over, all is right."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from kstate.testing.real_kafka import KafkaUnderTest
from tests.support.cluster import Cluster, cluster
from tests.support.oracle import Observer, assert_exactly_once, starts
from tests.support.sabotage import Deed, Order
from tests.support.topics import create_topics, entries, expected_tallies, produce_entries

pytestmark = [pytest.mark.integration, pytest.mark.chaos]

PARTITIONS = 2
CHUNK = 3_000
KEYS = 300
ROUNDS_MAX = 20
RESTLESS = {
    "KSTATE_REBASE__GROWN_BYTES": "20000",
    "KSTATE_REBASE__SLICE_BYTES": "4000",
    "KSTATE_REBASE__TRIM_EVERY_MS": "300",
    "KSTATE_RECOVERY__STANDBYS": "1",
    "KSTATE_FAILURE__SUCCESSOR_WAIT_MS": "100",
    "KSTATE_FAILURE__HEARTBEATS_MISSED": "1000",  # who stands still for a while is no dead worker here
}
LAST_EPOCH = Order("flushed")


class Trimmed:
    """A job whose backup logs are written anew and trimmed all the time."""

    def __init__(self, made: Cluster) -> None:
        self.made = made
        self.given = entries(CHUNK * (ROUNDS_MAX + 3), keys=KEYS)
        self.handed = 0

    @property
    def log_start(self) -> int:
        """The least of both backup partitions."""
        return min(starts(self.made.bootstrap_servers, self.made.internal("tally.backup")).values())

    def produce(self, count: int = CHUNK) -> None:
        """Further records."""
        chunk = self.given[self.handed : self.handed + count]
        self.handed += len(chunk)
        produce_entries(self.made.bootstrap_servers, self.made.topic("entries"), chunk)

    def feed(self, count: int = CHUNK) -> None:
        """Further records, until their results are there."""
        self.produce(count)
        self.made.await_records(self.made.topic("tallies"), self.handed)

    def feed_until_trimmed(self, beyond: int) -> None:
        """Records come until both logs begin behind an offset."""
        for _ in range(ROUNDS_MAX):
            if self.log_start > beyond:
                return
            self.feed(CHUNK // 2)
        raise AssertionError(f"the logs begin at {self.log_start}, expected > {beyond}\n{self.made.report()}")


def standing_still(step: str) -> Order:
    """The worker's process is stopped as a whole at a step, until it is told to go on; nobody takes it for dead."""
    return Order(step, Deed.STOP, hand=0)


def test_a_copy_below_the_start_of_a_trimmed_log_starts_over(kstate_kafka: KafkaUnderTest, tmp_path: Path) -> None:
    """A standby that stands still, restores from the log start as slowly as can be, and then takes over."""
    with cluster(kstate_kafka.bootstrap_servers, "tally", tmp_path, **RESTLESS) as made:
        server, results = made.bootstrap_servers, made.topic("tallies")
        create_topics(server, {made.topic("entries"): PARTITIONS, results: PARTITIONS})
        job = Trimmed(made)
        made.coordinator("--workers", "1")
        made.worker("one")
        with Observer(server, results) as observer:
            job.feed()
            made.worker("two")
            made.await_step("two", "followed", 0)
            idle = made.deed("two", standing_still("await-news"))
            job.feed_until_trimmed(beyond=job.log_start + 20)
            made.order("two", at_the_start := standing_still("dropped"))  # its copy is of no use any more
            os.kill(idle.pid, signal.SIGCONT)
            restoring = made.await_deed("two", at_the_start, 1)
            job.feed_until_trimmed(beyond=job.log_start + 20)
            os.kill(restoring.pid, signal.SIGCONT)
            made.await_step("two", "followed", restoring.at)
            made.order("one", LAST_EPOCH)
            job.produce()
            made.report_exit(made.await_deed("one", LAST_EPOCH, 0))
            job.feed()
            assert_exactly_once(server, results, expected_tallies(job.given[: job.handed]), observer)

"""A worker is killed while it restores, in every window of the restore, and the state is right all the same."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from kstate.testing.real_kafka import KafkaUnderTest
from tests.support.cluster import Cluster, cluster
from tests.support.oracle import Observer, assert_exactly_once
from tests.support.records import Entry
from tests.support.sabotage import Event, Order
from tests.support.stores import GHOSTS, spoil
from tests.support.topics import create_topics, entries, expected_tallies, produce_entries

pytestmark = [pytest.mark.integration, pytest.mark.chaos]

PARTITIONS = 2
CHUNK = 6_000
ROUNDS = 3
STORE_BYTES = "KSTATE_STATE__STORE_BYTES"
SMALL_STORE = str(1 << 20)
"""Sorted runs of 256 KiB: a restore ingests at least one."""
LARGE_STORE = str(64 << 20)
"""All that is read stays in memory until the end: no step of the reading is one that ingests."""

BETWEEN_DROP_AND_INGEST = Order("dropped", hand=0)
AFTER_THE_FIRST_INGEST = Order("ingested", hand=0)
WHILE_READING = Order("restore-read", hand=0)


def die(made: Cluster, order: Order, store_bytes: str = SMALL_STORE) -> Event:
    """Start the worker, and see it killed in a window of its restore, before it adopted anything."""
    done = len(made.deeds("one"))
    made.order("one", order)
    made.settings[STORE_BYTES] = store_bytes
    made.worker("one")
    made.settings[STORE_BYTES] = SMALL_STORE
    event = made.await_deed("one", order, done)
    assert not [e for e in made.events("one") if e.pid == event.pid and e.step == "restored" and e.at > event.at]
    made.report_exit(event)
    return event


def test_a_worker_killed_while_it_restores_starts_over_and_nothing_of_the_dropped_copy_comes_back(
    kstate_kafka: KafkaUnderTest, tmp_path: Path
) -> None:
    """Three rounds. Each time the local copy is wrong and of no use: it holds state of keys that never were.

    Killed after the drop, in mid-reading, and after the first sorted file was ingested in the same life as a drop. Then
    those keys come: they must be counted from where the backup says, the first time from nothing.
    """
    with cluster(kstate_kafka.bootstrap_servers, "tally", tmp_path, **{STORE_BYTES: SMALL_STORE}) as made:
        server, results = made.bootstrap_servers, made.topic("tallies")
        create_topics(server, {made.topic("entries"): PARTITIONS, results: PARTITIONS})
        made.coordinator("--workers", "1")
        given: list[Entry] = []
        with Observer(server, results) as observer:
            for number in range(ROUNDS):
                worker = made.worker("one")
                chunk = [Entry(ghost, number * 100 + at, "") for at, ghost in enumerate(GHOSTS)] if number else []
                given += chunk + entries(CHUNK, keys=20_000, seed=number, first=1_000 + number * CHUNK)
                produce_entries(server, made.topic("entries"), given[-CHUNK - len(chunk) :])
                made.await_records(results, len(given))
                worker.signal(signal.SIGTERM)  # what a killed worker has in memory only is gone: there must be a copy
                assert worker.wait(10) == 0, made.report()
                spoil(made, "one", kstate_kafka.cluster_id, PARTITIONS)
                die(made, BETWEEN_DROP_AND_INGEST)
                die(made, WHILE_READING, LARGE_STORE)
                spoil(made, "one", kstate_kafka.cluster_id, PARTITIONS)
                die(made, AFTER_THE_FIRST_INGEST)
            made.worker("one")
            last = [Entry(ghost, 10_000_000 + at, "") for at, ghost in enumerate(GHOSTS)]
            produce_entries(server, made.topic("entries"), last)
            made.await_records(results, len(given) + len(last))
            assert_exactly_once(server, results, expected_tallies(given + last), observer)

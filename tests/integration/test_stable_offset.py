"""An open transaction of a stranger holds down the last stable offset of a backup partition (rule S1, story P1).

Whoever must know what was committed, an heir or a worker in doubt about its own commit, must wait for it.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from confluent_kafka import Producer

from kstate.testing.real_kafka import KafkaUnderTest
from tests.support.brokers import proxied_broker
from tests.support.cluster import Cluster, cluster
from tests.support.oracle import Observer, assert_exactly_once, committed, ends
from tests.support.sabotage import IN_HANDLER, Order
from tests.support.tcp_proxy import Mischief, Rule
from tests.support.topics import create_topics, entries, expected_tallies, produce_entries

pytestmark = [pytest.mark.integration, pytest.mark.chaos]

ENTRIES = 4_000
HELD_SECONDS = 2.0


def stranger(server: str, topic: str) -> Producer:
    """A transactional producer with an open transaction in the only partition of a topic."""
    producer = Producer(
        {
            "bootstrap.servers": server,
            "transactional.id": f"{topic}-stranger",
            "transaction.timeout.ms": 60_000,
            "log_level": 0,
        }
    )
    producer.init_transactions(20)
    producer.begin_transaction()
    producer.produce(topic, b"never committed", partition=0)
    assert producer.flush(10) == 0
    return producer


def _steps(made: Cluster, incarnation: str) -> list[str]:
    """The steps that an incarnation has taken."""
    return [event.step for event in made.events() if event.incarnation == incarnation]


def test_an_heir_waits_for_the_markers_that_an_open_transaction_hides(
    kstate_kafka: KafkaUnderTest, tmp_path: Path
) -> None:
    """The victim commits epochs behind a stranger's open transaction, where read_committed does not see them, and dies.

    Its heir knows the end of the log and waits; it restores nothing and emits nothing until the stranger aborts.
    """
    with cluster(kstate_kafka.bootstrap_servers, "tally", tmp_path) as made:
        server, results, backup = made.bootstrap_servers, made.topic("tallies"), made.internal("tally.backup")
        create_topics(server, {made.topic("entries"): 1, results: 1})
        produce_entries(server, made.topic("entries"), entries(ENTRIES))
        made.pace(0.001)
        made.coordinator("--workers", "1")
        made.worker("one")
        first = made.await_step("one", "stored", 0)
        with Observer(server, results) as observer:
            open_transaction = stranger(server, backup)
            taken = ends(server, backup, "read_committed")[0]
            made.await_step("one", "stored", made.await_step("one", "stored", time.monotonic()).at)
            killed = made.deed("one", Order(IN_HANDLER, nth=20))
            made.report_exit(killed)
            written = [each.offset for each in committed(server, backup, "read_uncommitted")]
            assert ends(server, backup, "read_committed")[0] == taken < max(written) - 1, "nothing is hidden"
            emitted = len(made.records(results))
            made.worker("one")
            heir = made.await_step("one", "started", killed.at).incarnation
            # It takes the end of control first, then that of the backup.
            made.await_true(lambda: _steps(made, heir).count("h-taken") == 2, 15, "restore of the heir")
            time.sleep(HELD_SECONDS)
            assert not {"restored", "polled", "begun"} & set(_steps(made, heir)), made.report()
            assert len(made.records(results)) == emitted
            released_at = time.monotonic()
            open_transaction.abort_transaction(10)
            assert made.await_step("one", "restored", killed.at).at > released_at
            made.pace(0)
            made.await_records(results, ENTRIES)
            assert_exactly_once(server, results, expected_tallies(entries(ENTRIES)), observer)
        assert first.incarnation == killed.incarnation


def test_a_worker_in_doubt_waits_for_its_own_marker_that_an_open_transaction_hides(tmp_path: Path) -> None:
    """It commits behind a stranger's open transaction and never hears of it. Up to the last stable offset its marker is
    not there; it must wait for the end that it took after it opened anew, find the marker, and not do the epoch again.
    """
    patient = {"KSTATE_FAILURE__COMMIT_SLOW_MS": "1500", "KSTATE_FAILURE__SUCCESSOR_WAIT_MS": "60000"}
    with proxied_broker() as (broker, proxy), cluster(proxy.address, "tally", tmp_path, **patient) as made:
        server, results, backup = broker.bootstrap_servers, made.topic("tallies"), made.internal("tally.backup")
        create_topics(server, {made.topic("entries"): 1, results: 1})
        produce_entries(server, made.topic("entries"), entries(ENTRIES))
        made.pace(0.001)
        made.coordinator("--workers", "1")
        made.worker("one")
        worker = made.await_step("one", "stored", 0).incarnation
        with Observer(server, results) as observer:
            open_transaction = stranger(server, backup)
            taken = ends(server, backup, "read_committed")[0]
            made.await_step("one", "stored", time.monotonic())
            proxy.apply(Rule(Mischief.WITHHOLD_REPLY, worker))
            proxy.wait_held()
            caught = made.events("one")[-1]
            assert caught.step == "flushed", made.report()
            assert caught.hand > 0
            tainted = made.await_step("one", "tainted", caught.at)
            proxy.mend()
            assert ends(server, backup, "read_committed")[0] == taken, "nothing is hidden"
            assert ends(server, backup)[0] > taken + 2
            opened = made.await_step("one", "opened", tainted.at)
            made.await_true(lambda: _steps_since(made, opened.at).count("h-taken") == 2, 15, "look of the worker")
            time.sleep(HELD_SECONDS)
            assert not {"looked", "stored", "undone", "polled"} & set(_steps_since(made, tainted.at)), made.report()
            released_at = time.monotonic()
            open_transaction.abort_transaction(10)
            assert made.await_step("one", "looked", tainted.at).at > released_at
            made.await_step("one", "stored", released_at)
            assert "undone" not in _steps_since(made, tainted.at), "it did an epoch again that was committed"
            proxy.release()
            made.pace(0)
            made.await_records(results, ENTRIES)
            assert {event.incarnation for event in made.events()} == {worker}, "somebody was started again"
            assert_exactly_once(server, results, expected_tallies(entries(ENTRIES)), observer)


def _steps_since(made: Cluster, at: float) -> list[str]:
    """All steps after a time."""
    return [event.step for event in made.events() if event.at > at]

"""From one version of a job to the next, on a real broker, with real processes, while records come in."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import pytest

from kstate.testing.real_kafka import KafkaUnderTest
from tests.support.cluster import Cluster, cluster
from tests.support.oracle import assert_exactly_once
from tests.support.topics import create_topics, entries, expected_tallies, produce_entries

pytestmark = pytest.mark.integration

ENTRIES, PART = 40_000, 250


def stop(made: Cluster, name: str) -> None:
    """SIGTERM to the newest process of this name; an orderly end."""
    process = next(p for p in reversed(made.processes) if p.name == name)
    process.signal(signal.SIGTERM)
    assert process.wait(20) == 0, made.report()


def replace(made: Cluster, name: str) -> None:
    """The old version of a worker goes, the new one joins."""
    before = made.output("coordinator").count(f"{name} joined")
    stop(made, name)
    made.worker(name)
    made.await_true(
        lambda: made.output("coordinator").count(f"{name} joined") > before, 20, f"{name} among the members"
    )


def test_a_rolling_restart_to_the_next_version_under_load_loses_and_doubles_nothing(
    kstate_kafka: KafkaUnderTest, tmp_path: Path
) -> None:
    """The next version's state has another schema and another name, one state is dropped. A coordinator that would
    forget state is refused while all goes on; then coordinator and workers are replaced one by one, entries coming in
    all the time. Every entry is tallied once, in order, on the sum that the old version left.
    """
    with cluster(kstate_kafka.bootstrap_servers, "tally", tmp_path) as made:
        server, results = made.bootstrap_servers, made.topic("tallies")
        create_topics(server, {made.topic("entries"): 4, results: 2})
        given, sent = entries(ENTRIES), 0
        enough = threading.Event()

        def feed() -> None:
            nonlocal sent
            while not enough.wait(0.4) and sent < ENTRIES:
                produce_entries(server, made.topic("entries"), given[sent : sent + PART])
                sent += PART

        made.coordinator("--workers", "2")
        made.worker("one")
        made.worker("two")
        feeder = threading.Thread(target=feed)
        feeder.start()
        try:
            made.await_records(results, PART)
            made.job = "tally_refused"
            refused = made.command("refused", "coordinator", made._job)
            assert refused.wait(20) == 2, made.report()
            assert "state 'blob' of operator 'tally' vanished" in refused.text
            made.job = "tally_2"
            stop(made, "coordinator")
            made.coordinator("--workers", "2")
            made.await_true(lambda: "superseded" in made.output("one"), 20, "plan of the next version")
            replace(made, "one")
            replace(made, "two")
            assert feeder.is_alive(), "the restart was under load"
        finally:
            enough.set()
            feeder.join()
        made.await_records(results, sent)
        assert_exactly_once(server, results, expected_tallies(given[:sent]))
        for name in ("one", "two"):
            stop(made, name)

"""The broker goes away for a while: workers wait, hold still, and go on; nothing is lost, nobody is started again."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kstate.adapters.embedded_broker import EmbeddedBroker
from tests.support.cluster import Cluster, Process, cluster, resident_bytes
from tests.support.oracle import Observer, assert_exactly_once
from tests.support.quiet_stop import family, stop_quietly
from tests.support.sabotage import Event
from tests.support.topics import create_topics, entries, expected_tallies, produce_entries

pytestmark = [pytest.mark.integration, pytest.mark.chaos]

PARTITIONS = 2
ENTRIES = 12_000
WORKERS = ("worker-1", "worker-2")
GROWTH_MAX = 24 << 20
"""Bytes by which a worker may grow while it waits: noise of the allocator, not a queue without a limit."""


@pytest.fixture
def made(private_broker: EmbeddedBroker, tmp_path: Path) -> Iterator[Cluster]:
    """The tally job on a broker that the test may stop, slowed down so that it is in mid-work."""
    with cluster(private_broker.bootstrap_servers, "tally", tmp_path) as made:
        create_topics(made.bootstrap_servers, {made.topic("entries"): PARTITIONS, made.topic("tallies"): PARTITIONS})
        produce_entries(made.bootstrap_servers, made.topic("entries"), entries(ENTRIES))
        made.pace(0.001)
        yield made


def working(made: Cluster, *arguments: str) -> tuple[Process, list[Event]]:
    """Start the job; both workers have committed something and are in the middle of the rest."""
    run = made.run(*arguments)
    return run, [made.await_step(worker, "stored", 0) for worker in WORKERS]


@pytest.mark.parametrize("seconds", [10, pytest.param(60, marks=pytest.mark.slow)])
def test_a_job_outlasts_its_broker(private_broker: EmbeddedBroker, made: Cluster, seconds: int) -> None:
    """Stopped in mid-work and started again: the same processes finish the job, and did not grow meanwhile."""
    run, workers = working(made, "--until-end")
    with Observer(made.bootstrap_servers, made.topic("tallies")) as observer:
        stop_quietly(made.bootstrap_servers, private_broker.stop, lambda: family(run.pid))
        sizes: dict[int, list[int]] = {event.pid: [] for event in workers}
        stopped_at = time.monotonic()
        while time.monotonic() < stopped_at + seconds:
            for pid, seen in sizes.items():
                seen.append(resident_bytes(pid))
            time.sleep(0.5)
        private_broker.start()
        made.pace(0)
        assert run.wait(90) == 0, made.report()
        assert_exactly_once(made.bootstrap_servers, made.topic("tallies"), expected_tallies(entries(ENTRIES)), observer)
    for seen in sizes.values():
        third = len(seen) // 3
        assert max(seen[-third:]) - max(seen[:third]) < GROWTH_MAX, seen
    assert {event.pid for event in made.events()} == set(sizes), "a worker was started again"
    assert run.text.count("name=coordinator") == 1, "the coordinator was started again"
    assert "no answer from Kafka" in run.text


def test_a_stop_does_not_wait_for_a_broker_that_is_away(private_broker: EmbeddedBroker, made: Cluster) -> None:
    """SIGTERM ends everything within seconds, without force; the epoch that could not be committed is repeated."""
    run, _ = working(made)
    stop_quietly(made.bootstrap_servers, private_broker.stop, lambda: family(run.pid))
    time.sleep(2)
    asked_at = time.monotonic()
    run.signal(signal.SIGTERM)
    assert run.wait(20) == 0, made.report()
    assert time.monotonic() - asked_at < 9
    assert "killed" not in run.text, made.report()
    private_broker.start()
    made.pace(0)
    assert made.run("--until-end").wait() == 0, made.report()
    assert_exactly_once(made.bootstrap_servers, made.topic("tallies"), expected_tallies(entries(ENTRIES)))

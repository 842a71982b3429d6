"""`kstate run` with real processes on real Kafka: it ends when it should, as it should, and leaves nobody behind."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kstate.testing.real_kafka import KafkaUnderTest
from tests.support.cluster import Cluster, cluster
from tests.support.oracle import assert_exactly_once, await_true, committed
from tests.support.topics import create_topics, entries, expected_tallies, produce_entries

pytestmark = [pytest.mark.integration]

PARTITIONS = 4
NOBODY = "127.0.0.1:1"
"""An address where no broker answers."""


@pytest.fixture
def made(kstate_kafka: KafkaUnderTest, tmp_path: Path) -> Iterator[Cluster]:
    """An application with its topics and 2,000 entries to count."""
    with cluster(kstate_kafka.bootstrap_servers, "tally", tmp_path) as made:
        create_topics(made.bootstrap_servers, {made.topic("entries"): PARTITIONS, made.topic("tallies"): PARTITIONS})
        produce_entries(made.bootstrap_servers, made.topic("entries"), entries(2_000))
        yield made


def results(made: Cluster) -> int:
    """How many results are committed."""
    return len(committed(made.bootstrap_servers, made.topic("tallies")))


def child(made: Cluster, name: str) -> int:
    """The process id of a child of `kstate run`, by its name, the newest one."""
    lines = [line for line in made.processes[0].text.splitlines() if " started " in line and f"name={name} " in line]
    return int(lines[-1].rpartition("pid=")[2])


def await_nobody(made: Cluster, seconds: float) -> None:
    """Wait until no process of this application is left."""
    await_true(lambda: not made.living(), seconds, "the end of all processes")


def test_a_bounded_run_ends_with_0_and_a_second_one_finds_nothing_to_do(made: Cluster) -> None:
    """All is processed, all processes are gone; more input is counted on by a third run."""
    given = entries(2_000)
    for first in (2_000, 4_000):
        assert made.run("--until-end").wait() == 0, made.report()
        assert made.run("--until-end").wait() == 0, made.report()
        assert not made.living()
        assert_exactly_once(made.bootstrap_servers, made.topic("tallies"), expected_tallies(given))
        more = entries(2_000, first=first)
        produce_entries(made.bootstrap_servers, made.topic("entries"), more)
        given += more


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_ends_everything_in_order_within_the_time(made: Cluster, number: signal.Signals) -> None:
    """Exit code 0 after a few seconds, in mid-work; the next run goes on from there."""
    made.pace(0.002)
    run = made.run()
    made.await_true(lambda: results(made) > 100, 40, "the first results")
    asked_at = time.monotonic()
    run.signal(number)
    assert run.wait(12) == 0, made.report()
    assert time.monotonic() - asked_at < 9
    assert not made.living()
    assert "killed" not in run.text, made.report()
    made.pace(0)
    assert made.run("--until-end").wait() == 0, made.report()
    assert_exactly_once(made.bootstrap_servers, made.topic("tallies"), expected_tallies(entries(2_000)))


def test_a_killed_supervisor_leaves_no_orphans(made: Cluster) -> None:
    """SIGKILL, also while one child is stopped by SIGSTOP: the kernel ends the children."""
    run = made.run()
    made.await_true(lambda: results(made) == 2_000, 40, "all results")
    os.kill(child(made, "worker-2"), signal.SIGSTOP)
    run.signal(signal.SIGKILL)
    run.wait()
    await_nobody(made, 5)


def test_a_supervisor_killed_while_its_children_start_leaves_no_orphans(tmp_path: Path) -> None:
    """They notice, first thing, that their parent is gone."""
    with cluster(NOBODY, "tally", tmp_path) as made:
        run = made.run(workers=3)
        made.await_true(lambda: "name=worker-3" in run.text, 20, "the start of all children")
        run.signal(signal.SIGKILL)
        run.wait()
        await_nobody(made, 10)


def test_a_broker_that_is_away_is_waited_for_and_a_stop_does_not_hang(tmp_path: Path) -> None:
    """The address is named; SIGTERM ends it all the same."""
    with cluster(NOBODY, "tally", tmp_path) as made:
        run = made.run(workers=1)
        made.await_true(lambda: run.text.count("waiting for the broker") >= 2, 40, "word of the broker")
        assert NOBODY in run.text
        run.signal(signal.SIGTERM)
        assert run.wait(15) == 0, made.report()
        await_nobody(made, 2)


def test_a_killed_coordinator_is_replaced_and_the_data_plane_goes_on(made: Cluster) -> None:
    """The next leader goes on from the plan that stands: nobody is declared dead, all is processed once."""
    made.pace(0.002)
    run = made.run("--until-end")
    made.await_true(lambda: results(made) > 100, 40, "the first results")
    os.kill(child(made, "coordinator"), signal.SIGKILL)
    made.await_true(lambda: run.text.count("name=coordinator") >= 3, 10, "a new coordinator")
    made.pace(0)
    assert run.wait() == 0, made.report()
    assert " is dead" not in run.text
    assert_exactly_once(made.bootstrap_servers, made.topic("tallies"), expected_tallies(entries(2_000)))


def test_of_two_coordinators_one_leads_and_the_other_takes_over(made: Cluster) -> None:
    """Separate processes, no supervisor: the second one stays quiet until the first is gone."""
    first = made.command("first", "coordinator", "tests.support.jobs:tally", "--until-end", "--workers", "1")
    worker = made.worker("one")
    made.pace(0.002)
    made.await_true(lambda: results(made) > 100, 40, "the first results")
    second = made.command("second", "coordinator", "tests.support.jobs:tally", "--until-end", "--workers", "1")
    time.sleep(5)  # long enough for a candidate that does not listen to take over
    assert "standing by" in second.text
    assert "leading" not in second.text
    first.signal(signal.SIGKILL)
    made.pace(0)
    assert worker.wait() == 0, made.report()
    assert second.wait() == 0, made.report()
    assert_exactly_once(made.bootstrap_servers, made.topic("tallies"), expected_tallies(entries(2_000)))

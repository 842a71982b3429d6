"""A worker is killed with SIGKILL in every window of the epoch, again and again, and nothing is lost or doubled.

Each round counts only if the event log, written by the victim itself, proves that it was in that window and held
records that were not committed. Every committed record of the output is then compared with the sequence computed
offline, and a concurrent read_committed observer must have seen exactly what stands there in the end.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from kstate.testing.real_kafka import KafkaUnderTest
from tests.support.cluster import Cluster, Process, cluster
from tests.support.oracle import Observer, assert_exactly_once
from tests.support.sabotage import IN_HANDLER, Order
from tests.support.topics import create_topics, expected_counts, produce_lines

pytestmark = [pytest.mark.integration, pytest.mark.chaos]

PARTITIONS = 4
LINES = 6_000
PACE = 0.0004
"""Seconds per handler call while the killing goes on, so that the input outlasts it on any machine."""

WINDOWS = [
    pytest.param(Order(IN_HANDLER, nth=40), id="in the middle of processing"),
    pytest.param(Order("begun"), id="after begin"),
    pytest.param(Order("outputs-part", delay=0.05), id="in the middle of the outputs"),
    pytest.param(Order("blocks-sent", delay=0.05), id="between blocks and marker"),
    pytest.param(Order("flushed"), id="everything delivered, nothing committed"),
    pytest.param(Order("committed"), id="committed, not yet in the local store"),
]


def start(made: Cluster) -> tuple[Process, dict[str, dict[int, list[int]]]]:
    """A bounded word count on two workers, slowed down."""
    create_topics(made.bootstrap_servers, {made.topic("lines"): PARTITIONS, made.topic("counts"): PARTITIONS})
    placed = produce_lines(made.bootstrap_servers, made.topic("lines"), LINES, partitions=PARTITIONS)
    made.pace(PACE)
    return made.run("--until-end"), expected_counts(placed)


@pytest.mark.parametrize("order", WINDOWS)
def test_a_worker_killed_in_a_window_loses_and_doubles_nothing(
    kstate_kafka: KafkaUnderTest, tmp_path: Path, order: Order
) -> None:
    """Three rounds: twice the one worker, once the other; `kstate run` replaces the victim, the job runs to its end."""
    with cluster(kstate_kafka.bootstrap_servers, "count", tmp_path) as made:
        run, expected = start(made)
        with Observer(made.bootstrap_servers, made.topic("counts")) as observer:
            for victim in ("worker-1", "worker-2", "worker-1"):
                killed = made.deed(victim, order)
                made.await_step(victim, "stored", killed.at)
            made.pace(0)
            assert run.wait() == 0, made.report()
            assert_exactly_once(made.bootstrap_servers, made.topic("counts"), expected, observer)

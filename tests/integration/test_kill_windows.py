"""Workers are killed with SIGKILL in every window of the epoch, again and again, and nothing is lost or doubled.

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

PATIENT = {"KSTATE_FAILURE__SUCCESSOR_WAIT_MS": "30000"}
"""Tiles wait for the victim's successor even on a slow machine, so that every round finds both workers at work."""

MID_PROCESSING = Order(IN_HANDLER, nth=40)
AFTER_BEGIN = Order("begun")
MID_OUTPUTS = Order("outputs-part", delay=0.05)
BLOCKS_WITHOUT_MARKER = Order("blocks-sent", delay=0.05)
DELIVERED_NOT_COMMITTED = Order("flushed")
COMMITTED_NOT_STORED = Order("committed")

WINDOWS = [
    pytest.param(MID_PROCESSING, COMMITTED_NOT_STORED, id="mid-processing and committed-not-stored"),
    pytest.param(AFTER_BEGIN, BLOCKS_WITHOUT_MARKER, id="after-begin and blocks-without-marker"),
    pytest.param(MID_OUTPUTS, DELIVERED_NOT_COMMITTED, id="mid-outputs and delivered-not-committed"),
]


def start(made: Cluster) -> tuple[Process, dict[str, dict[int, list[int]]]]:
    """A bounded word count on two workers, slowed down."""
    create_topics(made.bootstrap_servers, {made.topic("lines"): PARTITIONS, made.topic("counts"): PARTITIONS})
    placed = produce_lines(made.bootstrap_servers, made.topic("lines"), LINES, partitions=PARTITIONS)
    made.pace(PACE)
    return made.run("--until-end"), expected_counts(placed)


@pytest.mark.parametrize(("one", "other"), WINDOWS)
def test_workers_killed_in_any_window_lose_and_double_nothing(
    kstate_kafka: KafkaUnderTest, tmp_path: Path, one: Order, other: Order
) -> None:
    """Three rounds per window: each kills both workers, one shortly after the other, each in a window of its own.

    `kstate run` starts them again; both must have stored a new epoch before the next round.
    """
    with cluster(kstate_kafka.bootstrap_servers, "count", tmp_path, **PATIENT) as made:
        run, expected = start(made)
        with Observer(made.bootstrap_servers, made.topic("counts")) as observer:
            for first, second in (("worker-1", "worker-2"), ("worker-2", "worker-1"), ("worker-1", "worker-2")):
                killed = [made.deed(first, one), made.deed(second, other)]
                for event in killed:
                    made.await_step(event.worker, "stored", event.at)
            made.pace(0)
            assert run.wait() == 0, made.report()
            assert_exactly_once(made.bootstrap_servers, made.topic("counts"), expected, observer)

"""Anything may die or stop at any time: workers in any step of any protocol, the coordinator, several at once."""

from __future__ import annotations

import os
import random
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest

from kstate.testing.real_kafka import KafkaUnderTest
from tests.support.cluster import Cluster, Process, cluster
from tests.support.oracle import Observer, assert_exactly_once
from tests.support.sabotage import IN_HANDLER, Order
from tests.support.topics import create_topics, expected_counts, produce_lines

pytestmark = [pytest.mark.integration, pytest.mark.chaos]

PARTITIONS = 4
LINES = 8_000
PACE = 0.0004
WORKERS = ("worker-1", "worker-2")
CHAOS_SECONDS = float(os.environ.get("KSTATE_CHAOS_SECONDS", "12"))
STEPS = (
    *("opened", "h-taken", "control-read", "restore-read", "restored", "polled", "processed", IN_HANDLER),
    *("begun", "outputs-part", "outputs-sent", "blocks-sent", "markers-sent", "flushed", "committed", "stored"),
)


def kill_at_a_step(made: Cluster, run: Process, dice: random.Random) -> str:
    """Wherever it is when it comes there next, twice as often with a moment for the wire as without."""
    worker = dice.choice(WORKERS)
    if (made.folder / f"{worker}.order").exists():
        return ""
    order = Order(dice.choice(STEPS), nth=dice.randint(1, 4), hand=0, delay=dice.choice((0, 0.005, 0.05)))
    made.order(worker, order)
    return f"{worker} is to die at {order}"


def kill_a_worker(made: Cluster, run: Process, dice: random.Random) -> str:
    """From outside, at any instruction."""
    return _signalled(made, dice.choice(WORKERS), signal.SIGKILL)


def stop_a_worker(made: Cluster, run: Process, dice: random.Random) -> str:
    """For less or more than it takes to be declared dead; then it goes on, as a zombie perhaps."""
    worker = dice.choice(WORKERS)
    said = _signalled(made, worker, signal.SIGSTOP)
    pid = made.events(worker)[-1].pid
    time.sleep(dice.choice((0.3, 1.0, 4.0)))
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)
    return f"{said}, and went on"


def kill_the_coordinator(made: Cluster, run: Process, dice: random.Random) -> str:
    """The newest one that `kstate run` has started."""
    lines = [line for line in run.text.splitlines() if " started " in line and "name=coordinator" in line]
    with suppress(ProcessLookupError):
        os.kill(int(lines[-1].rpartition("pid=")[2]), signal.SIGKILL)
    return "coordinator killed"


def _signalled(made: Cluster, worker: str, number: signal.Signals) -> str:
    pid = made.events(worker)[-1].pid
    with suppress(ProcessLookupError):
        os.kill(pid, number)
    return f"{worker} got {number.name}"


DEEDS = (kill_at_a_step, kill_at_a_step, kill_at_a_step, kill_a_worker, stop_a_worker, kill_the_coordinator)


def test_whatever_dies_nothing_is_lost_or_doubled(kstate_kafka: KafkaUnderTest, tmp_path: Path) -> None:
    """For some seconds something happens every second or so; KSTATE_CHAOS_SECONDS and _SEED repeat and lengthen it."""
    seed = int(os.environ.get("KSTATE_CHAOS_SEED", "0")) or random.randrange(1, 1 << 30)
    dice = random.Random(seed)
    with cluster(kstate_kafka.bootstrap_servers, "count", tmp_path) as made:
        create_topics(made.bootstrap_servers, {made.topic("lines"): PARTITIONS, made.topic("counts"): PARTITIONS})
        placed = produce_lines(made.bootstrap_servers, made.topic("lines"), LINES, partitions=PARTITIONS)
        made.pace(PACE)
        run = made.run("--until-end")
        for worker in WORKERS:
            made.await_step(worker, "stored", 0)
        story = [f"KSTATE_CHAOS_SEED={seed}"]
        with Observer(made.bootstrap_servers, made.topic("counts")) as observer:
            over_at = time.monotonic() + CHAOS_SECONDS
            while time.monotonic() < over_at:
                story.append(dice.choice(DEEDS)(made, run, dice))
                time.sleep(dice.uniform(0.1, 1.5))
            made.pace(0)
            try:
                assert run.wait(90) == 0, made.report()
                assert len(set(story)) > 4
                assert_exactly_once(made.bootstrap_servers, made.topic("counts"), expected_counts(placed), observer)
            except AssertionError as error:
                raise AssertionError("\n".join([*story, str(error)])) from None

"""Anything may die, stop or be cut off at any time: workers in any step, the coordinator, the network, the broker.

KSTATE_CHAOS_SEED repeats a story (as far as real processes allow), KSTATE_CHAOS_SECONDS makes it longer.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from kstate.adapters.embedded_broker import EmbeddedBroker
from kstate.testing.real_kafka import KafkaUnderTest
from tests.support.brokers import proxied_broker
from tests.support.cluster import Cluster, Process, cluster
from tests.support.oracle import Observer, assert_exactly_once, await_true, ends
from tests.support.quiet_stop import family, stop_quietly
from tests.support.sabotage import IN_HANDLER, Order
from tests.support.tcp_proxy import Mischief, Rule, TcpProxy
from tests.support.topics import create_topics, expected_counts, produce_lines

pytestmark = [pytest.mark.integration, pytest.mark.chaos]

PARTITIONS = 4
PACE = 0.0004
WORKERS = ("worker-1", "worker-2")
SECONDS = float(os.environ.get("KSTATE_CHAOS_SECONDS", "12"))
DEEDS_MIN = 4
LINES = 8_000 + int(max(SECONDS - 12, 0) * 700)
"""So many that some are left when the story is over."""
STEPS = (
    *("opened", "h-taken", "control-read", "restore-read", "restored", "polled", "processed", IN_HANDLER),
    *("begun", "outputs-part", "outputs-sent", "blocks-sent", "markers-sent", "flushed", "committed", "stored"),
)


@dataclass(slots=True)
class Story:
    """What happens to one job, and the record of it."""

    made: Cluster
    run: Process
    dice: random.Random
    told: list[str] = field(default_factory=list)

    def goes_on(self, deeds: tuple[Callable[[Story], str], ...]) -> None:
        """One deed every second or so; a broker that starts again may take most of the time, and others need some."""
        over_at = time.monotonic() + SECONDS
        while time.monotonic() < over_at or len(set(self.told)) <= DEEDS_MIN:
            self.told.append(self.dice.choice(deeds)(self))
            time.sleep(self.dice.uniform(0.1, 1.5))

    def signalled(self, worker: str, number: signal.Signals) -> str:
        """Signal the newest process of a worker, if it is still there."""
        with suppress(ProcessLookupError):
            os.kill(self.made.events(worker)[-1].pid, number)
        return f"{worker} got {number.name}"


def kill_at_a_step(story: Story) -> str:
    """Wherever it is when it comes there next, at once or with a moment for the wire."""
    worker = story.dice.choice(WORKERS)
    order = Order(story.dice.choice(STEPS), nth=story.dice.randint(1, 4), hand=0, delay=story.dice.choice((0, 0.05)))
    if (story.made.folder / f"{worker}.order").exists():
        return f"{worker} has an order already"
    story.made.order(worker, order)
    return f"{worker} is to die at {order}"


def kill_a_worker(story: Story) -> str:
    """From outside, at any instruction."""
    return story.signalled(story.dice.choice(WORKERS), signal.SIGKILL)


def stop_a_worker(story: Story) -> str:
    """For less or more than it takes to be declared dead; then it goes on, as a zombie perhaps."""
    worker = story.dice.choice(WORKERS)
    pid = story.made.events(worker)[-1].pid
    said = story.signalled(worker, signal.SIGSTOP)
    time.sleep(story.dice.choice((0.3, 1.0, 4.0)))
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)
    return f"{said}, and went on"


def kill_the_coordinator(story: Story) -> str:
    """The newest one that `kstate run` has started."""
    lines = [line for line in story.run.text.splitlines() if " started " in line and "name=coordinator" in line]
    with suppress(ProcessLookupError):
        os.kill(int(lines[-1].rpartition("pid=")[2]), signal.SIGKILL)
    return "coordinator killed"


KILLS = (kill_at_a_step, kill_at_a_step, kill_at_a_step, kill_a_worker, stop_a_worker, kill_the_coordinator)


def survives(made: Cluster, server: str, deeds: tuple[Callable[[Story], str], ...], mend: Callable[[], None]) -> None:
    """Run the word count, let the story happen, put everything right, and ask the oracle."""
    seed = int(os.environ.get("KSTATE_CHAOS_SEED", "0")) or random.randrange(1, 1 << 30)
    create_topics(server, {made.topic("lines"): PARTITIONS, made.topic("counts"): PARTITIONS})
    placed = produce_lines(server, made.topic("lines"), LINES, partitions=PARTITIONS)
    made.pace(PACE)
    story = Story(made, made.run("--until-end"), random.Random(seed), [f"KSTATE_CHAOS_SEED={seed}"])
    for worker in WORKERS:
        made.await_step(worker, "stored", 0)
    with Observer(server, made.topic("counts")) as observer:
        story.goes_on(deeds)
        mend()
        made.pace(0)
        try:
            assert story.run.wait(120) == 0, made.report()
            assert len(set(story.told)) > DEEDS_MIN
            assert_exactly_once(server, made.topic("counts"), expected_counts(placed), observer)
        except AssertionError as error:
            raise AssertionError("\n".join([*story.told, str(error)])) from None


def test_whatever_dies_nothing_is_lost_or_doubled(kstate_kafka: KafkaUnderTest, tmp_path: Path) -> None:
    """Workers and coordinator; `kstate run` starts them again."""
    with cluster(kstate_kafka.bootstrap_servers, "count", tmp_path) as made:
        survives(made, made.bootstrap_servers, KILLS, lambda: None)


def network_faults(proxy: TcpProxy) -> tuple[Callable[[Story], str], ...]:
    """What may happen between the job and its broker."""

    def withhold_a_reply(story: Story) -> str:
        """Of whoever commits next, workers and leader alike; in the end it comes, too late perhaps."""
        return _held(story, proxy, Mischief.WITHHOLD_REPLY)

    def hold_a_request(story: Story) -> str:
        """It reaches the broker seconds later."""
        return _held(story, proxy, Mischief.HOLD_REQUEST)

    def cut_the_connections(story: Story) -> str:
        """All of them, for a while."""
        proxy.cut()
        time.sleep(story.dice.choice((0.05, 0.5, 2.0)))
        proxy.mend()
        return "connections cut"

    def freeze_the_connections(story: Story) -> str:
        """Nothing passes, in one direction or both, and nobody is told."""
        directions = story.dice.choice((("up",), ("down",), ("up", "down")))
        proxy.hang(*directions)
        time.sleep(story.dice.choice((0.3, 2.0, 7.0)))
        proxy.mend()
        return f"connections frozen {directions}"

    return withhold_a_reply, hold_a_request, cut_the_connections, freeze_the_connections


def _held(story: Story, proxy: TcpProxy, mischief: Mischief) -> str:
    proxy.apply(Rule(mischief))
    time.sleep(story.dice.choice((0.2, 1.0, 6.0)))
    proxy.mend()
    time.sleep(story.dice.choice((0.0, 0.5)))
    return f"{mischief.name}: {proxy.release()} held"


def restart_the_broker(broker: EmbeddedBroker) -> Callable[[Story], str]:
    """Stopped in order, away for a while."""

    def restart(story: Story) -> str:
        stop_quietly(broker.bootstrap_servers, broker.stop, lambda: family(story.run.pid))
        time.sleep(story.dice.choice((0.0, 3.0)))
        broker.start()
        return "broker started again"

    return restart


@pytest.mark.slow
def test_whatever_happens_nothing_is_lost_or_doubled(tmp_path: Path) -> None:
    """Network and broker, too."""
    impatient = {"KSTATE_FAILURE__COMMIT_SLOW_MS": "1500"}
    with proxied_broker() as (broker, proxy), cluster(proxy.address, "count", tmp_path, **impatient) as made:
        deeds = (*KILLS, *network_faults(proxy), *network_faults(proxy), restart_the_broker(broker))

        def mend() -> None:
            proxy.mend()
            proxy.release()
            await_true(lambda: bool(ends(broker.bootstrap_servers, made.topic("counts"))), 10)

        survives(made, broker.bootstrap_servers, deeds, mend)

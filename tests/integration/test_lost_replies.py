"""The broker commits and the worker does not hear of it, or the request that commits comes too late (rule S4)."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from kstate.state.markers import Marker
from tests.support.backups import frames
from tests.support.brokers import proxied_broker
from tests.support.cluster import Cluster, Process, cluster, is_running
from tests.support.oracle import Observer, assert_exactly_once, await_true
from tests.support.sabotage import Event
from tests.support.tcp_proxy import Mischief, Rule, TcpProxy
from tests.support.topics import create_topics, entries, expected_tallies, produce_entries

pytestmark = [pytest.mark.integration, pytest.mark.chaos]

PARTITIONS = 2
ENTRIES = 20_000
SETTINGS = {"KSTATE_FAILURE__COMMIT_SLOW_MS": "1500", "KSTATE_FAILURE__SUCCESSOR_WAIT_MS": "30000"}


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[tuple[Cluster, TcpProxy, str]]:
    """An application whose processes reach the broker through a proxy, the proxy, and the broker's own address."""
    with proxied_broker() as (broker, proxy), cluster(proxy.address, "tally", tmp_path, **SETTINGS) as made:
        create_topics(broker.bootstrap_servers, {made.topic("entries"): PARTITIONS, made.topic("tallies"): PARTITIONS})
        produce_entries(broker.bootstrap_servers, made.topic("entries"), entries(ENTRIES))
        made.pace(0.0005)
        yield made, proxy, broker.bootstrap_servers


def last_event(made: Cluster, worker: str) -> Event:
    """Where a worker stands."""
    return made.events(worker)[-1]


def withheld(made: Cluster, proxy: TcpProxy, worker: str, mischief: Mischief) -> Event:
    """Catch the worker's next EndTxn: it waits for the reply with work in hand that it cannot know to be committed."""
    proxy.apply(Rule(mischief, last_event(made, worker).incarnation))
    proxy.wait_held()
    event = last_event(made, worker)
    assert event.step == "flushed", made.report()
    assert event.hand > 0
    return event


def markers_of(server: str, made: Cluster, incarnation: str) -> int:
    """Committed markers of an incarnation."""
    found = frames(server, made.internal("tally.backup"), "read_committed")
    return sum(1 for each in found if isinstance(each.frame, Marker) and each.frame.incarnation == incarnation)


def markers_sent(made: Cluster, incarnation: str) -> int:
    """Markers that an incarnation has handed to its client."""
    return sum(1 for event in made.events() if (event.incarnation, event.step) == (incarnation, "markers-sent"))


def test_a_worker_killed_between_the_commit_and_its_reply_is_not_repeated(
    parts: tuple[Cluster, TcpProxy, str],
) -> None:
    """Three rounds: EndTxn reached the broker, the reply is held back, SIGKILL. The successor finds the last marker."""
    made, proxy, server = parts
    run = made.run("--until-end")
    made.await_step("worker-1", "stored", 0)
    made.await_step("worker-2", "stored", 0)
    with Observer(server, made.topic("tallies")) as observer:
        for victim in ("worker-1", "worker-2", "worker-1"):
            event = withheld(made, proxy, victim, Mischief.WITHHOLD_REPLY)
            os.kill(event.pid, signal.SIGKILL)
            await_true(lambda pid=event.pid: not is_running(pid), 5)  # type: ignore[misc]
            assert last_event(made, victim) == event
            proxy.mend()
            assert markers_of(server, made, event.incarnation) == markers_sent(made, event.incarnation)
            proxy.release()
            made.await_step(victim, "stored", event.at)
        made.pace(0)
        assert run.wait() == 0, made.report()
        assert_exactly_once(server, made.topic("tallies"), expected_tallies(entries(ENTRIES)), observer)


def test_a_worker_in_doubt_about_its_commit_finds_out(parts: tuple[Cluster, TcpProxy, str]) -> None:
    """Reply lost: it finds its own marker and goes on without repeating. Request held: it fences its own old self,
    finds no marker and repeats; the held request arrives afterwards and changes nothing.
    """
    made, proxy, server = parts
    run: Process = made.run("--until-end")
    made.await_step("worker-1", "stored", 0)
    with Observer(server, made.topic("tallies")) as observer:
        for mischief, outcome in (
            (Mischief.WITHHOLD_REPLY, "stored"),
            (Mischief.HOLD_REQUEST, "undone"),
            (Mischief.WITHHOLD_REPLY, "stored"),
        ):
            event = withheld(made, proxy, "worker-1", mischief)
            tainted = made.await_step("worker-1", "tainted", event.at)
            proxy.mend()
            after = [made.await_step("worker-1", step, tainted.at) for step in ("opened", "looked", outcome)]
            assert {each.incarnation for each in after} == {event.incarnation}
            proxy.release()
            made.await_step("worker-1", "stored", after[-1].at)
        made.pace(0)
        assert run.wait() == 0, made.report()
        assert len({each.pid for each in made.events()}) == len({"worker-1", "worker-2"}), "somebody was started again"
        assert_exactly_once(server, made.topic("tallies"), expected_tallies(entries(ENTRIES)), observer)

"""A record that kills the process that handles it parks its own partition, by name, and nothing else."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kstate.keyspace import partition_of
from kstate.messages import PlanPublished
from kstate.plan import Parked, Plan, control_topic
from kstate.testing.real_kafka import KafkaUnderTest
from kstate.wire import decode_control
from tests.support.cluster import Cluster, Process, cluster
from tests.support.oracle import assert_exactly_once, committed
from tests.support.records import Entry, decoded_tally
from tests.support.topics import create_topics, entries, expected_tallies, produce_entries

pytestmark = pytest.mark.integration

PARTITIONS = 4
HANDLER_MAX = "KSTATE_FAILURE__HANDLER_MAX_MS"
BEFORE, AFTER = 400, 800
"""Entries before the poisoned one, and in all."""
PARK_SECONDS = 90.0
"""Three starts of a worker: ten seconds on a quiet machine."""


@pytest.fixture
def made(kstate_kafka: KafkaUnderTest, tmp_path: Path) -> Iterator[Cluster]:
    """An application with its topics; a handler may take two seconds."""
    settings = {HANDLER_MAX: "2000", "KSTATE_FAILURE__DEATHS_MAX": "3"}
    with cluster(kstate_kafka.bootstrap_servers, "fragile", tmp_path, **settings) as made:
        create_topics(made.bootstrap_servers, {made.topic("entries"): PARTITIONS, made.topic("tallies"): PARTITIONS})
        yield made


def run(made: Cluster, version: str) -> Process:
    """`kstate run` with two workers."""
    return made.command("run", "run", f"tests.support.poison_job:{version}", "--workers", "2")


def plan_of(made: Cluster) -> Plan:
    """The newest plan; there must be one."""
    messages = [decode_control(r.value or b"") for r in committed(made.bootstrap_servers, control_topic(made.app))]
    return next(message.plan for message in reversed(messages) if isinstance(message, PlanPublished))


def partition(entry: Entry) -> int:
    """Of an entry's account."""
    return partition_of(entry.account.encode(), PARTITIONS)


def poisoned(note: str) -> tuple[list[Entry], int, int]:
    """Entries, one of them poisoned; its partition, and its offset there."""
    given = entries(AFTER)
    poison = given[BEFORE] = Entry(given[BEFORE].account, given[BEFORE].id, note)
    before = [entry for entry in given[:BEFORE] if partition(entry) == partition(poison)]
    return given, partition(poison), len(before)


def ids_done(made: Cluster) -> set[int]:
    """The entries with a committed result."""
    return {decoded_tally(seen.value or b"").id for seen in committed(made.bootstrap_servers, made.topic("tallies"))}


def await_parked(made: Cluster, first: Process) -> Parked:
    """Wait until the leader parks something."""
    made.await_true(lambda: "parked: " in first.text, PARK_SECONDS, "parked partition")
    (parked,) = plan_of(made).parked
    return parked


def assert_parked_by_name(made: Cluster, parked: Parked, number: int, offset: int) -> None:
    """The plan says operator, partition, topic and an offset at or shortly before the poison."""
    assert (parked.shard.operator, parked.shard.partition) == ("tally", number)
    assert "tally" in parked.reason
    (named,) = re.findall(rf"{made.topic('entries')}\[{number}\]@(\d+)", parked.reason)
    assert int(named) <= offset
    owners = {tile.shard.partition: tile.worker for tile in plan_of(made).tiles}
    assert owners[number] is None
    assert None not in [worker for other, worker in owners.items() if other != number]


def test_a_record_that_kills_three_times_parks_its_partition_until_a_new_version_comes(made: Cluster) -> None:
    """SIGKILL in the handler, whenever that record is met. The other partitions go on and have all their results, also
    those of entries that come later; nobody dies any more. The mended version does what was parked, once.
    """
    given, number, offset = poisoned("kill")
    produce_entries(made.bootstrap_servers, made.topic("entries"), given)
    first = run(made, "fragile")
    parked = await_parked(made, first)
    assert_parked_by_name(made, parked, number, offset)
    deaths = first.text.count("exit_code=-9")
    assert deaths == 3, made.report()
    more = entries(200, first=AFTER)
    produce_entries(made.bootstrap_servers, made.topic("entries"), more)
    others = {entry.id for entry in given + more if partition(entry) != number}
    made.await_true(lambda: others <= ids_done(made), 60, "results of the other partitions")
    assert given[BEFORE].id not in ids_done(made)
    assert first.text.count("exit_code=-9") == deaths
    first.signal(signal.SIGTERM)
    assert first.wait(20) == 0, made.report()
    run(made, "grown")
    made.await_records(made.topic("tallies"), len(given + more), 60)
    assert_exactly_once(made.bootstrap_servers, made.topic("tallies"), expected_tallies(given + more))
    assert plan_of(made).parked == ()


@pytest.mark.parametrize("note", ["loop", "freeze"])
def test_a_handler_that_never_comes_back_parks_its_partition_until_somebody_orders_otherwise(
    made: Cluster, note: str
) -> None:
    """The process ends itself when a call takes too long, even if the handler lets no other thread run, and says where
    it was. Mended code alone is no new build: an order gives the partition out again.
    """
    if note == "freeze":
        del made.settings[HANDLER_MAX]  # the kernel's timer on its own
    given, number, offset = poisoned(note)
    produce_entries(made.bootstrap_servers, made.topic("entries"), given)
    first = run(made, "fragile")
    parked = await_parked(made, first)
    assert_parked_by_name(made, parked, number, offset)
    assert "poisoned_by" in first.text, "where it stood"
    if note == "loop":
        assert f"the last record begun is that at offset {offset};" in first.text
    others = {entry.id for entry in given if partition(entry) != number}
    made.await_true(lambda: others <= ids_done(made), 60, "results of the other partitions")
    first.signal(signal.SIGTERM)
    assert first.wait(20) == 0, made.report()
    before = {member.incarnation for member in plan_of(made).members}
    run(made, "mended")
    made.await_true(lambda: len(live_workers(made, before)) == 2, 60, "two workers")
    assert given[BEFORE].id not in ids_done(made)
    order = made.command("order", "move", "tests.support.poison_job:mended", "tally", str(number), "--to", "worker-1")
    assert order.wait() == 0, made.report()
    made.await_records(made.topic("tallies"), len(given), 60)
    assert_exactly_once(made.bootstrap_servers, made.topic("tallies"), expected_tallies(given))


def live_workers(made: Cluster, besides: set[str]) -> set[str]:
    """Names of the members that were not there before."""
    time.sleep(0.2)  # a look costs a client
    return {member.name for member in plan_of(made).members if member.incarnation not in besides}

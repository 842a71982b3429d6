"""Work is moved by the command line while a trickle of input goes on: real processes on real Kafka."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from kstate.testing.real_kafka import KafkaUnderTest
from tests.support.cluster import Cluster, cluster
from tests.support.oracle import assert_exactly_once, committed
from tests.support.records import Entry, encoded
from tests.support.topics import create_topics, entries, expected_tallies, plain_producer

pytestmark = [pytest.mark.integration]

PARTITIONS = 2
JOB = "tests.support.jobs:tally"
PAUSE_S = 0.01
"""Between two records of the trickle."""


@pytest.fixture
def made(kstate_kafka: KafkaUnderTest, tmp_path: Path) -> Iterator[Cluster]:
    """An application with its topics."""
    with cluster(kstate_kafka.bootstrap_servers, "tally", tmp_path) as made:
        create_topics(made.bootstrap_servers, {made.topic("entries"): PARTITIONS, made.topic("tallies"): PARTITIONS})
        yield made


@contextmanager
def trickle(made: Cluster) -> Iterator[list[Entry]]:
    """Entries of many accounts, one after the other, until the block ends; the list holds all that were written."""
    written: list[Entry] = []
    stopping = threading.Event()
    producer = plain_producer(made.bootstrap_servers)
    endless = iter(entries(100_000))

    def feed() -> None:
        while not stopping.wait(PAUSE_S):
            entry = next(endless)
            producer.produce(made.topic("entries"), encoded(entry), entry.account.encode())
            written.append(entry)

    thread = threading.Thread(target=feed, daemon=True)
    thread.start()
    try:
        yield written
    finally:
        stopping.set()
        thread.join(5)
        assert producer.flush(30) == 0


class Commands:
    """`kstate ... --json`, typed by somebody."""

    def __init__(self, made: Cluster) -> None:
        self.made = made
        self._numbers = count(1)

    def __call__(self, command: str, *arguments: str, exit_code: int = 0) -> dict[str, Any]:
        """What it printed; it must end with this exit code."""
        process = self.made.command(f"{command}-{next(self._numbers)}", command, JOB, *arguments, "--json")
        assert process.wait(40) == exit_code, f"{process.text}\n{self.made.report()}"
        found: dict[str, Any] = json.loads(next(line for line in process.text.splitlines() if line.startswith("{")))
        return found

    def status(self) -> dict[str, Any]:
        return self("status")

    def await_running(self) -> dict[str, Any]:
        """Wait until every range runs."""
        found: dict[str, Any] = {}
        for _ in range(20):
            found = self.status()
            if found["shards"] and all(shard["phase"] == "running" for shard in found["shards"]):
                return found
        raise AssertionError(f"not everything runs: {found}\n{self.made.report()}")


def owners(status: dict[str, Any], partition: int) -> dict[tuple[int, int], str]:
    """Key range → worker, of one partition."""
    shards = [shard for shard in status["shards"] if shard["partition"] == partition]
    return {(shard["lo"], shard["hi"]): shard["worker"] for shard in shards}


def test_split_move_merge_and_drain_while_records_come_in(made: Cluster) -> None:
    """Each command ends when the plan says that it is done, and status agrees; every record is counted once."""
    kstate = Commands(made)
    run = made.run(workers=2)
    with trickle(made) as written:
        made.await_true(lambda: " adopted " in run.text, 30, "the first range that runs")
        first = kstate.await_running()
        assert (first["state"], first["moves"]) == ("running", [])
        source, other = owners(first, 0)[0, 65536], owners(first, 1)[0, 65536]
        assert {source, other} == {"worker-1", "worker-2"}

        split = kstate("split", "tally", "0", "--at", "0.25")
        assert split["outcome"] == "done", split
        assert [(m["lo"], m["hi"], m["source"], m["target"]) for m in split["moves"]] == [
            (0x4000, 65536, source, other)
        ]
        assert list(split["moves"][0]["times"]) == ["warm", "release", "done"]
        assert owners(kstate.status(), 0) == {(0, 0x4000): source, (0x4000, 65536): other}

        refused = kstate("move", "tally", "0", "--range", "0:0x4000", "--to", source, exit_code=2)
        assert (refused["outcome"], source in refused["reason"]) == ("refused", True)

        moved = kstate("move", "tally", "0", "--range", "0:0x4000", "--to", other)
        assert moved["outcome"] == "done", moved
        merged = kstate("merge", "tally", "0", "--to", source)
        assert merged["outcome"] == "done", merged

        drained = kstate("drain", other)
        assert (drained["outcome"], len(drained["moves"])) == ("done", 1), drained
        last = kstate.await_running()
        assert {shard["worker"] for shard in last["shards"]} == {source}
        assert {w["name"]: (w["state"], w["load"]["tiles"]) for w in last["workers"]}[other] == ("draining", 0)
        assert last["plan_version"] > first["plan_version"]
    made.await_records(made.topic("tallies"), len(written))
    assert len(committed(made.bootstrap_servers, made.topic("tallies"))) == len(written)
    assert_exactly_once(made.bootstrap_servers, made.topic("tallies"), expected_tallies(written))
    assert " is dead" not in run.text

"""`kstate state` on real Kafka: what is committed, while the job runs and when it does not, now and as of before."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterable
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from kstate.adapters.broker_setup import HOST
from kstate.testing.real_kafka import KafkaUnderTest
from tests.support.cluster import Cluster, cluster
from tests.support.oracle import ends
from tests.support.records import Entry
from tests.support.topics import create_topics, entries, produce_entries

pytestmark = pytest.mark.integration

PARTITIONS = 2
FIRST, SECOND = 2_000, 3_000


class Questions:
    """`kstate state ...`, typed by somebody."""

    def __init__(self, made: Cluster) -> None:
        self.made = made
        self._numbers = count(1)

    def text(self, command: str, *arguments: str, exit_code: int = 0) -> str:
        """What it printed."""
        process = self.made.command(f"state-{next(self._numbers)}", "state", command, self.made.app, *arguments)
        assert process.wait(60) == exit_code, f"{process.text}\n{self.made.report()}"
        return process.text

    def rows(self, command: str, *arguments: str, exit_code: int = 0) -> list[dict[str, Any]]:
        """JSON lines."""
        lines = self.text(command, *arguments, "--json", exit_code=exit_code).splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]


def sums(given: Iterable[Entry]) -> dict[str, dict[str, int]]:
    """What `seen` must hold."""
    found: dict[str, dict[str, int]] = {}
    for entry in given:
        before = found.get(entry.account, {"n": 0, "total": 0})
        found[entry.account] = {"n": before["n"] + 1, "total": before["total"] + entry.id}
    return found


def shown(rows: Iterable[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """The values of `seen` by key."""
    return {row["key"]: row["value"] for row in rows if row["state"] == "seen"}


def test_state_is_shown_exported_and_compared(kstate_kafka: KafkaUnderTest, tmp_path: Path) -> None:
    """By the name of the application alone: nothing of the job is imported, and at the end nothing of it runs."""
    with cluster(kstate_kafka.bootstrap_servers, "tally", tmp_path, KSTATE_QUERIES__HOST=HOST) as made:
        server, results = made.bootstrap_servers, made.topic("tallies")
        create_topics(server, {made.topic("entries"): PARTITIONS, results: PARTITIONS})
        given, ask = entries(FIRST + SECOND, keys=50), Questions(made)
        made.coordinator("--workers", "1")
        worker = made.worker("one")
        produce_entries(server, made.topic("entries"), given[:FIRST])
        made.await_records(results, FIRST)
        assert shown(ask.rows("scan", "tally")) == sums(given[:FIRST])
        assert shown(ask.rows("scan", "tally", "--live")) == sums(given[:FIRST])
        moments = ends(server, made.internal("tally.backup"), "read_committed")

        produce_entries(server, made.topic("entries"), given[FIRST:])
        made.await_records(results, FIRST + SECOND)
        worker.signal(signal.SIGTERM)
        assert worker.wait() == 0
        account = given[-1].account
        (row,) = ask.rows("get", "tally", "seen", account)
        assert row["value"] == sums(given)[account]
        assert f"{account}  seen = " in ask.text("get", "tally", "seen", account)
        torn = ask.text("get", "tally", "seen", account, "--live", "--timeout", "1", exit_code=5)
        assert "Nobody answers for tally[" in torn or "does not answer" in torn
        assert "nothing of 'nobody'" in ask.text("get", "tally", "seen", "nobody", exit_code=1)
        then = [
            row
            for partition, offset in moments.items()
            for row in ask.rows("scan", "tally", "--partition", str(partition), "--as-of", f"@{offset}")
        ]
        assert shown(then) == sums(given[:FIRST])

        file = tmp_path / "state.jsonl"
        ask.text("export", "tally", str(file), "--state", "seen")
        assert shown(map(json.loads, file.read_text().splitlines())) == sums(given)
        assert "exists" in ask.text("export", "tally", str(file), exit_code=2)
        changes = ask.rows("diff", "tally", "--partition", "0", "--from", f"@{moments[0]}", exit_code=1)
        before, after = sums(given[:FIRST]), sums(given)
        for change in changes:
            key = change["after"]["key"]
            assert (change["before"]["value"], change["after"]["value"]) == (before[key], after[key])
        assert "has no operator 'tallly'" in ask.text("scan", "tallly", exit_code=2)
        assert "offset of one backup partition" in ask.text("scan", "tally", "--as-of", "@5", exit_code=2)

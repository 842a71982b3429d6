"""Stopping the only broker without leaving one of its transactions hanging, which would be Kafka's own defect.

Kafka skips the marker of a partition whose leader is not known, taking the topic for deleted, and calls the transaction
complete: seen after hard kills of a single node, and, it seems, after orderly stops, while its partitions have no
leader. What it was about to complete then may stay open for good, and read_committed readers stand still there.
That kstate says so, and how it is mended, has its own test (test_freshness); elsewhere it would only hide what
the restart is to show. So the clients stand still while the broker stops, between any two requests: with open
transactions, with records that are in nobody's log yet, but never with a commit that was asked for and not finished.
"""

from __future__ import annotations

import os
import signal
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from confluent_kafka import TopicPartition

from tests.support.cluster import is_running, is_stopped
from tests.support.oracle import bounds, partitions_of, reader

TRANSACTIONS = "__transaction_state"
_STATUS = struct.Struct(">hqhib")
"""The beginning of a transaction's entry: version, producer id, its epoch, timeout, status."""
_COMPLETING = {2: "commit", 3: "abort"}
"""The states in which the outcome is decided and the markers are not all written."""
QUIET_SECONDS = 10.0
READ_SECONDS = 60.0
SURE_SECONDS = 0.5
"""A request that the clients had sent before they stood still has arrived by then."""


class Completing:
    """What the broker is about to complete, from its own log of transactions."""

    def __init__(self, servers: str) -> None:
        self._consumer = reader(servers, "read_uncommitted")
        self._partitions = partitions_of(self._consumer, TRANSACTIONS)
        self._next = {p.partition: bounds(self._consumer, p)[0] for p in self._partitions}
        self._consumer.assign([TopicPartition(TRANSACTIONS, *place) for place in self._next.items()])
        self._status: dict[bytes, int] = {}

    def now(self) -> dict[str, str]:
        """By transactional id, which outcome."""
        ends = {p.partition: bounds(self._consumer, p)[1] for p in self._partitions}
        deadline = time.monotonic() + READ_SECONDS
        while any(self._next[partition] < end for partition, end in ends.items()):
            assert time.monotonic() < deadline, f"{TRANSACTIONS} could not be read to {ends}: {self._next}"
            for message in self._consumer.consume(5000, 0.05):
                if message.error() is None:
                    self._next[message.partition() or 0] = (message.offset() or 0) + 1
                    self._note(message.key() or b"", message.value())
        return {key[4:].decode(): _COMPLETING[s] for key, s in self._status.items() if s in _COMPLETING}

    def close(self) -> None:
        self._consumer.close()

    def _note(self, key: bytes, value: bytes | None) -> None:
        if value is None:
            self._status.pop(key, None)
        else:
            self._status[key] = _STATUS.unpack_from(value)[-1]


def stop_quietly(servers: str, stop: Callable[[], None], pids: Callable[[], Sequence[int]]) -> None:
    """Stop the broker with a call, while all of its transactional clients stand still; they go on when it is gone.

    `pids` is asked again when those are still that it named: they may just have started others.
    """
    completing = Completing(servers)
    try:
        completing.now()  # the long part of the log, while everybody still runs
        with standing_still(pids):
            _await_quiet(completing)
            stop()
    finally:
        completing.close()


def _await_quiet(completing: Completing) -> None:
    quiet_since = time.monotonic()
    deadline = quiet_since + QUIET_SECONDS
    while time.monotonic() < quiet_since + SURE_SECONDS:
        under_way = completing.now()
        assert time.monotonic() < deadline, f"the broker does not complete {under_way}"
        if under_way:
            quiet_since = time.monotonic()
        time.sleep(0.02)


@contextmanager
def standing_still(pids: Callable[[], Sequence[int]]) -> Iterator[None]:
    """SIGSTOP to processes, and SIGCONT at the end to those that did not stand still before."""
    known: set[int] = set()
    stopped: list[int] = []
    try:
        while new := [pid for pid in pids() if pid not in known]:
            known.update(new)
            running = [pid for pid in new if not is_stopped(pid)]
            stopped += running
            for pid in running:
                _signal(pid, signal.SIGSTOP)
            deadline = time.monotonic() + 10
            while not all(is_stopped(pid) or not is_running(pid) for pid in running):
                assert time.monotonic() < deadline, f"not all of {running} stand still"
                time.sleep(0.005)
        yield
    finally:
        for pid in stopped:
            _signal(pid, signal.SIGCONT)


def family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue  # it has ended
            parents.setdefault(parent, []).append(int(entry.name))
    found = [pid]
    for one in found:
        found += parents.get(one, [])
    return found


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return  # it has ended

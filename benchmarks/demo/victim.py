"""The worker that is killed: which one, when, and what the logs say about it afterwards."""

from __future__ import annotations

import os
import signal
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.demo.evidence import Diary
from benchmarks.demo.proof import Span, stands, uncommitted
from benchmarks.demo.topics import read_markers
from kstate.keyspace import KeyRange
from kstate.messages import Heartbeat
from kstate.plan import InputPartition, Plan, Shard, backup_topic
from kstate.progress import SlotMap

GONE_SECONDS = 10.0


@dataclass(slots=True)
class Victim:
    """A worker under observation."""

    beat: Heartbeat
    log: Path
    diary: Diary = field(init=False)
    _position: int = 0

    def __post_init__(self) -> None:
        self.diary = Diary(self.beat.incarnation, {})

    def look(self) -> None:
        """Read on in what it writes down."""
        with self.log.open("rb") as file:
            file.seek(self._position)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._position += len(whole)
        for line in whole.decode(errors="replace").splitlines():
            self.diary.take(line)

    def is_early(self, seconds: float, records: int) -> bool:
        """Whether it has so many records in hand, of an epoch that began not longer ago than this by its own notes."""
        since = self.diary.since
        return since is not None and self.diary.in_hand >= records and time.time() - since < seconds

    def kill(self) -> float:
        """SIGKILL; returns its moment, monotonic seconds, once the process is gone."""
        os.kill(self.beat.pid, signal.SIGKILL)
        killed_at = time.monotonic()
        while _lives(self.beat.pid):
            if time.monotonic() - killed_at > GONE_SECONDS:
                raise RuntimeError(f"process {self.beat.pid} did not end within {GONE_SECONDS} s of SIGKILL")
            time.sleep(0.005)
        return killed_at


def in_hand(servers: str, victim: Victim, plan: Plan, ends: Mapping[tuple[str, int], int]) -> list[Span]:
    """What it had handled of its own keys, and not committed, when it died.

    `plan` is the one that it had, `ends` by (backup topic, partition) the read_uncommitted ends when it was gone: a
    marker below them that was committed later counts, so the progress is never below that of the moment.
    """
    victim.look()
    owned: dict[InputPartition, list[KeyRange]] = defaultdict(list)
    committed: dict[InputPartition, SlotMap[int]] = {}
    for uid in plan.registry.operators:
        topic = backup_topic(plan.app, uid)
        markers = read_markers(servers, topic)
        for place in (place for place in victim.diary.handled if place[0] == uid):
            before = [marker for offset, marker in markers[place[2]] if offset < ends[topic, place[2]]]
            committed[place] = stands(before, place, plan.starts.get(place, 0))
            shard = Shard(uid, place[2])
            owned[place] = [t.key_range for t in plan.owned_by(victim.beat.incarnation) if t.shard == shard]
    return uncommitted(victim.diary.handled, owned, committed)


def _lives(pid: int) -> bool:
    """Whether a process runs; a zombie, which only waits for its parent, has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):  # gone before the file was opened, or while it was read
        return False
    return stat.rpartition(")")[2].split()[0] not in ("Z", "X")

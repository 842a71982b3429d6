"""The worker that is killed: which one, when, and what the logs say about it afterwards."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.demo.evidence import Diary, Span, uncommitted
from benchmarks.demo.topics import records
from kstate.messages import Heartbeat
from kstate.plan import InputPartition, Plan, backup_topic
from kstate.state.blocks import decode_frame
from kstate.state.markers import Marker

GONE_SECONDS = 10.0


@dataclass(slots=True)
class Victim:
    """A worker under observation; `tiles` are (operator uid, partition)."""

    beat: Heartbeat
    tiles: frozenset[tuple[str, int]]
    log: Path
    diary: Diary = field(init=False)
    committed_at: float | None = None
    """When it was seen to have committed an epoch, monotonic seconds."""
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
        epochs = self.diary.epochs
        for line in whole.decode(errors="replace").splitlines():
            self.diary.take(line)
        if self.diary.epochs > epochs:
            self.committed_at = time.monotonic()

    def kill(self) -> float:
        """SIGKILL; returns its moment, monotonic seconds, once the process is gone."""
        os.kill(self.beat.pid, signal.SIGKILL)
        killed_at = time.monotonic()
        while _lives(self.beat.pid):
            if time.monotonic() - killed_at > GONE_SECONDS:
                raise RuntimeError(f"process {self.beat.pid} did not end within {GONE_SECONDS} s of SIGKILL")
            time.sleep(0.005)
        return killed_at


def committed_progress(servers: str, plan: Plan, ends: Mapping[tuple[str, int], int]) -> dict[InputPartition, int]:
    """Where each input partition stood by the last marker below the given ends of the backup partitions.

    `ends` by (backup topic, partition), taken read_uncommitted: a marker below them that was committed later counts, so
    the progress is never below that of the moment. Whole partitions only, as tiles are here.
    """
    progress = dict(plan.starts)
    for uid in plan.registry.operators:
        topic = backup_topic(plan.app, uid)
        for record in records(servers, topic):
            if record.offset < ends[topic, record.partition] and isinstance(
                marker := decode_frame(record.value), Marker
            ):
                progress |= {(uid, source, record.partition): offset for source, offset in marker.progress.items()}
    return progress


def spans_in_hand(victim: Victim, committed: Mapping[InputPartition, int]) -> list[Span]:
    """What it had handled and not committed when it died."""
    victim.look()
    return uncommitted(victim.diary.handled, committed)


def _lives(pid: int) -> bool:
    """Whether a process runs; a zombie, which only waits for its parent, has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):  # gone before the file was opened, or while it was read
        return False
    return stat.rpartition(")")[2].split()[0] not in ("Z", "X")

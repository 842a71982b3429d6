"""A job that runs under load: how it is started, filled, measured while nothing happens to it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.broker import Broker
from benchmarks.elastic.cluster import Cluster
from benchmarks.elastic.figures import latencies_ms, longest_gaps_ms, produced_in, rounded, spread
from benchmarks.elastic.keys import GROUPS

HOT = 40
"""Keys per group that the load goes through."""
FILL_S = 600.0
SETTLE_S = 5.0
AFTER_S = 1.5
"""Results that arrive so long after a window still belong to it."""
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Setting:
    """How a job is run."""

    workers: int = 2
    candidates: int = 1
    """Coordinators."""
    standbys: int = 0
    parallelism: int = 1
    keys_per_group: int = HOT
    ballast: int = 0
    """Bytes that each key stores."""

    @property
    def environment(self) -> Mapping[str, str]:
        """As the processes are told."""
        return {
            "KSTATE_RECOVERY__STANDBYS": str(self.standbys),
            "KSTATE_RECOVERY__PARALLELISM": str(self.parallelism),
        }

    @property
    def state_mb(self) -> float:
        """Ballast per worker, MB."""
        return self.keys_per_group * GROUPS * self.ballast / self.workers / 1e6


@contextmanager
def running(broker: Broker, folder: Path, name: str, setting: Setting) -> Iterator[Cluster]:
    """A job whose workers run everything there is, and hold the state that is wanted."""
    with Cluster(broker, f"{name}-{os.getpid()}", folder, setting.environment) as cluster:
        cluster.coordinator("coordinator-1", setting.workers)
        for number in range(1, setting.workers + 1):
            cluster.worker(f"worker-{number}")
        cluster.await_running(setting.workers)
        for number in range(2, setting.candidates + 1):
            cluster.coordinator(f"coordinator-{number}", setting.workers)  # one that hears no leader would lead itself
        load = cluster.load("fill", setting.keys_per_group, setting.ballast)
        cluster.await_results(setting.keys_per_group * GROUPS, FILL_S)
        load.wait()
        yield cluster


@contextmanager
def loaded(cluster: Cluster, rate: float, seconds: float) -> Iterator[None]:
    """Under load within the block, which may last for so long at most; begins when the load has settled."""
    process = cluster.load("rate", rate, seconds, HOT)
    cluster.await_results(int(rate), 30, time.time())
    time.sleep(SETTLE_S)
    try:
        yield
        if process.poll() is not None:
            raise RuntimeError(f"the load ended after {seconds:g} s, before the measurement did")
    finally:
        process.kill()
        process.wait()


def capacity(cluster: Cluster, count: int) -> float:
    """Records per second when there is always more to do: the slope over the middle of a burst."""
    began = time.time()
    cluster.load("burst", count, HOT)
    cluster.await_results(count, 120, began)
    arrived = cluster.rows(began)["arrived"]
    lo, hi = len(arrived) // 5, len(arrived) * 4 // 5
    return float((hi - lo) / (arrived[hi] - arrived[lo]))


def quiet(cluster: Cluster, seconds: float) -> dict[str, Any]:
    """Latency and gaps while nothing is moved and nobody dies, and what the processor has to do."""
    began, used, machine = time.time(), _cpu_s(cluster), _machine_ticks()
    time.sleep(seconds)
    ended, used_now, machine_now = time.time(), _cpu_s(cluster), _machine_ticks()
    time.sleep(AFTER_S)
    rows = cluster.rows(began - AFTER_S)
    busy, total = (now - before for now, before in zip(machine_now, machine, strict=True))
    return {
        "from": round(began, 3),
        "to": round(ended, 3),
        "results per s": rounded(len(produced_in(rows, began, ended)) / (ended - began)),
        "latency ms": spread(latencies_ms(produced_in(rows, began, ended))),
        "longest gap per key group ms": spread(longest_gaps_ms(rows, began, ended, range(GROUPS))),
        "machine busy %": rounded(100 * busy / total),
        "CPU % of one core": {
            name: rounded(100 * (used_now[name] - used[name]) / (ended - began)) for name in used if name in used_now
        },
        "workers' loops busy %": [beat.busy_percent for beat in _living_beats(cluster)],
    }


def _living_beats(cluster: Cluster) -> list[Any]:
    live = {child.incarnation for child in cluster.children.values() if child.lives}
    return [beat for incarnation, beat in cluster.watch.beats.items() if incarnation in live]


def _cpu_s(cluster: Cluster) -> dict[str, float]:
    """Processor time used by each process of the job so far."""
    return {name: _used_s(child.process.pid) for name, child in cluster.children.items() if child.lives}


def _used_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def _machine_ticks() -> tuple[int, int]:
    """Busy and all ticks of all cores."""
    ticks = list(map(int, Path("/proc/stat").read_text().splitlines()[0].split()[1:9]))
    idle = ticks[3] + ticks[4]
    return sum(ticks) - idle, sum(ticks)

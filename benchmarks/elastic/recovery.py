"""Part "recovery": from kill -9 of a worker to the first committed results of its keys by those who take over."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.elastic.cluster import Cluster
from benchmarks.elastic.figures import first_results, longest_gaps_ms, rounded, spread
from benchmarks.elastic.keys import groups_owned
from benchmarks.elastic.session import AFTER_S, Setting
from kstate.messages import OrderKind, PlanPublished, WorkerDied

RECOVERED_S = 90.0
SETTLE_S = 2.0
KEYS = 780
"""Keys per group where there is ballast."""


@dataclass(frozen=True, slots=True)
class Case:
    """One way to lose a worker, and how soon its keys must go on (95th percentile, seconds; None: only compared)."""

    name: str
    text: str
    setting: Setting
    supervised: bool
    limit_s: float | None
    rare: bool = False
    """Too slow for many kills."""


def _cold(mb: int, workers: int = 2, parallelism: int = 1, standbys: int = 0) -> Setting:
    ballast = round(mb * 1e6 * workers / KEYS / 256)
    return Setting(workers, 1, standbys, parallelism, KEYS, ballast)


CASES = (
    Case("standby", "standby, exit seen", _cold(100, standbys=1), supervised=True, limit_s=3),
    Case("standby-beats", "standby, heartbeats only", _cold(100, standbys=1), supervised=False, limit_s=5),
    Case("cold", "cold, 100 MB, exit seen", _cold(100), supervised=True, limit_s=5),
    Case("cold-beats", "cold, 100 MB, heartbeats only", _cold(100), supervised=False, limit_s=7),
    Case("n1", "cold, 100 MB, 3 workers, n = 1", _cold(100, 3), supervised=True, limit_s=None),
    Case("n2", "cold, 100 MB, 3 workers, n = 2", _cold(100, 3, 2), supervised=True, limit_s=None),
    Case("big", "cold, 1 GB, exit seen", _cold(1000), supervised=True, limit_s=25, rare=True),
    Case("big-n1", "cold, 1 GB, 3 workers, n = 1", _cold(1000, 3), supervised=True, limit_s=None, rare=True),
    Case("big-n2", "cold, 1 GB, 3 workers, n = 2", _cold(1000, 3, 2), supervised=True, limit_s=None, rare=True),
)


def measure(cluster: Cluster, case: Case, kills: int, say: Callable[[str], None]) -> dict[str, Any]:
    """So many kills, each of the worker that has been there for longest; a new one takes its place."""
    trials = []
    for number in range(1, kills + 1):
        trials.append(_trial(cluster, case))
        say(f"{case.text}: kill {number} of {kills}: {trials[-1]}")
        if number < kills:
            _replace(cluster, case, f"worker-{case.setting.workers + number}")
    return {
        "case": case.text,
        "state per worker MB": rounded(case.setting.state_mb),
        "limit s": case.limit_s,
        "all lost keys s": _seconds([trial["all lost keys s"] for trial in trials]),
        "first lost key s": _seconds([trial["first lost key s"] for trial in trials]),
        "declared dead s": _seconds([trial["declared dead s"] for trial in trials]),
        "plan s": _seconds([trial["plan s"] for trial in trials]),
        "longest gap of survivors' keys ms": spread([trial["survivors' gap ms"] for trial in trials]),
        "trials": trials,
    }


def _trial(cluster: Cluster, case: Case) -> dict[str, Any]:
    """One kill."""
    time.sleep(SETTLE_S)
    plan = cluster.plan
    workers = [child for name, child in cluster.children.items() if name.startswith("worker") and child.lives]
    victim, *survivors = workers
    lost = groups_owned(plan, [victim.incarnation])
    kept = groups_owned(plan, [child.incarnation for child in survivors]) - lost
    killed_at = cluster.kill(victim.name)
    if case.supervised:
        cluster.tell_exit(victim.name)

    def firsts() -> dict[int, float]:
        return first_results(cluster.rows(killed_at), lost, after=killed_at, without=victim.process.pid)

    cluster.watch.wait(lambda: len(firsts()) == len(lost), RECOVERED_S, f"results of all keys of {victim.name}")
    found = firsts()
    recovered_at = max(found.values())
    time.sleep(AFTER_S)
    rows = cluster.rows(killed_at - AFTER_S)
    told = cluster.watch.since(killed_at)
    died_at = next((t.at for t in told if isinstance(t.message, WorkerDied)), killed_at)
    plan_at = next((t.at for t in told if isinstance(t.message, PlanPublished)), killed_at)
    return {
        "lost groups": len(lost),
        "declared dead s": _s(died_at - killed_at),
        "plan s": _s(plan_at - killed_at),
        "first lost key s": _s(min(found.values()) - killed_at),
        "all lost keys s": _s(recovered_at - killed_at),
        "survivors' gap ms": rounded(longest_gaps_ms(rows, killed_at, recovered_at + 1, kept).max(initial=0.0)),
    }


def _replace(cluster: Cluster, case: Case, name: str) -> None:
    """A worker with nothing takes part, and gets its share; with standbys, until all copies are warm again."""
    child = cluster.worker(name)
    cluster.watch.wait(lambda: child.incarnation in {m.incarnation for m in cluster.plan.members}, 60, f"{name} joins")
    cluster.await_running(1)
    if not cluster.plan.owned_by(child.incarnation):
        cluster.order(OrderKind.REBALANCE)
    cluster.await_running(case.setting.workers)
    if case.setting.standbys:
        cluster.await_warm()


def _seconds(values: list[float]) -> dict[str, float]:
    p50, p95 = np.percentile(values, [50, 95])
    return {"n": len(values), "p50": _s(p50), "p95": _s(p95), "max": _s(max(values))}


def _s(seconds: float) -> float:
    return round(float(seconds), 3)

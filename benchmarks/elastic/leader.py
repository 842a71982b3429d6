"""Part "leader": the coordinator that leads is killed; the data plane must not notice."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from benchmarks.elastic.cluster import Cluster
from benchmarks.elastic.figures import latencies_ms, longest_gaps_ms, produced_in, rounded, spread
from benchmarks.elastic.keys import GROUPS
from benchmarks.elastic.session import AFTER_S
from kstate.messages import TermStarted

NEW_LEADER_S = 60.0
SETTLE_S = 2.0


def measure(cluster: Cluster, kills: int, say: Callable[[str], None]) -> dict[str, Any]:
    """So many kills; a new candidate takes the place of each leader."""
    trials = []
    for number in range(1, kills + 1):
        cluster.watch.wait(lambda: _standing_by(cluster), NEW_LEADER_S, "a candidate stands by")
        time.sleep(SETTLE_S)
        trials.append(_trial(cluster))
        say(f"leader: kill {number} of {kills}: {trials[-1]}")
        cluster.coordinator(f"coordinator-{number + 2}", 1)
    return {
        "new leader ms": spread([trial["new leader ms"] for trial in trials]),
        "longest gap of any key ms": spread([trial["gap ms"] for trial in trials]),
        "p99 ms": spread([trial["p99 ms"] for trial in trials]),
        "trials": trials,
    }


def _trial(cluster: Cluster) -> dict[str, Any]:
    leader = _leader(cluster)
    killed_at = cluster.kill(next(child.name for child in cluster.children.values() if child.incarnation == leader))

    def new_terms() -> list[float]:
        return [told.at for told in cluster.watch.since(killed_at) if isinstance(told.message, TermStarted)]

    cluster.watch.wait(lambda: bool(new_terms()), NEW_LEADER_S, "a new leader")
    led_at = new_terms()[0]
    time.sleep(AFTER_S)
    rows = cluster.rows(killed_at - AFTER_S)
    return {
        "new leader ms": rounded((led_at - killed_at) * 1000),
        "gap ms": rounded(longest_gaps_ms(rows, killed_at, led_at + 0.5, range(GROUPS)).max()),
        "p99 ms": spread(latencies_ms(produced_in(rows, killed_at, led_at)))["p99"],
    }


def _leader(cluster: Cluster) -> str:
    """The incarnation that leads by the newest term."""
    terms = [told.message for told in cluster.watch.told if isinstance(told.message, TermStarted)]
    return terms[-1].leader


def _standing_by(cluster: Cluster) -> bool:
    leader = _leader(cluster)
    others = [child for child in cluster.children.values() if child.lives and child.incarnation != leader]
    return any(child.has_said("standing by") for child in others)

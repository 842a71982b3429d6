"""The result file, the table for people, and the verdicts: each figure beside what was promised."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from benchmarks.elastic.job import EPOCH_MS

RESULTS = Path(__file__).parents[1] / "results"
QUIET_FACTOR = 1.5
MOVED_MS = 2 * EPOCH_MS + 300
GAP_MS = 2 * EPOCH_MS
SURVIVOR_MS = EPOCH_MS + 300
SURVIVOR_PERCENTILE = 90
LEADER_MS = 3_000


class Line(NamedTuple):
    """A figure, as measured, as promised, and whether it holds."""

    figure: str
    measured: str
    promised: str
    holds: bool | None


def machine() -> dict[str, object]:
    """What it was measured on."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cores": os.cpu_count(),
        "memory GB": round(memory / 1e9, 1),
        "python": platform.python_version(),
        "machine": platform.machine(),
    }


def stored(found: dict[str, Any]) -> dict[str, Any]:
    """Write what was measured into the result file, over earlier results of the same parts; all of it."""
    path = RESULTS / "elastic.json"
    whole: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    for name, part in found.items():
        whole[name] = {**whole.get("recovery", {}), **part} if name == "recovery" else part
    path.write_text(json.dumps(whole, indent=1) + "\n")
    return whole


def lines(found: dict[str, Any]) -> Iterator[Line]:
    """What is shown of the parts that were measured."""
    if "moves" in found:
        yield from _moves(found["moves"])
    for name, case in found.get("recovery", {}).items():
        yield from _recovery(name, case)
    if "leader" in found:
        yield from _leader(found["leader"])


def shown(found: dict[str, Any]) -> str:
    """Print the table; the same as Markdown."""
    table = Table(title="moves, failures and recovery")
    for column in Line._fields:
        table.add_column(column)
    text = ["| figure | measured | promised | holds |", "|---|---|---|---|"]
    for line in lines(found):
        holds = {True: "yes", False: "NO", None: ""}[line.holds]
        table.add_row(*line[:3], holds)
        text.append(f"| {line.figure} | {line.measured} | {line.promised} | {holds} |")
    Console(width=150).print(table)
    return "\n".join(text) + "\n"


def _moves(part: dict[str, Any]) -> Iterator[Line]:
    calm, unmoved, moved = part["quiet p99 ms"], part["keys that do not move, ms"], part["keys that move, ms"]
    count = len(part["moves"])
    for when in ("quiet before", "quiet after"):
        run = part[when]
        latency, gap = run["latency ms"], run["longest gap per key group ms"]
        text = f"p50 {latency['p50']:g} ms, p99 {latency['p99']:g} ms; longest gap {gap['max']:g} ms"
        load = f"{run['results per s']:,.0f} records/s, machine {run['machine busy %']:g} % busy"
        yield Line(f"{when} ({load})", text, "", None)
    limit = calm * QUIET_FACTOR
    text = f"p50 {unmoved['p50']:g} ms, p99 {unmoved['p99']:g} ms"
    yield Line(f"keys that do not move, {count} moves", text, f"p99 <= {limit:.0f} ms", unmoved["p99"] <= limit)
    gaps = part["longest gap of keys that do not move ms"]
    text = f"p50 {gaps['p50']:g} ms, worst of {count} moves {gaps['max']:g} ms"
    yield Line("their longest gap per key group", text, f"<= {GAP_MS} ms", gaps["max"] <= GAP_MS)
    text = f"p50 {moved['p50']:g} ms, p99 {moved['p99']:g} ms"
    yield Line("keys that move", text, f"p99 <= {MOVED_MS} ms", moved["p99"] <= MOVED_MS)
    done = part["order to completion ms"]
    yield Line("order to completion", f"p50 {done['p50']:g} ms, max {done['max']:g} ms", "", None)


def _recovery(name: str, case: dict[str, Any]) -> Iterator[Line]:
    took, limit, kills = case["all lost keys s"], case["limit s"], case["all lost keys s"]["n"]
    text = f"p50 {took['p50']:.2f} s, p95 {took['p95']:.2f} s, max {took['max']:.2f} s"
    yield Line(
        f"kill -9, {case['case']} ({kills} kills)",
        text,
        "" if limit is None else f"p95 <= {limit:g} s",
        None if limit is None else took["p95"] <= limit,
    )
    gaps = sorted(trial["survivors' gap ms"] for trial in case["trials"])
    within = sum(gap <= SURVIVOR_MS for gap in gaps)
    holds = within * 100 >= SURVIVOR_PERCENTILE * len(gaps)
    text = f"{within} of {len(gaps)} within; median {gaps[len(gaps) // 2]:g} ms, max {gaps[-1]:g} ms"
    yield Line(f"  longest gap of the survivors' keys ({name})", text, f"<= {SURVIVOR_MS} ms in 9 of 10", holds)


def _leader(part: dict[str, Any]) -> Iterator[Line]:
    new, gap = part["new leader ms"], part["longest gap of any key ms"]
    text = f"p50 {new['p50']:g} ms, max {new['max']:g} ms"
    yield Line(f"leader killed ({new['n']} kills): new one", text, f"<= {LEADER_MS} ms", new["max"] <= LEADER_MS)
    text = f"p50 {gap['p50']:g} ms, max {gap['max']:g} ms"
    yield Line("  longest gap of any key", text, f"<= {GAP_MS} ms", gap["max"] <= GAP_MS)

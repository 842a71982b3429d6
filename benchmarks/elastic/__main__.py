"""`make bench-elastic`: what moves, failures and recovery cost, on a real broker, under a fixed open-loop load.

The load is what keeps the machine half busy, with broker, load and observer on it, measured first. Every result is
seen by a plain read_committed consumer; latency is from the moment at which its reading was produced to that at which
it was seen.

    python -m benchmarks.elastic [--part moves|recovery|leader ...] [--short]
                                 [--case NAME ...] [--kills N] [--moves N] [--rate RECORDS_PER_S]
                                 [--bootstrap HOST:PORT]

Figures go to benchmarks/results/elastic.json (parts that are measured again replace their earlier figures), the table
to elastic.md, latency over time to elastic.svg.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.broker import Broker, broker_at
from benchmarks.elastic import leader, moves, recovery
from benchmarks.elastic.keys import GROUPS
from benchmarks.elastic.picture import latency_over_time
from benchmarks.elastic.report import RESULTS, machine, shown, stored
from benchmarks.elastic.session import HOT, Setting, capacity, loaded, quiet, running

UTILISATION = 50
"""Percent of the machine's processor time: broker, load and observer take their part of it."""
PROBES = (20_000.0, 8_000.0)
"""The higher one first: a broker that has just begun needs more than one that runs."""
PROBE_S = 8.0
BURST = 400_000
PARTS = ("moves", "recovery", "leader")
LOADED_S = 3_600.0
"""The longest a part may take."""


class Bench:
    """The chosen parts, on one broker."""

    def __init__(self, broker: Broker, folder: Path, chosen: argparse.Namespace) -> None:
        self._broker = broker
        self._folder = folder
        self._chosen = chosen
        self._short: bool = chosen.short
        self._console = Console(stderr=True)
        self._began = time.monotonic()
        self.failed: list[str] = []
        """Parts and cases that could not be measured."""
        self.found: dict[str, Any] = {
            "machine": machine(),
            "command": " ".join(["python -m benchmarks.elastic", *sys.argv[1:]]),
        }

    def run(self) -> None:
        """Part by part; what is measured is stored at once."""
        rate = self._chosen.rate or self._calibrated()
        each_ms = GROUPS / rate * 1000
        self.say(f"{rate:,.0f} records/s: one of each key group every {each_ms:.0f} ms, which every gap includes")
        self.found["load"] = {"records/s": round(rate), "a record of each key group every, ms": round(each_ms, 1)}
        for part in self._chosen.part or PARTS:
            self.say(f"part {part}, {rate:,.0f} records/s")
            measure = {"moves": self._moves, "recovery": self._recovery, "leader": self._leader}[part]
            self._attempt(part, partial(measure, rate))
            stored(self.found)

    def say(self, text: str) -> None:
        """A line for whoever waits."""
        self._console.print(f"{time.monotonic() - self._began:7.1f} s  {text}", highlight=False, soft_wrap=True)

    def _attempt(self, what: str, measure: Callable[[], None]) -> None:
        """One part that fails leaves the others their figures."""
        try:
            measure()
        except RuntimeError as error:
            self.failed.append(what)
            self.say(f"{what} FAILED: {error}")

    def _calibrated(self) -> float:
        """The rate at which half of the machine's processor time is used, by all that runs on it."""
        with running(self._broker, self._folder, "calibration", Setting()) as cluster:
            capacity(cluster, BURST // 4)  # warm-up
            full = capacity(cluster, BURST // (2 if self._short else 1))
            busy = {}
            for rate in PROBES:
                with loaded(cluster, rate, LOADED_S):
                    busy[rate] = quiet(cluster, PROBE_S)["machine busy %"]
                self.say(f"at {rate:,.0f} records/s the machine is {busy[rate]:.0f} % busy")
        rate = rate_at(UTILISATION, busy)
        self.found["calibration"] = {
            "capacity of the workers in a burst, records/s": round(full),
            "machine busy % by records/s": {f"{rate:.0f}": share for rate, share in busy.items()},
            "load, records/s": round(rate),
            "keys per group": HOT,
        }
        return rate

    def _moves(self, rate: float) -> None:
        count = self._chosen.moves or (3 if self._short else 20)
        with running(self._broker, self._folder, "moves", Setting()) as cluster, loaded(cluster, rate, LOADED_S):
            part = moves.measure(cluster, count, 10 if self._short else 60, self.say)
            rows = cluster.rows(part["began"])
        picture = latency_over_time(rows, part.pop("windows"), part.pop("began"), part.pop("ended"))
        (RESULTS / "elastic.svg").write_text(picture)
        self.found["moves"] = part

    def _recovery(self, rate: float) -> None:
        for case in recovery.CASES:
            if self._chosen.case and case.name not in self._chosen.case:
                continue
            kills = self._chosen.kills or ((1 if self._short else 3) if case.rare else (2 if self._short else 10))
            self.say(f"{case.text}: {case.setting.state_mb:.0f} MB per worker")
            self._attempt(case.name, partial(self._case, case, kills, rate))
            stored(self.found)

    def _case(self, case: recovery.Case, kills: int, rate: float) -> None:
        with running(self._broker, self._folder, case.name, case.setting) as cluster:
            if case.setting.standbys:
                cluster.await_warm()
            with loaded(cluster, rate, LOADED_S):
                found = recovery.measure(cluster, case, kills, self.say)
        self.found.setdefault("recovery", {})[case.name] = found

    def _leader(self, rate: float) -> None:
        kills = self._chosen.kills or (2 if self._short else 10)
        setting = Setting(candidates=2)
        with running(self._broker, self._folder, "leader", setting) as cluster, loaded(cluster, rate, LOADED_S):
            calm = quiet(cluster, 10 if self._short else 30)
            self.found["leader"] = {"quiet": calm, **leader.measure(cluster, kills, self.say)}


def rate_at(percent: float, busy: Mapping[float, float]) -> float:
    """Records per second at which the machine is so busy, on the line through two measurements (rate → percent)."""
    (low, busy_low), (high, busy_high) = sorted(busy.items())
    if busy_high <= busy_low:
        raise RuntimeError(f"{busy_low} % busy at {low:.0f} records/s, and at {high:.0f} only {busy_high} %")
    rate = low + (percent - busy_low) * (high - low) / (busy_high - busy_low)
    return min(max(rate, low / 2), high * 2)


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", action="append", choices=PARTS)
    parser.add_argument("--case", action="append", choices=[case.name for case in recovery.CASES])
    parser.add_argument("--kills", type=int)
    parser.add_argument("--moves", type=int)
    parser.add_argument("--rate", type=float)
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--bootstrap", default=os.environ.get("KSTATE_BOOTSTRAP_SERVERS"))
    return parser.parse_args()


def main() -> None:
    """Measure, print, and write the results."""
    chosen = options()
    RESULTS.mkdir(exist_ok=True)
    with broker_at(chosen.bootstrap) as broker, tempfile.TemporaryDirectory(prefix="kstate-elastic-") as folder:
        bench = Bench(broker, Path(folder), chosen)
        bench.run()
    (RESULTS / "elastic.md").write_text(shown(stored(bench.found)))
    if bench.failed:
        raise SystemExit(f"not measured: {', '.join(bench.failed)}")


if __name__ == "__main__":
    main()

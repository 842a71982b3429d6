"""`make bench`: the running-average job on a real broker, one worker process, outputs verified.

Records are preloaded, so the worker is never short of input. Records per second are counted from the plan that gives
the worker its tiles to the last marker it commits, both by Kafka's timestamps: restore, first fetch and last commit
included. CPU seconds are those of the whole worker process, start-up included.

    python -m benchmarks.running_average [--records 3000000] [--rounds 3] [--bootstrap HOST:PORT] [--profile]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.broker import Broker, broker_at, drain, span_ms
from benchmarks.processes import Process
from benchmarks.transactions import expected_alerts, preload

KEYS = 100_000
PARTITIONS = 4
RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, slots=True)
class Round:
    """One run of the job over all records."""

    records_per_s: float
    cpu_s_per_million: float
    memory_mb: float
    alerts: int


def run_round(broker: Broker, records: int, expected: Counter[bytes], number: int, profile: bool) -> Round:
    """Run the job from the start in a fresh application, verify its alerts, and measure."""
    app = f"running-average-{os.getpid()}-{number}"
    output = f"alerts-{app}"
    broker.create_topic(output, PARTITIONS)
    with tempfile.TemporaryDirectory(prefix="kstate-bench-") as folder:
        data = Path(folder)
        common = ["benchmarks.running_average_job:job", "--bootstrap", broker.servers]
        os.environ |= {"KSTATE_BENCH_APP": app, "KSTATE_BENCH_OUTPUT": output}
        coordinator = Process(["coordinator", *common, "--until-end", "--workers", "1"], data / "coordinator.log")
        worker = Process(["worker", *common, "--name", "worker-1", "--data", str(data / "state")], data / "worker.log")
        try:
            if profile:
                record_profile(worker.pid)
            usage = worker.wait()
            coordinator.wait()
        finally:
            worker.kill()
            coordinator.kill()
    verify(drain(broker, output), expected)
    seconds = span_ms(broker, f"{app}.control", f"{app}.running-average.backup") / 1000
    return Round(records / seconds, usage.cpu_s / records * 1e6, usage.memory_mb, sum(expected.values()))


def verify(found: Counter[bytes], expected: Counter[bytes]) -> None:
    """The outputs are right as a multiset, or the figures mean nothing."""
    lost, extra = expected - found, found - expected
    if lost or extra:
        raise SystemExit(f"outputs are wrong: {sum(lost.values())} lost, {sum(extra.values())} too many")


def record_profile(pid: int) -> None:
    """Sample the worker with py-spy into a file of its own."""
    path = RESULTS / "profile.txt"
    command = [
        str(Path(sys.executable).parent / "py-spy"),
        "record",
        "-p",
        str(pid),
        "-f",
        "raw",
        "-o",
        str(path),
        "-d",
        "20",
        "-n",
    ]
    subprocess.run(command, check=False, capture_output=True)


def machine() -> dict[str, object]:
    """What it was measured on."""
    return {"cores": os.cpu_count(), "python": platform.python_version(), "machine": platform.machine()}


def spread(values: list[float]) -> dict[str, float]:
    """Least, median and greatest of a figure over the rounds."""
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def report(rounds: list[Round], records: int) -> dict[str, object]:
    """Print the table and return what goes into the JSON file."""
    figures = {
        "records/s": spread([r.records_per_s for r in rounds]),
        "CPU-s per million records": spread([r.cpu_s_per_million for r in rounds]),
        "memory, MiB": spread([r.memory_mb for r in rounds]),
    }
    table = Table(title=f"running average, {records:,} records, {KEYS:,} keys, one worker, {len(rounds)} rounds")
    for column in ("figure", "min", "median", "max"):
        table.add_column(column, justify="left" if column == "figure" else "right")
    for name, value in figures.items():
        table.add_row(name, *(f"{value[which]:,.1f}" for which in ("min", "median", "max")))
    Console().print(table)
    return {"figures": figures, "rounds": [asdict(r) for r in rounds], "records": records, "machine": machine()}


def main() -> None:
    """Measure, print, and write benchmarks/results/running_average.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=3_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--bootstrap", default=os.environ.get("KSTATE_BOOTSTRAP_SERVERS"))
    parser.add_argument("--profile", action="store_true")
    chosen = parser.parse_args()
    with broker_at(chosen.bootstrap) as broker:
        topic = f"txns-{os.getpid()}"
        os.environ["KSTATE_BENCH_INPUT"] = topic
        broker.create_topic(topic, PARTITIONS)
        preload(broker, topic, chosen.records, KEYS, PARTITIONS)
        expected = expected_alerts(chosen.records, KEYS)
        rounds = [run_round(broker, chosen.records, expected, i, chosen.profile) for i in range(chosen.rounds)]
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "running_average.json").write_text(json.dumps(report(rounds, chosen.records), indent=2) + "\n")


if __name__ == "__main__":
    main()

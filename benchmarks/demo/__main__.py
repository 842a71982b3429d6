"""Run the demo: `make demo`."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import NoReturn

from rich.console import Console
from rich.table import Table

from benchmarks.demo.screen import Screen
from benchmarks.demo.story import Outcome, Scale, told
from kstate.cli.logging import LEVEL_VARIABLE
from kstate.errors import KstateError

LINE_BYTES = 64
"""A line, with Kafka's own bytes around it."""


def main() -> int:
    """Exit code 0 when every record is right and the demo is what it claims to be, 1 otherwise, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(prog="demo", description="Kill a worker; prove that nothing is lost or doubled.")
    parser.add_argument(
        "--words", type=int, default=Scale().words, help="how many words to count (default: %(default)s)"
    )
    parser.add_argument("--log", type=Path, help="keep the log of the job's processes in this file")
    chosen = parser.parse_args()
    scale = Scale(words=chosen.words, log=chosen.log)
    signal.signal(signal.SIGTERM, _interrupt)
    _own_environment(scale)
    console = Console(highlight=False)
    try:
        outcome = told(scale, Screen(console))
    except KeyboardInterrupt:
        console.print("interrupted; everything is cleaned up")
        return 130
    except KstateError as error:
        console.print(f"demo: {error}", markup=False)
        return error.exit_code
    return report(outcome, console)


def report(outcome: Outcome, console: Console) -> int:
    """The table, the two lines, and the exit code."""
    table = Table(show_header=False)
    back = outcome.recovery
    rows = {
        "words counted": f"{outcome.verdict.words:,} in {outcome.seconds:.1f} s, kill and recovery included",
        "input left at the kill": f"{outcome.left:.0%}",
        "first output of a lost tile": f"{back.first_s:.2f} s after the kill" if back else "never",
        "output of all lost tiles": f"{back.all_s:.2f} s after the kill, {back.tiles} tiles" if back else "never",
        "seen by a reader beside it": f"{outcome.observed:,} committed records",
    }
    for name, value in rows.items():
        table.add_row(name, value)
    console.print()
    console.print(table)
    console.print(f"replayed {outcome.replayed:,} records")
    if back:
        console.print(f"recovered in {back.first_s:.1f} s")
    console.print(str(outcome.verdict), markup=False, soft_wrap=True)
    faults = outcome.faults()
    for fault in faults:
        console.print(f"failed: {fault}", markup=False)
    return 1 if faults else 0


def _own_environment(scale: Scale) -> None:
    """The demo brings its own broker and settings: those of the user's jobs do not concern it."""
    for name in [name for name in os.environ if name.startswith("KSTATE_")]:
        del os.environ[name]
    os.environ["KSTATE_EPOCH__INTERVAL_MS"] = str(int(scale.epoch_s * 1000))
    os.environ["KSTATE_EPOCH__RECORDS_MAX"] = str(scale.epoch_records)
    os.environ["KSTATE_EPOCH__POLL_RECORDS"] = str(scale.portion)
    os.environ["KSTATE_CLIENT__QUEUED_MIN_MESSAGES"] = str(scale.portion)
    os.environ["KSTATE_CLIENT__FETCH_MESSAGE_MAX_BYTES"] = str(scale.portion * LINE_BYTES)
    os.environ[LEVEL_VARIABLE] = "debug"  # the workers write down what they have in hand


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt(number, frame)


if __name__ == "__main__":
    sys.exit(main())

"""Run the demo: `make demo`."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import NoReturn

from rich.box import SQUARE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchmarks.demo.screen import Screen
from benchmarks.demo.stage import Scale
from benchmarks.demo.story import Outcome, told
from benchmarks.demo.timeline import HEADER, rows
from kstate.cli.logging import LEVEL_VARIABLE
from kstate.errors import KstateError

PORTION = 1_000
"""Records that a worker takes at once: a tenth of a second of work, so that epochs end in time while it catches up."""
WORD_BYTES = 64
"""A word, with Kafka's own bytes around it."""
WIDTH = 118
"""Of the timeline where there is no terminal."""


def main() -> int:
    """Exit code 0 when every record is right and the demo is what it claims to be, 1 otherwise, 130 after Ctrl-C."""
    scale = _chosen()
    signal.signal(signal.SIGTERM, _interrupt)
    _own_environment(scale)
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = WIDTH
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
    """The timeline, what proves it, and the exit code."""
    console.print()
    console.print(timeline(outcome))
    console.print(
        f"{outcome.words_per_s:,.0f} words/s written; a gap is the time without a committed result of a key group"
    )
    for ran in outcome.ran:
        console.print(f"{ran.where}: {ran.words:,} words of the moved keys counted and committed there", markup=False)
    console.print(f"replayed {outcome.replayed:,} records")
    if outcome.recovery:
        console.print(f"recovered in {outcome.recovery.first_s:.1f} s")
    console.print(str(outcome.verdict), markup=False, soft_wrap=True)
    faults = outcome.faults()
    for fault in faults:
        console.print(f"failed: {fault}", markup=False, soft_wrap=True)
    return 1 if faults else 0


def timeline(outcome: Outcome) -> Table:
    """Everything that was done, and what the keys felt of it."""
    table = Table(*HEADER, box=SQUARE)
    for row in rows(outcome.effects, outcome.began):
        table.add_row(*(Text(cell) for cell in row))
    return table


def _chosen() -> Scale:
    scale = Scale()
    parser = argparse.ArgumentParser(
        prog="demo", description="Split, kill, recover, merge, under load; prove that nothing is lost or doubled."
    )
    parser.add_argument("--rate", type=int, default=scale.words_per_s, help="words written per second (%(default)s)")
    parser.add_argument("--workers", type=int, default=scale.workers, help="worker processes (%(default)s)")
    parser.add_argument("--standbys", type=int, default=scale.standbys, help="copies of each tile (%(default)s)")
    parser.add_argument("--log", type=Path, help="keep the log of the job's processes in this file")
    chosen = parser.parse_args()
    asked = {"words_per_s": chosen.rate, "workers": chosen.workers, "standbys": chosen.standbys, "log": chosen.log}
    return replace(scale, **asked)


def _own_environment(scale: Scale) -> None:
    """The demo brings its own broker and settings: those of the user's jobs do not concern it."""
    for name in [name for name in os.environ if name.startswith("KSTATE_")]:
        del os.environ[name]
    os.environ["KSTATE_EPOCH__INTERVAL_MS"] = str(int(scale.epoch_s * 1000))
    os.environ["KSTATE_EPOCH__POLL_RECORDS"] = str(PORTION)
    os.environ["KSTATE_CLIENT__QUEUED_MIN_MESSAGES"] = str(PORTION)
    os.environ["KSTATE_CLIENT__FETCH_MESSAGE_MAX_BYTES"] = str(PORTION * WORD_BYTES)
    os.environ["KSTATE_STREAM_PARTITIONS"] = str(scale.partitions)
    os.environ["KSTATE_RECOVERY__STANDBYS"] = str(scale.standbys)
    os.environ["KSTATE_REBASE__TRIM_EVERY_MS"] = "3600000"  # the verdict counts what stands in the logs
    os.environ[LEVEL_VARIABLE] = "debug"  # the workers write down what they have in hand


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt(number, frame)


if __name__ == "__main__":
    sys.exit(main())

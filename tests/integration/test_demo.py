"""`make demo`, small: the command that people run first must do what it says, and leave nothing behind."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytestmark = [pytest.mark.integration, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
END_SECONDS = 150.0
WORDS = 500_000
"""As people run it: of much less, too little is left when the first words have been counted."""


@contextmanager
def demo(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """The demo in a process of its own, whose temporary files, and those of all it starts, are in the folder."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.demo", "--words", str(WORDS)],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(folder), "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def number_in(match: re.Match[str]) -> int:
    """The number that a pattern found."""
    return int(match[1].replace(",", ""))


def living(folder: Path) -> list[str]:
    """The command lines of all processes with this temporary folder, whoever started them."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and f"TMPDIR={folder}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:  # it has ended, or is somebody else's
            continue
    return found


def await_none_living(folder: Path, seconds: float) -> None:
    """Fail when a process is left after this time."""
    deadline = time.monotonic() + seconds
    while left := living(folder):
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


def test_the_demo_kills_a_worker_and_proves_that_nothing_is_lost_or_doubled(tmp_path: Path) -> None:
    """Exit code 0, records that were really in hand, enough input left, the line that people look for."""
    with demo(tmp_path) as process:
        output, _ = process.communicate(timeout=END_SECONDS)
    assert process.returncode == 0, output
    assert (
        said := re.search(r"^exactly-once: ([\d,]+) words, [\d,]+ distinct, 0 lost, 0 doubled$", output, re.MULTILINE)
    )
    assert number_in(said) >= WORDS
    assert (killed := re.search(r"SIGKILL to worker-\d .* has ([\d,]+) uncommitted records in hand", output))
    assert number_in(killed) > 0
    assert (replayed := re.search(r"^replayed ([\d,]+) records$", output, re.MULTILINE))
    assert number_in(replayed) > 0
    assert re.search(r"^recovered in \d+\.\d s$", output, re.MULTILINE)
    assert (left := re.search(r"input left at the kill *│ *(\d+)%", output))
    assert number_in(left) >= 30
    await_none_living(tmp_path, 2)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_demo_that_is_stopped_leaves_no_process_and_no_folder(number: signal.Signals, tmp_path: Path) -> None:
    """Ctrl-C in the middle of the job, a polite stop, and a kill that gives it no chance to clean up."""
    with demo(tmp_path) as process:
        assert process.stdout
        for line in process.stdout:
            if "plan 1" in line:
                break
        assert sum("kstate worker" in command for command in living(tmp_path)) == 2
        process.send_signal(number)
        code = process.wait(30)
    assert code == (130 if number is not signal.SIGKILL else -signal.SIGKILL)
    await_none_living(tmp_path, 15)
    assert list(tmp_path.iterdir()) == []
